"""The one error type of the system: what a caller may be told, and nothing else.

Two powers: it crosses gRPC both ways without losing its reason (google.rpc.Status with one ErrorInfo, AIP-193), and
the edge renders it as a problem document. Two losses: what caused it (`raise … from`) stays in this process's log,
and on the other side it comes back as `RemoteError`, whatever class it was here.

A service names its own reasons in its `errors.py` as subclasses. A reason is never renamed; each has its row in
docs/errors.md. Make a new one only where somebody acts on the difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "keyferry"
STATUS_TRAILER = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A fault in one field of a request: its path, and what to do about it."""

    field: str
    description: str


class KeyferryError(Exception):
    """An error whose message and metadata may be shown to the caller. Neither may ever hold a secret."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
        field_violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.field_violations = tuple(field_violations)


class InvalidRequest(KeyferryError):
    """A field of the request is missing or wrong; nothing was done."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequest":
        """Return the error for one field."""
        return cls(f"{field}: {description}", field_violations=[FieldViolation(field, description)])

    @classmethod
    def of_all(cls, violations: Sequence[FieldViolation]) -> "InvalidRequest":
        """Return the error for several fields at once."""
        listing = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        return cls(listing, field_violations=violations)


class RequestIdReused(KeyferryError):
    """The request id was used before with another body; nothing was done."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class IdentityUnknown(KeyferryError):
    """The caller's certificate names no identity of this system."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "IDENTITY_UNKNOWN"


class MethodNotAllowed(KeyferryError):
    """The caller's identity may not call this method."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "METHOD_NOT_ALLOWED"


class DeadlineTooShort(KeyferryError):
    """Too little time is left to do anything that could be finished; nothing was begun."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class ServiceUnavailable(KeyferryError):
    """Something this service needs does not answer. Nothing was decided: the same request may be repeated."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"


class RemoteError(KeyferryError):
    """An error that another service answered with."""

    def __init__(self, message: str, *, code: grpc.StatusCode, reason: str, **rest: object) -> None:
        super().__init__(message, **rest)  # type: ignore[arg-type] # the keywords of KeyferryError, passed on
        self.code = code  # type: ignore[misc] # a class constant elsewhere; here it came over the wire
        self.reason = reason  # type: ignore[misc] # same


def error_to_status(error: KeyferryError) -> status_pb2.Status:
    """Render an error as google.rpc.Status (AIP-193)."""
    details: list[any_pb2.Any] = []

    def attach(
        detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest,
    ) -> None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        details.append(packed)

    attach(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        attach(retry)
    if error.field_violations:
        attach(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=fault.field, description=fault.description)
                    for fault in error.field_violations
                ]
            )
        )
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=details)


def error_from_status(status: status_pb2.Status) -> RemoteError:
    """Read an error that another service sent; one without our details has its code's name as reason."""
    code = _status_code(status.code)
    reason, metadata = code.name, dict[str, str]()
    retry_after: timedelta | None = None
    violations: list[FieldViolation] = []
    for detail in status.details:
        info, retry, bad = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
            error_details_pb2.BadRequest(),
        )
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
        elif detail.Unpack(bad):
            violations += [FieldViolation(fault.field, fault.description) for fault in bad.field_violations]
    return RemoteError(
        status.message,
        code=code,
        reason=reason,
        metadata=metadata,
        retry_after=retry_after,
        field_violations=violations,
    )


def error_from_call(error: grpc.aio.AioRpcError) -> RemoteError:
    """Read the error of a failed call, with the details that the server sent or without."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_TRAILER and isinstance(value, bytes):
            try:
                return error_from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code = error.code()
    reason = "SERVICE_UNAVAILABLE" if code is grpc.StatusCode.UNAVAILABLE else code.name
    return RemoteError(error.details() or code.name, code=code, reason=reason)


def _status_code(number: int) -> grpc.StatusCode:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code
    return grpc.StatusCode.UNKNOWN
