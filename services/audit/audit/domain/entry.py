"""An entry of the log: its values, its canonical form, its leaf hash, and its place in the sequence.

The canonical entry, version 1, is one JSON object in the form of RFC 8785 with exactly these members; what is absent
is the empty string, so that every entry has the same shape:

    {
      "action":      what was done, from docs/audit-events.md
      "actor":       {"id": a pseudonym for a person, the name for a service, "type": CUSTOMER | ADMIN | SERVICE}
      "details":     {name: text, …}, never personal, never secret
      "key_id":      the key concerned
      "occur_time":  when it happened, where that is told and differs from when it was taken: for events
      "order_id":    the order concerned
      "personal":    everything personal about the actor: a compact JWE under a key of this person, or empty
      "recorder":    which service told it: the identity in its certificate, or the source of its event
      "request_id":  the request or event that caused it
      "sequence":    position in the log, an integer from 0, without gaps
      "time":        when the log took it, never before the previous entry's
      "version":     1
    }

Times are RFC 3339 in UTC with microseconds, always 27 characters: `2026-01-02T03:04:05.000006Z`.

    leaf hash = SHA-256(0x00 || UTF-8 of the canonical entry)        RFC 6962 section 2.1, RFC 9162 section 2.1.1

No byte that names a person is hashed in the clear: once the person's key is gone the JWE opens nothing and the
pseudonym leads nowhere, and every hash still holds.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from audit.domain.canonical import canonical_json

VERSION = 1
LEAF_PREFIX = b"\x00"
# Stands for a customer who was forgotten, in what was told of them before and is taken after: the fact stays.
NOBODY = "erased"


class ActorType(Enum):
    """The sorts of actors. The value stands in the canonical entry."""

    CUSTOMER = "CUSTOMER"
    ADMIN = "ADMIN"
    SERVICE = "SERVICE"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted. Everything but the type is personal unless the actor is a service."""

    type: ActorType
    id: str = field(repr=False)
    email: str = field(default="", repr=False)
    ip_address: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)

    @property
    def is_person(self) -> bool:
        """Tell whether there is somebody to forget."""
        return self.type is not ActorType.SERVICE


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be appended, before it has a place in the log.

    `append_id` names the append: the same id is appended once. `told` is the message it came in, in a fixed form, to
    tell a repeat from another use of the same id; it may hold personal data.
    """

    append_id: str
    told: bytes = field(repr=False)
    actor: Actor
    action: str
    recorder: str
    order_id: str = ""
    key_id: str = ""
    request_id: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    occur_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the log and the time that goes with it."""

    sequence: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry went."""

    sequence: int
    time: datetime
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as the log holds it: a person is a pseudonym, and what is personal is still closed."""

    canonical: str
    leaf_hash: bytes
    sequence: int
    time: datetime
    actor_type: ActorType
    actor_id: str
    action: str
    order_id: str
    key_id: str
    request_id: str
    details: Mapping[str, str]
    personal: str


def next_place(last: Place | None, now: datetime) -> Place:
    """Return the place after the last one. Time never runs backwards in the log, even when the clock does."""
    if last is None:
        return Place(0, now)
    return Place(last.sequence + 1, max(last.time, now))


def canonical_entry(draft: Draft, place: Place, *, actor_id: str, personal: str) -> str:
    """Return the canonical form; `actor_id` is the pseudonym where the actor is a person."""
    return canonical_json(
        {
            "action": draft.action,
            "actor": {"id": actor_id, "type": draft.actor.type.value},
            "details": dict(draft.details),
            "key_id": draft.key_id,
            "occur_time": format_time(draft.occur_time) if draft.occur_time else "",
            "order_id": draft.order_id,
            "personal": personal,
            "recorder": draft.recorder,
            "request_id": draft.request_id,
            "sequence": place.sequence,
            "time": format_time(place.time),
            "version": VERSION,
        }
    )


def leaf_hash(canonical: str) -> bytes:
    """Return the Merkle leaf hash of a canonical entry."""
    return hashlib.sha256(LEAF_PREFIX + canonical.encode()).digest()


def read_entry(canonical: str, stored_hash: bytes) -> Entry:
    """Read a stored entry. Raises ValueError for a version that this code does not know."""
    document = json.loads(canonical)
    if document["version"] != VERSION:
        raise ValueError("the entry has a version that this release does not know")
    return Entry(
        canonical=canonical,
        leaf_hash=stored_hash,
        sequence=document["sequence"],
        time=parse_time(document["time"]),
        actor_type=ActorType(document["actor"]["type"]),
        actor_id=document["actor"]["id"],
        action=document["action"],
        order_id=document["order_id"],
        key_id=document["key_id"],
        request_id=document["request_id"],
        details=document["details"],
        personal=document["personal"],
    )


def format_time(moment: datetime) -> str:
    """Render a moment in the log's fixed width."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Read a time of the log."""
    return datetime.fromisoformat(text)
