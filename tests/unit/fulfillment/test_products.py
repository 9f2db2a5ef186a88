"""Readings of products: who waits shares one, and a no is never kept for who comes later."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from fulfillment.ports.supplier import NoAnswer, NoProduct, ProductAnswer
from fulfillment.products import FRESH_SECONDS, Products

from tests.unit.fulfillment.examples import HandClock
from tests.unit.fulfillment.fakes import FakeSupplier, a_product


@dataclass
class SlowSupplier(FakeSupplier):
    """Answers when it is let."""

    clock: HandClock = field(default_factory=HandClock)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    readings: Counter[str] = field(default_factory=Counter)

    async def read_product(self, product_id: str) -> ProductAnswer:
        self.readings[product_id] += 1
        await self.gate.wait()
        self.clock.pass_seconds(1)
        return await super().read_product(product_id)


@pytest.mark.parametrize("answer", [a_product(), NoProduct(), NoAnswer()], ids=lambda answer: type(answer).__name__)
async def test_who_waits_when_it_is_asked_for_shares_the_answer_whatever_it_is(answer: ProductAnswer) -> None:
    supplier = SlowSupplier(reading=[answer] * 9)
    products = Products(supplier, supplier.clock)
    waiting = [asyncio.create_task(products.read("product-1")) for _ in range(9)]
    await asyncio.sleep(0)
    supplier.gate.set()
    assert await asyncio.gather(*waiting) == [answer] * 9
    assert supplier.readings["product-1"] == 1


async def test_a_no_is_asked_for_again_by_who_comes_later_and_a_product_only_when_it_is_old() -> None:
    supplier = SlowSupplier(reading=[NoProduct(), NoAnswer()])
    supplier.gate.set()
    products = Products(supplier, supplier.clock)
    assert isinstance(await products.read("product-1"), NoProduct)
    assert isinstance(await products.read("product-1"), NoAnswer)
    for seconds, readings in ((0, 3), (FRESH_SECONDS - 2, 3), (2, 4)):
        supplier.clock.pass_seconds(seconds)
        assert await products.read("product-1") == a_product()
        assert supplier.readings["product-1"] == readings
    await products.read("product-1", fresh=True)
    assert supplier.readings["product-1"] == 5
