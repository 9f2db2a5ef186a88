"""Fetches the audit log into a file, going on where a broken stream left off."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import grpc
from chassis.channel import open_channel
from chassis.errors import RemoteError
from chassis.tls import TlsFiles
from keyferry.audit.v1.audit_service_pb2 import ExportEntriesRequest
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub

if TYPE_CHECKING:
    from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceAsyncStub

# A stream may break for good reasons, a replica that drains for one; one that brings nothing so often is not well.
MOST_BREAKS_WITHOUT_PROGRESS = 5
# For the connection that comes back, and for the largest log within one stream.
STREAM_SECONDS = 600.0
_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


class ExportBroken(Exception):
    """The export did not come to its end."""


async def export_to(output: Path, *, addresses: Sequence[str], tls: TlsFiles, end: int | None) -> int:
    """Write entries 0 to before `end`, or all there are, and return how many. The file appears once it is whole."""
    part = output.with_name(f"{output.name}.part")
    async with open_channel(addresses, peer="audit", tls=tls) as channel:
        with part.open("wb") as file:
            reached = await _fetch(AuditServiceStub(channel), file, end)
    if end is not None and reached != end:
        raise ExportBroken(
            f"the log ends after {reached} entries; {end} were asked for, and {part} holds what there is"
        )
    part.replace(output)
    return reached


async def _fetch(stub: "AuditServiceAsyncStub", file: BinaryIO, end: int | None) -> int:
    reached, breaks = 0, 0
    while True:
        try:
            request = ExportEntriesRequest(start_sequence=reached, end_sequence=end)
            async for chunk in stub.ExportEntries(request, timeout=STREAM_SECONDS, wait_for_ready=True):
                file.write(chunk.lines)
                reached, breaks = chunk.next_sequence, 0
        except RemoteError as error:
            breaks += 1
            if error.code not in _PASSING or breaks >= MOST_BREAKS_WITHOUT_PROGRESS:
                raise
        else:
            return reached
