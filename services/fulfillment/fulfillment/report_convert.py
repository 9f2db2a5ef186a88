"""Reports and differences: the contract on one side, its own words on the other."""

from chassis.errors import InvalidRequest
from chassis.money import Money, money_to_proto
from chassis.validation import Faults
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2, money_pb2

from fulfillment.domain.reconciliation import LONGEST_RANGE, Fix, Kind, Range, Statement, fix_of
from fulfillment.facts import timestamp
from fulfillment.ports.reconciliation import Difference, Report, ReportState

_STATES = {
    ReportState.RUNNING: pb.REPORT_STATE_RUNNING,
    ReportState.DONE: pb.REPORT_STATE_DONE,
    ReportState.FAILED: pb.REPORT_STATE_FAILED,
}
_FIXES = {
    Fix.WAIT: pb.FIX_WAIT,
    Fix.RETRY: pb.FIX_RETRY,
    Fix.REFUND: pb.FIX_REFUND,
    Fix.RETURN: pb.FIX_RETURN,
    Fix.RECORD_TOP_UP: pb.FIX_RECORD_TOP_UP,
    Fix.RESEND_EMAIL: pb.FIX_RESEND_EMAIL,
    Fix.RESUBMIT: pb.FIX_RESUBMIT,
    Fix.INVESTIGATE: pb.FIX_INVESTIGATE,
}


def span_from_proto(request: pb.ReconcilePaymentsRequest) -> tuple[str, Range]:
    """Return the request id and the range. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    start = faults.moment("start_time", request.start_time if request.HasField("start_time") else None)
    end = faults.moment("end_time", request.end_time if request.HasField("end_time") else None)
    if start is None and not request.HasField("start_time"):
        faults.add("start_time", "is required")
    if end is None and not request.HasField("end_time"):
        faults.add("end_time", "is required")
    if start is not None and end is not None and not start < end <= start + LONGEST_RANGE:
        faults.add("end_time", f"must be after start_time, by at most {LONGEST_RANGE.days} days")
    if request.actor.type == actor_pb2.ACTOR_TYPE_UNSPECIFIED or not request.actor.id:
        faults.add("actor", "must have a type and an id")
    faults.raise_if_any()
    if start is None or end is None:
        raise InvalidRequest.of("start_time", "is required")
    return request_id, Range(start, end)


def kind_from_proto(kind: str) -> Kind | None:
    """Read a filter. Raises InvalidRequest for what is no kind."""
    try:
        return Kind(kind) if kind else None
    except ValueError:
        raise InvalidRequest.of("kind", "must be a kind of differences, or empty") from None


def report_to_proto(report: Report) -> pb.Report:
    """Render a report."""
    message = pb.Report(
        report_id=report.report_id,
        start_time=timestamp(report.span.start),
        end_time=timestamp(report.span.end),
        state=_STATES[report.state],
        create_time=timestamp(report.create_time),
        counts=pb.ReportCounts(**report.counts),
        differences=report.differences,
        mended_count=report.mended_count,
        # Of one that runs: why it was tried again.
        failure=report.failure if report.state is ReportState.FAILED else "",
    )
    if report.finish_time is not None:
        message.finish_time.CopyFrom(timestamp(report.finish_time))
    if report.balance is not None:
        message.balance.CopyFrom(_balance(report.balance))
    return message


def _balance(statement: Statement) -> pb.BalanceAccount:
    return pb.BalanceAccount(
        opening=None if statement.opening is None else _euros(statement.opening),
        top_ups=_euros(statement.top_ups),
        charges=_euros(statement.charges),
        refunds=_euros(statement.refunds),
        closing=_euros(statement.closing),
        unexplained=_euros(statement.unexplained),
    )


def _euros(cents: int) -> money_pb2.Money:
    return money_to_proto(Money("EUR", cents))


def difference_to_proto(difference: Difference) -> pb.Difference:
    """Render a difference."""
    return pb.Difference(
        kind=str(difference.kind),
        order_id=difference.order_id,
        external_id=difference.external_id,
        supplier_order_id=difference.supplier_order_id,
        key_id=difference.key_id,
        payment_id=difference.payment_id,
        expected=difference.expected,
        found=difference.found,
        fix=_FIXES[fix_of(difference.kind, difference.found)],
        mended=difference.mended,
    )
