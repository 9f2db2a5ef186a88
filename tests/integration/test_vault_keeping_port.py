"""What every keeper of vault's rows promises of deliveries, retention and forgetting: PostgreSQL, and the fake."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import pytest
from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.outbox import Outbox
from vault.adapters.postgres import PostgresKeys
from vault.domain.delivery import MOST_RELEASES_KEPT, Act, Delivery
from vault.domain.familiarity import Kind
from vault.domain.key import NOBODY, Binding, KeyRecord, KeyState
from vault.domain.retention import Retention
from vault.ports import Keys

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.integration.test_vault_keys_port import a_record, add, finish, load, mark_opened, revoke
from tests.unit.vault.fakes import NOON, MemoryKeys

DAY = timedelta(days=1)
RETENTION = Retention(opened=30 * DAY, unopened=90 * DAY)
OWNER = "v1.owner"


@pytest.fixture
async def database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("vault", REPOSITORY / "services" / "vault" / "migrations")


@pytest.fixture
async def in_postgres(database: OneDatabase) -> AsyncIterator[PostgresKeys]:
    async with Database.open(database.service_url, application="test") as opened:
        yield PostgresKeys(opened, Outbox({"vault": "VAULT", "audit": "AUDIT"}))


@pytest.fixture(params=["memory", "postgres"])
async def keys(request: pytest.FixtureRequest, in_postgres: PostgresKeys) -> Keys:
    return MemoryKeys() if request.param == "memory" else in_postgres


async def sealed(keys: Keys, number: int = 1, *, opened: bool = False) -> KeyRecord:
    record = a_record(number)
    await add(keys, record)
    await finish(keys, record)
    if opened:
        await mark_opened(keys, record)
    return await load(keys, record)


async def shred(keys: Keys, *records: KeyRecord, delete_at: datetime = NOON, expired: bool = False) -> None:
    async with keys.transaction() as transaction:
        await transaction.shred([record.key_id for record in records], now=NOON, delete_at=delete_at, expired=expired)


async def expired(keys: Keys, now: datetime, *, limit: int = 10) -> list[str]:
    async with keys.transaction() as transaction:
        found = await transaction.lock_expired(RETENTION, limit=limit, now=now)
    return sorted(record.key_id for record in found)


# Deliveries


async def release(keys: Keys, record: KeyRecord, request_id: str, *, act: Act = Act.REVEALED, seconds: int = 0) -> None:
    time = NOON + timedelta(seconds=seconds)
    async with keys.transaction() as transaction:
        await transaction.note_release(
            record.key_id, Delivery(act, time, request_id=request_id, network="192.0.0.0/16", device="Firefox on Linux")
        )


async def test_a_release_is_noted_and_counted_once_per_request(keys: Keys) -> None:
    record, other = await sealed(keys), await sealed(keys, 2)
    for request_id in ("r-1", "r-1", "r-2"):
        await release(keys, record, request_id)
    await release(keys, record, "r-3", act=Act.LINK_ISSUED, seconds=1)
    stored = await load(keys, record)
    assert (stored.reveal_count, stored.link_count) == (2, 1)
    assert await load(keys, other) == other
    async with keys.transaction() as transaction:
        lines = await transaction.read_deliveries(record.key_id)
        assert [(line.act, line.request_id) for line in lines] == [
            (Act.REVEALED, "r-1"),
            (Act.REVEALED, "r-2"),
            (Act.LINK_ISSUED, "r-3"),
        ]
        assert (lines[0].network, lines[0].device, lines[0].time) == ("192.0.0.0/16", "Firefox on Linux", NOON)
        assert await transaction.read_deliveries(other.key_id) == []


async def test_usage_is_of_links_and_reveals_since_then(keys: Keys) -> None:
    record = await sealed(keys)
    await release(keys, record, "r-1")
    await release(keys, record, "r-2", act=Act.LINK_ISSUED, seconds=1)
    async with keys.transaction() as transaction:
        await transaction.note_delivery([record.key_id], Delivery(Act.REVOKED, NOON, caller="fulfillment"))
        usage = await transaction.usage(record.key_id, "r-2", since=NOON - timedelta(seconds=1))
        assert (usage.times, usage.is_counted) == ([NOON, NOON + timedelta(seconds=1)], True)
        usage = await transaction.usage(record.key_id, "r-1", since=NOON)
        assert (usage.times, usage.is_counted) == ([NOON + timedelta(seconds=1)], False)


async def test_a_log_keeps_the_last_releases_and_everything_else(keys: Keys) -> None:
    record = await sealed(keys)
    async with keys.transaction() as transaction:
        await transaction.note_delivery([record.key_id], Delivery(Act.REVOKED, NOON, reason="first"))
        for number in range(MOST_RELEASES_KEPT + 3):
            await transaction.note_release(record.key_id, Delivery(Act.REVEALED, NOON, request_id=f"r-{number}"))
        lines = await transaction.read_deliveries(record.key_id)
    assert [line.request_id for line in lines] == ["", *(f"r-{n}" for n in range(3, MOST_RELEASES_KEPT + 3))]
    assert (await load(keys, record)).reveal_count == MOST_RELEASES_KEPT + 3


async def test_an_owner_is_known_by_the_last_traits_of_each_kind(keys: Keys) -> None:
    async with keys.transaction() as transaction:
        await transaction.know_access("v0.owner", {Kind.DEVICE: "old"}, now=NOON, most=2)
        for number, name in enumerate("abca"):
            traits = {Kind.DEVICE: name, Kind.NETWORK: "n"}
            await transaction.know_access(OWNER, traits, now=NOON + number * 2 * DAY, most=2)
        await transaction.know_access("v1.another", {Kind.COUNTRY: "x"}, now=NOON, most=2)
        await transaction.know_access(OWNER, {}, now=NOON, most=2)
        known = await transaction.known_access([OWNER, "v0.owner"])
        assert {kind: set(traits) for kind, traits in known.items()} == {
            Kind.DEVICE: {"a", "c", "old"},
            Kind.NETWORK: {"n"},
        }
        await transaction.forget_access([OWNER])
        assert await transaction.known_access([OWNER]) == {}
        assert await transaction.known_access(["v1.another"]) == {Kind.COUNTRY: {"x"}}


# Retention


async def test_an_opened_key_ends_after_its_opening_and_an_unopened_one_much_later(keys: Keys) -> None:
    opened, unopened = await sealed(keys, 1, opened=True), await sealed(keys, 2)
    assert await expired(keys, NOON + 30 * DAY - timedelta(seconds=1)) == []
    assert await expired(keys, NOON + 30 * DAY) == [opened.key_id]
    limit = unopened.create_time + 90 * DAY
    assert await expired(keys, limit - timedelta(seconds=1)) == [opened.key_id]
    assert await expired(keys, limit) == sorted([opened.key_id, unopened.key_id])
    assert len(await expired(keys, limit, limit=1)) == 1


async def test_the_time_of_a_revoked_key_begins_with_its_revocation(keys: Keys) -> None:
    record = await sealed(keys)
    async with keys.transaction() as transaction:
        await transaction.revoke([record.key_id], now=NOON + 89 * DAY)
    assert await expired(keys, NOON + 100 * DAY) == []
    assert await expired(keys, NOON + 179 * DAY) == [record.key_id]


async def test_what_expired_has_no_dek_and_does_not_expire_again(keys: Keys) -> None:
    record, other = await sealed(keys), await sealed(keys, 2)
    await shred(keys, record, expired=True)
    ended = replace(record, state=KeyState.SHREDDED, dek=None, shred_time=NOON, expire_time=NOON)
    assert await load(keys, record) == ended
    assert await load(keys, other) == other
    assert await expired(keys, NOON + 999 * DAY) == [other.key_id]


async def lease(keys: Keys, now: datetime, *, limit: int = 10) -> Sequence[tuple[str, int]]:
    async with keys.transaction() as transaction:
        leased = await transaction.lease_objects(limit=limit, now=now, until=now + DAY)
    return sorted((record.key_id, tries) for record, tries in leased)


async def test_an_object_is_left_until_it_was_deleted(keys: Keys) -> None:
    record = await sealed(keys)
    await sealed(keys, 2)
    assert await lease(keys, NOON + DAY) == []
    await shred(keys, record, delete_at=NOON + DAY)
    assert await lease(keys, NOON + DAY - timedelta(seconds=1)) == []
    assert await lease(keys, NOON + DAY) == [(record.key_id, 1)]
    assert await lease(keys, NOON + DAY) == [], "it is leased"
    assert await lease(keys, NOON + 2 * DAY) == [(record.key_id, 2)], "its lease has ended"
    async with keys.transaction() as transaction:
        await transaction.object_waits(record.key_id, until=NOON + 9 * DAY)
        assert await transaction.read_objects_left() == (1, NOON)
    assert await lease(keys, NOON + 8 * DAY) == []
    for later in (0, 1):
        async with keys.transaction() as transaction:
            await transaction.object_deleted(record.key_id, now=NOON + (3 + later) * DAY)
            await transaction.object_waits(record.key_id, until=NOON)
            assert await transaction.read_objects_left() == (0, None)
    assert (await load(keys, record)).object_delete_time == NOON + 3 * DAY
    assert await lease(keys, NOON + 99 * DAY) == []


# Forgetting


async def test_a_customers_keys_are_found_and_made_nobodys(keys: Keys) -> None:
    mine = [await sealed(keys, number, opened=number == 1) for number in (1, 2)]
    await revoke(keys, held := await sealed(keys, 3))
    stranger = replace(a_record(4), binding=Binding("v1.order", "v1.stranger"))
    await add(keys, stranger)
    await release(keys, mine[0], "r-1")
    await release(keys, mine[1], "r-2")
    async with keys.transaction() as transaction:
        assert await transaction.read_owed([OWNER, "v0.owner"], most=9) == (1, ["order-1"])
        assert await transaction.read_owed(["v1.nobody"], most=9) == (0, [])
        settled = await transaction.lock_owned([OWNER], limit=9, with_owed=False)
        assert [record.key_id for record in settled] == sorted([mine[0].key_id, held.key_id])
        assert len(await transaction.lock_owned([OWNER], limit=9, with_owed=True)) == 3
        assert len(await transaction.lock_owned([OWNER], limit=2, with_owed=True)) == 2
        await transaction.forget_owner([mine[0].key_id, held.key_id])
        remaining = await transaction.lock_owned([OWNER], limit=9, with_owed=True)
        assert [record.key_id for record in remaining] == [mine[1].key_id]
        (line,) = await transaction.read_deliveries(mine[0].key_id)
        assert (line.network, line.device, line.request_id) == ("", "", "r-1")
        (kept,) = await transaction.read_deliveries(mine[1].key_id)
        assert kept.network == "192.0.0.0/16"
    assert (await load(keys, mine[0])).binding == Binding("v1.order", NOBODY)
    assert await load(keys, stranger) == stranger


async def test_a_request_is_answered_the_same_again(keys: Keys) -> None:
    counts = {"shredded_count": 3, "kept_count": 0}
    async with keys.transaction() as transaction:
        assert await transaction.read_counts("r-1", bytes(32)) is None
        await transaction.keep_counts("r-1", bytes(32), counts)
    async with keys.transaction() as transaction:
        assert await transaction.read_counts("r-1", bytes(32)) == counts
        with pytest.raises(RequestIdReused):
            await transaction.read_counts("r-1", bytes(31) + b"x")


# PostgreSQL


async def test_two_who_sweep_at_once_share_what_is_due(in_postgres: PostgresKeys) -> None:
    records = [await sealed(in_postgres, number) for number in range(4)]
    async with in_postgres.transaction() as one, in_postgres.transaction() as two:
        first = await one.lock_expired(RETENTION, limit=3, now=NOON + 99 * DAY)
        second = await two.lock_expired(RETENTION, limit=3, now=NOON + 99 * DAY)
    found = [record.key_id for record in (*first, *second)]
    assert (len(first), sorted(found)) == (3, sorted(record.key_id for record in records))
    await shred(in_postgres, *records)
    leases = await asyncio.gather(*(lease(in_postgres, NOON, limit=2) for _ in range(4)))
    leased = [name for each in leases for name in each]
    assert len(leased) == len(set(leased))


async def test_what_an_older_replica_destroyed_is_left_to_the_sweep(
    in_postgres: PostgresKeys, database: OneDatabase
) -> None:
    record = await sealed(in_postgres)
    await fetch(
        database.service_url,
        "UPDATE sealed_key SET state = 'SHREDDED', shred_time = now(), wrapped_dek = NULL, kek_version = NULL",
    )
    assert await lease(in_postgres, NOON) == [(record.key_id, 1)]


@pytest.mark.parametrize(
    ("index", "statement"),
    [
        (
            "sealed_key_kept_opened",
            "state <> 'SHREDDED' AND open_time IS NOT NULL AND open_time <= now() ORDER BY open_time LIMIT 100",
        ),
        (
            "sealed_key_kept_unopened",
            "state <> 'SHREDDED' AND open_time IS NULL ORDER BY greatest(create_time, revoke_time) LIMIT 100",
        ),
        (
            "sealed_key_objects_left",
            "state = 'SHREDDED' AND object_delete_time IS NULL ORDER BY object_retry_time NULLS FIRST LIMIT 100",
        ),
        ("sealed_key_by_owner", "owner_digest IN ('v1.a', 'v2.a') AND key_id > 'x'"),
    ],
    ids=["opened", "unopened", "objects", "owner"],
)
async def test_what_is_due_is_read_from_an_index(database: OneDatabase, index: str, statement: str) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        # An empty table is otherwise read as a whole.
        await connection.execute("SET enable_seqscan = off; SET enable_sort = off")
        plan = await connection.fetch(f"EXPLAIN SELECT * FROM sealed_key WHERE {statement}")  # noqa: S608 # the test's own words
    finally:
        await connection.close()
    assert index in str(plan)


@pytest.mark.parametrize("statement", ["UPDATE delivery SET time = now()", "TRUNCATE delivery", "DROP TABLE delivery"])
async def test_the_services_role_may_not_change_what_was_done(database: OneDatabase, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(database.service_url, statement)
