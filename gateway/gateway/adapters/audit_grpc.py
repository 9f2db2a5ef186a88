"""Checkpoints of the audit log, over gRPC to audit."""

from typing import TYPE_CHECKING

import grpc
from chassis.clock import Clock
from keyferry.audit.v1 import audit_service_pb2 as messages
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub

if TYPE_CHECKING:
    from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceAsyncStub

READ_SECONDS = 5.0
# Anybody may ask, as often as they like: audit signs for all of them at once.
KEPT_SECONDS = 5.0


class GrpcCheckpoints:
    """Implements `Checkpoints`."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub: AuditServiceAsyncStub = AuditServiceStub(channel)
        self._clock = clock
        self._note = ""
        self._kept_until = 0.0

    async def newest(self) -> str:
        """Return the checkpoint of the log as it is, or was seconds ago."""
        if not self._note or self._clock.elapsed() >= self._kept_until:
            response = await self._stub.GetCheckpoint(messages.GetCheckpointRequest(), timeout=READ_SECONDS)
            self._note, self._kept_until = response.note, self._clock.elapsed() + KEPT_SECONDS
        return self._note
