import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from chassis.database import Database, Wakeup, after_commit, database_now, notify
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.migrate import migrate
from chassis.notifications import NotificationListener
from chassis.request_log import earlier_answer, keep_answer, request_digest
from keyferry.type.v1 import money_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.integration.real_servers import OneDatabase, Postgres, eventually, fetch

MIGRATION = """
from alembic import op
from chassis.tables import create_chassis_tables_v1
revision = "0001"
down_revision = None
def upgrade():
    for statement in create_chassis_tables_v1("vault_service"):
        op.execute(statement)
"""
SECOND = """
from alembic import op
revision = "0002"
down_revision = "0001"
def upgrade():
    op.execute("CREATE TABLE later (id bigint)")
"""
BROKEN = """
from alembic import op
revision = "0003"
down_revision = "0002"
def upgrade():
    op.execute("CREATE TABLE half (id bigint)")
    op.execute("CREATE TABLE half (id bigint)")
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "0001_first.py").write_text(MIGRATION)
    return tmp_path


@pytest.fixture
async def made(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> OneDatabase:
    folder = tmp_path_factory.getbasetemp() / "chassis_migrations"
    if not folder.exists():
        (folder / "versions").mkdir(parents=True)
        (folder / "versions" / "0001_first.py").write_text(MIGRATION)
    return await postgres.make_database("vault", folder, template="chassis_template")


@pytest.fixture
async def database(made: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(made.service_url, application="test", pool_size=3) as database:
        yield database


async def run_migrate(url: str, folder: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chassis.migrate", str(folder), env={**os.environ, "DATABASE_URL": url}
    )
    return await process.wait()


async def test_migrating_again_changes_nothing_and_a_new_step_is_added(made: OneDatabase, migrations: Path) -> None:
    await migrate(made.migrator_url, migrations)
    (migrations / "versions" / "0002_later.py").write_text(SECOND)
    assert await asyncio.gather(*(run_migrate(made.migrator_url, migrations) for _ in range(3))) == [0, 0, 0]
    assert [row["version_num"] for row in await fetch(made.superuser_url, "TABLE alembic_version")] == ["0002"]


async def test_a_step_that_fails_leaves_nothing_of_it(made: OneDatabase, migrations: Path) -> None:
    (migrations / "versions" / "0002_later.py").write_text(SECOND)
    (migrations / "versions" / "0003_broken.py").write_text(BROKEN)
    with pytest.raises(Exception, match="already exists"):
        await migrate(made.migrator_url, migrations)
    assert [row["version_num"] for row in await fetch(made.superuser_url, "TABLE alembic_version")] == ["0001"]
    assert await fetch(made.superuser_url, "SELECT to_regclass('later') AS name") == [(None,)]


async def test_what_raises_is_rolled_back_and_calls_nobody_back(database: Database, made: OneDatabase) -> None:
    called: list[str] = []

    async def insert(event_id: str, *, fail: bool) -> None:
        async with database.transaction() as connection:
            await connection.execute(text("INSERT INTO inbox VALUES ('c', :id)"), {"id": event_id})
            after_commit(connection, lambda: called.append(event_id))
            assert not called
            if fail:
                raise LookupError

    with pytest.raises(LookupError):
        await insert("one", fail=True)
    assert called == []
    await insert("two", fail=False)
    assert called == ["two"]
    assert [row["event_id"] for row in await fetch(made.superuser_url, "SELECT event_id FROM inbox")] == ["two"]


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    async with Database.open("postgresql://nobody:secret@127.0.0.1:1/none", application="test") as database:
        with pytest.raises(ServiceUnavailable) as raised:
            await database.ping()
    assert "secret" not in str(raised.value)


async def test_a_killed_connection_is_unavailable_and_the_next_one_works(database: Database, made: OneDatabase) -> None:
    async def work() -> None:
        async with database.transaction() as connection:
            await fetch(
                made.superuser_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test'"
                " AND datname = current_database()",
            )
            await connection.execute(text("SELECT 1"))

    with pytest.raises(ServiceUnavailable):
        await work()
    # Every connection of the pool was killed; each is noticed when it is used.
    for _ in range(3):
        try:
            await database.ping()
        except ServiceUnavailable:
            continue
    await database.ping()


async def test_a_statement_that_takes_too_long_is_unavailable(database: Database) -> None:
    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = '100ms'"))
            await connection.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(ServiceUnavailable):
        await work()


async def test_a_mistake_in_sql_is_not_taken_for_an_absent_database_and_shows_no_parameters(
    database: Database,
) -> None:
    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT CAST(:value AS text) || nothing"), {"value": "AAAAA-BBBBB"})

    with pytest.raises(Exception, match="nothing") as raised:
        await work()
    assert not isinstance(raised.value, ServiceUnavailable)
    assert "AAAAA" not in str(raised.value)


async def test_the_database_tells_the_time(database: Database) -> None:
    async with database.transaction() as connection:
        first = await database_now(connection)
        assert await database_now(connection) > first
    assert first.tzinfo is not None


REQUEST = money_pb2.Money(currency_code="EUR", minor_units=1)
ANSWER = money_pb2.Money(currency_code="EUR", minor_units=2)


async def answer(
    connection: AsyncConnection, request_id: str, request: money_pb2.Money
) -> tuple[money_pb2.Money, bool]:
    digest = request_digest(request)
    earlier = await earlier_answer(connection, request_id=request_id, digest=digest, response_class=money_pb2.Money)
    if earlier is not None:
        return earlier, False
    await asyncio.sleep(0.02)
    await keep_answer(connection, request_id=request_id, digest=digest, response=ANSWER)
    return ANSWER, True


async def test_one_request_id_is_worked_on_once_even_at_the_same_time(database: Database) -> None:
    request_id = str(uuid.uuid4())

    async def ask() -> tuple[money_pb2.Money, bool]:
        async with database.transaction() as connection:
            return await answer(connection, request_id, REQUEST)

    answers = await asyncio.gather(*(ask() for _ in range(6)))
    assert all(given == ANSWER for given, _ in answers)
    assert [fresh for _, fresh in answers].count(True) == 1


async def test_a_request_id_with_another_body_is_refused(database: Database) -> None:
    async def ask(request: money_pb2.Money) -> None:
        async with database.transaction() as connection:
            await answer(connection, "11111111-1111-1111-1111-111111111111", request)

    await ask(REQUEST)
    with pytest.raises(RequestIdReused):
        await ask(ANSWER)


async def test_a_notification_arrives_after_the_commit_and_a_gap_is_told(database: Database, made: OneDatabase) -> None:
    heard: list[str] = []
    listener = asyncio.create_task(NotificationListener(made.service_url, {"news": heard.append}).run())

    async def has_heard(count: int) -> bool:
        return len(heard) >= count

    await eventually(lambda: has_heard(1))
    assert heard == [""]
    async with database.transaction() as connection:
        notify(connection, "news", "o-1")
        notify(connection, "news", "o-1")
        await asyncio.sleep(0.2)
        assert heard == [""]
    await eventually(lambda: has_heard(2))
    assert heard == ["", "o-1"]
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)


async def test_a_sleeper_is_woken_once_and_a_call_before_the_sleep_counts() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    async with asyncio.timeout(1):
        await wakeup.wait(60)
    began = asyncio.get_running_loop().time()
    await wakeup.wait(0.1)
    assert asyncio.get_running_loop().time() - began >= 0.09


async def test_the_service_role_owns_nothing(made: OneDatabase) -> None:
    connection = await asyncpg.connect(made.service_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE TABLE mine (id bigint)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DROP TABLE inbox")
    await connection.close()
