"""One order, its payment, and a clock that tests move by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fulfillment.domain.model import Amount, Customer, Item, ItemId, Order, OrderId, Payment

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = Customer("alice", "alice@example.com", "de", "DE")
DIGEST = b"digest of the order"


class HandClock:
    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        return self.time

    def elapsed(self) -> float:
        return (self.time - NOON).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.pass_seconds(seconds)

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def an_item(number: int = 1, quantity: int = 1) -> Item:
    return Item(ItemId(f"item-{number}"), f"product-{number}", quantity, max_unit_price=999)


def an_order(order_id: str = "order-1", *quantities: int, customer: Customer = ALICE) -> Order:
    items = [an_item(number, quantity) for number, quantity in enumerate(quantities or (1,), 1)]
    return Order(OrderId(order_id), customer, Amount("EUR", 1000), items)


def a_payment(cents: int = 1000, *, payment_id: str = "payment-1", **changes: object) -> Payment:
    payment = Payment("stripe", payment_id, OrderId("order-1"), Amount("EUR", cents), NOON)
    return replace(payment, **changes)  # type: ignore[arg-type] # fields by name
