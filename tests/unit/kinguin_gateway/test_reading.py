from dataclasses import replace
from datetime import timedelta

import pytest
from chassis.clock import SystemClock
from kinguin_gateway.breaker import Breaker
from kinguin_gateway.domain.purchase import Product, Purchase, PurchaseState, SupplierOrderState
from kinguin_gateway.errors import ProductUnknown, PurchaseUnknown
from kinguin_gateway.reading import Reader

from tests.unit.kinguin_gateway.fakes import (
    INTENT,
    REQUEST_ID,
    FakePurchases,
    FakeSupplier,
    FakeWebhooks,
    Row,
    an_order,
)
from tests.unit.simulated import EPOCH

PLACED = Purchase(
    INTENT, PurchaseState.PLACED, 1, EPOCH, create_time=EPOCH, supplier_order_id="PHS00001", charged_cents=5
)


@pytest.fixture
def purchases() -> FakePurchases:
    fake = FakePurchases(lambda: EPOCH)
    fake.rows[INTENT.external_id] = Row(PLACED, REQUEST_ID)
    return fake


@pytest.fixture
def supplier() -> FakeSupplier:
    return FakeSupplier()


@pytest.fixture
def reader(purchases: FakePurchases, supplier: FakeSupplier) -> Reader:
    breaker = Breaker(supplier.clock, lambda: 0.5)
    return Reader(purchases, supplier, purchases, FakeWebhooks(), breaker, clock=SystemClock())


async def test_a_purchase_is_shown_as_the_supplier_has_it_now(reader: Reader, supplier: FakeSupplier) -> None:
    supplier.taken.append(an_order(state=SupplierOrderState.CANCELED))
    seen = await reader.purchase(INTENT.external_id)
    assert (seen.supplier_order_state, seen.charged_cents) == (SupplierOrderState.CANCELED, 1998)
    assert seen.product_name == "Counter-Strike: Source"


async def test_what_the_supplier_leaves_out_is_shown_as_stored(reader: Reader, supplier: FakeSupplier) -> None:
    supplier.taken.append(an_order(charged_cents=None, lines=[]))
    assert (await reader.purchase(INTENT.external_id)).charged_cents == 5


async def test_an_order_that_cannot_be_read_yet_is_shown_as_stored(reader: Reader) -> None:
    assert await reader.purchase(INTENT.external_id) == PLACED


async def test_a_purchase_that_was_not_placed_is_not_asked_for(reader: Reader, purchases: FakePurchases) -> None:
    row = purchases.rows[INTENT.external_id]
    row.purchase = replace(PLACED, state=PurchaseState.IN_DOUBT, supplier_order_id="")
    assert (await reader.purchase(INTENT.external_id)).state is PurchaseState.IN_DOUBT
    with pytest.raises(PurchaseUnknown):
        await reader.purchase("kf-nobody-asked")


async def test_a_product_that_is_not_sold_is_unknown(reader: Reader, supplier: FakeSupplier) -> None:
    product = Product("p1", "Game", 450, 1, preorder=False, excluded_countries=[], activation_details="")
    supplier.products["p1"] = product
    assert await reader.product("p1") is product
    with pytest.raises(ProductUnknown) as unknown:
        await reader.product("p2")
    assert unknown.value.metadata == {"product_id": "p2"}


async def test_a_check_tells_how_long_it_took(reader: Reader, supplier: FakeSupplier) -> None:
    check = await reader.check()
    assert check.health is supplier.health
    assert timedelta(0) <= check.latency < timedelta(seconds=5)
