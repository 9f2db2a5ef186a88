"""Listings of purchases and returns, between the contract and the domain."""

from chassis.validation import Faults
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb

from kinguin_gateway.convert import (
    STATES_TO_PROTO,
    check_external_id,
    euro,
    given_time,
    problem_to_proto,
    purchase_to_proto,
)
from kinguin_gateway.domain.returning import KeyReturn, ReturnState
from kinguin_gateway.listing import ListedPurchase, PurchasePage
from kinguin_gateway.ports.purchases import PurchaseFilter

_STATES_FROM_PROTO = {number: state for state, number in STATES_TO_PROTO.items()}
_RETURN_STATES = {
    ReturnState.ASKED: pb.KEY_RETURN_STATE_ASKED,
    ReturnState.ACCEPTED: pb.KEY_RETURN_STATE_ACCEPTED,
    ReturnState.RETURNED: pb.KEY_RETURN_STATE_RETURNED,
    ReturnState.REFUNDED: pb.KEY_RETURN_STATE_REFUNDED,
    ReturnState.REFUSED: pb.KEY_RETURN_STATE_REFUSED,
}


def purchase_filter_from_proto(request: pb.ListPurchasesRequest) -> PurchaseFilter:
    """Return which purchases are wanted. Raises InvalidRequest with every fault."""
    faults = Faults()
    if request.order_id:
        faults.require("order_id", request.order_id)
    if request.state and request.state not in _STATES_FROM_PROTO:
        faults.add("state", "must be a state of purchases, or absent")
    start_time = faults.moment("start_time", given_time(request, "start_time"))
    end_time = faults.moment("end_time", given_time(request, "end_time"))
    faults.raise_if_any()
    state = _STATES_FROM_PROTO.get(request.state)
    return PurchaseFilter(request.order_id, state, request.parked, start_time, end_time)


def page_to_proto(page: PurchasePage) -> pb.ListPurchasesResponse:
    """Render a page of purchases."""
    purchases = [listed_to_proto(listed) for listed in page.purchases]
    return pb.ListPurchasesResponse(purchases=purchases, next_page_token=page.next_page_token)


def listed_to_proto(listed: ListedPurchase) -> pb.Purchase:
    """Render a purchase with its returns."""
    message = purchase_to_proto(listed.purchase)
    for each in listed.returns:
        if each.surplus:
            message.surplus_order_ids.append(each.supplier_order_id)
            message.surplus_returns.append(key_return_to_proto(each))
        else:
            message.key_return.CopyFrom(key_return_to_proto(each))
    return message


def return_from_proto(request: pb.ReturnKeysRequest) -> tuple[str, str, str]:
    """Return external id, supplier order id and request id. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    external_id = check_external_id(faults, request.external_id)
    if request.supplier_order_id:
        faults.require("supplier_order_id", request.supplier_order_id)
    faults.raise_if_any()
    return external_id, request.supplier_order_id, request_id


def key_return_to_proto(key_return: KeyReturn) -> pb.KeyReturn:
    """Render how far a return is."""
    message = pb.KeyReturn(
        supplier_order_id=key_return.supplier_order_id,
        state=_RETURN_STATES[key_return.state],
        returned_count=key_return.returned_count,
        refunded_count=key_return.refunded_count,
        charged_amount=euro(key_return.charged_cents),
        refunded_amount=euro(key_return.refunded_cents),
    )
    if key_return.state is ReturnState.REFUSED:
        message.refusal.CopyFrom(problem_to_proto(key_return.refusal))
    message.create_time.FromDatetime(key_return.create_time)
    return message
