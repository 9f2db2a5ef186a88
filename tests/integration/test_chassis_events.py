import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import chassis.consumer
import chassis.outbox
import pytest
import yaml
from chassis.consumer import MOST_DEAD_IN_A_ROW
from chassis.database import Database
from chassis.errors import InvalidRequest, ServiceUnavailable
from chassis.events import Event
from chassis.failpoints import configure_failpoints
from chassis.jetstream import Publisher, connect_nats
from chassis.outbox import Outbox, Relay
from chassis.streams import apply_streams
from keyferry.type.v1 import money_pb2
from nats.aio.client import Client
from sandbox.servers.nats import NatsServer
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.chassis_events import (
    CONSUMER,
    MIGRATION,
    SUBJECT,
    an_event,
    background,
    consuming,
    dead_letters,
    effects,
    publish,
    store_effect,
    wait_for_effects,
)
from tests.integration.real_servers import (
    DECLARED_STREAMS,
    OneDatabase,
    Postgres,
    eventually,
    fetch,
    fresh_streams,
)


@pytest.fixture(scope="module")
def migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "versions").mkdir()
    (folder / "versions" / "0001_effects.py").write_text(MIGRATION)
    return folder


@pytest.fixture
async def made(postgres: Postgres, migrations: Path) -> OneDatabase:
    return await postgres.make_database("audit", migrations, template="effects_template")


@pytest.fixture
async def database(made: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(made.service_url, application="test") as database:
        yield database


@pytest.fixture
async def client(streams: str) -> AsyncIterator[Client]:
    async with connect_nats(streams, name="test") as client:
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits, so that a test sees in a second what takes a minute."""
    monkeypatch.setattr(chassis.consumer, "RETRY_SECONDS", (0.05,))
    monkeypatch.setattr(chassis.consumer, "FETCH_SECONDS", 0.3)
    monkeypatch.setattr(chassis.consumer, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(chassis.outbox, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(chassis.outbox, "STREAM_CHECK_SECONDS", 0.3)
    monkeypatch.setattr(chassis.outbox, "FAILURE_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(chassis.outbox, "REBUILD_BATCH", 3)


async def stream_count(client: Client, stream: str = "PAYMENTS") -> int:
    return (await client.jetstream().stream_info(stream)).state.messages


class TestConsumer:
    async def test_an_event_told_many_times_has_one_effect(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        await publish(client, [an_event(1)] * 20 + [an_event(2)], deduplicate=False)
        assert await stream_count(client) == 21
        async with consuming(client, database):
            await wait_for_effects(made, [1, 2])
            await eventually(lambda: all_acknowledged(client))
        assert sorted(await effects(made)) == [1, 2]

    async def test_two_replicas_share_the_work(self, client: Client, database: Database, made: OneDatabase) -> None:
        async with consuming(client, database), consuming(client, database):
            await publish(client, [an_event(number) for number in range(100)])
            await wait_for_effects(made, range(100))
            await eventually(lambda: all_acknowledged(client))

    async def test_an_effect_that_fails_is_tried_again_without_a_trace_of_the_first(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        failures = [ValueError("of its own"), ServiceUnavailable("of the surroundings"), TimeoutError()]

        async def flaky(event: Event, body: money_pb2.Money, connection: AsyncConnection) -> None:
            await store_effect(event, body, connection)
            if failures:
                raise failures.pop()

        await publish(client, [an_event(1)])
        async with consuming(client, database, flaky):
            await wait_for_effects(made, [1])
        assert await fetch(made.superuser_url, "TABLE dead_letter") == []

    async def test_what_fails_of_its_own_too_often_is_a_dead_letter_and_what_fails_of_its_surroundings_never(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        visits = {1: 0, 2: 0}

        async def fail(event: Event, body: money_pb2.Money, connection: AsyncConnection) -> None:
            visits[body.minor_units] += 1
            if body.minor_units == 1:
                raise ValueError("AAAAA-BBBBB-CCCCC")
            if visits[2] < 12:
                raise ServiceUnavailable("away")
            await store_effect(event, body, connection)

        await publish(client, [an_event(1), an_event(2)])
        async with consuming(client, database, fail):
            await wait_for_effects(made, [2])
            await eventually(lambda: dead_letters(made, 1))
        (letter,) = await fetch(made.superuser_url, "TABLE dead_letter")
        assert (visits[1], letter["deliveries"], letter["event_id"]) == (8, 8, "event-1")
        assert "AAAAA" not in letter["reason"]
        assert letter["data"] == an_event(1).data

    async def test_garbage_is_a_dead_letter_at_once_and_the_rest_goes_on(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        good = an_event(7)
        publisher = Publisher(client)
        await publisher.publish(subject=SUBJECT, headers={}, data=b"no headers")
        await publisher.publish(subject=SUBJECT, headers=good.headers() | {"Nats-Msg-Id": "a"}, data=b"\xff\xff\xff")
        await publisher.publish(
            subject=SUBJECT,
            headers=good.headers() | {"ce-type": "unheard.of", "ce-id": "odd", "Nats-Msg-Id": "b"},
            data=b"",
        )

        async def refuse_negative(event: Event, body: money_pb2.Money, connection: AsyncConnection) -> None:
            if body.minor_units < 0:
                raise InvalidRequest.of("minor_units", "must not be negative")
            await store_effect(event, body, connection)

        await publish(client, [an_event(-1), an_event(8)])
        async with consuming(client, database, refuse_negative):
            await wait_for_effects(made, [8])
            await eventually(lambda: dead_letters(made, 4))
            await eventually(lambda: all_acknowledged(client))
        reasons = sorted(row["reason"] for row in await fetch(made.superuser_url, "TABLE dead_letter"))
        assert len(reasons) == 4
        assert any("minor_units" in reason for reason in reasons)
        assert any("unheard.of" in reason for reason in reasons)

    async def test_a_run_of_dead_letters_stops_the_consumer_before_the_stream_is_empty(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        count = MOST_DEAD_IN_A_ROW + chassis.consumer.BATCH * 2

        async def refuse(_event: Event, _body: money_pb2.Money, _connection: AsyncConnection) -> None:
            raise InvalidRequest.of("anything", "a bad deploy")

        await publish(client, [an_event(number) for number in range(count)])
        async with consuming(client, database, refuse):
            await eventually(lambda: dead_letters(made, MOST_DEAD_IN_A_ROW))
            await asyncio.sleep(1)
        dead = len(await fetch(made.superuser_url, "TABLE dead_letter"))
        assert MOST_DEAD_IN_A_ROW <= dead <= MOST_DEAD_IN_A_ROW + chassis.consumer.BATCH
        assert await stream_count(client) == count

    async def test_it_goes_on_after_nats_was_started_again(
        self, own_nats_server: NatsServer, database: Database, made: OneDatabase
    ) -> None:
        url = await fresh_streams(own_nats_server)
        async with connect_nats(url, name="test") as client, consuming(client, database):
            await publish(client, [an_event(1)])
            await wait_for_effects(made, [1])
            for number in (2, 3):
                own_nats_server.stop()
                await asyncio.sleep(1)
                own_nats_server.start()
                async with connect_nats(url, name="publisher") as publisher:
                    await publish(publisher, [an_event(number)])
                await wait_for_effects(made, range(1, number + 1))

    async def test_it_goes_on_after_its_stream_was_wiped(
        self, nats_server: NatsServer, client: Client, database: Database, made: OneDatabase
    ) -> None:
        async with consuming(client, database):
            await publish(client, [an_event(1)])
            await wait_for_effects(made, [1])
            await fresh_streams(nats_server)
            await publish(client, [an_event(1), an_event(2)])
            await wait_for_effects(made, [1, 2])

    async def test_a_failure_between_effect_and_commit_has_no_effect_until_it_is_tried_again(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        configure_failpoints("consumer.before_commit=error@1;consumer.after_commit=error@1")
        try:
            await publish(client, [an_event(1)])
            async with consuming(client, database):
                await wait_for_effects(made, [1])
                await eventually(lambda: all_acknowledged(client))
            assert await effects(made) == [1]
        finally:
            configure_failpoints("")


async def all_acknowledged(client: Client) -> bool:
    info = await client.jetstream().consumer_info("PAYMENTS", CONSUMER)
    return not info.num_ack_pending and not info.num_pending


class TestRelay:
    @pytest.fixture
    def outbox(self) -> Outbox:
        return Outbox({"payments": "PAYMENTS"})

    async def enqueue(self, database: Database, outbox: Outbox, events: Sequence[Event]) -> None:
        async with database.transaction() as connection:
            await outbox.enqueue(connection, *events)

    async def test_what_is_committed_is_published_and_what_is_not_is_not(
        self, client: Client, database: Database, outbox: Outbox
    ) -> None:
        async def fail() -> None:
            async with database.transaction() as connection:
                await outbox.enqueue(connection, an_event(2))
                raise ValueError("on purpose")

        async with background(Relay(database, outbox, client).run()):
            await self.enqueue(database, outbox, [an_event(1)])
            with pytest.raises(ValueError, match="on purpose"):
                await fail()
            await eventually(lambda: holds(client, 1))
            await asyncio.sleep(0.3)
        assert await stream_count(client) == 1
        message = await client.jetstream().get_msg("PAYMENTS", 1)
        event = Event.parse(subject=message.subject or "", headers=message.headers, data=message.data or b"")
        assert (event.event_id, event.data) == ("event-1", an_event(1).data)

    async def test_the_same_event_twice_is_stored_once(
        self, database: Database, outbox: Outbox, made: OneDatabase
    ) -> None:
        await self.enqueue(database, outbox, [an_event(1), an_event(1)])
        await self.enqueue(database, outbox, [an_event(1)])
        await self.enqueue(database, outbox, [])
        assert len(await fetch(made.superuser_url, "TABLE outbox")) == 1

    async def test_a_commit_wakes_the_relay_at_once(
        self, client: Client, database: Database, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chassis.outbox, "IDLE_SECONDS", 60)
        async with background(Relay(database, outbox, client).run()):
            await asyncio.sleep(0.5)
            await self.enqueue(database, outbox, [an_event(1)])
            await eventually(lambda: holds(client, 1), seconds=2)

    async def test_two_replicas_publish_everything_and_nothing_twice(
        self, client: Client, database: Database, outbox: Outbox, made: OneDatabase
    ) -> None:
        events = [an_event(number) for number in range(500)]
        relays = [Relay(database, outbox, client), Relay(database, Outbox({"payments": "PAYMENTS"}), client)]
        before = client.stats["out_msgs"]
        async with background(*(relay.run() for relay in relays)):
            for start in range(0, 500, 50):
                await self.enqueue(database, outbox, events[start : start + 50])
            await eventually(lambda: all_published(made))
        assert await stream_count(client) == 500
        # Each event left once: the rest of what was sent are questions about streams and their answers.
        assert client.stats["out_msgs"] - before < 600

    async def test_a_stream_that_was_wiped_is_filled_again_and_nothing_has_a_second_effect(
        self, nats_server: NatsServer, client: Client, database: Database, outbox: Outbox, made: OneDatabase
    ) -> None:
        async with background(Relay(database, outbox, client).run()), consuming(client, database):
            await self.enqueue(database, outbox, [an_event(number) for number in range(10)])
            await wait_for_effects(made, range(10))
            await fresh_streams(nats_server)
            await eventually(lambda: holds(client, 10))
            await self.enqueue(database, outbox, [an_event(10)])
            await wait_for_effects(made, range(11))
            await eventually(lambda: all_acknowledged(client))
        assert sorted(await effects(made)) == list(range(11))

    async def test_what_is_being_published_while_the_stream_is_noticed_is_published_again(
        self, nats_server: NatsServer, client: Client, database: Database, outbox: Outbox, made: OneDatabase
    ) -> None:
        relay = Relay(database, outbox, client)
        await self.enqueue(database, outbox, [an_event(number) for number in range(7)])
        await relay._notice_new_streams()
        relay._next_check = 0.0
        other = await asyncpg.connect(made.superuser_url)
        try:
            # Another replica has published to the old stream and not yet committed that it has.
            transaction = other.transaction()
            await transaction.start()
            await other.execute("UPDATE outbox SET publish_time = now()")
            await fresh_streams(nats_server)
            noticing = asyncio.create_task(relay._notice_new_streams())

            async def waits() -> bool:
                blocked = "SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
                return bool(await fetch(made.superuser_url, blocked))

            await eventually(waits)
            await transaction.commit()
        finally:
            await other.close()
        await noticing
        assert len(await fetch(made.superuser_url, "SELECT FROM outbox WHERE publish_time IS NULL")) == 7

    async def test_who_dies_while_a_stream_is_filled_again_leaves_it_to_be_noticed(
        self, nats_server: NatsServer, client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outbox = Outbox({"payments": "PAYMENTS"})
        relay = Relay(database, outbox, client)
        await self.enqueue(database, outbox, [an_event(number) for number in range(7)])
        await relay._notice_new_streams()
        assert await relay.publish_batch() == 7
        await fresh_streams(nats_server)
        relay._next_check = 0.0
        with monkeypatch.context() as dying:
            dying.setattr(relay, "_wait_again", die)
            with pytest.raises(RuntimeError):
                await relay._notice_new_streams()
        assert await relay.publish_batch() == 0
        await relay._notice_new_streams()
        assert await relay.publish_batch() == 7
        assert await stream_count(client) == 7

    async def test_the_first_look_at_a_stream_publishes_nothing_again(
        self, client: Client, database: Database, outbox: Outbox, made: OneDatabase
    ) -> None:
        async with background(Relay(database, outbox, client).run()):
            await self.enqueue(database, outbox, [an_event(1)])
            await eventually(lambda: all_published(made))
        before = await fetch(made.superuser_url, "SELECT publish_time FROM outbox")
        async with background(Relay(database, outbox, client).run()):
            await asyncio.sleep(1)
        assert await fetch(made.superuser_url, "SELECT publish_time FROM outbox") == before

    @pytest.mark.parametrize("step", ["outbox.before_publish", "outbox.after_publish"])
    async def test_a_failure_around_publishing_publishes_again_under_the_same_id(
        self, client: Client, database: Database, outbox: Outbox, made: OneDatabase, step: str
    ) -> None:
        configure_failpoints(f"{step}=error")
        relay = Relay(database, outbox, client)
        try:
            await self.enqueue(database, outbox, [an_event(1)])
            with pytest.raises(Exception, match=step):
                await relay.publish_batch()
            assert not await all_published(made)
            assert await relay.publish_batch() == 1
        finally:
            configure_failpoints("")
        assert await stream_count(client) == 1

    async def test_what_was_written_while_nats_was_away_is_published_when_it_is_back(
        self, own_nats_server: NatsServer, database: Database, outbox: Outbox, made: OneDatabase
    ) -> None:
        url = await fresh_streams(own_nats_server)
        async with connect_nats(url, name="test") as client, background(Relay(database, outbox, client).run()):
            await self.enqueue(database, outbox, [an_event(1)])
            await eventually(lambda: all_published(made))
            own_nats_server.stop()
            await self.enqueue(database, outbox, [an_event(2)])
            await asyncio.sleep(1)
            assert not await all_published(made)
            own_nats_server.start()
            await eventually(lambda: all_published(made))
            assert await stream_count(client) == 2

    async def test_a_stream_of_the_wrong_name_is_a_mistake_told_at_once(
        self, database: Database, outbox: Outbox
    ) -> None:
        stray = Event.of(
            money_pb2.Money(), event_id="e", subject="stray.fact", source="s", about="a", time=datetime.now(UTC)
        )
        with pytest.raises(KeyError):
            await self.enqueue(database, outbox, [stray])


async def die(_stream: str) -> None:
    raise RuntimeError("the process died")


async def holds(client: Client, count: int) -> bool:
    return await stream_count(client) >= count


async def all_published(made: OneDatabase) -> bool:
    return not await fetch(made.superuser_url, "SELECT FROM outbox WHERE publish_time IS NULL")


class TestGroups:
    async def test_events_that_wait_together_share_one_transaction(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        sizes: list[int] = []

        async def store_all(pairs: Sequence[tuple[Event, money_pb2.Money]], connection: AsyncConnection) -> None:
            sizes.append(len(pairs))
            for event, body in pairs:
                await store_effect(event, body, connection)

        await publish(client, [an_event(number) for number in range(40)] + [an_event(1)] * 3, deduplicate=False)
        async with consuming(client, database, group=store_all):
            await wait_for_effects(made, range(40))
            await eventually(lambda: all_acknowledged(client))
        assert max(sizes) > 10
        assert sorted(await effects(made)) == list(range(40))

    async def test_one_bad_event_takes_no_other_with_it(
        self, client: Client, database: Database, made: OneDatabase
    ) -> None:
        async def refuse_seven(event: Event, body: money_pb2.Money, connection: AsyncConnection) -> None:
            await store_effect(event, body, connection)
            if body.minor_units == 7:
                raise InvalidRequest("seven")

        async def refuse_group(pairs: Sequence[tuple[Event, money_pb2.Money]], connection: AsyncConnection) -> None:
            for event, body in pairs:
                await refuse_seven(event, body, connection)

        await publish(client, [an_event(number) for number in range(20)])
        async with consuming(client, database, refuse_seven, refuse_group):
            await wait_for_effects(made, [number for number in range(20) if number != 7])
            await eventually(lambda: dead_letters(made, 1))
        (letter,) = await fetch(made.superuser_url, "TABLE dead_letter")
        assert letter["event_id"] == "event-7"

    @pytest.mark.parametrize("step", ["before_commit", "after_commit"])
    async def test_a_group_that_is_cut_off_is_handled_again_without_a_second_effect(
        self, client: Client, database: Database, made: OneDatabase, step: str
    ) -> None:
        async def store_all(pairs: Sequence[tuple[Event, money_pb2.Money]], connection: AsyncConnection) -> None:
            for event, body in pairs:
                await store_effect(event, body, connection)

        await publish(client, [an_event(number) for number in range(20)])
        configure_failpoints(f"consumer.{step}=error")
        try:
            async with consuming(client, database, group=store_all):
                await wait_for_effects(made, range(20))
                await eventually(lambda: all_acknowledged(client))
        finally:
            configure_failpoints("")
        assert sorted(await effects(made)) == list(range(20))


async def test_publishing_without_a_connection_or_a_stream_is_unavailable(own_nats_server: NatsServer) -> None:
    async with connect_nats(own_nats_server.url, name="test") as client:
        with pytest.raises(ServiceUnavailable):
            await Publisher(client).publish_event(an_event(1))
        own_nats_server.stop()
        await asyncio.sleep(0.3)
        with pytest.raises(ServiceUnavailable, match="not connected"):
            await Publisher(client).publish_event(an_event(1))


async def test_declaring_streams_twice_changes_nothing_and_keeps_messages(streams: str, client: Client) -> None:
    declared = yaml.safe_load(DECLARED_STREAMS.read_text(encoding="utf-8"))
    await publish(client, [an_event(1)])
    before = {info.config.name: info.created for info in await client.jetstream().streams_info()}
    await apply_streams(streams, declared)
    assert {info.config.name: info.created for info in await client.jetstream().streams_info()} == before
    assert before.keys() == {stream["name"] for stream in declared["streams"]}
    assert await stream_count(client) == 1
    for stream in declared["streams"]:
        for consumer in stream.get("consumers", ()):
            info = await client.jetstream().consumer_info(stream["name"], consumer["name"])
            assert info.config.max_deliver == -1
            assert info.config.ack_wait == consumer["ack_wait_seconds"]
