"""A Python source to be recognised."""

import math


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


if __name__ == "__main__":
    print([number for number in range(100) if is_prime(number)])
