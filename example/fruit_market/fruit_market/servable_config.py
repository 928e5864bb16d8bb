"""The servable "fruit_market": knows which stand sells what."""

from mindserve.server import register

stands = {
    "ORANGE": register.get_servable("orange_stand", method="price"),
    "APPLE": register.get_servable("apple_stand", method="price"),
}


def ask_stand(fruit, amount):
    if fruit not in stands:
        raise ValueError(f"nobody sells {fruit}, only {' and '.join(stands)}")
    return stands[fruit].call(amount=amount)["price"]


@register.register_method(output_names=["price"])
def check_price(fruit, amount):
    price = register.add_stage(ask_stand, fruit, amount, outputs_count=1)
    return price
