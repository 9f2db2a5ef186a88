"""The events that kinguin-gateway writes into its outbox, each under an id derived from what it tells."""

from collections.abc import Mapping
from datetime import datetime

from chassis.events import Event, derived_event_id
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.kinguin_events_pb2 import KinguinOrderChanged
from keyferry.type.v1 import actor_pb2

from kinguin_gateway.domain.purchase import Intent, SupplierOrder

SOURCE = "kinguin-gateway"
STREAMS = {"kinguin": "KINGUIN", "audit": "AUDIT"}


def order_changed(intent: Intent, order: SupplierOrder, *, delivered: int, revision: int, time: datetime) -> Event:
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


def purchase_audited(
    action: str, intent: Intent, *, request_id: str, attempt: int, details: Mapping[str, str], time: datetime
) -> Event:
    """Tell the audit log what an attempt came to: `purchase.placed`, `purchase.refused` or `purchase.in_doubt`."""
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
            "attempt": str(attempt),
            **{name: value for name, value in details.items() if value},
        },
    )
    message.occur_time.FromDatetime(time)
    return Event.of(
        message,
        event_id=derived_event_id("audit.recorded", action, intent.external_id, str(attempt)),
        subject="audit.recorded",
        source=SOURCE,
        about=intent.external_id,
        time=time,
    )
