"""Asks the servable "add" for sums by HTTP with JSON, with nothing but `requests`."""

import argparse

import requests


def ask(url, method, *instances, **options):
    answer = requests.post(f"{url}/model/add:{method}", json={"instances": instances}, timeout=10, **options)
    answer.raise_for_status()
    reply = answer.json()
    if "error_msg" in reply:
        raise SystemExit(reply["error_msg"])
    return reply["instances"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:5501", help="where the server answers (%(default)s)")
    parser.add_argument("--custom-ca", help="authority of the server's certificate, for https")
    args = parser.parse_args()
    options = {"verify": args.custom_ca} if args.custom_ca else {}

    # Numbers with a point are float32, which is what the model takes.
    x = [[1.5, 2.5], [3.5, 4.5]]
    ones = [[1.0, 1.0], [1.0, 1.0]]
    print(ask(args.url, "add_common", {"x1": x, "x2": ones}, {"x1": ones, "x2": ones}, **options))

    # Whole numbers are int32; here a Python stage makes them float32. An instance that is wrong fails alone.
    print(ask(args.url, "add_cast", {"x1": [[1, 1], [1, 1]], "x2": x}, {"x1": [[1, 1], [1, 1]]}, **options))

    # Bytes of any type: no conversion of numbers to text and back.
    encoded = {"b64": "AACAPwAAgD8AAIA/AACAPw==", "type": "float32", "shape": [2, 2]}
    print(ask(args.url, "add_common", {"x1": encoded, "x2": ones}, **options))


if __name__ == "__main__":
    main()
