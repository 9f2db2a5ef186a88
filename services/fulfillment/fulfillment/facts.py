"""The events that fulfillment tells, each with the identity that makes telling it twice telling it once."""

from collections.abc import Sequence
from datetime import datetime

from chassis.money import Money, money_to_proto
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentDelivered,
    FulfillmentKeyReady,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
)
from keyferry.type.v1 import actor_pb2

from fulfillment.domain.model import Fulfillment, Key, OrderId, Payment, Purchase, State
from fulfillment.ports.orders import OrderTransaction

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


async def tell_purchased(
    transaction: OrderTransaction, purchase: Purchase, charged_cents: int | None, *, now: datetime
) -> None:
    """Tell that the supplier took the order of a purchase."""
    message = FulfillmentPurchased(
        order_id=purchase.order_id,
        item_id=purchase.item_id,
        external_id=purchase.external_id,
        supplier_order_id=purchase.supplier_order_id,
        quantity=purchase.quantity,
        charged_amount=None if charged_cents is None else money_to_proto(Money("EUR", charged_cents)),
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
        troubled = [
            (str(line.item.item_id), line.reason) for line in after.lines if line.state is State.NEEDS_ATTENTION
        ]
        if after.reason not in {reason for _, reason in troubled}:
            troubled = [("", after.reason), *troubled]
        for item_id, reason in troubled:
            message = FulfillmentNeedsAttention(order_id=order_id, item_id=item_id, reason=reason)
            identity = ["needs_attention", order_id, item_id, reason]
            await transaction.tell("fulfillment.needs_attention", message, about=order_id, now=now, identity=identity)


async def record(
    transaction: OrderTransaction,
    action: str,
    order_id: str,
    *,
    now: datetime,
    identity: Sequence[str] = (),
    actor: actor_pb2.Actor | None = None,
    details: dict[str, str] | None = None,
) -> None:
    """Put a fact for the audit log into the outbox. The actor is this service unless a person is named."""
    message = AuditRecorded(
        actor=actor or actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SERVICE),
        action=action,
        order_id=order_id,
        details=details or {},
        occur_time=timestamp(now),
    )
    await transaction.tell("audit.recorded", message, about=order_id, now=now, identity=[action, order_id, *identity])
