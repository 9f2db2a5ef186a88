"""The switch of buying, between the contract and the domain."""

from chassis.request_log import request_digest
from chassis.validation import Faults
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2

from kinguin_gateway.domain.switching import BuyingStatus, PauseCause
from kinguin_gateway.ports.switch import SwitchOrder

_CAUSES = {
    PauseCause.NONE: pb.PAUSE_CAUSE_UNSPECIFIED,
    PauseCause.OPERATOR: pb.PAUSE_CAUSE_OPERATOR,
    PauseCause.INSUFFICIENT_BALANCE: pb.PAUSE_CAUSE_INSUFFICIENT_BALANCE,
    PauseCause.UNAUTHORIZED: pb.PAUSE_CAUSE_UNAUTHORIZED,
}


def switch_order_from_proto(request: pb.PauseBuyingRequest | pb.ResumeBuyingRequest) -> SwitchOrder:
    """Return what a person decides. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    check_actor(faults, request.actor)
    reason = faults.require("reason", request.reason)
    faults.raise_if_any()
    return SwitchOrder(request_id, request_digest(request), request.actor, reason)


def check_actor(faults: Faults, actor: actor_pb2.Actor) -> None:
    """Demand an actor that can be told apart from others."""
    if actor.type == actor_pb2.ACTOR_TYPE_UNSPECIFIED:
        faults.add("actor.type", "is required")
    faults.require("actor.id", actor.id)


def status_to_proto(status: BuyingStatus) -> pb.BuyingStatus:
    """Render whether we buy."""
    message = pb.BuyingStatus(
        paused=status.paused,
        cause=_CAUSES[status.cause],
        reason=status.reason,
        parked_count=status.parked_count,
    )
    message.change_time.FromDatetime(status.change_time)
    if status.caution_end is not None:
        message.caution_end_time.FromDatetime(status.caution_end)
    return message
