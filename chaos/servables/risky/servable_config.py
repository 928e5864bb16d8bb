"""A function that does no harm, beside one that ends its worker and one that hangs."""

import os
import signal
import time

from mindserve.server import register


def echo(text):
    """At once."""
    return text


def kill_worker(text):
    """As a crash in native code would."""
    os.kill(os.getpid(), signal.SIGKILL)
    return text


def wait(text):
    """As a function that waits for what never comes."""
    time.sleep(3600)
    return text


@register.register_method(output_names=["text"])
def risky(text):
    """Gives back what it was given."""
    return register.add_stage(echo, text, outputs_count=1)


@register.register_method(output_names=["text"])
def die(text):
    """A request that no worker survives."""
    return register.add_stage(kill_worker, text, outputs_count=1)


@register.register_method(output_names=["text"])
def hang(text):
    """A request that ends its worker because it does not end itself."""
    return register.add_stage(wait, text, outputs_count=1, timeout=1.0)
