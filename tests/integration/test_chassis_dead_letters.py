import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import chassis.consumer
import grpc
import pytest
from chassis.consumer import MOST_DEAD_IN_A_ROW, Consumer, Handler, HandlerFunction
from chassis.database import Database
from chassis.dead_letters import (
    OTHERS,
    DeadLetter,
    DeadLetterDesk,
    DeadLetterFailed,
    DeadLetterUnknown,
    DeadLetterWatch,
)
from chassis.errors import InvalidRequest, RemoteError, ServiceUnavailable
from chassis.events import Event
from chassis.failpoints import FailpointError, configure_failpoints
from chassis.jetstream import Publisher, connect_nats
from chassis.metrics import CONSUMER_STOPPED, DEAD_LETTER_AGE, DEAD_LETTERS_WAITING
from keyferry.type.v1 import money_pb2
from nats.aio.client import Client
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.chassis_events import (
    CONSUMER,
    MIGRATION,
    SUBJECT,
    an_event,
    background,
    dead_letters,
    effects,
    publish,
    store_effect,
    wait_for_effects,
)
from tests.integration.real_servers import OneDatabase, Postgres, eventually, fetch

TYPE = "keyferry.type.v1.Money"


class Faulty:
    """Handles events, as long as nothing is wrong with `fault`; what it wrote before is never kept."""

    def __init__(self) -> None:
        self.fault: Exception | None = InvalidRequest.of("anything", "a bad deploy")

    async def __call__(self, event: Event, body: money_pb2.Money, connection: AsyncConnection) -> None:
        await store_effect(event, body, connection)
        if self.fault is not None:
            raise self.fault


@pytest.fixture(scope="module")
def migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "versions").mkdir()
    (folder / "versions" / "0001_effects.py").write_text(MIGRATION)
    return folder


@pytest.fixture
async def made(postgres: Postgres, migrations: Path) -> OneDatabase:
    return await postgres.make_database("audit", migrations, template="letters_template")


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
    monkeypatch.setattr(chassis.consumer, "RETRY_SECONDS", (0.05,))
    monkeypatch.setattr(chassis.consumer, "FETCH_SECONDS", 0.3)
    monkeypatch.setattr(chassis.consumer, "RESUME_CHECK_SECONDS", 0.05)


@pytest.fixture
def handler() -> Faulty:
    return Faulty()


@pytest.fixture
def desk(database: Database, handler: Faulty) -> DeadLetterDesk:
    return DeadLetterDesk(database, {CONSUMER: handlers(handler)})


def handlers(function: HandlerFunction[money_pb2.Money]) -> Mapping[str, Handler[money_pb2.Money]]:
    return {TYPE: Handler(money_pb2.Money, function)}


def consumer(client: Client, database: Database, handler: Faulty) -> Consumer:
    return Consumer(client=client, database=database, stream="PAYMENTS", name=CONSUMER, handlers=handlers(handler))


async def bury(client: Client, database: Database, handler: Faulty, made: OneDatabase, *numbers: int) -> None:
    """Make dead letters of events, as they come about."""
    await publish(client, [an_event(number) for number in numbers])
    async with background(consumer(client, database, handler).run()):
        await eventually(lambda: dead_letters(made, len(numbers)))


async def waiting(desk: DeadLetterDesk) -> list[DeadLetter]:
    return list(await desk.page(replayed=False, size=100, after=None))


async def inbox(made: OneDatabase) -> list[str]:
    return [row["event_id"] for row in await fetch(made.superuser_url, "SELECT event_id FROM inbox")]


class TestDesk:
    async def test_letters_are_listed_page_by_page_without_what_they_say(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        await bury(client, database, handler, made, 1, 2, 3, 4, 5)
        found: list[DeadLetter] = []
        while page := await desk.page(
            replayed=False, size=2, after=(found[-1].create_time, found[-1].dead_letter_id) if found else None
        ):
            found += page
        assert {letter.event_id for letter in found} == {f"event-{number}" for number in (1, 2, 3, 4, 5)}
        keys = [(letter.create_time, letter.dead_letter_id) for letter in found]
        assert keys == sorted(keys, reverse=True)
        assert (found[0].consumer, found[0].type_name, found[0].subject) == (CONSUMER, TYPE, SUBJECT)
        assert (found[0].deliveries, found[0].replay_time) == (1, None)
        assert found[0].reason == "INVALID_REQUEST: anything: a bad deploy"
        assert not {"headers", "data"} & set(DeadLetter.__dataclass_fields__)

    async def test_a_replay_has_the_effect_once_and_moves_the_letter(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        await bury(client, database, handler, made, 1)
        (letter,) = await waiting(desk)
        handler.fault = None
        replayed = await desk.replay(letter.dead_letter_id)
        assert replayed.replay_time is not None
        assert await desk.replay(letter.dead_letter_id) == replayed
        assert await effects(made) == [1]
        assert await inbox(made) == ["event-1"]
        assert await waiting(desk) == []
        assert await desk.page(replayed=True, size=10, after=None) == [replayed]

    async def test_of_many_who_replay_at_once_one_has_the_effect(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        await bury(client, database, handler, made, 1)
        (letter,) = await waiting(desk)
        handler.fault = None
        answers = await asyncio.gather(*(desk.replay(letter.dead_letter_id) for _ in range(5)))
        assert len({answer.replay_time for answer in answers}) == 1
        assert await effects(made) == [1]

    async def test_what_came_again_and_was_handled_meanwhile_is_not_handled_twice(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        await bury(client, database, handler, made, 1)
        (letter,) = await waiting(desk)
        handler.fault = None
        headers = {name: value for name, value in an_event(1).headers().items() if name != "Nats-Msg-Id"}
        await Publisher(client).publish(subject=SUBJECT, headers=headers, data=an_event(1).data)
        async with background(consumer(client, database, handler).run()):
            await wait_for_effects(made, [1])
        assert (await desk.replay(letter.dead_letter_id)).replay_time is not None
        assert await effects(made) == [1]

    async def test_a_failure_leaves_nothing_but_its_new_reason(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        await bury(client, database, handler, made, 1)
        (letter,) = await waiting(desk)
        for fault, why in (
            (InvalidRequest.of("anything", "another"), "INVALID_REQUEST: anything: another"),
            (ValueError("AAAAA-BBBBB-CCCCC"), "ValueError"),
        ):
            handler.fault = fault
            with pytest.raises(DeadLetterFailed) as failed:
                await desk.replay(letter.dead_letter_id)
            assert failed.value.metadata == {"why": why}
            (after,) = await waiting(desk)
            assert after.reason == why
        assert (await effects(made), await inbox(made)) == ([], [])

    async def test_a_failure_in_sql_leaves_nothing_but_its_new_reason(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty
    ) -> None:
        async def fail(_event: Event, _body: money_pb2.Money, connection: AsyncConnection) -> None:
            await connection.execute(text("SELECT 1 / 0"))

        await bury(client, database, handler, made, 1)
        desk = DeadLetterDesk(database, {CONSUMER: handlers(fail)})
        (letter,) = await waiting(desk)
        with pytest.raises(DeadLetterFailed):
            await desk.replay(letter.dead_letter_id)
        (after,) = await waiting(desk)
        assert after.reason == "DBAPIError"

    @pytest.mark.parametrize(
        "fault",
        [
            ServiceUnavailable("away"),
            TimeoutError(),
            OSError("a path"),
            RemoteError("again", code=grpc.StatusCode.ABORTED, reason="X"),
        ],
        ids=["unavailable", "timeout", "system", "aborted"],
    )
    async def test_what_passes_by_itself_says_nothing_about_the_letter(
        self,
        client: Client,
        database: Database,
        made: OneDatabase,
        handler: Faulty,
        desk: DeadLetterDesk,
        *,
        fault: Exception,
    ) -> None:
        await bury(client, database, handler, made, 1)
        before = await waiting(desk)
        handler.fault = fault
        with pytest.raises((ServiceUnavailable, RemoteError)):
            await desk.replay(before[0].dead_letter_id)
        assert await waiting(desk) == before
        assert (await effects(made), await inbox(made)) == ([], [])

    async def test_what_nobody_takes_fails_and_what_is_unknown_is_told(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty
    ) -> None:
        await bury(client, database, handler, made, 1)
        desk = DeadLetterDesk(database, {})
        (letter,) = await waiting(desk)
        with pytest.raises(DeadLetterFailed) as failed:
            await desk.replay(letter.dead_letter_id)
        assert TYPE in failed.value.metadata["why"]
        with pytest.raises(DeadLetterUnknown):
            await desk.replay(uuid.uuid4())

    @pytest.mark.parametrize("place", ["replay.before_commit", "replay.after_commit", "note.before_commit"])
    async def test_a_failure_at_any_step_is_mended_by_a_repeat(
        self,
        client: Client,
        database: Database,
        made: OneDatabase,
        handler: Faulty,
        desk: DeadLetterDesk,
        *,
        place: str,
    ) -> None:
        await bury(client, database, handler, made, 1)
        (letter,) = await waiting(desk)
        if not place.startswith("note"):
            handler.fault = None
        configure_failpoints(f"dead_letter.{place}=error")
        try:
            with pytest.raises(FailpointError):
                await desk.replay(letter.dead_letter_id)
        finally:
            configure_failpoints("")
        handler.fault = None
        assert (await desk.replay(letter.dead_letter_id)).replay_time is not None
        assert await effects(made) == [1]

    async def test_what_is_written_with_a_replay_is_of_its_transaction(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        told: list[str] = []

        async def note(letter: DeadLetter, connection: AsyncConnection) -> None:
            await store_effect(an_event(100), money_pb2.Money(minor_units=100), connection)
            told.append(letter.event_id)
            if len(told) == 1:
                raise ServiceUnavailable("away")

        await bury(client, database, handler, made, 1)
        (letter,) = await waiting(desk)
        handler.fault = None
        with pytest.raises(ServiceUnavailable):
            await desk.replay(letter.dead_letter_id, with_it=note)
        assert await effects(made) == []
        await desk.replay(letter.dead_letter_id, with_it=note)
        await desk.replay(letter.dead_letter_id, with_it=note)
        assert (told, await effects(made)) == (["event-1", "event-1"], [1, 100])


class TestStoppedConsumer:
    async def stop(self, client: Client, made: OneDatabase) -> None:
        await publish(client, [an_event(number) for number in range(MOST_DEAD_IN_A_ROW)])
        await eventually(lambda: dead_letters(made, MOST_DEAD_IN_A_ROW))
        await eventually(self.is_stopped)

    async def is_stopped(self) -> bool:
        return bool(CONSUMER_STOPPED.labels(CONSUMER)._value.get() == 1)

    async def test_it_goes_on_once_every_letter_of_its_run_was_replayed(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        async with background(consumer(client, database, handler).run()):
            await self.stop(client, made)
            handler.fault = None
            await publish(client, [an_event(100)])
            first, *others = await waiting(desk)
            for letter in others:
                await desk.replay(letter.dead_letter_id)
            assert await self.is_stopped()
            assert 100 not in await effects(made)
            await desk.replay(first.dead_letter_id)
            await wait_for_effects(made, [*range(MOST_DEAD_IN_A_ROW), 100])
            assert not await self.is_stopped()

    async def test_it_goes_on_when_told_and_stops_again_when_nothing_was_mended(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        # What was said before it stopped is no answer to its stopping.
        await desk.resume(CONSUMER)
        async with background(consumer(client, database, handler).run()):
            await self.stop(client, made)
            await desk.resume(CONSUMER)
            await desk.resume(CONSUMER)
            await publish(client, [an_event(number) for number in range(100, 100 + MOST_DEAD_IN_A_ROW)])
            await eventually(lambda: dead_letters(made, MOST_DEAD_IN_A_ROW * 2))
            await eventually(self.is_stopped)
            handler.fault = None
            await publish(client, [an_event(200)])
            await desk.resume(CONSUMER)
            await wait_for_effects(made, [200])
        assert len(await waiting(desk)) == MOST_DEAD_IN_A_ROW * 2

    async def test_only_a_consumer_of_this_service_can_be_told(self, desk: DeadLetterDesk) -> None:
        with pytest.raises(InvalidRequest, match=CONSUMER):
            await desk.resume("somebody-else")


class TestWatch:
    async def test_the_gauges_tell_how_many_wait_and_how_long_the_oldest_has(
        self, client: Client, database: Database, made: OneDatabase, handler: Faulty, desk: DeadLetterDesk
    ) -> None:
        watch = DeadLetterWatch(database, [CONSUMER, "idle"])
        await bury(client, database, handler, made, 1, 2)
        await fetch(made.superuser_url, "UPDATE dead_letter SET create_time = now() - interval '1 hour'")
        await fetch(
            made.superuser_url,
            "INSERT INTO dead_letter SELECT gen_random_uuid(), 'gone', event_id, subject, headers, data, reason, 1, "
            "now() - interval '2 hours', NULL FROM dead_letter LIMIT 1",
        )
        await watch.count()
        told = {name: DEAD_LETTERS_WAITING.labels(name)._value.get() for name in (CONSUMER, "idle", OTHERS)}
        assert told == {CONSUMER: 2, "idle": 0, OTHERS: 1}
        assert 3600 <= DEAD_LETTER_AGE.labels(CONSUMER)._value.get() < 7200
        assert DEAD_LETTER_AGE.labels(OTHERS)._value.get() >= 7200
        handler.fault = None
        for letter in await waiting(desk):
            if letter.consumer == CONSUMER:
                await desk.replay(letter.dead_letter_id)
        async with background(watch.run()):
            await eventually(lambda: self.is_counted(0))
        assert DEAD_LETTER_AGE.labels(CONSUMER)._value.get() == 0

    async def is_counted(self, count: int) -> bool:
        return bool(DEAD_LETTERS_WAITING.labels(CONSUMER)._value.get() == count)
