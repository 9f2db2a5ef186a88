"""What every keeper of vault's rows promises: PostgreSQL, and the fake of unit tests."""

import asyncio
import hashlib
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from chassis.database import Database
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.migrate import migrate
from chassis.outbox import Outbox
from google.protobuf.message import Message
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.vault_events_pb2 import VaultKeyCorrupted, VaultKeyOpened, VaultKeyShredded
from keyferry.type.v1 import actor_pb2
from sqlalchemy.exc import IntegrityError
from vault.adapters.postgres import PostgresKeys
from vault.domain.key import Binding, KeyRecord, KeyState, WrappedDek
from vault.ports import Authorization, KeyFilter, Keys, Release

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.unit.vault.fakes import ALICE, NOON, MemoryKeys, a_wish

DIGEST = hashlib.sha256(b"sealed").digest()


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


def a_record(number: int = 1, **changes: Any) -> KeyRecord:
    record = KeyRecord(
        key_id=uuid.uuid5(uuid.NAMESPACE_URL, str(number)).hex,
        source_ref=f"kinguin:1:{number}",
        seal_request_id=f"request-{number}",
        order_id="order-1",
        item_id="item-1",
        binding=Binding("v1.order", "v1.owner"),
        content_type="text/plain",
        fingerprint=f"v1.{number}",
        dek=WrappedDek(bytes(range(60)), "v1"),
        state=KeyState.SEALING,
        generation=0,
        object_sha256=None,
        create_time=NOON + timedelta(seconds=number),
    )
    return replace(record, **changes)


async def add(keys: Keys, record: KeyRecord) -> bool:
    async with keys.transaction() as transaction:
        return await transaction.add(record)


async def finish(keys: Keys, record: KeyRecord, state: KeyState = KeyState.SEALED) -> bool:
    async with keys.transaction() as transaction:
        return await transaction.finish(record, state, object_sha256=DIGEST, now=NOON)


async def load(keys: Keys, record: KeyRecord) -> KeyRecord:
    async with keys.transaction() as transaction:
        found = await transaction.key(record.key_id)
    assert found is not None
    return found


def an_authorization(record: KeyRecord, **changes: Any) -> Authorization:
    made = Authorization("r-1", DIGEST, Release.LINK, record.key_id, 7, NOON + timedelta(minutes=15))
    return replace(made, **changes)


# Every keeper


async def test_a_row_comes_back_as_it_went_in(keys: Keys) -> None:
    record = a_record()
    assert await add(keys, record)
    async with keys.transaction() as transaction:
        assert await transaction.key(record.key_id) == record
        assert await transaction.key_by_source(record.source_ref) == record
        assert await transaction.key("none") is None
        assert await transaction.key_by_source("none") is None


async def test_one_source_has_one_key_and_one_request_one_source(keys: Keys) -> None:
    first = a_record()
    await add(keys, first)
    assert not await add(keys, replace(a_record(2), source_ref=first.source_ref))
    assert not await add(keys, replace(a_record(3), seal_request_id=first.seal_request_id))
    async with keys.transaction() as transaction:
        assert await transaction.key_by_source(first.source_ref) == first
        assert await transaction.key_by_source(a_record(3).source_ref) is None


async def test_of_many_who_add_one_source_at_once_one_succeeds(keys: Keys) -> None:
    records = [replace(a_record(number), source_ref="kinguin:1:1") for number in range(8)]
    results = await asyncio.gather(*(add(keys, record) for record in records))
    assert sorted(results) == [False] * 7 + [True]
    async with keys.transaction() as transaction:
        assert await transaction.key_by_source("kinguin:1:1") == records[results.index(True)]


async def test_a_transaction_that_fails_leaves_nothing(keys: Keys) -> None:
    with suppress(LookupError):
        async with keys.transaction() as transaction:
            await transaction.add(a_record())
            raise LookupError
    async with keys.transaction() as transaction:
        assert await transaction.key(a_record().key_id) is None


async def test_a_key_is_finished_once(keys: Keys) -> None:
    record = a_record()
    await add(keys, record)
    assert await finish(keys, record)
    done = await load(keys, record)
    assert done == replace(record, state=KeyState.SEALED, object_sha256=DIGEST, seal_time=NOON)
    assert not await finish(keys, record, KeyState.HELD)
    assert await load(keys, record) == done


async def test_of_many_who_finish_one_key_at_once_one_succeeds(keys: Keys) -> None:
    record = a_record()
    await add(keys, record)
    assert sorted(await asyncio.gather(*(finish(keys, record) for _ in range(8)))) == [False] * 7 + [True]


async def test_the_next_name_is_taken_once_from_one_record(keys: Keys) -> None:
    record = a_record()
    await add(keys, record)
    for _ in range(2):
        async with keys.transaction() as transaction:
            await transaction.next_generation(record)
    moved = await load(keys, record)
    assert moved == replace(record, generation=1)
    assert moved.object_name == f"{record.object_name}.1"
    assert not await finish(keys, record), "who is behind must not finish"
    assert await finish(keys, moved)
    async with keys.transaction() as transaction:
        await transaction.next_generation(moved)
    assert (await load(keys, record)).generation == 1


async def test_only_another_key_that_was_stored_is_the_same_key(keys: Keys) -> None:
    waiting, stored, mine = (a_record(number, fingerprint="v1.same") for number in (1, 2, 3))
    for record in (waiting, stored, mine):
        await add(keys, record)
    async with keys.transaction() as transaction:
        assert await transaction.same_key(mine, ["v1.same"]) is None
    await finish(keys, mine)
    async with keys.transaction() as transaction:
        assert await transaction.same_key(mine, ["v1.same"]) is None
    await finish(keys, stored, KeyState.HELD)
    async with keys.transaction() as transaction:
        assert await transaction.same_key(mine, ["v2.else", "v1.same"]) == stored.key_id
        assert await transaction.same_key(mine, ["v1.other"]) is None


async def test_a_key_is_the_same_under_any_of_its_fingerprints(keys: Keys) -> None:
    first = a_record(1, fingerprint="v3.same", other_fingerprints=("v2.same", "v1.same"))
    second = a_record(2, fingerprint="v2.same")
    for record in (first, second):
        await add(keys, record)
    await finish(keys, first)
    async with keys.transaction() as transaction:
        for fingerprints in (["v2.same"], ["v9.same", "v1.same"], ["v3.same"]):
            assert await transaction.same_key(second, fingerprints) == first.key_id
        assert await transaction.same_key(second, ["v9.same"]) is None
        assert await transaction.finish(second, KeyState.HELD, object_sha256=DIGEST, now=NOON, same_as=first.key_id)
    assert (await load(keys, first)).other_fingerprints == ("v2.same", "v1.same")
    assert (await load(keys, second)).same_key_id == first.key_id


async def test_the_earliest_of_several_same_keys_is_named(keys: Keys) -> None:
    records = [a_record(number, fingerprint="v1.same") for number in range(4)]
    for record in records:
        await add(keys, record)
    for record in reversed(records[:3]):
        await finish(keys, record)
    async with keys.transaction() as transaction:
        assert await transaction.same_key(records[3], ["v1.same"]) == records[0].key_id


async def test_of_two_same_keys_finished_at_once_the_second_sees_the_first(keys: Keys) -> None:
    records = [a_record(number, fingerprint="v1.same") for number in range(6)]
    for record in records:
        await add(keys, record)

    async def decide(record: KeyRecord) -> str | None:
        async with keys.transaction() as transaction:
            same = await transaction.same_key(record, ["v1.same", "v2.same"])
            state = KeyState.SEALED if same is None else KeyState.HELD
            await transaction.finish(record, state, object_sha256=DIGEST, now=NOON)
            return same

    assert (await asyncio.gather(*(decide(record) for record in records))).count(None) == 1


async def test_a_request_is_kept_once(keys: Keys) -> None:
    record = a_record()
    await add(keys, record)
    first = an_authorization(record)
    for kept in (first, an_authorization(record, request_digest=bytes(32), audit_sequence=8)):
        async with keys.transaction() as transaction:
            await transaction.add_authorization(kept)
    async with keys.transaction() as transaction:
        assert await transaction.authorization("r-1") == first
        assert await transaction.authorization("r-2") is None


async def in_state(keys: Keys, state: KeyState, number: int = 1) -> KeyRecord:
    record = a_record(number)
    await add(keys, record)
    if state is not KeyState.SEALING:
        await finish(keys, record, KeyState.HELD if state is KeyState.HELD else KeyState.SEALED)
    if state in (KeyState.REVOKED, KeyState.SHREDDED):
        await revoke(keys, record)
    if state is KeyState.SHREDDED:
        await shred(keys, record)
    return await load(keys, record)


async def revoke(keys: Keys, *records: KeyRecord) -> None:
    async with keys.transaction() as transaction:
        await transaction.lock([record.key_id for record in records])
        await transaction.revoke([record.key_id for record in records], now=NOON)


async def shred(keys: Keys, record: KeyRecord) -> None:
    async with keys.transaction() as transaction:
        await transaction.lock([record.key_id])
        await transaction.shred([record.key_id], now=NOON, delete_at=NOON)


async def mark_opened(keys: Keys, record: KeyRecord, seconds: int = 0) -> bool:
    async with keys.transaction() as transaction:
        return await transaction.mark_opened(record.key_id, now=NOON + timedelta(seconds=seconds))


@pytest.mark.parametrize("state", list(KeyState))
async def test_only_a_sealed_key_is_marked_as_opened_and_keeps_the_first_time(keys: Keys, state: KeyState) -> None:
    record = await in_state(keys, state)
    opens = state is KeyState.SEALED
    for seconds in (1, 2):
        assert await mark_opened(keys, record, seconds) == opens
    assert await load(keys, record) == replace(record, open_time=NOON + timedelta(seconds=1) if opens else None)


@pytest.mark.parametrize("state", [KeyState.SEALING, KeyState.SEALED, KeyState.HELD])
async def test_a_key_is_revoked_and_shredded_from_any_state_before(keys: Keys, state: KeyState) -> None:
    record, other = await in_state(keys, state), await in_state(keys, state, 2)
    await revoke(keys, record)
    revoked = replace(record, state=KeyState.REVOKED, revoke_time=NOON)
    assert await load(keys, record) == revoked
    assert not await finish(keys, record), "a sealing finds it revoked"
    async with keys.transaction() as transaction:
        await transaction.next_generation(record)
    assert await load(keys, record) == revoked
    await shred(keys, record)
    assert await load(keys, record) == replace(revoked, state=KeyState.SHREDDED, shred_time=NOON, dek=None)
    assert await load(keys, other) == other


async def test_revoking_none_is_nothing(keys: Keys) -> None:
    record = await in_state(keys, KeyState.SEALED)
    await revoke(keys)
    assert await load(keys, record) == record


async def test_those_that_there_are_are_locked_in_one_order(keys: Keys) -> None:
    records = [await in_state(keys, KeyState.SEALED, number) for number in range(4)]
    ids = sorted(record.key_id for record in records)
    for asked in (ids, ids[::-1], [*ids, "none", *ids]):
        async with keys.transaction() as transaction:
            assert [record.key_id for record in await transaction.lock(asked)] == ids
    async with keys.transaction() as transaction:
        assert await transaction.lock(["none"]) == []


async def test_who_locks_many_in_any_order_waits_for_nobody_who_waits_for_them(keys: Keys) -> None:
    ids = [(await in_state(keys, KeyState.SEALED, number)).key_id for number in range(8)]

    async def touch(turn: int) -> int:
        async with keys.transaction() as transaction:
            return len(await transaction.lock(ids[turn:] + ids[:turn]))

    assert await asyncio.gather(*(touch(turn) for turn in range(8))) == [8] * 8


async def test_of_marking_and_revoking_at_once_one_wins(keys: Keys) -> None:
    records = [await in_state(keys, KeyState.SEALED, number) for number in range(12)]

    async def take_back(record: KeyRecord) -> bool:
        async with keys.transaction() as transaction:
            (locked,) = await transaction.lock([record.key_id])
            if not locked.is_opened:
                await transaction.revoke([record.key_id], now=NOON)
            return not locked.is_opened

    both = [(take_back(record), mark_opened(keys, record)) for record in records]
    results = await asyncio.gather(*(one for pair in both for one in pair))
    assert all(revoked != opened for revoked, opened in zip(results[::2], results[1::2], strict=True))


@pytest.mark.parametrize("state", [KeyState.SEALED, KeyState.HELD, KeyState.REVOKED, KeyState.SHREDDED])
async def test_a_key_that_was_ever_ours_is_the_same_key_whatever_became_of_it(keys: Keys, state: KeyState) -> None:
    first = await in_state(keys, state)
    async with keys.transaction() as transaction:
        assert await transaction.same_key(a_record(2), [first.fingerprint]) == first.key_id


async def test_keys_are_listed_by_time_and_then_by_name(keys: Keys) -> None:
    records = [replace(a_record(number), create_time=NOON + timedelta(seconds=number // 3)) for number in range(9)]
    records[4] = replace(records[4], order_id="order-2")
    for record in reversed(records):
        await add(keys, record)
    ordered = sorted(records, key=lambda record: (record.create_time, record.key_id))
    last: tuple[Any, str] | None = None
    for start in range(0, 10, 2):
        async with keys.transaction() as transaction:
            page = await transaction.page(KeyFilter(), size=2, after=last)
        assert list(page) == ordered[start : start + 2]
        last = (page[-1].create_time, page[-1].key_id)
    second = timedelta(seconds=1)
    async with keys.transaction() as transaction:
        span = await transaction.page(KeyFilter("", NOON + second, NOON + 2 * second), size=99)
        assert list(span) == ordered[3:6]
        assert list(await transaction.page(KeyFilter("order-2"), size=99)) == [records[4]]
        assert list(await transaction.page(KeyFilter("order-3"), size=99)) == []


async def test_a_request_is_known_again_with_its_body_only(keys: Keys) -> None:
    for repeat in (False, True):
        async with keys.transaction() as transaction:
            assert await transaction.is_repeat("r-1", DIGEST) == repeat
            if not repeat:
                await transaction.note_done("r-1", DIGEST)
    with pytest.raises(RequestIdReused):
        async with keys.transaction() as transaction:
            await transaction.is_repeat("r-1", bytes(32))


# PostgreSQL


async def test_what_was_taken_back_is_told_once(in_postgres: PostgresKeys, database: OneDatabase) -> None:
    records, wish = [a_record(1), a_record(2)], a_wish("r-1")
    for _ in range(2):
        async with in_postgres.transaction() as transaction:
            await transaction.tell_revoked(records, wish, now=NOON)
            await transaction.tell_shredded(records[:1], wish, now=NOON)
            await transaction.tell_revoked([], wish, now=NOON)
    facts_told = [message for _, message in await told(database)]
    *revoked, shredded, event = facts_told
    assert [(fact.action, fact.key_id) for fact in revoked if isinstance(fact, AuditRecorded)] == [
        ("key.revoked", records[0].key_id),
        ("key.revoked", records[1].key_id),
    ]
    assert isinstance(shredded, AuditRecorded)
    assert isinstance(event, VaultKeyShredded)
    assert (shredded.action, shredded.request_id) == ("key.shredded", "r-1")
    assert dict(shredded.details) == {"reason": "the order was refunded", "state": "SEALING"}
    assert (shredded.actor.type, shredded.actor.id) == (actor_pb2.ACTOR_TYPE_SERVICE, "fulfillment")
    assert (event.key_id, event.order_id) == (records[0].key_id, "order-1")


async def test_a_replica_that_does_not_mark_is_held_to_it_by_the_database(
    in_postgres: PostgresKeys, database: OneDatabase
) -> None:
    opened, revoked = await in_state(in_postgres, KeyState.SEALED), await in_state(in_postgres, KeyState.REVOKED, 2)
    async with in_postgres.transaction() as transaction:
        await transaction.tell_outcome(an_authorization(opened), opened, ALICE, failure="", now=NOON)
    assert (await load(in_postgres, opened)).is_opened
    with pytest.raises(IntegrityError):
        async with in_postgres.transaction() as transaction:
            await transaction.tell_outcome(
                an_authorization(revoked, request_id="r-2"), revoked, ALICE, failure="", now=NOON
            )
    assert await load(in_postgres, revoked) == revoked
    assert len(await told(database)) == 2


async def test_what_was_authorized_before_openings_were_marked_counts_as_opened(
    postgres: Postgres, tmp_path: Path
) -> None:
    migrations = REPOSITORY / "services" / "vault" / "migrations"
    (tmp_path / "versions").mkdir()
    shutil.copy(migrations / "versions" / "0001_first_tables.py", tmp_path / "versions")
    database = await postgres.make_database("vault", tmp_path, template="vault_before_openings_were_marked")
    row = (
        "INSERT INTO sealed_key (key_id, source_ref, seal_request_id, order_id, item_id, order_digest, owner_digest,"
        " content_type, fingerprint, wrapped_dek, kek_version, state, object_sha256, seal_time)"
        " SELECT n, n, n, 'o', 'i', 'v1.o', 'v1.c', 'text/plain', n, repeat('x', 60)::bytea, 'v1', 'SEALED',"
        " repeat('x', 32)::bytea, now() FROM unnest(ARRAY['asked', 'quiet']) AS n"
    )
    await fetch(database.superuser_url, row)
    for moment in ("2026-01-02", "2026-01-01"):
        await fetch(
            database.superuser_url,
            "INSERT INTO release_request (request_id, request_digest, way, key_id, audit_sequence, expire_time,"  # noqa: S608 # the test's own words
            f" create_time) VALUES ('{moment}', repeat('x', 32)::bytea, 'key.link', 'asked', 1, now(), '{moment}Z')",
        )
    await migrate(database.migrator_url, migrations)
    rows = await fetch(database.superuser_url, "SELECT key_id, open_time FROM sealed_key ORDER BY key_id")
    assert [(row["key_id"], row["open_time"] and row["open_time"].day) for row in rows] == [
        ("asked", 1),
        ("quiet", None),
    ]


async def test_a_page_is_read_from_an_index(in_postgres: PostgresKeys, database: OneDatabase) -> None:
    await in_state(in_postgres, KeyState.SEALED)
    connection = await asyncpg.connect(database.superuser_url)
    try:
        # A table of one row is otherwise read as a whole.
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN SELECT * FROM sealed_key WHERE (create_time, key_id) > (now(), 'a')"
            " ORDER BY create_time, key_id LIMIT 1001"
        )
    finally:
        await connection.close()
    assert "sealed_key_by_time" in str(plan)


async def told(database: OneDatabase) -> list[tuple[str, Message]]:
    classes: dict[str, type[AuditRecorded | VaultKeyCorrupted | VaultKeyOpened | VaultKeyShredded]] = {
        "audit.recorded": AuditRecorded,
        "vault.key.corrupted": VaultKeyCorrupted,
        "vault.key.opened": VaultKeyOpened,
        "vault.key.shredded": VaultKeyShredded,
    }
    rows = await fetch(database.superuser_url, "SELECT subject, data FROM outbox ORDER BY position")
    return [(row["subject"], classes[row["subject"]].FromString(row["data"])) for row in rows]


async def facts(database: OneDatabase) -> list[AuditRecorded]:
    return [message for _, message in await told(database) if isinstance(message, AuditRecorded)]


async def test_a_sealed_and_a_held_key_are_told_once(in_postgres: PostgresKeys, database: OneDatabase) -> None:
    sealed, held = a_record(1), a_record(2)
    for _ in range(2):
        async with in_postgres.transaction() as transaction:
            await transaction.tell_sealed(sealed, same_as=None, now=NOON)
            await transaction.tell_sealed(held, same_as=sealed.key_id, now=NOON)
    one, two = await facts(database)
    assert (one.action, one.key_id, one.order_id) == ("key.sealed", sealed.key_id, "order-1")
    assert dict(one.details) == {"content_type": "text/plain"}
    assert (two.action, dict(two.details)) == ("key.held", {"content_type": "text/plain", "same_as": sealed.key_id})
    assert (one.actor.type, one.actor.id) == (actor_pb2.ACTOR_TYPE_SERVICE, "vault")


@pytest.mark.parametrize(
    ("way", "details"),
    [
        (Release.LINK, {"authorized_at": "7", "expire_time": "2026-01-02T12:15:00+00:00"}),
        (Release.REVEAL, {"authorized_at": "7"}),
    ],
)
async def test_a_release_is_told_to_audit_and_to_the_shop_once(
    in_postgres: PostgresKeys, database: OneDatabase, way: Release, details: dict[str, str]
) -> None:
    record = a_record()
    for _ in range(2):
        async with in_postgres.transaction() as transaction:
            await transaction.tell_outcome(an_authorization(record, release=way), record, ALICE, failure="", now=NOON)
    (_, fact), (_, opened) = await told(database)
    assert isinstance(fact, AuditRecorded)
    assert isinstance(opened, VaultKeyOpened)
    assert (fact.action, fact.request_id, dict(fact.details)) == (f"{way.value}_released", "r-1", details)
    assert (fact.actor.id, fact.actor.ip_address, fact.actor.email) == ("alice", "", "")
    assert (opened.key_id, opened.order_id) == (record.key_id, "order-1")


async def test_a_failure_is_told_with_its_reason_and_opens_nothing(
    in_postgres: PostgresKeys, database: OneDatabase
) -> None:
    record = a_record()
    async with in_postgres.transaction() as transaction:
        await transaction.tell_outcome(an_authorization(record), record, ALICE, failure="KEY_CORRUPTED", now=NOON)
    (_, fact), (subject, corrupted) = await told(database)
    assert isinstance(fact, AuditRecorded)
    assert isinstance(corrupted, VaultKeyCorrupted)
    assert (fact.action, fact.details["reason"]) == ("key.link_failed", "KEY_CORRUPTED")
    assert (subject, corrupted.key_id, corrupted.order_id) == ("vault.key.corrupted", record.key_id, "order-1")


async def test_a_failure_of_any_other_kind_is_told_to_audit_alone(
    in_postgres: PostgresKeys, database: OneDatabase
) -> None:
    record = a_record()
    async with in_postgres.transaction() as transaction:
        await transaction.tell_outcome(
            an_authorization(record), record, ALICE, failure="OBJECT_STORE_UNAVAILABLE", now=NOON
        )
    assert [type(message).__name__ for _, message in await told(database)] == ["AuditRecorded"]


async def test_each_denied_try_is_told_even_under_one_request_id(
    in_postgres: PostgresKeys, database: OneDatabase
) -> None:
    async with in_postgres.transaction() as transaction:
        for key_id in ("key-1", "key-2", "key-2"):
            await transaction.tell_denied(key_id, "order-1", ALICE, request_id="r-1", now=NOON)
    told_of = [(fact.action, fact.key_id, fact.request_id) for fact in await facts(database)]
    assert told_of == [("key.access_denied", "key-1", "r-1"), ("key.access_denied", "key-2", "r-1")]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM sealed_key",
        "TRUNCATE sealed_key CASCADE",
        "UPDATE release_request SET expire_time = now()",
        "DELETE FROM release_request",
        "DROP TABLE sealed_key",
    ],
)
async def test_the_services_role_may_not_destroy_what_opens_keys(database: OneDatabase, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(database.service_url, statement)


@pytest.mark.parametrize(
    "change",
    [
        "wrapped_dek = ''",
        "state = 'SEALED'",
        "state = 'OPENED'",
        "object_sha256 = ''",
        "state = 'REVOKED'",
        "state = 'REVOKED', revoke_time = now(), open_time = now()",
        "state = 'SHREDDED'",
        "state = 'SHREDDED', shred_time = now()",
        "state = 'SHREDDED', shred_time = now(), wrapped_dek = NULL",
        "wrapped_dek = NULL, kek_version = NULL",
        "shred_time = now()",
        "generation = -1",
        "expire_time = now()",
        "object_delete_time = now()",
    ],
)
async def test_a_row_that_makes_no_sense_is_refused(
    in_postgres: PostgresKeys, database: OneDatabase, change: str
) -> None:
    await add(in_postgres, a_record())
    with pytest.raises(asyncpg.CheckViolationError):
        await fetch(database.service_url, f"UPDATE sealed_key SET {change}")  # noqa: S608 # the test's own words


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    url = "postgresql://vault_service:x@127.0.0.1:1/vault"
    async with Database.open(url, application="test") as opened:
        with pytest.raises(ServiceUnavailable):
            await add(PostgresKeys(opened, Outbox({"vault": "VAULT", "audit": "AUDIT"})), a_record())
