import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from audit.adapters.jose import JosePersonKeys
from audit.adapters.postgres import PostgresLog
from audit.appending import GroupAppender
from audit.domain.entry import Actor, ActorType, Draft
from audit.domain.filters import Filters
from audit.listing import list_entries
from chassis.database import Database
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.keyring import Keyring

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres

MIGRATIONS = REPOSITORY / "services" / "audit" / "migrations"
OLD = "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NEW = "v2:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"
ALICE = Actor(ActorType.CUSTOMER, "alice", "alice@example.com", "192.0.2.7", "Browser/1.0")


@pytest.fixture
async def audit_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("audit", MIGRATIONS)


@pytest.fixture
async def database(audit_database: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(audit_database.service_url, application="test") as database:
        yield database


@pytest.fixture
def keys() -> JosePersonKeys:
    return JosePersonKeys(Keyring.parse(OLD))


@pytest.fixture
async def appender(database: Database, keys: JosePersonKeys) -> AsyncIterator[GroupAppender]:
    appender = GroupAppender(PostgresLog(database), keys)
    task = asyncio.create_task(appender.run())
    yield appender
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def a_draft(actor: Actor = ALICE, *, append_id: str | None = None, told: bytes = b"told", **rest: str) -> Draft:
    append_id = append_id or str(uuid.uuid4())
    return Draft(
        append_id=append_id,
        told=told,
        actor=actor,
        action=rest.get("action", "key.link_authorized"),
        recorder="vault",
        order_id=rest.get("order_id", "order-1"),
        key_id=rest.get("key_id", "key-1"),
        request_id=append_id,
    )


async def all_rows(database: OneDatabase) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        return list(await connection.fetch("SELECT * FROM entry ORDER BY sequence"))
    finally:
        await connection.close()


async def test_an_entry_is_stored_as_it_is_hashed(appender: GroupAppender, audit_database: OneDatabase) -> None:
    appended = await appender.append(a_draft())
    (row,) = await all_rows(audit_database)
    assert (appended.sequence, row["sequence"]) == (0, 0)
    assert row["leaf_hash"] == appended.leaf_hash == hashlib.sha256(b"\0" + row["canonical"].encode()).digest()
    assert row["order_id"] == "order-1"
    assert row["actor_id"] == json.loads(row["canonical"])["actor"]["id"]


async def test_nothing_personal_is_stored_in_the_clear(appender: GroupAppender, audit_database: OneDatabase) -> None:
    await appender.append(a_draft(told=b"alice@example.com from 192.0.2.7"))
    connection = await asyncpg.connect(audit_database.superuser_url)
    dump = repr(
        [
            list(map(bytes_or_text, row))
            for table in ("entry", "person")
            for row in await connection.fetch(f"TABLE {table}")
        ]
    )
    await connection.close()
    for personal in ("alice", "example.com", "192.0.2.7", "Browser"):
        assert personal not in dump
    assert hashlib.sha256(b"alice@example.com from 192.0.2.7").hexdigest() not in dump


def bytes_or_text(value: object) -> str:
    return value.decode("latin-1") + value.hex() if isinstance(value, bytes) else str(value)


async def test_two_replicas_leave_no_gap_and_no_step_back_in_time(
    audit_database: OneDatabase, keys: JosePersonKeys
) -> None:
    async with (
        Database.open(audit_database.service_url, application="one") as one,
        Database.open(audit_database.service_url, application="two") as two,
    ):
        appenders = [GroupAppender(PostgresLog(database), keys) for database in (one, two)]
        tasks = [asyncio.create_task(appender.run()) for appender in appenders]
        persons = [Actor(ActorType.CUSTOMER, f"customer-{number % 7}") for number in range(400)]

        async def append_later(number: int) -> int:
            await asyncio.sleep(number % 50 / 500)
            return (await appenders[number % 2].append(a_draft(persons[number]))).sequence

        sequences = await asyncio.gather(*(append_later(number) for number in range(400)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(sequences) == list(range(400))
    entries = [json.loads(row["canonical"]) for row in await all_rows(audit_database)]
    assert [entry["sequence"] for entry in entries] == list(range(400))
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert len({entry["actor"]["id"] for entry in entries}) == 7


async def test_the_same_append_twice_is_one_entry(appender: GroupAppender, audit_database: OneDatabase) -> None:
    draft = a_draft()
    answers = await asyncio.gather(*(appender.append(draft) for _ in range(20)))
    again = await appender.append(draft)
    assert {answer.sequence for answer in answers} == {0}
    assert again == answers[0]
    assert len(await all_rows(audit_database)) == 1


@pytest.mark.parametrize("actor", [ALICE, Actor(ActorType.SERVICE, "vault")], ids=["person", "service"])
async def test_another_message_under_the_same_id_is_refused(appender: GroupAppender, actor: Actor) -> None:
    draft = a_draft(actor)
    await appender.append(draft)
    with pytest.raises(RequestIdReused):
        await appender.append(a_draft(actor, append_id=draft.append_id, told=b"something else"))


async def test_one_draft_that_cannot_be_stored_does_not_take_the_others_with_it(
    appender: GroupAppender, audit_database: OneDatabase
) -> None:
    bad = a_draft(order_id="order-\x00")
    results = await asyncio.gather(
        *(appender.append(draft) for draft in (a_draft(), bad, a_draft())), return_exceptions=True
    )
    assert isinstance(results[1], ServiceUnavailable)
    assert [row["sequence"] for row in await all_rows(audit_database)] == [0, 1]


async def test_listing_opens_what_is_personal_and_filters(
    appender: GroupAppender, database: Database, keys: JosePersonKeys
) -> None:
    bob = Actor(ActorType.ADMIN, "bob", "bob@example.com")
    vault = Actor(ActorType.SERVICE, "vault")
    for draft in (
        a_draft(ALICE),
        a_draft(bob, action="order.access_denied", key_id=""),
        a_draft(vault, order_id="order-2", action="key.sealed"),
        a_draft(ALICE, order_id="order-2", action="key.link_released"),
    ):
        await appender.append(draft)

    async def found(order_id: str = "", key_id: str = "", action: str = "", actor_id: str = "") -> list[int]:
        filters = Filters(order_id, key_id, action, actor_id)
        page = await list_entries(PostgresLog(database), keys, filters, size=50, token="")
        return [listed.entry.sequence for listed in page.entries]

    page = await list_entries(PostgresLog(database), keys, Filters(), size=50, token="")
    assert [listed.actor for listed in page.entries] == [ALICE, bob, vault, ALICE]
    assert page.next_page_token == ""
    assert await found(order_id="order-2") == [2, 3]
    assert await found(key_id="key-1") == [0, 2, 3]
    assert await found(action="key.sealed") == [2]
    assert await found(actor_id="alice") == [0, 3]
    assert await found(actor_id="bob") == [1]
    assert await found(actor_id="vault") == [2]
    assert await found(actor_id="mallory") == []
    assert await found(actor_id="alice", order_id="order-2") == [3]
    assert await found(actor_id="alice", action="key.link_released") == [3]
    assert await found(actor_id="vault", action="key.link_released") == []


async def test_pages_follow_one_another_while_the_log_grows(
    appender: GroupAppender, database: Database, keys: JosePersonKeys
) -> None:
    for number in range(7):
        await appender.append(a_draft(order_id=f"order-{number % 2}"))
    log, seen, token = PostgresLog(database), list[int](), ""
    while True:
        page = await list_entries(log, keys, Filters(order_id="order-0"), size=2, token=token)
        seen += [listed.entry.sequence for listed in page.entries]
        await appender.append(a_draft(order_id="order-1"))
        token = page.next_page_token
        if not token:
            break
    assert seen == [0, 2, 4, 6]


async def test_a_person_stays_the_same_when_the_secret_is_rotated(
    appender: GroupAppender, database: Database, audit_database: OneDatabase
) -> None:
    await appender.append(a_draft())
    rotated = JosePersonKeys(Keyring.parse(f"{NEW},{OLD}"))
    second = GroupAppender(PostgresLog(database), rotated)
    task = asyncio.create_task(second.run())
    await second.append(a_draft())
    await second.append(a_draft(Actor(ActorType.CUSTOMER, "carol")))
    task.cancel()
    rows = await all_rows(audit_database)
    assert rows[0]["actor_id"] == rows[1]["actor_id"]
    page = await list_entries(PostgresLog(database), rotated, Filters(actor_id="alice"), size=50, token="")
    assert [listed.actor for listed in page.entries] == [ALICE, ALICE]


async def test_who_is_forgotten_cannot_be_read_and_every_hash_still_holds(
    appender: GroupAppender, database: Database, keys: JosePersonKeys, audit_database: OneDatabase
) -> None:
    draft = a_draft()
    await appender.append(draft)
    before = await all_rows(audit_database)
    connection = await asyncpg.connect(audit_database.migrator_url)
    await connection.execute("DELETE FROM person")
    await connection.close()
    (listed,) = (await list_entries(PostgresLog(database), keys, Filters(), size=50, token="")).entries
    assert listed.actor == Actor(ActorType.CUSTOMER, listed.entry.actor_id)
    assert not (await list_entries(PostgresLog(database), keys, Filters(actor_id="alice"), size=5, token="")).entries
    assert await all_rows(audit_database) == before
    with pytest.raises(RequestIdReused):
        await appender.append(draft)
    appended = await appender.append(a_draft())
    rows = await all_rows(audit_database)
    assert appended.sequence == 1
    assert rows[1]["actor_id"] != rows[0]["actor_id"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET leaf_hash = leaf_hash",
        "DELETE FROM entry",
        "TRUNCATE entry",
        "DELETE FROM person",
        "UPDATE person SET pseudonym = 'p'",
        "ALTER TABLE entry DISABLE TRIGGER ALL",
        "DROP TABLE entry",
    ],
)
async def test_the_service_role_can_change_nothing(
    appender: GroupAppender, audit_database: OneDatabase, statement: str
) -> None:
    await appender.append(a_draft())
    connection = await asyncpg.connect(audit_database.service_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("statement", ["UPDATE entry SET leaf_hash = leaf_hash", "DELETE FROM entry", "TRUNCATE entry"])
async def test_not_even_a_superuser_changes_an_entry_by_a_slip(
    appender: GroupAppender, audit_database: OneDatabase, statement: str
) -> None:
    await appender.append(a_draft())
    connection = await asyncpg.connect(audit_database.superuser_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await connection.execute(statement)
    await connection.close()


async def test_a_row_whose_hash_does_not_hold_is_not_taken(audit_database: OneDatabase) -> None:
    connection = await asyncpg.connect(audit_database.service_url)
    canonical = json.dumps({"sequence": 0, "actor": {"id": "a"}, "action": "x"})
    insert = "INSERT INTO entry (sequence, append_id, request_digest, canonical, leaf_hash) VALUES ($1, $2, $3, $4, $5)"
    good = hashlib.sha256(b"\0" + canonical.encode()).digest()
    with pytest.raises(asyncpg.CheckViolationError, match="entry_hash_holds"):
        await connection.execute(insert, 0, uuid.uuid4(), bytes(32), canonical, bytes(32))
    with pytest.raises(asyncpg.CheckViolationError, match="entry_sequence_is_hashed"):
        await connection.execute(insert, 1, uuid.uuid4(), bytes(32), canonical, good)
    await connection.close()


async def test_a_lost_database_refuses_and_recovers(
    appender: GroupAppender, audit_database: OneDatabase, postgres: Postgres
) -> None:
    await appender.append(a_draft())
    draft = a_draft()
    admin = await asyncpg.connect(postgres.server.url)
    await admin.execute(f"ALTER DATABASE {audit_database.name} ALLOW_CONNECTIONS false")
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", audit_database.name
    )
    with pytest.raises(ServiceUnavailable):
        await appender.append(draft)
    await admin.execute(f"ALTER DATABASE {audit_database.name} ALLOW_CONNECTIONS true")
    await admin.close()
    assert (await appender.append(draft)).sequence == 1
