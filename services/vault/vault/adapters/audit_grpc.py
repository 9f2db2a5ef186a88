"""The audit service over gRPC."""

import uuid

import grpc
import structlog
from chassis.errors import KeyferryError, RequestIdReused
from chassis.failpoints import repeatable
from keyferry.audit.v1.audit_service_pb2 import AppendEntryRequest
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from keyferry.type.v1 import actor_pb2

from vault.errors import AuditUnavailable
from vault.ports import Viewer

logger = structlog.get_logger(__name__)

# A customer is waiting; audit answers within milliseconds or not at all.
APPEND_SECONDS = 5.0
# Ids of appends are derived from the customer's request, so that its repeat is the same append.
_NAMESPACE = uuid.UUID("0f4d2c68-8a0b-4d4e-9a37-0b1c6c1e5a2f")


class GrpcAuditLog:
    """The log that is written first."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = AuditServiceStub(channel)

    async def append(self, action: str, *, request_id: str, viewer: Viewer, order_id: str, key_id: str) -> int:
        """Append an entry and return its sequence once it is durable.

        Raises AuditUnavailable, or RequestIdReused for a request that stands in the log as another person's or place's:
        whatever goes wrong, nothing may be released.
        """
        request = AppendEntryRequest(
            request_id=str(uuid.uuid5(_NAMESPACE, f"{action}/{request_id}/{key_id}/{viewer.customer_id}")),
            actor=actor_pb2.Actor(
                type=actor_pb2.ACTOR_TYPE_CUSTOMER,
                id=viewer.customer_id,
                email=viewer.email,
                ip_address=viewer.ip_address,
                user_agent=viewer.user_agent,
            ),
            action=action,
            order_id=order_id,
            key_id=key_id,
            details={"request_id": request_id},
        )
        try:
            return (
                await repeatable("vault.release.audit", lambda: self._stub.AppendEntry(request, timeout=APPEND_SECONDS))
            ).sequence
        except KeyferryError as error:
            if error.reason == RequestIdReused.reason:
                # The same request from another address, or by another browser: an entry says who it was the first time.
                raise RequestIdReused(
                    "request_id: was used by another caller; use a new id for a new request"
                ) from error
            logger.warning("the audit log took no entry", code=error.code.name, reason=error.reason)
            raise AuditUnavailable("the audit log does not answer; no key is opened without it") from error
