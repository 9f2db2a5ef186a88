import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from audit.adapters.postgres import PostgresLog
from audit.domain.entry import Appended, Place
from audit.domain.filters import Filters
from audit.ports import EarlierAppend, Log, NewEntry, Person
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


def an_entry(sequence: int, *, order_id: str = "", key_id: str = "", actor_id: str = "vault") -> NewEntry:
    canonical = json.dumps(
        {
            "action": "key.sealed",
            "actor": {"id": actor_id, "type": "SERVICE"},
            "details": {},
            "key_id": key_id,
            "occur_time": "",
            "order_id": order_id,
            "personal": "",
            "recorder": "vault",
            "request_id": "",
            "sequence": sequence,
            "time": "2026-01-02T12:00:00.000000Z",
            "version": 1,
        }
    )
    digest = hashlib.sha256(b"\0" + canonical.encode()).digest()
    return NewEntry(str(uuid.uuid4()), bytes(32), canonical, Appended(sequence, NOON, digest))


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
