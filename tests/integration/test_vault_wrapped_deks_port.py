"""What every keeper of wrapped DEKs promises: PostgreSQL, and the fake of unit tests."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.outbox import Outbox
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from sqlalchemy import text
from vault.adapters import wrapped_deks
from vault.adapters.postgres import PostgresKeys
from vault.adapters.wrapped_deks import PostgresWrappedDeks
from vault.domain.key import KeyRecord, KeyState, WrappedDek
from vault.ports import Keys, Rewrapped, RewrapReport, Wish, WrappedDeks

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.integration.test_vault_keys_port import a_record
from tests.unit.vault.fakes import NOON, MemoryKeys, MemoryWrappedDeks, wrapped_dek

REPORT = RewrapReport(Wish("request-1", "operator", "a rotation"), "v2", {"keys": 7})


@dataclass(frozen=True)
class Rows:
    keys: Keys
    deks: WrappedDeks

    async def add(self, *records: KeyRecord) -> None:
        async with self.keys.transaction() as transaction:
            for record in records:
                await transaction.add(record)

    async def shred(self, record: KeyRecord) -> None:
        async with self.keys.transaction() as transaction:
            await transaction.revoke([record.key_id], now=NOON)
            await transaction.shred([record.key_id], now=NOON, delete_at=NOON)

    async def dek(self, record: KeyRecord) -> WrappedDek | None:
        async with self.keys.transaction() as transaction:
            found = await transaction.key(record.key_id)
        assert found is not None
        return found.dek


@pytest.fixture
async def database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("vault", REPOSITORY / "services" / "vault" / "migrations")


@pytest.fixture
async def opened(database: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(database.service_url, application="test") as opened:
        yield opened


@pytest.fixture(params=["memory", "postgres"])
async def rows(request: pytest.FixtureRequest, opened: Database) -> Rows:
    if request.param == "memory":
        keys = MemoryKeys()
        return Rows(keys, MemoryWrappedDeks(keys))
    outbox = Outbox({"vault": "VAULT", "audit": "AUDIT"})
    return Rows(PostgresKeys(opened, outbox), PostgresWrappedDeks(opened, outbox))


def records(*versions: str) -> list[KeyRecord]:
    made = [
        a_record(number, dek=WrappedDek(os.urandom(60), version), fingerprint=f"v1.{number}")
        for number, version in enumerate(versions)
    ]
    return sorted(made, key=lambda record: record.key_id)


def moved(record: KeyRecord, version: str = "v2") -> Rewrapped:
    return Rewrapped(record.key_id, wrapped_dek(record), WrappedDek(os.urandom(70), version))


# Every keeper


async def test_each_version_in_use_is_counted(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapped_deks, "COUNTED_AT_ONCE", 2)
    assert await rows.deks.counts() == {}
    made = records("v1", "v10", "v1", "transit:k:v1", "v1", "v1", "v2")
    await rows.add(*made)
    assert await rows.deks.counts() == {"v1": 4, "v10": 1, "transit:k:v1": 1, "v2": 1}
    for record in (record for record in made if wrapped_dek(record).kek_version in ("v2", "v10")):
        await rows.shred(record)
    assert await rows.deks.counts() == {"v1": 4, "transit:k:v1": 1}


async def test_pages_are_of_one_version_in_the_order_of_keys(rows: Rows) -> None:
    made = records(*["v1", "v2"] * 4)
    await rows.add(*made)
    ours = [(record.key_id, wrapped_dek(record)) for record in made if wrapped_dek(record).kek_version == "v1"]
    assert await rows.deks.page("v1", after="", before=None, size=10) == ours
    assert await rows.deks.page("v1", after="", before=None, size=2) == ours[:2]
    assert await rows.deks.page("v1", after=ours[1][0], before=None, size=10) == ours[2:]
    assert await rows.deks.page("v1", after="", before=ours[1][0], size=10) == ours[:2]
    assert await rows.deks.page("v1", after=ours[1][0], before=ours[1][0], size=10) == []
    assert await rows.deks.page("v3", after="", before=None, size=10) == []


async def test_new_deks_take_the_place_of_old_ones(rows: Rows) -> None:
    made = records("v1", "v1", "v1")
    await rows.add(*made)
    pieces = [moved(made[2]), moved(made[0])]
    assert set(await rows.deks.replace(pieces)) == {made[0].key_id, made[2].key_id}
    assert [await rows.dek(record) for record in made] == [pieces[1].new, made[1].dek, pieces[0].new]
    assert await rows.deks.replace([]) in ((), [])


async def test_what_is_another_meanwhile_stays_as_it_is(rows: Rows) -> None:
    made = records("v1", "v1", "v1")
    await rows.add(*made)
    earlier = moved(made[0])
    await rows.deks.replace([earlier])
    await rows.shred(made[1])
    late = [moved(record) for record in made]
    assert list(await rows.deks.replace(late)) == [made[2].key_id]
    assert [await rows.dek(record) for record in made] == [earlier.new, None, late[2].new]
    renamed = [Rewrapped(made[2].key_id, replace(late[2].new, kek_version="v1"), late[2].old)]
    assert list(await rows.deks.replace(renamed)) == []


async def test_of_many_who_move_the_same_each_key_is_moved_once(rows: Rows) -> None:
    made = records(*["v1"] * 20)
    await rows.add(*made)
    both = [[moved(record) for record in order] for order in (made, made[::-1], made, made[::-1])]
    done = await asyncio.gather(*(rows.deks.replace(pieces) for pieces in both))
    counted = sorted(key_id for ids in done for key_id in ids)
    assert counted == sorted(set(counted))
    left = await rows.deks.page("v1", after="", before=None, size=100)
    assert len(left) + len(counted) == len(made)


async def test_a_beginning_is_told_once_and_its_request_is_not_another(rows: Rows) -> None:
    for _ in range(2):
        await rows.deks.begin(REPORT, b"digest", now=NOON)
    with pytest.raises(RequestIdReused):
        await rows.deks.begin(REPORT, b"another", now=NOON)


# PostgreSQL alone


async def test_audit_hears_of_it_without_any_secret(database: OneDatabase, opened: Database) -> None:
    deks = PostgresWrappedDeks(opened, Outbox({"vault": "VAULT", "audit": "AUDIT"}))
    for _ in range(2):
        await deks.begin(REPORT, b"digest", now=NOON)
        await deks.finish(replace(REPORT, counts={"rewrapped": 6, "failed": 1, "remaining": 0}), now=NOON)
    told = await fetch(database.superuser_url, "SELECT subject, headers, data FROM outbox ORDER BY position")
    facts = [AuditRecorded.FromString(row["data"]) for row in told]
    assert [fact.action for fact in facts] == ["keks.rewrap_started", "keks.rewrap_finished"]
    assert [dict(fact.details) for fact in facts] == [
        {"active_version": "v2", "reason": "a rotation", "keys": "7"},
        {"active_version": "v2", "reason": "a rotation", "rewrapped": "6", "failed": "1", "remaining": "0"},
    ]
    assert {(fact.actor.id, fact.request_id, fact.key_id, fact.order_id) for fact in facts} == {
        ("operator", "request-1", "", "")
    }
    assert {row["subject"] for row in told} == {"audit.recorded"}


async def test_neither_waits_for_the_other(opened: Database) -> None:
    outbox = Outbox({"vault": "VAULT", "audit": "AUDIT"})
    rows = Rows(PostgresKeys(opened, outbox), deks := PostgresWrappedDeks(opened, outbox))
    held, free = records("v1", "v1")
    await rows.add(held, free)
    async with opened.transaction("test") as connection:
        await connection.execute(
            text("SELECT 1 FROM sealed_key WHERE key_id = :key_id FOR UPDATE"), {"key_id": held.key_id}
        )
        pieces = [moved(held), moved(free)]
        assert list(await asyncio.wait_for(deks.replace(pieces), timeout=3)) == [free.key_id]
    assert list(await deks.replace(pieces)) == [held.key_id]


async def test_a_key_that_is_opened_while_it_is_moved_is_both(opened: Database) -> None:
    outbox = Outbox({"vault": "VAULT", "audit": "AUDIT"})
    rows = Rows(PostgresKeys(opened, outbox), deks := PostgresWrappedDeks(opened, outbox))
    (record,) = records("v1")
    await rows.add(record)
    async with rows.keys.transaction() as transaction:
        await transaction.finish(record, KeyState.SEALED, object_sha256=bytes(32), now=NOON)
    piece = moved(record)
    async with rows.keys.transaction() as transaction:
        assert await transaction.mark_opened(record.key_id, now=NOON)
        assert list(await deks.replace([piece])) == [], "held by the release"
    assert list(await deks.replace([piece])) == [record.key_id]
    async with rows.keys.transaction() as transaction:
        found = await transaction.key(record.key_id)
    assert found is not None
    assert (found.dek, found.open_time) == (piece.new, NOON)
