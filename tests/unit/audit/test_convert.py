import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from audit.convert import (
    draft_from_event,
    draft_from_request,
    erasure_from_request,
    filters_from_request,
    range_from_request,
)
from audit.domain.entry import Actor, ActorType
from chassis.errors import InvalidRequest
from chassis.events import Event
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.audit.v1 import audit_service_pb2 as pb
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2

REQUEST_ID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
SERVICE = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="vault")


def a_request(**changes: Any) -> pb.AppendEntryRequest:
    fields: dict[str, Any] = {"request_id": REQUEST_ID, "actor": SERVICE, "action": "key.sealed", **changes}
    return pb.AppendEntryRequest(**fields)


def an_event(body: AuditRecorded, *, event_id: str = "fact-1", source: str = "vault") -> Event:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    return Event.of(body, event_id=event_id, subject="audit.recorded", source=source, about="a", time=moment)


def faults_of(request: pb.AppendEntryRequest) -> set[str]:
    with pytest.raises(InvalidRequest) as raised:
        draft_from_request(request, recorder="vault")
    return {violation.field for violation in raised.value.field_violations}


def test_a_request_becomes_a_draft() -> None:
    actor = actor_pb2.Actor(
        type=actor_pb2.ACTOR_TYPE_ADMIN, id="a", email="a@example.com", ip_address="::1", user_agent="B"
    )
    draft = draft_from_request(
        a_request(actor=actor, order_id="o", key_id="k", details={"n": "v"}, request_id=REQUEST_ID.upper()),
        recorder="edge",
    )
    assert draft.actor == Actor(ActorType.ADMIN, "a", "a@example.com", "::1", "B")
    assert (draft.append_id, draft.request_id, draft.recorder) == (REQUEST_ID, REQUEST_ID, "edge")
    assert (draft.action, draft.order_id, draft.key_id, draft.details) == ("key.sealed", "o", "k", {"n": "v"})
    assert draft.occur_time is None


@pytest.mark.parametrize("order", [1, -1])
def test_what_was_told_does_not_depend_on_the_order_of_details(order: int) -> None:
    pairs = [(f"name{number}", "v") for number in range(16)]
    draft = draft_from_request(a_request(details=dict(pairs[::order])), recorder="vault")
    assert draft.told == draft_from_request(a_request(details=dict(pairs)), recorder="vault").told


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"request_id": ""}, {"request_id"}),
        ({"request_id": "one"}, {"request_id"}),
        ({"actor": actor_pb2.Actor()}, {"actor.type", "actor.id"}),
        ({"actor": actor_pb2.Actor(type=99, id="a")}, {"actor.type"}),  # type: ignore[arg-type] # a newer caller's
        ({"actor": actor_pb2.Actor(type=1, id="a" * 256)}, {"actor.id"}),  # type: ignore[arg-type] # customer
        ({"actor": actor_pb2.Actor(type=3, id="va\nult")}, {"actor.id"}),  # type: ignore[arg-type] # service
        (
            {"actor": actor_pb2.Actor(type=1, id="a", email="e" * 321, ip_address="i" * 65, user_agent="u" * 513)},  # type: ignore[arg-type] # customer
            {"actor.email", "actor.ip_address", "actor.user_agent"},
        ),
        ({"actor": actor_pb2.Actor(type=3, id="vault", email="e@example.com")}, {"actor.email"}),  # type: ignore[arg-type] # service
        ({"action": ""}, {"action"}),
        ({"action": "a" * 65}, {"action"}),
        ({"action": "Key.Sealed"}, {"action"}),
        ({"action": "key."}, {"action"}),
        ({"action": "key.sealed\n"}, {"action"}),
        ({"order_id": "o" * 129, "key_id": "k\x00"}, {"order_id", "key_id"}),
        ({"details": {f"n{number}": "" for number in range(17)}}, {"details"}),
        ({"details": {"": "v"}}, {"details"}),
        ({"details": {"n" * 65: "v"}}, {"details"}),
        ({"details": {"n": "v" * 513}}, {"details.n"}),
        ({"details": {"n": "\x00"}}, {"details.n"}),
    ],
)
def test_every_fault_is_told_by_its_field(changes: dict[str, Any], fields: set[str]) -> None:
    assert faults_of(a_request(**changes)) == fields


def test_an_event_is_named_by_its_id_and_keeps_when_it_happened() -> None:
    moment = Timestamp()
    moment.FromDatetime(datetime(2025, 12, 31, tzinfo=UTC))
    body = AuditRecorded(actor=SERVICE, action="mail.sent", request_id="r-1", occur_time=moment)
    draft = draft_from_event(an_event(body), body)
    assert str(uuid.UUID(draft.append_id)) == draft.append_id
    assert draft.append_id == draft_from_event(an_event(body), body).append_id
    assert draft.append_id != draft_from_event(an_event(body, event_id="fact-2"), body).append_id
    assert (draft.recorder, draft.request_id) == ("vault", "r-1")
    assert draft.occur_time == datetime(2025, 12, 31, tzinfo=UTC)


def test_an_event_without_request_or_time_takes_its_own() -> None:
    body = AuditRecorded(actor=SERVICE, action="mail.sent")
    draft = draft_from_event(an_event(body), body)
    assert draft.request_id == "fact-1"
    assert draft.occur_time == datetime(2026, 1, 2, tzinfo=UTC)
    long = draft_from_event(an_event(body, event_id="f" * 129), body)
    assert long.request_id == long.append_id


@pytest.mark.parametrize(
    "body",
    [
        AuditRecorded(actor=SERVICE),
        AuditRecorded(actor=SERVICE, action="mail.sent", request_id="r" * 129),
        AuditRecorded(actor=SERVICE, action="mail.sent", occur_time=Timestamp(seconds=2**60)),
        AuditRecorded(action="mail.sent"),
    ],
)
def test_an_event_that_can_never_be_appended_is_refused(body: AuditRecorded) -> None:
    with pytest.raises(InvalidRequest):
        draft_from_event(an_event(body), body)


def test_filters_are_checked() -> None:
    filters = filters_from_request(pb.ListEntriesRequest(order_id="o", key_id="k", action="key.sealed", actor_id="a"))
    assert (filters.order_id, filters.key_id, filters.action, filters.actor_id) == ("o", "k", "key.sealed", "a")
    with pytest.raises(InvalidRequest) as raised:
        filters_from_request(
            pb.ListEntriesRequest(
                order_id="o" * 129,
                key_id="\x01",
                action="Nothing Of Ours",
                actor_id="a" * 256,
                page_size=-1,
                start_time=Timestamp(seconds=2**60),
                end_time=Timestamp(seconds=2**60),
            )
        )
    assert {violation.field for violation in raised.value.field_violations} == {
        "order_id",
        "key_id",
        "action",
        "actor_id",
        "page_size",
        "start_time",
        "end_time",
    }


def test_a_filter_by_time_is_a_moment_or_absent() -> None:
    moment = Timestamp(seconds=1_767_312_000)
    filters = filters_from_request(pb.ListEntriesRequest(start_time=moment))
    assert filters.start_time == datetime(2026, 1, 2, tzinfo=UTC)
    assert filters.end_time is None


def test_a_range_is_checked() -> None:
    assert range_from_request(pb.ExportEntriesRequest(start_sequence=3)) == (3, None)
    assert range_from_request(pb.ExportEntriesRequest(end_sequence=0)) == (0, 0)
    with pytest.raises(InvalidRequest) as raised:
        range_from_request(pb.ExportEntriesRequest(start_sequence=-1, end_sequence=-1))
    assert [violation.field for violation in raised.value.field_violations] == ["start_sequence", "end_sequence"]


def test_an_erasure_needs_somebody_who_asks_and_is_no_customer() -> None:
    with pytest.raises(InvalidRequest) as raised:
        erasure_from_request(pb.EraseCustomerRequest(), recorder="edge")
    assert [violation.field for violation in raised.value.field_violations] == [
        "request_id",
        "customer_id",
        "actor.type",
        "actor.id",
    ]
    alice = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="alice")
    with pytest.raises(InvalidRequest) as raised:
        erasure_from_request(
            pb.EraseCustomerRequest(request_id=str(uuid.uuid4()), customer_id="alice", actor=alice), recorder="edge"
        )
    assert [violation.field for violation in raised.value.field_violations] == ["actor.type"]
