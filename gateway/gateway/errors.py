"""The edge's own reasons. Each has its row in docs/errors.md; those of other services pass through unchanged."""

from typing import ClassVar

import grpc
from chassis.errors import KeyferryError


class EdgeError(KeyferryError):
    """An error that the edge itself answers with.

    `http_status` is set where HTTP is more exact than the gRPC code, `field` where it is always the same part of the
    request that is at fault.
    """

    http_status: ClassVar[int | None] = None
    field: ClassVar[str | None] = None


class LoginRequired(EdgeError):
    """Neither a token nor a session came with the request."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "LOGIN_REQUIRED"


class TokenInvalid(EdgeError):
    """The token is malformed, expired, foreign or not for us."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "TOKEN_INVALID"
    field = "authorization"


class LoginFailed(EdgeError):
    """The login at the issuer was refused, took too long, or its answer does not belong to this browser."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "LOGIN_FAILED"
    http_status = 400


class IssuerUnavailable(EdgeError):
    """The OIDC issuer does not answer, so that nobody new can be let in."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "ISSUER_UNAVAILABLE"


class CsrfRejected(EdgeError):
    """The request carries a session but does not prove that one of our own pages made it."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "CSRF_REJECTED"


class WebhookRefused(EdgeError):
    """The webhook's proof is missing or wrong; nothing was read from it."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "WEBHOOK_REFUSED"
    field = "x-event-secret"


class EventsUnavailable(EdgeError):
    """JetStream did not confirm the event, so it must come again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "EVENTS_UNAVAILABLE"


class MalformedBody(EdgeError):
    """The body is not what its content type says."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "MALFORMED_BODY"


class BodyTooLarge(EdgeError):
    """The body is longer than anything this edge has a use for."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "BODY_TOO_LARGE"
    field = "body"
    http_status = 413


class BodyTooSlow(EdgeError):
    """The body did not arrive in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "BODY_TOO_SLOW"
    field = "body"
    http_status = 408


class RateLimited(EdgeError):
    """Too many requests of one customer or address; nothing was done."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"


class RouteUnknown(EdgeError):
    """There is nothing at this address."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "ROUTE_UNKNOWN"


class MethodUnsupported(EdgeError):
    """The address exists, but not with this HTTP method."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "METHOD_UNSUPPORTED"
    http_status = 405
