"""A change of settings is told once, whoever starts with them and however often."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from chassis.database import Database
from chassis.outbox import Outbox
from chassis.settings import ServiceSettings
from chassis.told_settings import SettingsTeller
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from pydantic import Field

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch


class Settings(ServiceSettings):
    keyferry_listen: str = Field(default="127.0.0.1:1", description="Where.")
    keyferry_limit: int = Field(default=1, description="How much.")
    keyferry_names: str = Field(default="a", description="Which.")


@pytest.fixture
async def vault_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("vault", REPOSITORY / "services" / "vault" / "migrations")


@pytest.fixture
async def database(vault_database: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(vault_database.service_url, application="test") as database:
        yield database


async def start(database: Database, **settings: object) -> None:
    told = Settings(keyferry_tls_dir=Path("/tls"), **settings)  # type: ignore[arg-type] # a test names what it changes
    outbox = Outbox({"audit": "AUDIT"})
    await asyncio.gather(*(SettingsTeller(database, outbox, told, service="vault").run() for _ in range(3)))


async def facts(vault_database: OneDatabase) -> list[AuditRecorded]:
    rows = await fetch(vault_database.superuser_url, "SELECT data FROM outbox ORDER BY position")
    return [AuditRecorded.FromString(row["data"]) for row in rows]


async def test_each_change_is_told_once_and_names_what_changed(database: Database, vault_database: OneDatabase) -> None:
    await start(database)
    await start(database)
    await start(database, keyferry_listen="127.0.0.1:2")
    (first,) = await facts(vault_database)
    assert (first.action, first.actor.id, first.details["changed"]) == ("settings.changed", "vault", "all")
    await start(database, keyferry_limit=2, keyferry_names="b")
    await start(database, keyferry_limit=2, keyferry_names="b")
    await start(database)
    _, changed, back = await facts(vault_database)
    assert changed.details["changed"] == back.details["changed"] == "KEYFERRY_LIMIT,KEYFERRY_NAMES"
    assert back.details["digest"] == first.details["digest"] != changed.details["digest"]


async def test_many_changed_names_are_as_many_as_there_is_room_for(
    database: Database, vault_database: OneDatabase
) -> None:
    await start(database)
    connection = await asyncpg.connect(vault_database.superuser_url)
    many = {f"KEYFERRY_{'LONG_' * 10}{number}": "x" for number in range(30)}
    await connection.execute("UPDATE told_settings SET settings = $1", json.dumps(many))
    await connection.close()
    await start(database)
    last = (await facts(vault_database))[-1].details["changed"]
    assert 400 < len(last) <= 512
    assert not last.endswith(",")
