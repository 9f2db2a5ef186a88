"""Requests and answers about what is kept of keys, for how long, and of whom."""

from chassis.request_log import request_digest
from chassis.validation import Faults
from keyferry.vault.v1 import vault_service_pb2 as pb

from vault.convert import sealed_key_to_proto, timestamp
from vault.domain.delivery import Act, Delivery
from vault.erasing import Erased, EraseRequest
from vault.listing import DeliveryLog
from vault.ports import Wish
from vault.sweeping import Swept

_ACTS = {
    Act.STORED: pb.DELIVERY_ACT_STORED,
    Act.LINK_ISSUED: pb.DELIVERY_ACT_LINK_ISSUED,
    Act.REVEALED: pb.DELIVERY_ACT_REVEALED,
    Act.REVOKED: pb.DELIVERY_ACT_REVOKED,
    Act.EXPIRED: pb.DELIVERY_ACT_EXPIRED,
    Act.SHREDDED: pb.DELIVERY_ACT_SHREDDED,
}


def sweep_request_from_proto(request: pb.SweepExpiredRequest) -> tuple[str, bytes]:
    """Read a request to sweep: its id and its digest. Raises InvalidRequest."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.raise_if_any()
    return request_id, request_digest(request)


def swept_to_proto(swept: Swept) -> pb.SweepExpiredResponse:
    """Render what was swept."""
    return pb.SweepExpiredResponse(
        expired_count=swept.expired_count, deleted_object_count=swept.deleted_object_count, more=swept.more
    )


def erase_request_from_proto(request: pb.EraseCustomerRequest, caller: str) -> EraseRequest:
    """Read a request to forget a customer. Raises InvalidRequest with every fault."""
    faults = Faults()
    wish = Wish(faults.request_id(request.request_id), caller, faults.require("reason", request.reason))
    faults.require("customer_id", request.customer_id)
    faults.raise_if_any()
    return EraseRequest(wish, request_digest(request), request.customer_id, request.forfeit_unopened)


def erased_to_proto(erased: Erased) -> pb.EraseCustomerResponse:
    """Render what was done to forget a customer."""
    return pb.EraseCustomerResponse(
        shredded_count=erased.shredded_count,
        kept_count=erased.kept_count,
        object_pending_count=erased.object_pending_count,
    )


def delivery_log_to_proto(log: DeliveryLog) -> pb.GetDeliveryLogResponse:
    """Render a key's delivery log."""
    return pb.GetDeliveryLogResponse(
        key=sealed_key_to_proto(log.record), deliveries=map(_delivery_to_proto, log.deliveries)
    )


def _delivery_to_proto(delivery: Delivery) -> pb.Delivery:
    return pb.Delivery(
        act=_ACTS[delivery.act],
        time=timestamp(delivery.time),
        caller=delivery.caller,
        request_id=delivery.request_id,
        network=delivery.network,
        device=delivery.device,
        reason=delivery.reason,
    )
