"""A function that takes its time."""

import time

from mindserve.server import register


def sleep(text):
    """5 ms for each instance."""
    time.sleep(0.005)
    return text


@register.register_method(output_names=["text"])
def sleepy(text):
    """Gives back what it was given."""
    return register.add_stage(sleep, text, outputs_count=1)
