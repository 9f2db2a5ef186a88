"""Requests and answers of FulfillmentAdminService: contracts on one side, fulfillment's own words on the other."""

from dataclasses import dataclass

from chassis.validation import Faults
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.type.v1 import actor_pb2

from fulfillment.domain.model import ExternalId, ItemId, KeyId, OrderId, Payment, Reason, Refund
from fulfillment.domain.policy import RETRIED, Trouble
from fulfillment.facts import amount_to_proto, timestamp
from fulfillment.matching import PaymentName, Target
from fulfillment.operating import Asked, Delivery
from fulfillment.ports.payments import Closure, PaymentRecord

CONTENT_TYPES = frozenset({"text/plain", "image/jpeg", "image/png", "image/gif"})
# What trying again may mend; a payment that does not match is mended by another one, or by a refund.
RETRIABLE = frozenset(reason.value for reason in RETRIED)
_CLOSURES = {pb.PaymentClosure.Value(f"PAYMENT_CLOSURE_{closure}"): closure for closure in Closure}
# A picture of 1 MiB as a JWE.
LONGEST_JWE = 1_500_000


@dataclass(frozen=True, slots=True)
class Request:
    """What every request that changes an order says."""

    request_id: str
    order_id: OrderId
    asked: Asked


def retry_from_proto(request: pb.RetryFulfillmentRequest) -> tuple[Request, ItemId | None]:
    """Read a wish to go on. Raises InvalidRequest with every fault."""
    faults = Faults()
    if request.item_id:
        faults.identifier("item_id", request.item_id)
    return _request(request, faults), ItemId(request.item_id) if request.item_id else None


def retries_from_proto(request: pb.RetryFulfillmentsRequest) -> tuple[str, Trouble, Asked]:
    """Read a wish to go on in many orders. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    if request.attention_reason and request.attention_reason not in RETRIABLE:
        faults.add("attention_reason", f"must be empty or one of {', '.join(sorted(RETRIABLE))}")
    since = faults.moment("start_time", request.start_time if request.HasField("start_time") else None)
    until = faults.moment("end_time", request.end_time if request.HasField("end_time") else None)
    if since and until and since >= until:
        faults.add("end_time", "must be after start_time")
    check_actor(request.actor, faults)
    faults.require("reason", request.reason)
    faults.raise_if_any()
    reason = Reason(request.attention_reason) if request.attention_reason else None
    return request_id, Trouble(reason, since, until), Asked(request.actor, request.reason)


def assign_from_proto(request: pb.AssignPaymentRequest) -> tuple[str, PaymentName, Target, Asked]:
    """Read for which order a payment is. Raises InvalidRequest with every fault."""
    faults = Faults()
    faults.identifier("order_id", request.order_id)
    faults.require("customer_id", request.customer_id)
    request_id, name, asked = _about_payment(request, faults)
    return request_id, name, Target(OrderId(request.order_id), request.customer_id), asked


def close_from_proto(request: pb.ClosePaymentRequest) -> tuple[str, PaymentName, Closure, Asked]:
    """Read how a payment ended. Raises InvalidRequest with every fault."""
    faults = Faults()
    closure = _CLOSURES.get(request.closure)
    if closure is None:
        faults.add("closure", "must be PAYMENT_CLOSURE_REFUNDED_OUTSIDE or PAYMENT_CLOSURE_CLOSED")
    request_id, name, asked = _about_payment(request, faults)
    return request_id, name, closure or Closure.CLOSED, asked


def _about_payment(
    request: pb.AssignPaymentRequest | pb.ClosePaymentRequest, faults: Faults
) -> tuple[str, PaymentName, Asked]:
    request_id = faults.request_id(request.request_id)
    faults.require("provider", request.provider, longest=64)
    faults.require("payment_id", request.payment_id, longest=128)
    check_actor(request.actor, faults)
    faults.require("reason", request.reason)
    faults.raise_if_any()
    return request_id, PaymentName(request.provider, request.payment_id), Asked(request.actor, request.reason)


def replace_from_proto(request: pb.ReplaceKeyRequest) -> tuple[Request, KeyId]:
    """Read a wish for another key. Raises InvalidRequest with every fault."""
    faults = Faults()
    faults.identifier("key_id", request.key_id)
    return _request(request, faults), KeyId(request.key_id)


def resend_from_proto(request: pb.ResendDeliveryEmailRequest) -> Request:
    """Read a wish for the mail. Raises InvalidRequest with every fault."""
    return _request(request, Faults())


def delivery_from_proto(request: pb.DeliverKeyManuallyRequest) -> tuple[Request, Delivery]:
    """Read a delivery. Raises InvalidRequest with every fault."""
    faults = Faults()
    faults.identifier("external_id", request.external_id)
    if request.content_type not in CONTENT_TYPES:
        faults.add("content_type", f"must be one of {', '.join(sorted(CONTENT_TYPES))}")
    faults.require("key_jwe", request.key_jwe, longest=LONGEST_JWE)
    read = _request(request, faults)
    external_id = ExternalId(request.external_id)
    return read, Delivery(read.request_id, read.order_id, external_id, request.content_type, request.key_jwe)


def _request(
    request: pb.RetryFulfillmentRequest
    | pb.ReplaceKeyRequest
    | pb.ResendDeliveryEmailRequest
    | pb.DeliverKeyManuallyRequest,
    faults: Faults,
) -> Request:
    request_id = faults.request_id(request.request_id)
    faults.identifier("order_id", request.order_id)
    check_actor(request.actor, faults)
    faults.require("reason", request.reason)
    faults.raise_if_any()
    return Request(request_id, OrderId(request.order_id), Asked(request.actor, request.reason))


def check_actor(actor: actor_pb2.Actor, faults: Faults) -> None:
    """Demand somebody who may be held to it: a member of the staff, or a program."""
    if actor.type not in {actor_pb2.ACTOR_TYPE_ADMIN, actor_pb2.ACTOR_TYPE_SERVICE}:
        faults.add("actor.type", "must be ACTOR_TYPE_ADMIN or ACTOR_TYPE_SERVICE")
    faults.require("actor.id", actor.id)


def record_to_proto(record: PaymentRecord) -> pb.PaymentRecord:
    """Render a payment."""
    ended = f"PAYMENT_CLOSURE_{record.closure or 'UNSPECIFIED'}"
    return pb.PaymentRecord(
        payment=_payment_to_proto(record.payment),
        create_time=timestamp(record.create_time),
        matched=record.is_matched,
        refunds=[_refund_to_proto(refund) for refund in record.refunds],
        told_order_id=record.payment.told_order_id or "",
        close_time=None if record.close_time is None else timestamp(record.close_time),
        closure=pb.PaymentClosure.Value(ended),
        close_note=record.close_note,
    )


def _payment_to_proto(payment: Payment) -> fulfillment_pb2.Payment:
    return fulfillment_pb2.Payment(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        provider=payment.provider,
        amount=amount_to_proto(payment.amount),
        confirm_time=timestamp(payment.confirm_time),
    )


def _refund_to_proto(refund: Refund) -> fulfillment_pb2.Refund:
    return fulfillment_pb2.Refund(
        refund_id=refund.refund_id,
        payment_id=refund.payment_id,
        provider=refund.provider,
        amount=amount_to_proto(refund.amount),
        item_ids=refund.item_ids,
        refund_time=timestamp(refund.refund_time),
        chargeback=refund.is_chargeback,
        refund_request_ids=refund.request_ids,
    )
