"""Structured logs on standard output, one JSON object a line, with everything that could be a secret taken out.

Redaction is the second line of defence: the first is that nobody passes a secret, a protobuf message or a request
body here.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from google.protobuf.message import Message
from opentelemetry import trace

from chassis.errors import KeyferryError
from chassis.secret import SecretBytes

REDACTED = "<redacted>"
_SECRET_NAME = re.compile(
    r"(secret|password|passwd|authorization|cookie|token|plaintext|serial|jwe|jwk|api_key|presigned|private|credential|\burl\b)",
    re.IGNORECASE,
)
# A presigned URL's query and a DSN's password are secrets wherever they turn up; so is anything shaped like a JOSE
# object.
_IN_TEXT = (
    (re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']+"), r"\1?" + REDACTED),
    (re.compile(r"(\w+://[^\s:/@\"']*:)[^\s@/\"']+@"), r"\1" + REDACTED + "@"),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){2,4}"), REDACTED),
)
_MOST_LINES = 200
_HARMLESS_TYPES = (bool, int, float, type(None))


def redact_text(text: str) -> str:
    """Return the text without URL queries, passwords in URLs and JOSE objects."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _redact_value(name: str, value: object) -> object:
    if isinstance(value, _HARMLESS_TYPES):
        return value
    if isinstance(value, (bytes, bytearray, memoryview, SecretBytes, Message)) or _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, BaseException):
        return f"{type(value).__qualname__}{_safe_text(value)}"
    if isinstance(value, Mapping):
        return {str(key): _redact_value(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redact_value(name, item) for item in value]
    return redact_text(str(value))


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Clean every field of a log event (a structlog processor)."""
    return {name: _redact_value(name, value) for name, value in event.items()}


def _add_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _safe_text(error: BaseException) -> str:
    if isinstance(error, KeyferryError):
        return f": {error}"
    return f": {error.strerror}" if isinstance(error, OSError) else ""


def describe_exception(error: BaseException) -> str:
    """Return where an exception came from, without what it says.

    The text of an exception may quote whatever it stumbled over, the worst secret included. Only our own errors and
    those of the operating system are known to say nothing of the kind.
    """
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        lines.append(f"{type(cause).__module__}.{type(cause).__qualname__}{_safe_text(cause)}")
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(cause.__traceback__)
        ]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines[:_MOST_LINES])


def _tell_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = describe_exception(error)
    return event


def configure_logs(service: str, level: str) -> None:
    """Send our own and every library's log lines to standard output as JSON.

    Libraries stay at warning or above unless the level is debug: their debug lines are written by people who do not
    know what is secret here, which is why they pass through the same redaction.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _tell_exception,
        redact,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(allow=()), *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold if threshold == logging.DEBUG else max(threshold, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)


def tell_uncaught_exceptions() -> None:
    """Log what nobody caught by type and place: Python itself would print its text, or the object it belongs to."""
    log = structlog.get_logger(__name__)

    def tell(error: BaseException | None) -> None:
        # A thread that ends itself is no fault.
        if not isinstance(error, SystemExit):
            log.critical("uncaught exception", exc_info=error)

    sys.excepthook = lambda _kind, error, _traceback: tell(error)
    sys.unraisablehook = lambda unraisable: tell(unraisable.exc_value)
    threading.excepthook = lambda arguments: tell(arguments.exc_value)
