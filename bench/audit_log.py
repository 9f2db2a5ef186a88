"""What an audit entry costs beside its floor, and in a very large log beside a small one.

    .venv/bin/python bench/audit_log.py [entries of the large log]

A real PostgreSQL. First appends by very many callers at once, beside the floor: bare transactions of one row on a bare
table, by as many connections as the service has. Then appends and proofs in a log of 10,000 entries and in a large one,
in turns on the same server: medians, and their ratio.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
from audit.adapters.jose import JosePersonKeys
from audit.adapters.postgres import PostgresLog
from audit.adapters.tree import PostgresTree
from audit.appending import GroupAppender, append_drafts
from audit.domain.entry import Actor, ActorType, Draft
from audit.proving import Prover
from chassis.database import POOL_SIZE, Database
from chassis.keyring import Keyring
from sandbox.servers.postgres import PostgresServer

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.audit_crowd import plant_log
from tests.integration.real_servers import (
    REPOSITORY,
    SUPERUSER_PASSWORD,
    OneDatabase,
    Postgres,
    provision_roles,
)

FEW = 10_000
MANY = 1_000_000
APPENDS = 6_000
CALLERS = 400
ROUNDS = 150
GROUP = 100
MIGRATIONS = REPOSITORY / "services" / "audit" / "migrations"
KEYS = JosePersonKeys(Keyring.parse("v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"))
VAULT = Actor(ActorType.SERVICE, "vault")

Step = Callable[[], Awaitable[object]]


def a_draft() -> Draft:
    """Return a draft like those of a reveal."""
    name = str(uuid.uuid4())
    return Draft(name, name.encode(), VAULT, "key.link_authorized", "vault", order_id=f"order-{name}", key_id=name)


async def shared_out(count: int, workers: int, step: Step) -> float:
    """Do a step so many times by so many workers, and return how many there were in a second."""
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await step()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return count / (time.perf_counter() - began)


async def floor(url: str) -> float:
    """Return bare transactions in a second: one row of an entry's size, nothing else."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE floor (sequence bigserial PRIMARY KEY, canonical text, leaf_hash bytea)")
    await connection.close()
    row = ("x" * 500, bytes(32))
    async with asyncpg.create_pool(url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:

        async def once() -> None:
            async with pool.acquire() as own, own.transaction():
                await own.execute("INSERT INTO floor (canonical, leaf_hash) VALUES ($1, $2)", *row)

        await shared_out(APPENDS // 10, POOL_SIZE, once)
        return await shared_out(APPENDS, POOL_SIZE, once)


async def appends(database: Database) -> float:
    """Return appends in a second, each answered once it is durable."""
    appender = GroupAppender(PostgresLog(database), KEYS)
    task = asyncio.create_task(appender.run())
    try:
        await shared_out(APPENDS // 10, CALLERS, lambda: appender.append(a_draft()))
        return await shared_out(APPENDS, CALLERS, lambda: appender.append(a_draft()))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def steps(database: Database, size: int) -> dict[str, Step]:
    """Return what is compared between a small log and a large one."""
    log, prover = PostgresLog(database), Prover(PostgresTree(database))
    chance = random.Random(1)  # noqa: S311 # which entries are proven is no secret

    async def append(count: int) -> None:
        async with log.transaction() as transaction:
            await append_drafts(transaction, KEYS, [a_draft() for _ in range(count)])

    return {
        "append one": lambda: append(1),
        f"append {GROUP} together": lambda: append(GROUP),
        "inclusion proof": lambda: prover.inclusion(chance.randrange(size), size),
        "consistency proof": lambda: prover.consistency(chance.randrange(1, size), size),
    }


async def compare(small: dict[str, Step], large: dict[str, Step]) -> dict[str, tuple[float, float]]:
    """Return the median milliseconds of each step in both logs, taken in turns."""
    found: dict[str, tuple[float, float]] = {}
    for name, step in small.items():
        took: tuple[list[float], list[float]] = ([], [])
        for number in range(ROUNDS + ROUNDS // 10):
            for which, act in enumerate((step, large[name])):
                began = time.perf_counter()
                await act()
                if number >= ROUNDS // 10:
                    took[which].append(1000 * (time.perf_counter() - began))
        found[name] = (statistics.median(took[0]), statistics.median(took[1]))
    return found


async def made(postgres: Postgres, count: int) -> OneDatabase:
    """Return a log of so many entries."""
    database = await postgres.make_database("audit", MIGRATIONS)
    began = time.perf_counter()
    await plant_log(database.superuser_url, count)
    print(f"a log of {count:,} entries was made in {time.perf_counter() - began:.0f} s")
    return database


async def main(count: int) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(Path(folder), password=SUPERUSER_PASSWORD)
        server.start()
        try:
            await provision_roles(server)
            postgres = Postgres(server)
            empty = await postgres.make_database("audit", MIGRATIONS)
            bare = await floor(empty.superuser_url)
            async with Database.open(empty.service_url, application="bench") as database:
                ours = await appends(database)
            print(f"bare transactions of one row: {bare:>8,.0f} /s")
            print(f"appended entries:             {ours:>8,.0f} /s   {ours / bare:.2f} of the floor")
            small, large = await made(postgres, FEW), await made(postgres, count)
            async with (
                Database.open(small.service_url, application="small") as one,
                Database.open(large.service_url, application="large") as two,
            ):
                table = await compare(steps(one, FEW), steps(two, count))
        finally:
            server.stop()
    print(f"{'milliseconds, median':>22}  {FEW:>12,}  {count:>12,}  {'ratio':>6}")
    for name, (few, many) in table.items():
        print(f"{name:>22}  {few:>12.2f}  {many:>12.2f}  {many / few:>6.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else MANY))
