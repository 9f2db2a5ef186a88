"""Products that we have bought: read soon after a webhook, and now and then without one."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import pytest
from kinguin_gateway.domain.purchase import Product
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.products import DueProduct
from kinguin_gateway.products import BATCH, OVERLAP, KnownProducts, ProductWatcher

from tests.unit.kinguin_gateway.fakes import FakeSupplier, a_product
from tests.unit.simulated import EPOCH, simulate

HOUR = timedelta(hours=1)


class FakeProducts:
    def __init__(self, *due: DueProduct) -> None:
        self.due = list(due)
        self.read: list[tuple[str, Product | None]] = []
        self.unchanged: list[str] = []
        self.again: list[timedelta] = []

    async def bought(self) -> Collection[str]:
        return {each.product_id for each in self.due}

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[DueProduct]:
        assert lease > timedelta(0)
        return self.due[:limit]

    async def record(
        self, read: Sequence[tuple[str, Product | None]], unchanged: Sequence[str], *, again: timedelta
    ) -> None:
        self.read += read
        self.unchanged += unchanged
        self.again.append(again)


class Asked(FakeSupplier):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Sequence[str], datetime | None]] = []

    async def changed_products(self, product_ids: Sequence[str], *, since: datetime | None) -> Sequence[Product]:
        self.asked.append((product_ids, since))
        return await super().changed_products(product_ids, since=since)


def look(products: FakeProducts, supplier: Asked) -> int:
    watcher = ProductWatcher(products, supplier, clock=supplier.clock, chance=lambda: 0.5, every=HOUR)
    return simulate(watcher.look())


def test_many_updates_are_read_with_one_call_and_what_is_missing_is_not_on_sale() -> None:
    products = FakeProducts(*(DueProduct(f"p{n}", hurried=True, read_time=None) for n in range(5)))
    supplier = Asked()
    supplier.products = {"p1": a_product(product_id="p1"), "p3": a_product(product_id="p3")}
    assert look(products, supplier) == 5
    assert supplier.asked == [(["p0", "p1", "p2", "p3", "p4"], None)]
    assert {product_id: product is not None for product_id, product in products.read} == {
        "p0": False,
        "p1": True,
        "p2": False,
        "p3": True,
        "p4": False,
    }


def test_k16_without_a_webhook_only_what_changed_since_is_asked_for() -> None:
    times = [EPOCH - timedelta(hours=hours) for hours in (2, 5, 3)]
    products = FakeProducts(*(DueProduct(f"p{n}", hurried=False, read_time=time) for n, time in enumerate(times)))
    supplier = Asked()
    supplier.products = {
        "p0": a_product(product_id="p0", update_time=EPOCH - timedelta(days=9)),
        "p1": a_product(product_id="p1", update_time=EPOCH - timedelta(hours=4)),
    }
    assert look(products, supplier) == 3
    # The overlap allows for a supplier's clock that is not ours.
    assert supplier.asked == [(["p0", "p1", "p2"], EPOCH - timedelta(hours=5) - OVERLAP)]
    assert [product_id for product_id, _ in products.read] == ["p1"]
    assert products.unchanged == ["p0", "p2"]
    assert products.again == [HOUR]


def test_a_supplier_that_is_away_leaves_everything_as_it_is() -> None:
    products, supplier = FakeProducts(DueProduct("p1", hurried=True, read_time=None)), Asked()
    supplier.away = True
    with pytest.raises(SupplierUnavailable):
        look(products, supplier)
    assert products.again == []


def test_no_call_asks_for_more_than_a_page() -> None:
    products, supplier = FakeProducts(*(DueProduct(f"p{n}", hurried=True, read_time=None) for n in range(250))), Asked()
    assert look(products, supplier) == BATCH
    assert [len(ids) for ids, _ in supplier.asked] == [BATCH]


def test_what_was_bought_is_known_in_memory() -> None:
    async def run() -> tuple[bool, bool]:
        supplier = Asked()
        known = KnownProducts(FakeProducts(DueProduct("p1", hurried=False, read_time=None)), supplier.clock)
        before = "p1" in known
        running = asyncio.ensure_future(known.run())
        await asyncio.sleep(1)
        running.cancel()
        return before, "p1" in known and "p2" not in known

    assert simulate(run()) == (False, True)
