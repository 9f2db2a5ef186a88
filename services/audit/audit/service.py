"""The gRPC servicer of the log: convert, one use case, render."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from chassis.identity import caller_identity
from chassis.paging import page_size
from keyferry.audit.v1 import audit_service_pb2 as pb
from keyferry.audit.v1 import audit_service_pb2_grpc as rpc

from audit.appending import GroupAppender
from audit.checkpointing import Checkpoints
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
from audit.convert_tree import checkpoint_to_proto, progress_to_proto
from audit.erasing import erase_customer
from audit.exporting import export_entries
from audit.listing import DEFAULT_PAGE, LARGEST_PAGE, list_entries
from audit.ports import Log, Notary, PersonKeys
from audit.proving import Prover
from audit.verifying import Verifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AuditService"].full_name


class AuditServicer(rpc.AuditServiceServicer):
    """Serves keyferry.audit.v1.AuditService."""

    def __init__(
        self,
        appender: GroupAppender,
        log: Log,
        keys: PersonKeys,
        *,
        checkpoints: Checkpoints,
        notary: Notary,
        prover: Prover,
        verifier: Verifier,
    ) -> None:
        self._appender = appender
        self._log = log
        self._keys = keys
        self._checkpoints = checkpoints
        self._notary = notary
        self._prover = prover
        self._verifier = verifier

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
    ) -> "AsyncIterator[pb.ExportEntriesResponse]":
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

    async def GetCheckpoint(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetCheckpointRequest,  # noqa: ARG002 # it asks for nothing in particular
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetCheckpointResponse:
        """Sign what the log is now."""
        return checkpoint_to_proto(await self._checkpoints.present(), self._notary.verifier_keys)

    async def GetInclusionProof(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetInclusionProofRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetInclusionProofResponse:
        """Prove that an entry is in the log."""
        leaf_hash, hashes = await self._prover.inclusion(request.sequence, request.tree_size)
        return pb.GetInclusionProofResponse(leaf_hash=leaf_hash, hashes=hashes)

    async def GetConsistencyProof(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetConsistencyProofRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetConsistencyProofResponse:
        """Prove that the log of one size is the beginning of the log of another."""
        hashes = await self._prover.consistency(request.first_tree_size, request.second_tree_size)
        return pb.GetConsistencyProofResponse(hashes=hashes)

    async def VerifyLog(  # noqa: N802 # the name in the contract
        self,
        request: pb.VerifyLogRequest,  # noqa: ARG002 # it asks for nothing in particular
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> "AsyncIterator[pb.VerifyLogResponse]":
        """Walk through the whole log and tell what is wrong with it, if anything is."""
        async with aclosing(self._verifier.verify()) as walk:
            async for progress in walk:
                yield progress_to_proto(progress)
