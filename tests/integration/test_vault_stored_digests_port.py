"""What everybody who tells the versions of stored digests promises: PostgreSQL, and the fake of unit tests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest
from chassis.database import Database
from chassis.outbox import Outbox
from vault.adapters import stored_digests
from vault.adapters.postgres import PostgresKeys
from vault.adapters.stored_digests import COUNT, VERSIONS, PostgresStoredDigests
from vault.ports import Keys, StoredDigests

from tests.integration.fulfillment_crowd import cost
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres
from tests.integration.test_vault_keys_port import a_record
from tests.unit.vault.fakes import MemoryKeys, MemoryStoredDigests

MANY = 20_000
_PLANT = """
    INSERT INTO sealed_key (key_id, source_ref, seal_request_id, order_id, item_id, order_digest, owner_digest,
        content_type, fingerprint, wrapped_dek, kek_version, state, object_sha256, seal_time)
    SELECT md5(n::text), n, n, 'order-1', 'item-1', 'v1.o', 'v1.c', 'text/plain', $1 || '.' || md5(n::text),
        repeat('x', 60)::bytea, 'v1', 'SEALED', repeat('x', 32)::bytea, now()
    FROM generate_series($2::int, $3::int - 1) AS n
"""


@dataclass(frozen=True)
class Rows:
    keys: Keys
    digests: StoredDigests

    async def add(self, *fingerprints: str) -> None:
        async with self.keys.transaction() as transaction:
            for number, fingerprint in enumerate(fingerprints):
                await transaction.add(a_record(number, fingerprint=fingerprint))


@pytest.fixture
async def database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("vault", REPOSITORY / "services" / "vault" / "migrations")


@pytest.fixture(params=["memory", "postgres"])
async def rows(request: pytest.FixtureRequest, database: OneDatabase) -> AsyncIterator[Rows]:
    if request.param == "memory":
        keys = MemoryKeys()
        yield Rows(keys, MemoryStoredDigests(keys))
        return
    async with Database.open(database.service_url, application="test") as opened:
        yield Rows(PostgresKeys(opened, Outbox({"vault": "VAULT", "audit": "AUDIT"})), PostgresStoredDigests(opened))


async def test_each_version_in_use_is_told_and_counted(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_digests, "COUNTED_AT_ONCE", 2)
    assert await rows.digests.versions() == set()
    await rows.add("v1.a", "v10.a", "v1.b", "v1-a.a", "v2.a", "v1.c", "V1.a", "v1.d")
    assert await rows.digests.versions() == {"v1", "v10", "v1-a", "v2", "V1"}
    assert [await rows.digests.count(version) for version in ("v1", "v10", "v1-a", "v2", "V1", "v3")] == [
        4,
        1,
        1,
        1,
        1,
        0,
    ]


# PostgreSQL alone


async def test_versions_cost_a_look_each_and_a_count_only_its_own_keys(database: OneDatabase) -> None:
    connection = await asyncpg.connect(database.superuser_url)
    await connection.execute(_PLANT, "v1", 0, MANY)
    await connection.execute(_PLANT, "v2", MANY, MANY + 10)
    await connection.execute("VACUUM (ANALYZE) sealed_key")
    await connection.close()
    for statement in (VERSIONS, COUNT.bindparams(version="v2", after="", most=50_000)):
        read = await cost(database.superuser_url, statement)
        assert not read.scanned
        assert read.indexes == {"sealed_key_by_digest_version"}
        assert read.buffers <= 30
