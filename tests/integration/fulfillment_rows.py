"""What the tests of fulfillment's rows have in common, whether the rows are in PostgreSQL or in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fulfillment.domain.model import Customer, ExternalId, Fulfillment, Key, KeyId, OrderId, Purchase, State
from fulfillment.domain.planner import external_id
from fulfillment.ports.orders import Orders
from fulfillment.ports.payments import Payments

from tests.unit.fulfillment.examples import ALICE, DIGEST, NOON, an_order

ORDER_ID = OrderId("order-1")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
EVERYTHING = dict.fromkeys(range(5), 64)


@dataclass(frozen=True)
class Ports:
    """Both ports over the same rows."""

    orders: Orders
    payments: Payments


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def planned(order_id: str = "order-1", *quantities: int, **changes: object) -> list[Purchase]:
    """Return one purchase for each line of an order, as it is when the order is paid."""
    order = an_order(order_id, *quantities)
    bare = [
        Purchase(
            external_id(order.order_id, item.item_id, 0, 1),
            order.order_id,
            item.item_id,
            item.quantity,
            State.PENDING,
            NOON,
            next_time=NOON,
        )
        for item in order.items
    ]
    return [replace(purchase, **changes) for purchase in bare]  # type: ignore[arg-type] # fields by name


async def add(orders: Orders, order_id: str = "order-1", *quantities: int, customer: Customer = ALICE) -> None:
    async with orders.transaction() as transaction:
        assert await transaction.add_order(an_order(order_id, *quantities, customer=customer), DIGEST, now=NOON)


async def add_purchases(orders: Orders, purchases: Sequence[Purchase], *, run_at: datetime = NOON) -> None:
    async with orders.transaction() as transaction:
        await transaction.add_purchases(purchases, run_at=run_at)


async def buy(orders: Orders, order_id: str = "order-1", *quantities: int, customer: Customer = ALICE) -> None:
    await add(orders, order_id, *quantities, customer=customer)
    await add_purchases(orders, planned(order_id, *quantities))


async def load(orders: Orders, order_id: str = "order-1") -> Fulfillment:
    async with orders.transaction() as transaction:
        found = await transaction.load(OrderId(order_id))
    assert found is not None
    return found


async def purchases(orders: Orders) -> list[Purchase]:
    return list((await load(orders)).purchases)


async def bought(orders: Orders) -> Purchase:
    """Buy one key and return its purchase."""
    await buy(orders)
    (purchase,) = await purchases(orders)
    return purchase


async def due(orders: Orders, seconds: float, shares: Mapping[int, int] | None = None) -> list[ExternalId]:
    async with orders.transaction() as transaction:
        found = await transaction.lock_due(EVERYTHING if shares is None else shares, now=after(seconds))
    return [buying.purchase.external_id for buying in found]


async def save(orders: Orders, purchase: Purchase, seconds: float | None, *, now: datetime = NOON) -> None:
    async with orders.transaction() as transaction:
        run_at = None if seconds is None else after(seconds)
        await transaction.save_purchase(purchase, now=now, run_at=run_at)


async def lease(orders: Orders, purchase: Purchase, seconds: float) -> Purchase:
    async with orders.transaction() as transaction:
        return await transaction.lease(purchase, until=after(seconds))


async def hasten(orders: Orders, purchase: Purchase, seconds: float) -> None:
    async with orders.transaction() as transaction:
        await transaction.hasten(purchase.external_id, now=after(seconds))


def a_key(purchase: Purchase, number: int = 1, *, held: bool = False) -> Key:
    return Key(KeyId(f"key-{number}"), purchase.item_id, purchase.external_id, "text/plain", held, NOON)
