"""What is past its retention goes, in batches, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import chassis.housekeeping
import pytest
from chassis.database import Database
from chassis.housekeeping import RETENTION, Housekeeper

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, eventually, fetch

OLD = f"now() - interval '{RETENTION.days + 1} days'"
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
YOUNG = f"now() - interval '{RETENTION.days - 1} days'"


@pytest.fixture
async def made(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("audit", Path(REPOSITORY / "services" / "audit" / "migrations"))


@pytest.fixture
async def database(made: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(made.service_url, application="test") as database:
        yield database


async def fill(made: OneDatabase, rows: int) -> None:
    """Add this many old and as many young rows of each kind, and old ones that must stay."""
    connection = await asyncpg.connect(made.superuser_url)
    try:
        for name, age in (("old", OLD), ("young", YOUNG)):
            numbers = f"FROM generate_series(1, {rows}) n"
            await connection.execute(
                f"INSERT INTO inbox SELECT 'c', '{name}' || n, {age} {numbers}; "
                f"INSERT INTO request_log SELECT '{name}' || n, 'm', 'd', 'r', {age} {numbers}; "
                "INSERT INTO outbox (event_id, stream, subject, headers, data, create_time, publish_time) "
                f"SELECT '{name}' || n, 'S', 's', '{{}}', 'x', {age}, {age} {numbers}"
            )
        await connection.execute(
            "INSERT INTO outbox (event_id, stream, subject, headers, data, create_time) "  # noqa: S608 # our own
            f"VALUES ('unpublished', 'S', 's', '{{}}', 'x', {OLD}); "
            "INSERT INTO dead_letter (dead_letter_id, consumer, event_id, subject, headers, data, reason, deliveries, "
            f"create_time) VALUES (gen_random_uuid(), 'c', 'dead', 's', '{{}}', 'x', 'r', 8, {OLD})"
        )
    finally:
        await connection.close()


async def ids(made: OneDatabase, table: str, column: str = "event_id") -> set[str]:
    return {row[0] for row in await fetch(made.superuser_url, f"SELECT {column} FROM {table}")}  # noqa: S608 # our own


async def test_what_is_past_its_retention_goes_and_nothing_else(made: OneDatabase, database: Database) -> None:
    await fill(made, 3)
    young = {"young1", "young2", "young3"}
    assert await Housekeeper(database).clean() == 9
    assert await ids(made, "inbox") == await ids(made, "request_log", "request_id") == young
    assert await ids(made, "outbox") == young | {"unpublished"}
    assert await ids(made, "dead_letter") == {"dead"}


async def test_much_goes_in_batches_and_two_replicas_share_it(
    made: OneDatabase, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.housekeeping, "BATCH", 10)
    await fill(made, 95)
    counts = await asyncio.gather(*(Housekeeper(database).clean() for _ in range(2)))
    rest = await Housekeeper(database).clean()
    assert sum(counts) + rest == 3 * 95


async def test_one_round_has_an_end(made: OneDatabase, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis.housekeeping, "BATCH", 2)
    monkeypatch.setattr(chassis.housekeeping, "MOST_BATCHES", 3)
    await fill(made, 20)
    assert await Housekeeper(database).clean() == 3 * 6


async def test_an_outage_puts_it_off_and_the_next_round_cleans(
    made: OneDatabase, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.housekeeping, "ROUND_SECONDS", 0.01)
    await fill(made, 1)
    connection = await asyncpg.connect(made.superuser_url)
    try:
        await connection.execute(TERMINATE)
    finally:
        await connection.close()
    task = asyncio.create_task(Housekeeper(database).run())

    async def is_clean() -> bool:
        return await ids(made, "inbox") == {"young1"}

    await eventually(is_clean)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
