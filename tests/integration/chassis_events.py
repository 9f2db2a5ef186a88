"""What tests of consumers and of the outbox share: an event, its effect, and loops that run beside a test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from chassis.consumer import Consumer, GroupFunction, Handler, HandlerFunction
from chassis.database import Database
from chassis.events import Event
from chassis.jetstream import Publisher
from keyferry.type.v1 import money_pb2
from nats.aio.client import Client
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.real_servers import OneDatabase, eventually, fetch

CONSUMER = "fulfillment-payments"
SUBJECT = "payments.confirmed"
MIGRATION = """
from alembic import op
from chassis.tables import create_chassis_tables_v1
revision = "0001"
down_revision = None
def upgrade():
    for statement in create_chassis_tables_v1("audit_service"):
        op.execute(statement)
    op.execute("CREATE TABLE effect (effect_id bigint GENERATED ALWAYS AS IDENTITY, event_id text, minor_units bigint)")
    op.execute("GRANT SELECT, INSERT ON effect TO audit_service")
"""


def an_event(number: int, *, event_id: str = "") -> Event:
    return Event.of(
        money_pb2.Money(currency_code="EUR", minor_units=number),
        event_id=event_id or f"event-{number}",
        subject=SUBJECT,
        source="shop",
        about=str(number),
        time=datetime.now(UTC),
    )


async def store_effect(event: Event, body: money_pb2.Money, connection: AsyncConnection) -> None:
    await connection.execute(
        text("INSERT INTO effect (event_id, minor_units) VALUES (:event_id, :minor_units)"),
        {"event_id": event.event_id, "minor_units": body.minor_units},
    )


@asynccontextmanager
async def consuming(
    client: Client,
    database: Database,
    function: HandlerFunction[money_pb2.Money] = store_effect,
    group: GroupFunction[money_pb2.Money] | None = None,
) -> AsyncIterator[None]:
    handlers = {"keyferry.type.v1.Money": Handler(money_pb2.Money, function, group)}
    consumer = Consumer(client=client, database=database, stream="PAYMENTS", name=CONSUMER, handlers=handlers)
    async with background(consumer.run()):
        yield


@asynccontextmanager
async def background(*loops: "object") -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(loop) for loop in loops]  # type: ignore[call-overload] # coroutines of endless loops
    try:
        yield
        for task in tasks:
            assert not task.done(), "a loop that should go on for ever has ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def publish(client: Client, events: Sequence[Event], *, deduplicate: bool = True) -> None:
    publisher = Publisher(client)
    for event in events:
        headers = event.headers()
        if not deduplicate:
            # As after JetStream's own window, or from a publisher that sets none.
            del headers["Nats-Msg-Id"]
        await publisher.publish(subject=event.subject, headers=headers, data=event.data)


async def effects(made: OneDatabase) -> list[int]:
    return [row["minor_units"] for row in await fetch(made.superuser_url, "SELECT minor_units FROM effect")]


async def wait_for_effects(made: OneDatabase, expected: Sequence[int]) -> None:
    async def there() -> bool:
        return len(await effects(made)) >= len(expected)

    await eventually(there)
    assert sorted(await effects(made)) == list(expected)


async def dead_letters(made: OneDatabase, count: int) -> bool:
    return len(await fetch(made.superuser_url, "TABLE dead_letter")) >= count
