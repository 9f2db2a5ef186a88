"""The gRPC face of reconciliation: five methods of `FulfillmentAdminService`, to be mixed into its servicer."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
from chassis.clock import Clock
from chassis.errors import InvalidRequest
from chassis.paging import page_size, read_page_token, write_page_token
from chassis.validation import Faults
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb

from fulfillment import report_csv
from fulfillment.answering import once
from fulfillment.ports.reconciliation import Report, Reports
from fulfillment.report_convert import difference_to_proto, kind_from_proto, report_to_proto, span_from_proto
from fulfillment.report_errors import ReportNotFound

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_REPORTS = 20
LARGEST_REPORTS = 100
DEFAULT_DIFFERENCES = 100
LARGEST_DIFFERENCES = 1000
# Whole lines of about 200 bytes: far below gRPC's 4 MiB.
EXPORT_BATCH = 1000
_UNREADABLE = "must be the next_page_token of the page before"


class ReportMethods:
    """Asks for reports and reads them. Whoever mixes it in calls `serve_reports` in its constructor."""

    _reports: Reports
    _report_clock: Clock

    def serve_reports(self, reports: Reports, *, clock: Clock) -> None:
        """Say where reports are kept."""
        self._reports = reports
        self._report_clock = clock

    async def ReconcilePayments(  # noqa: N802 # named by gRPC
        self,
        request: pb.ReconcilePaymentsRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.ReconcilePaymentsResponse:
        """Ask for a report."""
        request_id, span = span_from_proto(request)
        async with self._reports.transaction() as transaction:

            async def ask() -> pb.ReconcilePaymentsResponse:
                now = self._report_clock.now()
                report = await transaction.ask(span, report_id=str(uuid.uuid4()), now=now)
                return pb.ReconcilePaymentsResponse(report=report_to_proto(report))

            return await once(transaction, request_id, request, pb.ReconcilePaymentsResponse, ask)

    async def ListReports(self, request: pb.ListReportsRequest, context: Context) -> pb.ListReportsResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """List reports, newest first."""
        size = page_size(request.page_size, default=DEFAULT_REPORTS, largest=LARGEST_REPORTS)
        place = read_page_token((), request.page_token, parts=2)
        found = await self._reports.page(size=size + 1, after=None if place is None else _read_place(*place))
        shown, last = found[:size], found[size - 1] if len(found) > size else None
        return pb.ListReportsResponse(
            reports=[report_to_proto(each) for each in shown],
            next_page_token=""
            if last is None
            else write_page_token((), [last.create_time.isoformat(), last.report_id]),
        )

    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.GetReportResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Read one report."""
        return pb.GetReportResponse(report=report_to_proto(await self._report(request.report_id)))

    async def ListDifferences(self, request: pb.ListDifferencesRequest, context: Context) -> pb.ListDifferencesResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """List the differences of a report; there are none to be seen before it is finished."""
        report = await self._report(request.report_id)
        kind = kind_from_proto(request.kind)
        size = page_size(request.page_size, default=DEFAULT_DIFFERENCES, largest=LARGEST_DIFFERENCES)
        filters = (report.report_id, request.kind)
        place = read_page_token(filters, request.page_token, parts=1)
        if report.finish_time is None or report.run_id is None:
            return pb.ListDifferencesResponse()
        after = 0 if place is None else _read_position(place[0])
        found = await self._reports.differences(report.run_id, kind=kind, after=after, limit=size + 1)
        token = write_page_token(filters, [str(found[size - 1].position)]) if len(found) > size else ""
        return pb.ListDifferencesResponse(
            differences=[difference_to_proto(each) for each in found[:size]], next_page_token=token
        )

    async def ExportReport(  # noqa: N802 # named by gRPC
        self,
        request: pb.ExportReportRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> AsyncIterator[pb.ExportReportResponse]:
        """Stream the differences of a report as CSV."""
        report = await self._report(request.report_id)
        yield pb.ExportReportResponse(csv=report_csv.header())
        if report.finish_time is None or report.run_id is None:
            return
        after = 0
        while found := await self._reports.differences(report.run_id, kind=None, after=after, limit=EXPORT_BATCH):
            yield pb.ExportReportResponse(csv=report_csv.lines(found))
            after = found[-1].position

    async def _report(self, report_id: str) -> Report:
        faults = Faults()
        faults.identifier("report_id", report_id)
        faults.raise_if_any()
        report = await self._reports.get(report_id)
        if report is None:
            raise ReportNotFound("there is no such report")
        return report


def _read_place(time: str, report_id: str) -> tuple[datetime, str]:
    """Read what a token says; it came from outside and may hold anything."""
    try:
        return datetime.fromisoformat(time).astimezone(UTC), report_id
    except (ValueError, OverflowError):
        raise InvalidRequest.of("page_token", _UNREADABLE) from None


def _read_position(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:  # noqa: PLR2004 # digits of a bigint
        return int(text)
    raise InvalidRequest.of("page_token", _UNREADABLE)
