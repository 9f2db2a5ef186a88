"""The only renderer of public errors: RFC 9457 problem documents for programs, a plain notice for people.

What may be shown is a KeyferryError's message, reason, metadata and fields. Anything else, and any sign that the edge
itself is set up wrongly, becomes INTERNAL without its text. That something is lost is said by its reason.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import structlog
from chassis.errors import FieldViolation, InvalidRequest, KeyferryError, RemoteError
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from gateway.auth.session import COOKIE
from gateway.edge import edge_of
from gateway.errors import EdgeError, LoginRequired, MalformedBody, MethodUnsupported, RouteUnknown

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# A wait that suits a process being restarted, where the error itself names none.
DEFAULT_RETRY_SECONDS = 2
MAXIMUM_FIELD_NAME = 200

_Code = grpc.StatusCode
HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    _Code.INVALID_ARGUMENT: 400,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNAUTHENTICATED: 401,
    _Code.PERMISSION_DENIED: 403,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.ABORTED: 409,
    _Code.FAILED_PRECONDITION: 409,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.UNAVAILABLE: 503,
    _Code.DEADLINE_EXCEEDED: 504,
}
TITLES: Mapping[int, str] = {
    400: "The request is not valid",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Not supported here",
    408: "Too slow",
    409: "Not possible in the present state",
    413: "Too large",
    429: "Too many requests",
    500: "Something went wrong on our side",
    503: "Temporarily not available",
    504: "Took too long",
}
# Between services these mean that the edge's own identity or rights are wrong: nothing the caller did, nothing to show.
_OUR_FAULT = frozenset({_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED})
# Reasons that gRPC or the chassis gave without a sentence of ours; the text may hold addresses.
_WITHOUT_SENTENCE = frozenset({"SERVICE_UNAVAILABLE", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
_PEOPLE: Mapping[int, str] = {
    401: "Log in to go on.",
    403: "This page was out of date. Go back, reload it and try again.",
    404: "There is nothing at this address, or it belongs to somebody else.",
    408: "The connection is very slow. Please try again.",
    413: "That is more than we can take.",
    429: "That was too much in a short time. Please wait a moment.",
    503: "A part of our system does not answer. Your orders and keys are safe; please try again in a moment.",
    504: "A part of our system is slow to answer. Your orders and keys are safe; please try again in a moment.",
}
_PEOPLE_DEFAULT = "Something went wrong on our side, and it was recorded. Your orders and keys are safe."


def status_of(error: KeyferryError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, EdgeError) and error.http_status is not None:
        return error.http_status
    if isinstance(error, RemoteError) and error.code in _OUR_FAULT:
        return 500
    return HTTP_STATUS.get(error.code, 500)


def document_of(error: KeyferryError, request_id: str) -> dict[str, Any]:
    """Return the problem document of an error."""
    status = status_of(error)
    # The one status whose text stays inside, except where what a customer paid for is lost: they are to know.
    public = status != 500 or error.code is _Code.DATA_LOSS  # noqa: PLR2004
    told = public and error.reason not in _WITHOUT_SENTENCE
    reason = error.reason if public else "INTERNAL"
    document: dict[str, Any] = {
        "type": f"urn:keyferry:reason:{reason}",
        "title": TITLES.get(status, TITLES[500]),
        "status": status,
        "detail": error.message if told else _PEOPLE.get(status, _PEOPLE_DEFAULT),
        "reason": reason,
        "request_id": request_id,
    }
    if public and (faults := _faults_of(error)):
        document["fields"] = [{"field": fault.field, "description": fault.description} for fault in faults]
    if public and error.metadata:
        document["metadata"] = error.metadata
    return document


def _faults_of(error: KeyferryError) -> Sequence[FieldViolation]:
    if isinstance(error, EdgeError) and error.field is not None and not error.field_violations:
        return [FieldViolation(error.field, error.message)]
    return error.field_violations


def headers_of(error: KeyferryError) -> dict[str, str]:
    """Return the headers that belong to an error: when to come back, and how to log in."""
    status = status_of(error)
    headers = {"cache-control": "no-store"}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after.total_seconds())))
    elif status in (503, 504):
        headers["retry-after"] = str(DEFAULT_RETRY_SECONDS)
    if status == 401 and error.reason in ("LOGIN_REQUIRED", "TOKEN_INVALID"):  # noqa: PLR2004 # RFC 6750 section 3
        headers["www-authenticate"] = "Bearer" + (' error="invalid_token"' if error.reason == "TOKEN_INVALID" else "")
    if "allow" in error.metadata:
        headers["allow"] = error.metadata["allow"]
    return headers


def respond(request: Request, error: KeyferryError) -> Response:
    """Render an error for who asked: a person in a browser, or a program."""
    request_id = str(request.scope.get("request_id", ""))
    status, headers = status_of(error), headers_of(error)
    document = document_of(error, request_id)
    if not _is_page(request):
        return JSONResponse(document, status, headers, media_type=MEDIA_TYPE)
    if isinstance(error, LoginRequired) and request.method == "GET":
        return RedirectResponse(edge_of(request).login_url(request), 303, headers)
    sentence = error.message if status in (400, 409) else _PEOPLE.get(status, _PEOPLE_DEFAULT)
    action, action_url = _way_on(request, status)
    edge = edge_of(request)
    return edge.pages.notice(
        # Who reads this may have the wrong account: it has to be seen, and be left.
        session=edge.sessions.read(request.cookies.get(COOKIE)),
        title=document["title"],
        sentence=sentence[:1].upper() + sentence[1:],
        action_url=action_url,
        action=action,
        reason=document["reason"],
        request_id=request_id,
        status=status,
        headers=headers,
    )


def _way_on(request: Request, status: int) -> tuple[str, str]:
    """Return what a person can do next, and where."""
    if request.method != "GET" or status in (400, 403, 404, 409):
        return "Your orders", "/"
    if request.url.path == "/callback":
        # What the issuer's answer carries is good for one try: the way on is a new login.
        return "Try again", "/login"
    query = f"?{request.url.query}" if request.url.query else ""
    return "Try again", request.url.path + query


async def keyferry_error(request: Request, error: Exception) -> Response:
    """Answer an error that somebody meant."""
    if not isinstance(error, KeyferryError):
        return await unexpected_error(request, error)
    record(error)
    return respond(request, error)


def record(error: KeyferryError) -> None:
    """Log a fault of ours, whose text nobody else gets to see."""
    if status_of(error) == 500:  # noqa: PLR2004 # the one status whose text stays inside
        logger.error("request failed", code=error.code.name, reason=error.reason, detail=error.message)


async def validation_error(request: Request, error: Exception) -> Response:
    """Answer a request whose body, path or query does not have its declared form."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    if any(fault["type"] == "json_invalid" for fault in faults):
        return respond(
            request,
            MalformedBody("the body is not JSON", field_violations=[FieldViolation("body", "is not JSON")]),
        )
    return respond(request, InvalidRequest.of_all([_violation(fault) for fault in faults]))


async def http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown addresses and methods."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    allow = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    match status:
        case 404:
            return respond(request, RouteUnknown("there is nothing at this address"))
        case 405:
            return respond(request, MethodUnsupported("use another method here", metadata={"allow": allow}))
        case 400:
            return respond(
                request,
                MalformedBody("the body cannot be read", field_violations=[FieldViolation("body", "cannot be read")]),
            )
        case _:
            return await unexpected_error(request, error)


async def unexpected_error(request: Request, error: Exception) -> Response:
    """Answer what nobody meant, and log it."""
    logger.error("request failed unexpectedly", exc_info=error)
    return respond(request, KeyferryError("internal error"))


def _violation(fault: Mapping[str, Any]) -> FieldViolation:
    where, *path = [str(part) for part in fault["loc"]]
    # Names that a caller made up may hold what no encoding can carry, and have no end.
    name = (".".join(path) or where).encode("utf-8", "replace").decode()[:MAXIMUM_FIELD_NAME]
    message = str(fault["msg"]).removeprefix("Value error, ")
    return FieldViolation(name, message[:1].lower() + message[1:])


def _is_page(request: Request) -> bool:
    path = request.url.path
    return not path.startswith(("/v1", "/webhooks", "/openapi", "/static")) and "text/html" in request.headers.get(
        "accept", ""
    )
