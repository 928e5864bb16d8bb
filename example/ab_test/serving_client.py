"""Shows "digits" pictures that it hasn't seen, and counts who answers and how often that is right."""

import argparse
import collections

import prepare_model
import requests


class Asker:
    """Asks by HTTP with JSON, one picture a call."""

    def __init__(self, url):
        self._url = f"{url}/model/digits:predict"
        self._session = requests.Session()

    def ask(self, picture, user=None):
        """The digit that the picture is taken for, and the variation that says so."""
        # By gRPC these are the metadata "user", and "mindserve-variation" in those that the reply ends with.
        headers = {"Grpc-Metadata-user": user} if user else {}
        body = {"instances": [{"picture": picture.tolist()}]}
        answer = self._session.post(self._url, json=body, headers=headers, timeout=10)
        answer.raise_for_status()
        reply = answer.json()
        result = reply if "error_msg" in reply else reply["instances"][0]
        if "error_msg" in result:
            raise SystemExit(result["error_msg"])
        return result["digit"], answer.headers["mindserve-variation"]


def in_turn(asker, pictures, digits):
    """Calls without a user are dealt out by weight."""
    asked, right = collections.Counter(), collections.Counter()
    for picture, digit in zip(pictures, digits, strict=True):
        said, variation = asker.ask(picture)
        asked[variation] += 1
        right[variation] += said == digit
    print(f"{len(pictures)} pictures in turn:")
    for variation in sorted(asked):
        share = 100 * right[variation] / asked[variation]
        print(f"  {variation}: {asked[variation]} answers, {share:.1f}% of them right")


def by_user(asker, pictures, users):
    """Each user stays with one variation, in whatever order they come."""
    met = {f"user-{number}": set() for number in range(users)}
    for picture in pictures:
        for user, variations in met.items():
            variations.add(asker.ask(picture, user)[1])
    print(f"{users} users, {len(pictures)} pictures each:")
    for variation, count in sorted(collections.Counter(" and ".join(sorted(each)) for each in met.values()).items()):
        print(f"  {variation}: {count} users")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:5501", help="where the server answers (%(default)s)")
    parser.add_argument("--pictures", type=int, default=400, help="how many, up to 450 (%(default)s)")
    parser.add_argument("--users", type=int, default=40, help="how many, with three pictures each (%(default)s)")
    args = parser.parse_args()

    pictures, digits = prepare_model.held_out()
    asker = Asker(args.url)
    in_turn(asker, pictures[: args.pictures], digits[: args.pictures])
    by_user(asker, pictures[:3], args.users)


if __name__ == "__main__":
    main()
