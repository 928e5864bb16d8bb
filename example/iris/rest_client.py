"""Asks the servable "iris" by HTTP with JSON, as any program can, what kind of iris a flower is."""

import argparse
import json

import requests


def get_token(url, key, secret):
    """By OAuth2's client credentials. Seldon's own form, which iris_rpc_client.py has, puts the secret into a URL."""
    form = {"grant_type": "client_credentials"}
    answer = requests.post(f"{url}/token", data=form, auth=(key, secret), timeout=10)
    if not answer.ok:
        raise SystemExit(f"failed to get a token: {answer.text}")
    return answer.json()["access_token"]


def post(url, body, token):
    headers = {"oauth_token": token} if token else {}
    answer = requests.post(url, json=body, headers=headers, timeout=10)
    if not answer.ok:
        raise SystemExit(f"{answer.status_code}: {answer.text}")
    return answer.json()


def predict(url, features, token):
    """As every method of a servable is asked."""
    reply = post(f"{url}/model/iris:predict", {"instances": [features]}, token)
    # What is wrong with the request stands in the answer, what is wrong with an instance in its place.
    result = reply if "error_msg" in reply else reply["instances"][0]
    if "error_msg" in result:
        raise SystemExit(result["error_msg"])
    for name, probability in zip(result["predicted_class"], result["prediction"], strict=True):
        print(f"{name}: {probability:.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:5501", help="where the server answers (%(default)s)")
    parser.add_argument("--key", help="consumer key; without one no token is asked for")
    parser.add_argument("--secret", help="consumer secret")
    parser.add_argument("--seldon", action="store_true", help="ask Seldon's /js/predict, and print all of its answer")
    parser.add_argument("features", nargs="*", type=float, default=[1, 2.7, 5.3, 1.9], help="four numbers, in cm")
    args = parser.parse_args()

    features = dict(zip(("f1", "f2", "f3", "f4"), args.features, strict=True))
    token = get_token(args.url, args.key, args.secret) if args.key else ""
    if args.seldon:
        print(json.dumps(post(f"{args.url}/js/predict", {"data": features}, token), indent=2))
    else:
        predict(args.url, features, token)


if __name__ == "__main__":
    main()
