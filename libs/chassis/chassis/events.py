"""Events as they travel: binary protobuf, with CloudEvents 1.0 attributes in headers (binary content mode).

An event's id is its identity everywhere: in the outbox, in `Nats-Msg-Id`, in the inbox. Where a fact has a natural
id the event id is derived from it, so that telling it twice is telling it once.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.message import Message

from chassis.tracing import inject_trace

CONTENT_TYPE = "application/protobuf"
_NAMESPACE = uuid.UUID("a7c3c5d2-5a0f-4f0e-9d0c-0b6d8c1f4e11")


class MalformedEvent(ValueError):
    """The message is no event that we can understand; delivering it again changes nothing."""


def derived_event_id(*parts: str) -> str:
    """Return the id of a fact that is named by these parts: the same parts, the same id."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))


def new_event_id() -> str:
    """Return an id for a fact that has no natural one."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Event:
    """One event: where it goes (`subject`, JetStream's), what it is about (`about`, CloudEvents' subject), its body."""

    event_id: str
    subject: str
    type_name: str
    source: str
    about: str
    time: datetime
    data: bytes
    trace: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Message, *, event_id: str, subject: str, source: str, about: str, time: datetime) -> "Event":
        """Make an event of a message, as part of the current trace. `source` is the service's name."""
        trace: dict[str, str] = {}
        inject_trace(trace)
        return cls(
            event_id=event_id,
            subject=subject,
            type_name=message.DESCRIPTOR.full_name,
            source=f"/keyferry/{source}",
            about=about,
            time=time.astimezone(UTC),
            data=message.SerializeToString(deterministic=True),
            trace=trace,
        )

    def headers(self) -> dict[str, str]:
        """Render the attributes as message headers."""
        return {
            "ce-specversion": "1.0",
            "ce-id": self.event_id,
            "ce-type": self.type_name,
            "ce-source": self.source,
            "ce-time": self.time.isoformat().replace("+00:00", "Z"),
            "ce-subject": self.about,
            "content-type": CONTENT_TYPE,
            "Nats-Msg-Id": self.event_id,
            **self.trace,
        }

    @classmethod
    def parse(cls, *, subject: str, headers: Mapping[str, str] | None, data: bytes) -> "Event":
        """Read an event from a message. Header names may be spelled in any case. Raises MalformedEvent."""
        attributes = {name.lower(): value for name, value in (headers or {}).items()}
        missing = [name for name in ("ce-id", "ce-type", "ce-source") if not attributes.get(name)]
        if missing:
            raise MalformedEvent(f"header {missing[0]} is missing")
        if attributes.get("content-type", CONTENT_TYPE) != CONTENT_TYPE:
            raise MalformedEvent(f"content-type must be {CONTENT_TYPE}")
        try:
            time = datetime.fromisoformat(attributes["ce-time"]) if attributes.get("ce-time") else datetime.now(UTC)
        except ValueError:
            raise MalformedEvent("header ce-time is not a time of RFC 3339") from None
        return cls(
            event_id=attributes["ce-id"],
            subject=subject,
            type_name=attributes["ce-type"],
            source=attributes["ce-source"],
            about=attributes.get("ce-subject", ""),
            time=time if time.tzinfo else time.replace(tzinfo=UTC),
            data=data,
            trace={name: attributes[name] for name in ("traceparent", "tracestate") if name in attributes},
        )
