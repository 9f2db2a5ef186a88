import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from audit.adapters.postgres import PostgresLog
from audit.domain.entry import Appended, Place, format_time
from audit.domain.filters import Filters
from audit.ports import EarlierAppend, Line, Log, NewEntry, Person
from chassis.database import Database

from tests.integration.real_servers import REPOSITORY, Postgres
from tests.unit.audit.memory_log import MemoryLog

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
LOOKUP = hashlib.sha256(b"alice").digest()
ALICE = Person("p-alice", "v1", bytes(60))


@pytest.fixture(params=["memory", "postgres"])
async def log(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Log]:
    if request.param == "memory":
        yield MemoryLog()
        return
    made = await postgres.make_database("audit", REPOSITORY / "services" / "audit" / "migrations")
    async with Database.open(made.service_url, application="test") as database:
        yield PostgresLog(database)


def an_entry(
    sequence: int,
    *,
    order_id: str = "",
    key_id: str = "",
    actor_id: str = "vault",
    action: str = "key.sealed",
    time: datetime = NOON,
) -> NewEntry:
    canonical = json.dumps(
        {
            "action": action,
            "actor": {"id": actor_id, "type": "SERVICE"},
            "details": {},
            "key_id": key_id,
            "occur_time": "",
            "order_id": order_id,
            "personal": "",
            "recorder": "vault",
            "request_id": "",
            "sequence": sequence,
            "time": format_time(time),
            "version": 1,
        }
    )
    digest = hashlib.sha256(b"\0" + canonical.encode()).digest()
    return NewEntry(str(uuid.uuid4()), bytes(32), canonical, Appended(sequence, time, digest))


async def store(log: Log, *entries: NewEntry) -> None:
    async with log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_entries(entries)


async def test_a_turn_tells_the_last_place_and_a_time(log: Log) -> None:
    async with log.transaction() as transaction:
        last, now = await transaction.take_turn()
        assert last is None
        assert now.tzinfo is not None
        await transaction.add_entries([an_entry(0), an_entry(1)])
    async with log.transaction() as transaction:
        assert (await transaction.take_turn())[0] == Place(1, NOON)


async def test_what_was_appended_is_found_by_its_id(log: Log) -> None:
    entry = an_entry(0)
    await store(log, entry)
    async with log.transaction() as transaction:
        found = await transaction.earlier_appends({entry.append_id, str(uuid.uuid4())})
    assert found == {entry.append_id: EarlierAppend(bytes(32), entry.appended)}


async def test_a_transaction_that_fails_leaves_nothing(log: Log) -> None:
    async def fail() -> None:
        async with log.transaction() as transaction:
            await transaction.take_turn()
            await transaction.add_person(ALICE, LOOKUP)
            await transaction.add_entries([an_entry(0)])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with log.transaction() as transaction:
        assert (await transaction.take_turn())[0] is None
        assert await transaction.persons({LOOKUP}) == {}


async def test_a_person_is_found_by_lookup_and_by_pseudonym_at_once_and_later(log: Log) -> None:
    async with log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_person(ALICE, LOOKUP)
        assert await transaction.persons({LOOKUP, bytes(32)}) == {LOOKUP: ALICE}
    async with log.transaction() as transaction:
        assert await transaction.persons_named({"p-alice", "p-bob"}) == {"p-alice": ALICE}
        assert await transaction.persons(set()) == {}


async def test_entries_are_found_by_every_filter_in_their_order(log: Log) -> None:
    await store(
        log,
        an_entry(0, order_id="o", key_id="k"),
        an_entry(1, order_id="o"),
        an_entry(2, key_id="k", actor_id="p-alice"),
    )

    async def found(filters: Filters, *actors: str, after: int = -1, limit: int = 9) -> list[int]:
        async with log.transaction() as transaction:
            entries = await transaction.entries(filters, actor_ids=actors, after=after, limit=limit)
            return [entry.sequence for entry in entries]

    assert await found(Filters()) == [0, 1, 2]
    assert await found(Filters(), limit=2) == [0, 1]
    assert await found(Filters(), after=0) == [1, 2]
    assert await found(Filters(order_id="o")) == [0, 1]
    assert await found(Filters(key_id="k")) == [0, 2]
    assert await found(Filters(order_id="o", key_id="k")) == [0]
    assert await found(Filters(action="key.sealed")) == [0, 1, 2]
    assert await found(Filters(action="key.held")) == []
    assert await found(Filters(actor_id="alice"), "alice", "p-alice") == [2]


async def test_a_turn_may_be_taken_again_by_who_has_it(log: Log) -> None:
    async with log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_entries([an_entry(0)])
        assert (await transaction.take_turn())[0] == Place(0, NOON)


@pytest.mark.parametrize("filters", [Filters(), Filters(order_id="o")], ids=["all", "order"])
async def test_entries_are_found_by_the_time_at_which_the_log_took_them(log: Log, filters: Filters) -> None:
    seconds = [0, 1, 1, 1, 5, 9]
    times = [NOON + timedelta(seconds=second) for second in seconds]
    await store(log, *(an_entry(place, order_id="o", time=time) for place, time in enumerate(times)))

    async def found(start: int | None, end: int | None, *, after: int = -1) -> list[int]:
        start_time = None if start is None else NOON + timedelta(seconds=start)
        end_time = None if end is None else NOON + timedelta(seconds=end)
        wanted = replace(filters, start_time=start_time, end_time=end_time)
        async with log.transaction() as transaction:
            entries = await transaction.entries(wanted, actor_ids=(), after=after, limit=9)
            return [entry.sequence for entry in entries]

    for start in (None, *range(-1, 11)):
        for end in (None, *range(-1, 11)):
            expected = [
                place
                for place, second in enumerate(seconds)
                if (start is None or second >= start) and (end is None or second < end)
            ]
            assert await found(start, end) == expected, (start, end)
    assert await found(1, 9, after=1) == [2, 3, 4]


async def test_no_entry_is_found_by_time_in_an_empty_log(log: Log) -> None:
    async with log.transaction() as transaction:
        assert await transaction.entries(Filters(start_time=NOON), actor_ids=(), after=-1, limit=9) == []
        assert await transaction.size() == 0
        assert await transaction.lines(0, 9, limit=9) == []


async def test_each_form_of_an_actor_is_found_and_all_stand_by_sequence(log: Log) -> None:
    names = ["vault", "p-1", "p-2", "vault", "p-1", "shop"]
    await store(log, *(an_entry(place, actor_id=name) for place, name in enumerate(names)))
    async with log.transaction() as transaction:
        entries = await transaction.entries(Filters(), actor_ids={"p-1", "vault", "nobody"}, after=0, limit=2)
    assert [entry.sequence for entry in entries] == [1, 3]


async def test_lines_are_what_was_hashed(log: Log) -> None:
    entries = [an_entry(place) for place in range(4)]
    await store(log, *entries)
    async with log.transaction() as transaction:
        assert await transaction.size() == 4
        lines = await transaction.lines(1, 9, limit=2)
        assert await transaction.lines(2, 3, limit=9) == [Line(2, entries[2].canonical)]
    assert lines == [Line(place, entries[place].canonical) for place in (1, 2)]


async def test_a_person_is_forgotten_with_the_entry_that_says_so(log: Log) -> None:
    other = Person("p-bob", "v1", bytes(60))
    async with log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_person(ALICE, LOOKUP)
        await transaction.add_person(other, bytes(32))
    async with log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_entries([an_entry(0, action="customer.erased")])
        await transaction.forget_person([hashlib.sha256(b"nobody").digest(), LOOKUP], told_at=0)
        assert await transaction.persons({LOOKUP}) == {}
    async with log.transaction() as transaction:
        assert await transaction.persons({LOOKUP, bytes(32)}) == {bytes(32): other}


async def test_when_somebody_was_forgotten_is_known_and_the_last_time_counts(log: Log) -> None:
    other, noon = hashlib.sha256(b"bob").digest(), datetime(2026, 1, 2, 12, tzinfo=UTC)
    async with log.transaction() as transaction:
        await transaction.note_forgotten([LOOKUP, other], time=noon - timedelta(hours=1))
        assert await transaction.forgotten({LOOKUP}) == {LOOKUP: noon - timedelta(hours=1)}
        await transaction.note_forgotten([LOOKUP], time=noon)
    async with log.transaction() as transaction:
        assert await transaction.forgotten({LOOKUP, other, bytes(32)}) == {
            LOOKUP: noon,
            other: noon - timedelta(hours=1),
        }
        assert await transaction.forgotten(set()) == {}


async def test_who_was_to_be_forgotten_is_not_when_the_transaction_fails(log: Log) -> None:
    async with log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_person(ALICE, LOOKUP)

    async def fail() -> None:
        async with log.transaction() as transaction:
            await transaction.take_turn()
            await transaction.add_entries([an_entry(0, action="customer.erased")])
            await transaction.forget_person([LOOKUP], told_at=0)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with log.transaction() as transaction:
        assert await transaction.persons({LOOKUP}) == {LOOKUP: ALICE}
