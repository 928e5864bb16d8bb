"""What a servable's code says of an input that is wrong."""

from __future__ import annotations


class InvalidInput(ValueError):
    """The input is wrong, says the code that was given it: the client's error, no defect of the servable's.

    A stage's function, a generator of a method that streams, and the Classifier's data handlers and mapping raise it.
    Its text is for the client: with the function's name in front it is the instance's error, by Predict and by HTTP as
    that of any stage that fails; the Classifier answers INVALID_ARGUMENT with it, by HTTP 400, where another exception
    makes INTERNAL and 500. Nothing is logged. From a function that takes batches it tells which instance is wrong as
    any exception does: the batch is called again in halves, unless its method is declared with ``idempotent=False``.

    Example::

        def to_age(text):
            if not str(text).isdecimal():
                raise register.InvalidInput(f"the age is '{text}', expected a whole number of years")
            return int(text)

    Args:
        message: what was given, and what is expected. Its first 4,096 bytes are answered. Without it the answer has
            the exception's name.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
