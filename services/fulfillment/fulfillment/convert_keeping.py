"""Requests and answers about what was done with keys, and about customers who are forgotten."""

from chassis.validation import Faults
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb

from fulfillment.convert_admin import check_actor
from fulfillment.domain.model import KeyId, OrderId
from fulfillment.erasing import ErasedCustomer, ErasureWish
from fulfillment.facts import timestamp
from fulfillment.operating import Asked
from fulfillment.ports.keeping import Delivery, DeliveryLog


def log_from_proto(request: pb.GetDeliveryLogRequest) -> tuple[OrderId, KeyId]:
    """Read of which key the delivery log is asked for. Raises InvalidRequest with every fault."""
    faults = Faults()
    faults.identifier("order_id", request.order_id)
    faults.identifier("key_id", request.key_id)
    faults.raise_if_any()
    return OrderId(request.order_id), KeyId(request.key_id)


def log_to_proto(log: DeliveryLog) -> pb.GetDeliveryLogResponse:
    """Render a key's delivery log."""
    return pb.GetDeliveryLogResponse(
        deliveries=map(_delivery_to_proto, log.deliveries), link_count=log.link_count, reveal_count=log.reveal_count
    )


def _delivery_to_proto(delivery: Delivery) -> pb.Delivery:
    return pb.Delivery(
        act=pb.DeliveryAct.Value(f"DELIVERY_ACT_{delivery.act}"),
        time=timestamp(delivery.time),
        caller=delivery.caller,
        request_id=delivery.request_id,
        network=delivery.network,
        device=delivery.device,
        reason=delivery.reason,
    )


def erasure_from_proto(request: pb.EraseCustomerRequest) -> ErasureWish:
    """Read a wish to forget a customer. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.require("customer_id", request.customer_id)
    check_actor(request.actor, faults)
    faults.require("reason", request.reason)
    faults.raise_if_any()
    asked = Asked(request.actor, request.reason)
    return ErasureWish(request_id, request.customer_id, request.forfeit_unopened, asked)


def erased_to_proto(wish: ErasureWish, erased: ErasedCustomer) -> pb.EraseCustomerResponse:
    """Render what was done to forget a customer."""
    return pb.EraseCustomerResponse(
        pseudonym=wish.pseudonym,
        order_count=erased.order_count,
        kept_order_count=erased.kept_order_count,
        shredded_key_count=erased.keys.shredded_count,
        kept_key_count=erased.keys.kept_count,
    )
