"""What the tests buy, and what a supplier shows of it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from kinguin_gateway.domain.purchase import (
    Intent,
    Offer,
    OrderLine,
    Product,
    SupplierOrder,
    SupplierOrderState,
)

from tests.unit.simulated import EPOCH

INTENT = Intent(
    external_id="kf-0001",
    order_id="order-1",
    item_id="item-1",
    product_id="5c9b5f6b2539a4e8f172916a",
    offer_id="",
    quantity=2,
    max_unit_cents=1299,
    key_type="",
)


REQUEST_ID = "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"


Step = Callable[[str], Awaitable[None]]


async def no_trouble(_step: str) -> None:
    """Nothing happens between two steps."""


def an_order(intent: Intent = INTENT, number: int = 1, **changes: object) -> SupplierOrder:
    order = SupplierOrder(
        supplier_order_id=f"PHS{number:05}",
        external_id=intent.external_id,
        state=SupplierOrderState.PROCESSING,
        lines=[OrderLine(intent.product_id, None, intent.quantity, "Counter-Strike: Source", 0)],
        charged_cents=1998,
        create_time=EPOCH,
    )
    return replace(order, **changes)  # type: ignore[arg-type] # fields by name


def a_product(**changes: object) -> Product:
    product = Product(
        product_id=INTENT.product_id,
        name="Counter-Strike: Source",
        price_cents=999,
        available=100,
        preorder=False,
        excluded_countries=(),
        activation_details="",
        offers=(Offer(999, 100, offer_id="offer-1", available_text=100),),
    )
    return replace(product, **changes)  # type: ignore[arg-type] # fields by name


def deliver(order: SupplierOrder, delivered: int, state: SupplierOrderState | None = None) -> SupplierOrder:
    lines = [replace(line, delivered=delivered) for line in order.lines]
    return replace(order, lines=lines, state=state or order.state)
