"""Proto messages to the log's own values and back; every fault of a request is found here."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from chassis.events import Event, derived_event_id
from chassis.validation import Faults
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.audit.v1 import audit_service_pb2 as pb
from keyferry.events.v1 import audit_events_pb2
from keyferry.type.v1 import actor_pb2

from audit.domain.entry import Actor, ActorType, Appended, Draft
from audit.domain.filters import Filters
from audit.erasing import Erasure
from audit.exporting import Chunk
from audit.listing import ListedEntry, Page

LONGEST_ID = 128
LONGEST_ACTOR_ID = 255
LONGEST_EMAIL = 320
LONGEST_ADDRESS = 64
LONGEST_USER_AGENT = 512
LONGEST_ACTION = 64
MOST_DETAILS = 16
LONGEST_DETAIL_NAME = 64
LONGEST_DETAIL = 512

_ACTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
# In a name they would make two entries look alike, and PostgreSQL stores no U+0000.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_TYPE_FROM_PROTO = {
    actor_pb2.ACTOR_TYPE_CUSTOMER: ActorType.CUSTOMER,
    actor_pb2.ACTOR_TYPE_ADMIN: ActorType.ADMIN,
    actor_pb2.ACTOR_TYPE_SERVICE: ActorType.SERVICE,
}
_TYPE_TO_PROTO = {domain: proto for proto, domain in _TYPE_FROM_PROTO.items()}


def draft_from_request(request: pb.AppendEntryRequest, *, recorder: str) -> Draft:
    """Read a request to append. Raises InvalidRequest with every fault."""
    faults = Faults()
    append_id = faults.request_id(request.request_id)
    actor = _actor_from_proto(request.actor, faults)
    _check_content(request, faults)
    faults.raise_if_any()
    return Draft(
        append_id=append_id,
        told=request.SerializeToString(deterministic=True),
        actor=actor,
        action=request.action,
        recorder=recorder,
        order_id=request.order_id,
        key_id=request.key_id,
        request_id=append_id,
        details=dict(request.details),
    )


def draft_from_event(event: Event, body: audit_events_pb2.AuditRecorded) -> Draft:
    """Read an event. Its id names the append, so that telling it twice is appending it once.

    Raises InvalidRequest with every fault: such an event can never be appended.
    """
    faults = Faults()
    actor = _actor_from_proto(body.actor, faults)
    _check_content(body, faults)
    _check_name("request_id", body.request_id, faults)
    recorder = event.source.rpartition("/")[2]
    _check_name("source", recorder, faults)
    occur_time = _moment_from_proto(body.occur_time, faults) if body.HasField("occur_time") else event.time
    faults.raise_if_any()
    append_id = derived_event_id("audit.recorded", event.event_id)
    return Draft(
        append_id=append_id,
        told=body.SerializeToString(deterministic=True),
        actor=actor,
        action=body.action,
        recorder=recorder,
        order_id=body.order_id,
        key_id=body.key_id,
        request_id=body.request_id or _event_name(event.event_id, append_id),
        details=dict(body.details),
        occur_time=occur_time,
    )


def filters_from_request(request: pb.ListEntriesRequest) -> Filters:
    """Read the filters of a listing. Raises InvalidRequest with every fault."""
    faults = Faults()
    _check_name("order_id", request.order_id, faults)
    _check_name("key_id", request.key_id, faults)
    if request.action:
        _check_action(request.action, faults)
    _check_name("actor_id", request.actor_id, faults, longest=LONGEST_ACTOR_ID)
    if request.page_size < 0:
        faults.add("page_size", "must not be negative")
    start, end = (
        faults.moment(field, getattr(request, field) if request.HasField(field) else None)
        for field in ("start_time", "end_time")
    )
    faults.raise_if_any()
    return Filters(request.order_id, request.key_id, request.action, request.actor_id, start, end)


def range_from_request(request: pb.ExportEntriesRequest) -> tuple[int, int | None]:
    """Read the range of an export. Raises InvalidRequest with every fault."""
    faults = Faults()
    for field in ("start_sequence", "end_sequence"):
        if getattr(request, field) < 0:
            faults.add(field, "must not be negative")
    faults.raise_if_any()
    return request.start_sequence, request.end_sequence if request.HasField("end_sequence") else None


def chunk_to_proto(chunk: Chunk) -> pb.ExportEntriesResponse:
    """Render some lines of an export."""
    return pb.ExportEntriesResponse(
        lines=chunk.lines, first_sequence=chunk.first_sequence, next_sequence=chunk.next_sequence
    )


def erasure_from_request(request: pb.EraseCustomerRequest, *, recorder: str) -> Erasure:
    """Read a request to forget a customer. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.require("customer_id", request.customer_id, longest=LONGEST_ACTOR_ID)
    asked_by = _asking_from_proto(request.actor, faults)
    faults.raise_if_any()
    return Erasure(request_id, request.customer_id, asked_by, recorder)


def erasure_from_event(event: Event, body: audit_events_pb2.AuditCustomerErased) -> Erasure:
    """Read an event that asks to forget a customer. Raises InvalidRequest with every fault."""
    faults = Faults()
    faults.require("customer_id", body.customer_id, longest=LONGEST_ACTOR_ID)
    asked_by = _asking_from_proto(body.actor, faults)
    _check_name("request_id", body.request_id, faults)
    recorder = event.source.rpartition("/")[2]
    _check_name("source", recorder, faults)
    faults.raise_if_any()
    append_id = derived_event_id("audit.customer_erased", event.event_id)
    return Erasure(body.request_id or append_id, body.customer_id, asked_by, recorder, append_id)


def _asking_from_proto(message: actor_pb2.Actor, faults: Faults) -> Actor:
    asked_by = _actor_from_proto(message, faults)
    if asked_by.type is ActorType.CUSTOMER:
        faults.add(
            "actor.type", "must be ACTOR_TYPE_ADMIN or ACTOR_TYPE_SERVICE: the entry must not be about a customer"
        )
    return asked_by


def erased_to_proto(appended: Appended) -> pb.EraseCustomerResponse:
    """Render where the entry of an erasure went."""
    return pb.EraseCustomerResponse(
        sequence=appended.sequence, leaf_hash=appended.leaf_hash, erase_time=_moment_to_proto(appended.time)
    )


def appended_to_proto(appended: Appended) -> pb.AppendEntryResponse:
    """Render where an entry went."""
    return pb.AppendEntryResponse(
        sequence=appended.sequence, leaf_hash=appended.leaf_hash, append_time=_moment_to_proto(appended.time)
    )


def page_to_proto(page: Page) -> pb.ListEntriesResponse:
    """Render a page of entries."""
    return pb.ListEntriesResponse(
        entries=[_entry_to_proto(listed) for listed in page.entries], next_page_token=page.next_page_token
    )


def _entry_to_proto(listed: ListedEntry) -> pb.Entry:
    entry = listed.entry
    return pb.Entry(
        sequence=entry.sequence,
        append_time=_moment_to_proto(entry.time),
        actor=_actor_to_proto(listed.actor),
        action=entry.action,
        order_id=entry.order_id,
        key_id=entry.key_id,
        request_id=entry.request_id,
        details=entry.details,
        leaf_hash=entry.leaf_hash,
        canonical_entry=entry.canonical.encode(),
    )


def _actor_to_proto(actor: Actor) -> actor_pb2.Actor:
    return actor_pb2.Actor(
        type=_TYPE_TO_PROTO[actor.type],
        id=actor.id,
        email=actor.email,
        ip_address=actor.ip_address,
        user_agent=actor.user_agent,
    )


def _actor_from_proto(message: actor_pb2.Actor, faults: Faults) -> Actor:
    actor_type = _TYPE_FROM_PROTO.get(message.type)
    if actor_type is None:
        faults.add("actor.type", "must be ACTOR_TYPE_CUSTOMER, ACTOR_TYPE_ADMIN or ACTOR_TYPE_SERVICE")
    actor = Actor(actor_type or ActorType.SERVICE, message.id, message.email, message.ip_address, message.user_agent)
    faults.require("actor.id", actor.id, longest=LONGEST_ACTOR_ID)
    for field, value, longest in (
        ("actor.email", actor.email, LONGEST_EMAIL),
        ("actor.ip_address", actor.ip_address, LONGEST_ADDRESS),
        ("actor.user_agent", actor.user_agent, LONGEST_USER_AGENT),
    ):
        if actor_type is ActorType.SERVICE and value:
            faults.add(field, "must be empty for a service, whose entries hide nothing")
        elif len(value) > longest:
            faults.add(field, f"must have at most {longest} characters")
    if actor_type is ActorType.SERVICE:
        _check_name("actor.id", actor.id, faults, longest=LONGEST_ACTOR_ID)
    return actor


def _check_content(message: pb.AppendEntryRequest | audit_events_pb2.AuditRecorded, faults: Faults) -> None:
    _check_action(message.action, faults)
    _check_name("order_id", message.order_id, faults)
    _check_name("key_id", message.key_id, faults)
    _check_details(message.details, faults)


def _check_action(action: str, faults: Faults) -> None:
    if faults.require("action", action, longest=LONGEST_ACTION) and not _ACTION.fullmatch(action):
        faults.add("action", "must be lower-case words with dots and underscores, as key.link_authorized")


def _check_name(field: str, value: str, faults: Faults, *, longest: int = LONGEST_ID) -> None:
    if len(value) > longest:
        faults.add(field, f"must have at most {longest} characters")
    elif _CONTROL.search(value):
        faults.add(field, "must not hold control characters")


def _check_details(details: Mapping[str, str], faults: Faults) -> None:
    if len(details) > MOST_DETAILS:
        faults.add("details", f"must have at most {MOST_DETAILS} entries")
    for name, value in sorted(details.items()):
        faults.identifier("details", name, longest=LONGEST_DETAIL_NAME)
        if len(value) > LONGEST_DETAIL:
            faults.add(f"details.{name}", f"must have at most {LONGEST_DETAIL} characters")
        elif "\x00" in value:
            faults.add(f"details.{name}", "must not hold the character U+0000")


def _event_name(event_id: str, append_id: str) -> str:
    """Return the event's id as far as an entry can hold it; else the append's id, which is derived from it."""
    return append_id if len(event_id) > LONGEST_ID or _CONTROL.search(event_id) else event_id


def _moment_to_proto(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _moment_from_proto(message: Timestamp, faults: Faults) -> datetime | None:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        faults.add("occur_time", "must be a time between the years 1 and 9999")
        return None
