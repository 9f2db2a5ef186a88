import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.consumer import EventRecorder
from audit.domain.entry import NOBODY, ActorType
from chassis.errors import InvalidRequest, RequestIdReused
from chassis.events import Event
from google.protobuf.message import Message
from keyferry.events.v1.audit_events_pb2 import AuditCustomerErased, AuditRecorded
from keyferry.type.v1 import actor_pb2

from tests.unit.audit.memory_log import MemoryLog

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

SERVICE = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="fulfillment")
NO_CONNECTION = cast("AsyncConnection", None)


def an_event(body: Message, event_id: str) -> Event:
    return Event.of(
        body,
        event_id=event_id,
        subject="audit.recorded",
        source="fulfillment",
        about="a",
        time=datetime(2026, 1, 2, tzinfo=UTC),
    )


async def record(log: MemoryLog, keys: JosePersonKeys, body: Message, event_id: str = "fact-1") -> None:
    event = an_event(body, event_id)
    async with log.transaction() as transaction:
        handler = EventRecorder(lambda _connection: transaction, keys).handlers()[event.type_name]
        await handler.function(event, body, NO_CONNECTION)


async def test_a_fact_is_appended_once(log: MemoryLog, keys: JosePersonKeys) -> None:
    body = AuditRecorded(actor=SERVICE, action="order.accepted", order_id="order-1")
    await record(log, keys, body)
    await record(log, keys, body)
    (entry,) = log.stored
    assert '"action":"order.accepted"' in entry.canonical


async def test_another_fact_under_the_same_id_is_told(log: MemoryLog, keys: JosePersonKeys) -> None:
    await record(log, keys, AuditRecorded(actor=SERVICE, action="order.accepted"))
    with pytest.raises(RequestIdReused):
        await record(log, keys, AuditRecorded(actor=SERVICE, action="mail.sent"))


async def test_facts_that_wait_together_are_appended_in_their_order(log: MemoryLog, keys: JosePersonKeys) -> None:
    facts = []
    for number in range(5):
        body = AuditRecorded(actor=SERVICE, action="order.accepted", order_id=f"order-{number}")
        facts.append((an_event(body, f"fact-{number}"), body))
    async with log.transaction() as transaction:
        handler = EventRecorder(lambda _connection: transaction, keys).handlers()[facts[0][0].type_name]
        assert handler.group is not None
        await handler.group(facts, NO_CONNECTION)
    assert [f'"order-{number}"' in entry.canonical for number, entry in enumerate(log.stored)] == [True] * 5


# Forgetting a customer

CAROL = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
ALICE = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="alice", email="alice@example.com")
ERASED = AuditCustomerErased(customer_id="alice", actor=CAROL, request_id="request-1")


def a_fact(log: MemoryLog, seconds: float) -> AuditRecorded:
    """Return something that alice did so long after the log's present time."""
    fact = AuditRecorded(actor=ALICE, action="key.link_released", order_id="order-1")
    fact.occur_time.FromDatetime(log.now + timedelta(seconds=seconds))
    return fact


async def test_a_customer_is_forgotten_once_in_an_entry_that_names_the_request(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    await record(log, keys, a_fact(log, 0))
    assert len(log.persons) == 1
    await record(log, keys, ERASED, "erasure-1")
    await record(log, keys, ERASED, "erasure-1")
    entries = [json.loads(entry.canonical) for entry in log.stored]
    assert [entry["action"] for entry in entries] == ["key.link_released", "customer.erased"]
    assert (entries[1]["request_id"], entries[1]["recorder"]) == ("request-1", "fulfillment")
    assert log.struck == ["alice"]
    assert {keys.lookups(ActorType.ADMIN, "carol")[0]} == set(log.persons)


async def test_what_happened_before_and_is_taken_after_it_is_told_of_nobody(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    late = a_fact(log, -60)
    await record(log, keys, ERASED, "erasure-1")
    await record(log, keys, late, "late")
    await record(log, keys, late, "late")
    assert len(log.stored) == 2
    assert not set(keys.lookups(ActorType.CUSTOMER, "alice")) & set(log.persons)
    assert set(keys.lookups(ActorType.CUSTOMER, NOBODY)) <= set(log.persons)
    assert "key.link_released" in log.stored[1].canonical


async def test_who_comes_back_is_a_new_person(log: MemoryLog, keys: JosePersonKeys) -> None:
    await record(log, keys, ERASED, "erasure-1")
    await record(log, keys, a_fact(log, 60), "later")
    assert set(keys.lookups(ActorType.CUSTOMER, "alice")) <= set(log.persons)


@pytest.mark.parametrize(
    "body",
    [AuditCustomerErased(actor=CAROL), AuditCustomerErased(customer_id="alice", actor=ALICE)],
    ids=["nobody", "customer"],
)
async def test_what_says_nobody_or_is_asked_by_a_customer_is_refused(
    log: MemoryLog, keys: JosePersonKeys, body: AuditCustomerErased
) -> None:
    with pytest.raises(InvalidRequest):
        await record(log, keys, body, "erasure-1")
    assert not log.stored
