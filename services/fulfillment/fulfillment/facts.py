"""The events that fulfillment tells, each with the identity that makes telling it twice telling it once."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from chassis.money import Money, money_to_proto
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1.audit_events_pb2 import AuditCustomerErased, AuditRecorded
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentCanceled,
    FulfillmentDelivered,
    FulfillmentKeyReady,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
    FulfillmentRefunded,
    FulfillmentRefundRequested,
    RefundLine,
)
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.type.v1 import actor_pb2, money_pb2

from fulfillment.domain.model import (
    Action,
    Amount,
    Fulfillment,
    Item,
    Key,
    OrderId,
    Payment,
    Purchase,
    Reason,
    Refund,
    RefundRequest,
    State,
)
from fulfillment.domain.policy import actions, order_actions
from fulfillment.ports.orders import OrderTransaction, Telling

SERVICE = "fulfillment"


def timestamp(moment: datetime) -> Timestamp:
    """Render a moment."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


async def tell_accepted(transaction: OrderTransaction, payment: Payment, *, telling: str, now: datetime) -> None:
    """Answer the shop. `telling` is what it said, so that its repeat under a new id is answered again."""
    message = FulfillmentAccepted(
        order_id=payment.order_id,
        payment_id=payment.payment_id,
        provider=payment.provider,
        accept_time=timestamp(now),
    )
    identity = ["accepted", payment.provider, payment.payment_id, telling]
    await transaction.tell("fulfillment.accepted", message, about=payment.order_id, now=now, identity=identity)


async def tell_purchased(transaction: OrderTransaction, purchase: Purchase, *, now: datetime) -> None:
    """Tell that the supplier took the order of a purchase."""
    message = FulfillmentPurchased(
        order_id=purchase.order_id,
        item_id=purchase.item_id,
        external_id=purchase.external_id,
        supplier_order_id=purchase.supplier_order_id,
        quantity=purchase.quantity,
        charged_amount=None if purchase.charged is None else money_to_proto(Money("EUR", purchase.charged)),
    )
    identity = ["purchased", purchase.external_id]
    await transaction.tell("fulfillment.purchased", message, about=purchase.order_id, now=now, identity=identity)


async def tell_key_ready(transaction: OrderTransaction, order_id: OrderId, key: Key, *, now: datetime) -> None:
    """Tell that one key can be opened."""
    message = FulfillmentKeyReady(order_id=order_id, item_id=key.item_id, key_id=key.key_id)
    await transaction.tell(
        "fulfillment.key_ready", message, about=order_id, now=now, identity=["key_ready", key.key_id]
    )


async def tell_state(transaction: OrderTransaction, after: Fulfillment, *, now: datetime) -> None:
    """Tell what the order has come to; what was told before is the same event and is not told again."""
    order_id = after.order.order_id
    if after.state is State.READY:
        await transaction.tell(
            "fulfillment.ready",
            FulfillmentReady(order_id=order_id),
            about=order_id,
            now=now,
            identity=["ready", order_id],
        )
    elif after.state is State.DELIVERED:
        await transaction.tell(
            "fulfillment.delivered",
            FulfillmentDelivered(order_id=order_id),
            about=order_id,
            now=now,
            identity=["delivered", order_id],
        )
    elif after.state is State.NEEDS_ATTENTION:
        await _tell_attention(transaction, after, now=now)


async def _tell_attention(transaction: OrderTransaction, after: Fulfillment, *, now: datetime) -> None:
    troubled = [
        (str(line.item.item_id), line.reason, line) for line in after.lines if line.state is State.NEEDS_ATTENTION
    ]
    order_id = after.order.order_id
    for item_id, reason, line in troubled:
        possible = [action for each in line.purchases for action in actions(each, line.keys_of(each.external_id))]
        message = FulfillmentNeedsAttention(
            order_id=order_id, item_id=item_id, reason=reason, actions=actions_to_proto(dict.fromkeys(possible))
        )
        # In trouble again after a person let it go on, it is told again.
        since = max(each.state_time for each in line.purchases if each.state is State.NEEDS_ATTENTION)
        identity = ["needs_attention", order_id, item_id, reason, since.isoformat()]
        await transaction.tell("fulfillment.needs_attention", message, about=order_id, now=now, identity=identity)
    if after.reason not in {reason for _, reason, _ in troubled}:
        message = FulfillmentNeedsAttention(
            order_id=order_id, reason=after.reason, actions=actions_to_proto(order_actions(after))
        )
        money = [str(amount.minor_units) if amount else "" for amount in (after.paid, after.refunded)]
        identity = ["needs_attention", order_id, "", after.reason, *money]
        await transaction.tell("fulfillment.needs_attention", message, about=order_id, now=now, identity=identity)


async def tell_canceled(
    transaction: OrderTransaction,
    order_id: OrderId,
    item: Item,
    quantity: int,
    reason: Reason,
    *,
    identity: str,
    now: datetime,
) -> None:
    """Tell that keys of a line will not come, or were taken back."""
    message = FulfillmentCanceled(order_id=order_id, item_id=item.item_id, quantity=quantity, reason=reason)
    await transaction.tell("fulfillment.canceled", message, about=order_id, now=now, identity=["canceled", identity])


async def tell_refund_requested(
    transaction: OrderTransaction, request: RefundRequest, lines: Sequence[tuple[Item, int, Amount]], *, now: datetime
) -> None:
    """Ask the shop to pay back."""
    message = FulfillmentRefundRequested(
        order_id=request.order_id,
        refund_request_id=request.request_id,
        lines=[
            RefundLine(item_id=item.item_id, quantity=quantity, amount=amount_to_proto(amount))
            for item, quantity, amount in lines
        ],
        amount=amount_to_proto(request.amount),
        reason=request.reason,
    )
    identity = ["refund_requested", request.request_id]
    await transaction.tell("fulfillment.refund_requested", message, about=request.order_id, now=now, identity=identity)


async def tell_refunded(
    transaction: OrderTransaction,
    order_id: OrderId,
    refund: Refund,
    *,
    opened: int,
    telling: str,
    now: datetime,
) -> None:
    """Answer the shop that a refund is taken. `telling` is what it said, so that its repeat is answered again."""
    message = FulfillmentRefunded(
        order_id=order_id,
        refund_id=refund.refund_id,
        provider=refund.provider,
        amount=amount_to_proto(refund.amount),
        opened_count=opened,
    )
    identity = ["refunded", refund.provider, refund.refund_id, telling]
    await transaction.tell("fulfillment.refunded", message, about=order_id, now=now, identity=identity)


def amount_to_proto(amount: Amount) -> money_pb2.Money:
    """Render an amount."""
    return money_to_proto(Money(amount.currency_code, amount.minor_units))


def actions_to_proto(found: Iterable[Action]) -> list[Any]:
    """Render what an operator can do."""
    return [fulfillment_pb2.Action.Value(f"ACTION_{action}") for action in found]


async def record(
    transaction: Telling,
    action: str,
    order_id: str,
    *,
    now: datetime,
    identity: Sequence[str] = (),
    actor: actor_pb2.Actor | None = None,
    details: dict[str, str] | None = None,
    key_id: str = "",
    request_id: str = "",
) -> None:
    """Put a fact for the audit log into the outbox. The actor is this service unless a person is named."""
    message = AuditRecorded(
        actor=actor or actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SERVICE),
        action=action,
        order_id=order_id,
        key_id=key_id,
        request_id=request_id,
        details=details or {},
        occur_time=timestamp(now),
    )
    await transaction.tell(
        "audit.recorded", message, about=order_id or action, now=now, identity=[action, order_id, *identity]
    )


async def tell_customer_erased(
    transaction: Telling, customer_id: str, *, request_id: str, actor: actor_pb2.Actor, now: datetime
) -> None:
    """Let audit forget a customer; once per request."""
    message = AuditCustomerErased(
        customer_id=customer_id, actor=actor_pb2.Actor(type=actor.type, id=actor.id), request_id=request_id
    )
    await transaction.tell("audit.customer_erased", message, about=request_id, now=now, identity=[request_id])
