"""Reads fulfillments: four queries for any number of orders, put together here."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
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
    Payment,
    Purchase,
    Reason,
    Refund,
    RefundRequest,
    State,
)

Rows = Sequence[Row[Any]]

_STATES = frozenset(State)
_REASONS = frozenset(Reason)

# A purchase here has been planned since purchases are.
_PLANNED = frozenset({State.PURCHASING, State.AWAITING_KEYS})


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
        state=_state(row.state) or State.NEEDS_ATTENTION,
        reason=_reason(row.reason),
        paid=_amount(row.paid_currency, row.paid_minor),
        lines=[_line(item, purchases, keys) for item in items],
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        pay_time=row.pay_time,
        mail_time=row.mail_time,
        refunded=_amount(row.refunded_currency, row.refunded_minor),
        cancel_time=row.cancel_time,
    )


def _state(word: str) -> State | None:
    """Read a state; None for a word of another version."""
    return State(word) if word in _STATES else None


def _reason(word: str) -> Reason:
    return Reason(word) if word in _REASONS else Reason.ROW_UNREADABLE


def _amount(currency: str | None, minor: int) -> Amount | None:
    return None if currency is None else Amount(currency, minor)


def _line(row: Row[Any], purchases: Rows, keys: Rows) -> Line:
    item = item_of(row)
    own = [purchase_of(each, item) for each in purchases if each.item_id == item.item_id]
    state, reason = fold((purchase.state, purchase.reason) for purchase in own)
    return Line(
        item=item,
        product_name=row.product_name,
        purchases=own,
        keys=[_key(each) for each in keys if each.item_id == item.item_id],
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
        unit_price=row.unit_price,
    )


async def items_of(connection: AsyncConnection, order_ids: AbstractSet[str]) -> Mapping[tuple[str, str], Item]:
    """Return the items of orders, by order and item."""
    rows = await connection.execute(select(ITEM).where(ITEM.c.order_id.in_(order_ids)))
    return {(row.order_id, row.item_id): item_of(row) for row in rows}


def purchase_of(row: Row[Any], item: Item) -> Purchase:
    """Read a purchase of an item.

    A worker of the version before, which knows no plans, buys what the item says; while both versions run, what it
    began must go on as it was sent.
    """
    purchase = _purchase(row)
    if purchase.state in _PLANNED and not purchase.is_planned:
        return replace(purchase, offer_id=item.offer_id, unit_limit=item.max_unit_price)
    return purchase


def _purchase(row: Row[Any]) -> Purchase:
    state, reason, give_up = _state(row.state), _reason(row.reason), _reason(row.give_up)
    if state is None or Reason.ROW_UNREADABLE in {reason, give_up}:
        # As a whole it means what nobody here knows: a person has to look at it, and what is there can be opened.
        state, reason = State.NEEDS_ATTENTION, Reason.ROW_UNREADABLE
    return Purchase(
        external_id=ExternalId(row.external_id),
        order_id=OrderId(row.order_id),
        item_id=ItemId(row.item_id),
        quantity=row.quantity,
        state=state,
        state_time=row.state_time,
        reason=reason,
        chunk=row.chunk,
        attempt=row.attempt,
        offer_id=row.offer_id,
        unit_limit=row.unit_limit,
        replaced_key_id=None if row.replaced_key_id is None else KeyId(row.replaced_key_id),
        is_preorder=row.is_preorder,
        release_time=row.release_time,
        refusal=row.refusal,
        supplier_order_id=row.supplier_order_id,
        charged=row.charged,
        place_time=row.place_time,
        tries=row.tries,
        park_time=row.park_time,
        overdue_time=row.overdue_time,
        give_up=give_up,
        canceled_quantity=row.canceled_quantity,
        lane=row.lane,
        claim=row.claim,
        next_time=row.run_at,
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
        revoke_time=row.revoke_time,
        replace_time=row.replace_time,
    )


def payment_of(row: Row[Any]) -> Payment:
    """Read a payment."""
    return Payment(
        row.provider,
        row.payment_id,
        OrderId(row.order_id),
        Amount(row.currency, row.minor),
        row.confirm_time,
        told_order_id=None if row.told_order_id is None else OrderId(row.told_order_id),
        is_closed=row.close_time is not None,
    )


def refund_of(row: Row[Any], amount: Amount | None = None) -> Refund:
    """Read a refund; its amount is another column's where a payment's stands beside it."""
    return Refund(
        provider=row.provider,
        refund_id=row.refund_id,
        payment_id=row.payment_id,
        amount=amount or Amount(row.currency, row.minor),
        refund_time=row.refund_time,
        item_ids=[ItemId(item_id) for item_id in row.item_ids],
        request_ids=row.request_ids,
        is_chargeback=row.is_chargeback,
    )


def refund_request_of(row: Row[Any]) -> RefundRequest:
    """Read a refund request."""
    return RefundRequest(
        request_id=row.request_id,
        order_id=OrderId(row.order_id),
        item_id=None if row.item_id is None else ItemId(row.item_id),
        external_id=None if row.external_id is None else ExternalId(row.external_id),
        quantity=row.quantity,
        amount=Amount(row.currency, row.minor),
        reason=_reason(row.reason),
        is_answered=row.answer_time is not None,
    )
