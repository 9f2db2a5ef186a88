from collections.abc import Mapping

import pytest
from sandbox.kinguin.catalogue import BY_ID
from sandbox.kinguin.problems import Refusal
from sandbox.kinguin.rules import PlaceOrder, check_limits, parse_place_order

from tests.unit.sandbox_kinguin.simulated_supplier import product


def line(nn: str = "01", qty: object = 1, price: object = 10, **more: object) -> dict[str, object]:
    return {"productId": product(nn), "qty": qty, "price": price, **more}


def accept(*lines: Mapping[str, object], **more: object) -> PlaceOrder:
    order = parse_place_order({"products": list(lines), **more})
    check_limits(order, BY_ID)
    return order


def refusal(*lines: Mapping[str, object], **more: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        accept(*lines, **more)
    return caught.value
