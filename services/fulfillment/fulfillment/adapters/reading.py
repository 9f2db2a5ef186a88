"""Reads fulfillments: four queries for any number of orders, put together here."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.tables import ITEM, KEY, ORDER, PURCHASE
from fulfillment.domain.fold import fold
from fulfillment.domain.model import (
    Amount,
    Customer,
    ExternalId,
    Fulfillment,
    Item,
    ItemId,
    Key,
    KeyId,
    Line,
    Order,
    OrderId,
    Purchase,
    Reason,
    State,
)

Rows = Sequence[Row[Any]]


async def read_fulfillments(connection: AsyncConnection, orders: Rows) -> list[Fulfillment]:
    """Return the fulfillments of the given rows of orders, in their order."""
    order_ids = [row.order_id for row in orders]
    if not order_ids:
        return []
    items = await connection.execute(
        select(ITEM).where(ITEM.c.order_id.in_(order_ids)).order_by(ITEM.c.order_id, ITEM.c.position)
    )
    purchases = await connection.execute(
        select(PURCHASE)
        .where(PURCHASE.c.order_id.in_(order_ids))
        .order_by(PURCHASE.c.order_id, PURCHASE.c.item_id, PURCHASE.c.chunk, PURCHASE.c.attempt)
    )
    keys = await connection.execute(
        select(KEY).where(KEY.c.order_id.in_(order_ids)).order_by(KEY.c.order_id, KEY.c.position)
    )
    items_of, purchases_of, keys_of = _by_order(items.all()), _by_order(purchases.all()), _by_order(keys.all())
    return [
        _fulfillment(row, items_of[row.order_id], purchases_of[row.order_id], keys_of[row.order_id]) for row in orders
    ]


async def read_fulfillment(connection: AsyncConnection, order_id: str, *, lock: bool) -> Fulfillment | None:
    """Return one fulfillment, with its order locked or not."""
    statement = select(ORDER).where(ORDER.c.order_id == order_id)
    rows = (await connection.execute(statement.with_for_update() if lock else statement)).all()
    found = await read_fulfillments(connection, rows)
    return found[0] if found else None


def _by_order(rows: Rows) -> dict[str, list[Row[Any]]]:
    grouped: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        grouped[row.order_id].append(row)
    return grouped


def _fulfillment(row: Row[Any], items: Rows, purchases: Rows, keys: Rows) -> Fulfillment:
    order = Order(
        order_id=OrderId(row.order_id),
        customer=Customer(row.customer_id, row.email, row.locale, row.country_code),
        total=Amount(row.total_currency, row.total_minor),
        items=[item_of(item) for item in items],
    )
    return Fulfillment(
        order=order,
        state=State(row.state),
        reason=Reason(row.reason),
        paid=None if row.paid_currency is None else Amount(row.paid_currency, row.paid_minor),
        lines=[_line(item, purchases, keys) for item in items],
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        pay_time=row.pay_time,
        mail_time=row.mail_time,
    )


def _line(item: Row[Any], purchases: Rows, keys: Rows) -> Line:
    own = [purchase_of(row) for row in purchases if row.item_id == item.item_id]
    state, reason = fold((purchase.state, purchase.reason) for purchase in own)
    return Line(
        item=item_of(item),
        product_name=item.product_name,
        purchases=own,
        keys=[_key(row) for row in keys if row.item_id == item.item_id],
        state=state,
        reason=reason,
    )


def item_of(row: Row[Any]) -> Item:
    """Read an item."""
    return Item(
        item_id=ItemId(row.item_id),
        product_id=row.product_id,
        quantity=row.quantity,
        max_unit_price=row.max_unit_price,
        offer_id=row.offer_id,
        key_type=row.key_type,
    )


def purchase_of(row: Row[Any]) -> Purchase:
    """Read a purchase."""
    return Purchase(
        external_id=ExternalId(row.external_id),
        order_id=OrderId(row.order_id),
        item_id=ItemId(row.item_id),
        quantity=row.quantity,
        state=State(row.state),
        state_time=row.state_time,
        reason=Reason(row.reason),
        supplier_order_id=row.supplier_order_id,
        place_time=row.place_time,
        tries=row.tries,
        park_time=row.park_time,
    )


def _key(row: Row[Any]) -> Key:
    return Key(
        key_id=KeyId(row.key_id),
        item_id=ItemId(row.item_id),
        external_id=ExternalId(row.external_id),
        content_type=row.content_type,
        held=row.held,
        ready_time=row.ready_time,
        open_time=row.open_time,
    )
