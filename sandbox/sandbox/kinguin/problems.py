"""How the supplier says no: one exception, and the body it becomes."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal

from sandbox.kinguin.garbling import BodyShape

ProblemKind = Literal[
    "ConstraintViolation",
    "Error",
    "HttpClient",
    "Http",
    "Authorization",
    "InsufficientBalance",
    "OrderFailed",
    "Preorder",
    "ProductUnavailable",
    "OrderNotFound",
    "ResourceLock",
    "OrderNotSupported",
    "NoKeysToReturn",
]

# A body must not grow with what somebody sent us.
_MOST_ECHOED = 200


class Refusal(Exception):
    """The supplier refuses a request: a kind, an HTTP status, a sentence that says why; `shape` garbles its body."""

    def __init__(
        self,
        kind: ProblemKind,
        status: int,
        detail: str,
        *,
        property_path: str | None = None,
        invalid_value: object = None,
        headers: Mapping[str, str] | None = None,
        shape: BodyShape | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = status
        self.detail = detail
        self.property_path = property_path
        self.invalid_value = invalid_value
        self.headers = dict(headers or {})
        self.shape = shape


def violation(detail: str, path: str, value: object = None, *, status: int = HTTPStatus.BAD_REQUEST) -> Refusal:
    """Make the refusal of one field. 400 unless told otherwise."""
    return Refusal("ConstraintViolation", status, detail, property_path=path, invalid_value=value)


def problem_json(refusal: Refusal, *, path: str, method: str, trace: str, timestamp: str) -> dict[str, object]:
    """Render the body of a refusal.

    A 401 has `type` where all others have `title`: error bodies vary, and those who read them must bear it (K3).
    """
    title = _title(refusal.status)
    body: dict[str, object] = {
        "kind": refusal.kind,
        "status": refusal.status,
        "type" if refusal.status == HTTPStatus.UNAUTHORIZED else "title": title,
        "detail": refusal.detail,
        "path": path[:_MOST_ECHOED],
        "method": method,
        "trace": trace,
        "timestamp": timestamp,
    }
    if refusal.property_path is not None:
        body["propertyPath"] = refusal.property_path
        body["invalidValue"] = _echo(refusal.invalid_value)
    return body


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _echo(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    return str(value)[:_MOST_ECHOED]
