from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest
from chassis.errors import InvalidRequest
from fulfillment.convert_admin import (
    LONGEST_JWE,
    delivery_from_proto,
    record_to_proto,
    replace_from_proto,
    resend_from_proto,
    retry_from_proto,
)
from fulfillment.domain.model import ItemId
from fulfillment.ports.payments import PaymentRecord
from google.protobuf.message import Message
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2

from tests.unit.fulfillment.examples import NOON, a_payment
from tests.unit.fulfillment.office import a_refund

REQUEST_ID = "1f0f2f6e-3c1b-4a6e-9a51-7d1e2c3b4a59"
CAROL = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
COMMON: dict[str, Any] = {
    "request_id": REQUEST_ID,
    "order_id": "order-1",
    "actor": CAROL,
    "reason": "asked",
}
RETRY = pb.RetryFulfillmentRequest(item_id="item-1", **COMMON)
REPLACE = pb.ReplaceKeyRequest(key_id="key-1", **COMMON)
RESEND = pb.ResendDeliveryEmailRequest(**COMMON)
DELIVER = pb.DeliverKeyManuallyRequest(external_id="kf1-a", content_type="text/plain", key_jwe="a.jwe", **COMMON)
READERS: list[tuple[Message, Callable[[Message], object]]] = [
    (RETRY, retry_from_proto),  # type: ignore[list-item] # each reads its own message
    (REPLACE, replace_from_proto),  # type: ignore[list-item] # each reads its own message
    (RESEND, resend_from_proto),  # type: ignore[list-item] # each reads its own message
    (DELIVER, delivery_from_proto),  # type: ignore[list-item] # each reads its own message
]
BAD: list[tuple[str, object]] = [
    ("request_id", "7"),
    ("request_id", ""),
    ("order_id", ""),
    ("order_id", "a/b"),
    ("reason", ""),
    ("reason", "x" * 256),
]
OWN: list[tuple[Message, str, str]] = [
    (RETRY, "item_id", "a/b"),
    (REPLACE, "key_id", ""),
    (REPLACE, "key_id", "a\0b"),
    (DELIVER, "external_id", ""),
    (DELIVER, "content_type", "text/html"),
    (DELIVER, "content_type", ""),
    (DELIVER, "key_jwe", ""),
    (DELIVER, "key_jwe", "x" * (LONGEST_JWE + 1)),
]


def changed(message: Message, field: str, value: object) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    setattr(copy, field, value)
    return copy


def read(message: Message) -> object:
    return next(reader for known, reader in READERS if type(known) is type(message))(message)


def faults_of(message: Message) -> list[str]:
    with pytest.raises(InvalidRequest) as raised:
        read(message)
    return [fault.field for fault in raised.value.field_violations]


def test_what_is_asked_is_read() -> None:
    wish, item_id = retry_from_proto(RETRY)
    assert (wish.request_id, wish.order_id, item_id) == (REQUEST_ID, "order-1", ItemId("item-1"))
    assert (wish.asked.actor, wish.asked.reason) == (CAROL, "asked")
    assert retry_from_proto(pb.RetryFulfillmentRequest(**COMMON))[1] is None
    assert replace_from_proto(REPLACE)[1] == "key-1"
    assert resend_from_proto(RESEND).order_id == "order-1"
    _, delivery = delivery_from_proto(DELIVER)
    assert (delivery.request_id, delivery.external_id, delivery.key_jwe) == (REQUEST_ID, "kf1-a", "a.jwe")
    assert "a.jwe" not in repr(delivery)


@pytest.mark.parametrize(("message", "field", "value"), OWN)
def test_a_faulty_field_is_named(message: Message, field: str, value: str) -> None:
    assert faults_of(changed(message, field, value)) == [field]


@pytest.mark.parametrize("message", [message for message, _ in READERS])
@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_faulty_field_of_every_request_is_named(message: Message, field: str, value: str) -> None:
    assert faults_of(changed(message, field, value)) == [field]


@pytest.mark.parametrize("message", [message for message, _ in READERS])
def test_every_fault_is_told_at_once(message: Message) -> None:
    assert {"request_id", "order_id", "actor.type", "actor.id", "reason"} <= set(faults_of(type(message)()))


@pytest.mark.parametrize("kind", [actor_pb2.ACTOR_TYPE_CUSTOMER, actor_pb2.ACTOR_TYPE_UNSPECIFIED])
@pytest.mark.parametrize("message", [message for message, _ in READERS])
def test_nobody_but_staff_and_programs_may_ask(message: Message, kind: actor_pb2.ActorType.ValueType) -> None:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.actor.type = kind  # type: ignore[attr-defined] # every one has an actor
    assert faults_of(copy) == ["actor.type"]


def test_a_payment_is_shown_with_what_was_given_back() -> None:
    record = PaymentRecord(a_payment(), NOON, is_matched=True, refunds=[a_refund(5, is_chargeback=True)])
    shown = record_to_proto(record)
    assert (shown.payment.payment_id, shown.payment.amount.minor_units, shown.matched) == ("payment-1", 1000, True)
    assert shown.create_time.ToDatetime(UTC) == shown.payment.confirm_time.ToDatetime(UTC) == NOON
    (refund,) = shown.refunds
    assert (refund.refund_id, refund.amount.minor_units, refund.chargeback) == ("refund-1", 5, True)
