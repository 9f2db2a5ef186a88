from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.consumer import EventRecorder
from chassis.errors import RequestIdReused
from chassis.events import Event
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2

from tests.unit.audit.memory_log import MemoryLog

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

SERVICE = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="fulfillment")
NO_CONNECTION = cast("AsyncConnection", None)


def an_event(body: AuditRecorded, event_id: str) -> Event:
    return Event.of(
        body,
        event_id=event_id,
        subject="audit.recorded",
        source="fulfillment",
        about="a",
        time=datetime(2026, 1, 2, tzinfo=UTC),
    )


async def record(log: MemoryLog, keys: JosePersonKeys, body: AuditRecorded) -> None:
    event = an_event(body, "fact-1")
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
