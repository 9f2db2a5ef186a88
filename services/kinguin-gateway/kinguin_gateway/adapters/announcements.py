"""The events that kinguin-gateway writes into its outbox, each under an id derived from what it tells."""

from collections.abc import Mapping
from datetime import datetime

from chassis.events import Event, derived_event_id
from chassis.money import Money, money_to_proto
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.kinguin_events_pb2 import (
    KinguinOrderChanged,
    KinguinProductChanged,
    KinguinPurchaseReleased,
)
from keyferry.type.v1 import actor_pb2

from kinguin_gateway.domain.purchase import Intent, Purchase, SupplierOrder

SOURCE = "kinguin-gateway"
STREAMS = {"kinguin": "KINGUIN", "audit": "AUDIT"}


def order_changed(
    intent: Intent, order: SupplierOrder, *, delivered: int, revision: int | str, time: datetime
) -> Event:
    """Tell that a purchase moved at the supplier. The revision tells two visits to the same state apart."""
    message = KinguinOrderChanged(
        external_id=intent.external_id,
        order_id=intent.order_id,
        supplier_order_id=order.supplier_order_id,
        status=order.state.value,
    )
    return Event.of(
        message,
        event_id=derived_event_id(
            "kinguin.order.changed", intent.external_id, order.state.value, str(delivered), str(revision)
        ),
        subject="kinguin.order.changed",
        source=SOURCE,
        about=intent.external_id,
        time=time,
    )


def purchase_released(intent: Intent, *, time: datetime) -> Event:
    """Tell that a purchase need not wait any more. It may have to again, so that the time tells two releases apart."""
    return Event.of(
        KinguinPurchaseReleased(external_id=intent.external_id, order_id=intent.order_id),
        event_id=derived_event_id("kinguin.purchase.released", intent.external_id, time.isoformat()),
        subject="kinguin.purchase.released",
        source=SOURCE,
        about=intent.external_id,
        time=time,
    )


def product_changed(product_id: str, *, price_cents: int | None, available: int, time: datetime) -> Event:
    """Tell that price or stock of a product that we have bought is another than before."""
    price = None if price_cents is None else money_to_proto(Money("EUR", price_cents))
    message = KinguinProductChanged(product_id=product_id, price=price, available_quantity=available)
    message.read_time.FromDatetime(time)
    return Event.of(
        message,
        event_id=derived_event_id("kinguin.product.changed", product_id, time.isoformat()),
        subject="kinguin.product.changed",
        source=SOURCE,
        about=product_id,
        time=time,
    )


def account_audited(
    action: str, *, key: str, actor: actor_pb2.Actor | None, request_id: str, details: Mapping[str, str], time: datetime
) -> Event:
    """Tell the audit log what concerns no order: by a person, or by ourselves where there is no actor."""
    message = AuditRecorded(
        actor=actor or actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SOURCE),
        action=action,
        request_id=request_id,
        details={name: value for name, value in details.items() if value},
    )
    message.occur_time.FromDatetime(time)
    return Event.of(
        message,
        event_id=derived_event_id("audit.recorded", action, key),
        subject="audit.recorded",
        source=SOURCE,
        about=action,
        time=time,
    )


def purchase_audited(
    action: str, intent: Intent, *, request_id: str, attempt: int | str, details: Mapping[str, str], time: datetime
) -> Event:
    """Tell the audit log what an attempt came to, or what became of one of its supplier orders.

    `attempt` is its number, or the order's: an action is told once for each.
    """
    message = AuditRecorded(
        actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SOURCE),
        action=action,
        order_id=intent.order_id,
        request_id=request_id,
        details={
            "external_id": intent.external_id,
            "item_id": intent.item_id,
            "product_id": intent.product_id,
            "quantity": str(intent.quantity),
            "attempt": str(attempt) if isinstance(attempt, int) else "",
            **details,
        },
    )
    for name in [name for name, value in message.details.items() if not value]:
        del message.details[name]
    message.occur_time.FromDatetime(time)
    return Event.of(
        message,
        event_id=derived_event_id("audit.recorded", action, intent.external_id, str(attempt)),
        subject="audit.recorded",
        source=SOURCE,
        about=intent.external_id,
        time=time,
    )


def withdrawal_audited(purchase: Purchase, *, request_id: str, time: datetime) -> Event:
    """Tell the audit log that a withdrawn purchase is refused for ever. It ends so once, whatever its attempts were."""
    return purchase_audited(
        "purchase.withdrawn",
        purchase.intent,
        request_id=request_id,
        attempt="",
        details={"attempt": str(purchase.attempt)},
        time=time,
    )


def refusal_audited(purchase: Purchase, *, request_id: str, time: datetime) -> Event:
    """Tell the audit log that a purchase was refused by ourselves, before anything was sent."""
    return purchase_audited(
        "purchase.refused",
        purchase.intent,
        request_id=request_id,
        attempt=purchase.attempt,
        details={"kind": purchase.refusal.kind, "detail": purchase.refusal.detail},
        time=time,
    )
