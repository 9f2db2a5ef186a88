"""The gRPC servicer of the log: convert, one use case, render."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from chassis.identity import caller_identity
from chassis.paging import page_size
from keyferry.audit.v1 import audit_service_pb2 as pb
from keyferry.audit.v1 import audit_service_pb2_grpc as rpc

from audit.appending import GroupAppender
from audit.convert import (
    appended_to_proto,
    chunk_to_proto,
    draft_from_request,
    erased_to_proto,
    erasure_from_request,
    filters_from_request,
    page_to_proto,
    range_from_request,
)
from audit.erasing import erase_customer
from audit.exporting import export_entries
from audit.listing import DEFAULT_PAGE, LARGEST_PAGE, list_entries
from audit.ports import Log, PersonKeys

if TYPE_CHECKING:
    import grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AuditService"].full_name


class AuditServicer(rpc.AuditServiceServicer):
    """Serves keyferry.audit.v1.AuditService."""

    def __init__(self, appender: GroupAppender, log: Log, keys: PersonKeys) -> None:
        self._appender = appender
        self._log = log
        self._keys = keys

    async def AppendEntry(  # noqa: N802 # the name in the contract
        self, request: pb.AppendEntryRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.AppendEntryResponse:
        """Append one entry and answer once it is durable."""
        draft = draft_from_request(request, recorder=caller_identity(context))
        return appended_to_proto(await self._appender.append(draft))

    async def ListEntries(  # noqa: N802 # the name in the contract
        self,
        request: pb.ListEntriesRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ListEntriesResponse:
        """List one page of entries."""
        filters = filters_from_request(request)
        size = page_size(request.page_size, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        page = await list_entries(self._log, self._keys, filters, size=size, token=request.page_token)
        return page_to_proto(page)

    async def ExportEntries(  # noqa: N802 # the name in the contract
        self,
        request: pb.ExportEntriesRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> AsyncIterator[pb.ExportEntriesResponse]:
        """Stream entries as they were hashed."""
        start, end = range_from_request(request)
        async for chunk in export_entries(self._log, start=start, end=end):
            yield chunk_to_proto(chunk)

    async def EraseCustomer(  # noqa: N802 # the name in the contract
        self, request: pb.EraseCustomerRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.EraseCustomerResponse:
        """Forget a customer."""
        erasure = erasure_from_request(request, recorder=caller_identity(context))
        return erased_to_proto(await erase_customer(self._log, self._keys, erasure))
