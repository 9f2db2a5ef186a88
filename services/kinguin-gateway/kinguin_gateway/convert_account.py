"""Our account at the supplier, between the contract and the domain."""

from datetime import UTC

from chassis.request_log import request_digest
from chassis.validation import Faults
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb

from kinguin_gateway.accounting import TopUpPage
from kinguin_gateway.convert import EURO, euro, given_time
from kinguin_gateway.convert_switch import check_actor, status_to_proto
from kinguin_gateway.domain.account import Balance, TopUp
from kinguin_gateway.ports.account import TopUpFilter, TopUpOrder
from kinguin_gateway.reading import Check

# More than any shop keeps at a supplier; what is above is a slip of the keyboard.
MOST_TOP_UP_CENTS = 100_000_000_00


def top_up_from_proto(request: pb.RecordTopUpRequest) -> TopUpOrder:
    """Return what was added. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    check_actor(faults, request.actor)
    amount = request.amount.minor_units
    if request.amount.currency_code != EURO:
        faults.add("amount.currency_code", "must be EUR, the account's only currency")
    if not amount or abs(amount) > MOST_TOP_UP_CENTS:
        faults.add("amount.minor_units", f"must be 1 to {MOST_TOP_UP_CENTS}, or negative to correct an earlier one")
    if not request.HasField("top_up_time"):
        faults.add("top_up_time", "is required")
    time = faults.moment("top_up_time", request.top_up_time)
    reference = faults.require("reference", request.reference)
    faults.raise_if_any()
    top_up = TopUp(amount, time or request.top_up_time.ToDatetime(UTC), reference)
    return TopUpOrder(request_id, request_digest(request), request.actor, top_up)


def top_up_filter_from_proto(request: pb.ListTopUpsRequest) -> TopUpFilter:
    """Return which top-ups are wanted. Raises InvalidRequest with every fault."""
    faults = Faults()
    start_time = faults.moment("start_time", given_time(request, "start_time"))
    end_time = faults.moment("end_time", given_time(request, "end_time"))
    faults.raise_if_any()
    return TopUpFilter(start_time, end_time)


def top_up_page_to_proto(page: TopUpPage) -> pb.ListTopUpsResponse:
    """Render a page of top-ups."""
    top_ups = [_top_up_to_proto(top_up) for top_up in page.top_ups]
    return pb.ListTopUpsResponse(top_ups=top_ups, next_page_token=page.next_page_token)


def _top_up_to_proto(top_up: TopUp) -> pb.TopUp:
    message = pb.TopUp(top_up_id=top_up.top_up_id, amount=euro(top_up.amount_cents), reference=top_up.reference)
    message.top_up_time.FromDatetime(top_up.top_up_time)
    return message


def balance_to_proto(balance: Balance) -> pb.GetBalanceResponse:
    """Render the balance."""
    message = pb.GetBalanceResponse(
        balance=euro(balance.reading.balance_cents),
        daily_charge=euro(balance.daily_cents),
        days_left=balance.days_left,
        low=balance.low,
    )
    message.read_time.FromDatetime(balance.reading.read_time)
    return message


def check_to_proto(check: Check) -> pb.CheckSupplierResponse:
    """Render the supplier's health."""
    message = pb.CheckSupplierResponse(
        reachable=check.health.reachable,
        authorized=check.health.authorized,
        balance=euro(check.health.balance_cents),
        detail=check.health.detail,
        buying=status_to_proto(check.buying),
        breaker_open=check.breaker_open,
    )
    if check.last_webhook_time is not None:
        message.last_webhook_time.FromDatetime(check.last_webhook_time)
    message.latency.FromTimedelta(check.latency)
    return message
