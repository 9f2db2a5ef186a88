"""What fulfillment's rows look like, and how a fulfillment is put together from them."""

from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Any, NamedTuple

from fulfillment.domain.fold import fold
from fulfillment.domain.model import (
    Amount,
    Fulfillment,
    Key,
    Line,
    Order,
    OrderId,
    Purchase,
    Reason,
    Refund,
    State,
)

from tests.simulation.tables import Work


class OrderRow(NamedTuple):
    order: Order
    digest: bytes
    create_time: datetime
    update_time: datetime
    state: State = State.AWAITING_PAYMENT
    reason: Reason = Reason.NONE
    version: int = 1
    paid: Amount | None = None
    refunded: Amount | None = None
    pay_time: datetime | None = None
    mail_time: datetime | None = None
    cancel_time: datetime | None = None


class PurchaseRow(NamedTuple):
    purchase: Purchase
    run_at: datetime | None
    lease_until: datetime | None = None
    hastened: bool = False


class KeyRow(NamedTuple):
    key: Key
    order_id: OrderId


class RefundRow(NamedTuple):
    refund: Refund
    applied: bool = False


class MailRow(NamedTuple):
    run_at: datetime | None
    tries: int = 0
    send_time: datetime | None = None
    failure: str = ""
    again: tuple[datetime, ...] = ()
    lease_until: datetime | None = None
    claim: int = 0


class Told(NamedTuple):
    subject: str
    message: Any
    about: str


NAMES = ("orders", "names", "payments", "refunds", "requests", "purchases", "keys", "mails", "told", "answers", "inbox")


def render(source: Work | dict[str, dict[Any, Any]], row: OrderRow) -> Fulfillment:
    """Put a fulfillment together, as a transaction sees it or as it is committed."""
    order = row.order
    name: Callable[[str, Hashable], Any]
    if isinstance(source, Work):
        purchases, keys, name = source.scan("purchases"), source.scan("keys"), source.get
    else:
        purchases, keys, name = source["purchases"].values(), source["keys"].values(), _committed(source)
    own = [each.purchase for each in purchases if each.purchase.order_id == order.order_id]
    names = [each.key for each in keys if each.order_id == order.order_id]
    lines = []
    for item in order.items:
        of_line = [purchase for purchase in own if purchase.item_id == item.item_id]
        if len(of_line) > 1:
            of_line.sort(key=lambda purchase: (purchase.chunk, purchase.attempt))
        state, reason = fold([(purchase.state, purchase.reason) for purchase in of_line])
        lines.append(
            Line(
                item,
                name("names", (order.order_id, item.item_id)) or "",
                of_line,
                [key for key in names if key.item_id == item.item_id],
                state,
                reason,
            )
        )
    return Fulfillment(
        order=order,
        state=row.state,
        reason=row.reason,
        paid=row.paid,
        lines=lines,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        pay_time=row.pay_time,
        mail_time=row.mail_time,
        refunded=row.refunded,
        cancel_time=row.cancel_time,
    )


def _committed(tables: dict[str, dict[Any, Any]]) -> Callable[[str, Hashable], Any]:
    return lambda name, key: tables[name].get(key)
