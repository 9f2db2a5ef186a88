"""Messages of fulfillment and of events ⇄ the edge's values."""

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1 import kinguin_events_pb2
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.fulfillment.v1 import fulfillment_pb2, fulfillment_service_pb2
from keyferry.type.v1 import actor_pb2, money_pb2

from gateway.domain.fact import Fact
from gateway.domain.order import Amount, Customer, DownloadLink, Key, Line, Order, State
from gateway.domain.webhook import WebhookHint

_STATES: Mapping[int, State] = {fulfillment_pb2.State.Value(f"STATE_{state}"): state for state in State}


def customer_to_proto(customer: Customer) -> actor_pb2.Actor:
    """Render who asks."""
    return actor_pb2.Actor(
        type=actor_pb2.ACTOR_TYPE_CUSTOMER,
        id=customer.customer_id,
        email=customer.email,
        ip_address=customer.ip_address,
        user_agent=customer.user_agent,
        country_code=customer.country_code,
    )


def order_from_proto(message: fulfillment_pb2.Fulfillment) -> Order:
    """Read a fulfillment. Raises ValueError for a state that this edge does not know: it is older than fulfillment."""
    return Order(
        order_id=message.order_id,
        state=_state_from_proto(message.state),
        reason=message.reason,
        total=_amount_from_proto(message.total),
        paid=_amount_from_proto(message.paid) if message.HasField("paid") else None,
        lines=tuple(_line_from_proto(line) for line in message.lines),
        create_time=_time_from_proto(message.create_time),
        update_time=_time_from_proto(message.update_time),
        pay_time=_time_from_proto(message.pay_time) if message.HasField("pay_time") else None,
    )


def download_link_from_proto(message: fulfillment_service_pb2.CreateDownloadLinkResponse) -> DownloadLink:
    """Read a download link."""
    return DownloadLink(
        url=message.url,
        expire_time=_time_from_proto(message.expire_time),
        content_key_jwe=message.content_key_jwe,
        object_sha256=message.object_sha256,
    )


def hint_to_proto(hint: WebhookHint, receive_time: datetime) -> kinguin_events_pb2.KinguinWebhookReceived:
    """Render an accepted webhook as the event that tells of it."""
    message = kinguin_events_pb2.KinguinWebhookReceived(
        event_name=hint.event_name,
        supplier_order_id=hint.supplier_order_id,
        external_id=hint.external_id,
        status=hint.status,
        product_id=hint.product_id,
        updated_at=hint.updated_at,
        body_sha256=hint.body_sha256,
    )
    message.receive_time.FromDatetime(receive_time)
    return message


def fact_to_proto(fact: Fact) -> AuditRecorded:
    """Render a fact for the audit log. Whoever is not a person is the edge itself."""
    actor = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="edge")
    if fact.person is not None:
        actor = customer_to_proto(fact.person)
        if fact.is_admin:
            actor.type = actor_pb2.ACTOR_TYPE_ADMIN
    message = AuditRecorded(actor=actor, action=fact.action, details=fact.details)
    message.occur_time.FromDatetime(fact.time)
    return message


def _line_from_proto(message: fulfillment_pb2.Line) -> Line:
    return Line(
        item_id=message.item_id,
        product_id=message.product_id,
        product_name=message.product_name or message.product_id,
        quantity=message.quantity,
        state=_state_from_proto(message.state),
        reason=message.reason,
        keys=tuple(_key_from_proto(key) for key in message.keys),
    )


def _key_from_proto(message: fulfillment_pb2.Key) -> Key:
    return Key(
        key_id=message.key_id,
        content_type=message.content_type,
        ready_time=_time_from_proto(message.ready_time) if message.HasField("ready_time") else None,
        open_time=_time_from_proto(message.open_time) if message.HasField("open_time") else None,
    )


def _state_from_proto(state: int) -> State:
    try:
        return _STATES[state]
    except KeyError:
        raise ValueError(f"fulfillment sent state {state}, which this edge does not know") from None


def _amount_from_proto(message: money_pb2.Money) -> Amount:
    return Amount(message.currency_code, message.minor_units)


def _time_from_proto(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
