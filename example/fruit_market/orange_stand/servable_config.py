"""The servable "orange_stand": an orange costs 2.0."""

from mindserve.server import register


def multiply(amount):
    return amount * 2.0


@register.register_method(output_names=["price"])
def price(amount):
    total = register.add_stage(multiply, amount, outputs_count=1)
    return total
