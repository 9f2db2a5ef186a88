"""What claiming costs among very many purchases, as a ratio of what it costs among few.

    .venv/bin/python bench/claiming.py [purchases of each kind]

A real PostgreSQL with purchases that are due, that wait for later and that are finished, as many of each. Its floor is
in the same run: the same statement among a thousand of each, on the same server. Prints the median over many claims.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from chassis.database import Database
from fulfillment.adapters.postgres_purchases import due_statement
from sandbox.servers.postgres import PostgresServer

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.fulfillment_crowd import plant
from tests.integration.real_servers import REPOSITORY, SUPERUSER_PASSWORD, Postgres, provision_roles

FEW = 1_000
MANY = 1_000_000
CLAIMS = 200
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHARES = {0: 32, 1: 16, 2: 8, 3: 4, 4: 4}


class Undo(Exception):
    """Leaves a transaction as if it had never been."""


async def claim(database: Database) -> float:
    """Claim once, undo it, and return the seconds that the statement took."""
    seconds = 0.0
    with suppress(Undo):
        async with database.transaction() as connection:
            began = time.perf_counter()
            (await connection.execute(due_statement(SHARES, NOW))).all()
            seconds = time.perf_counter() - began
            raise Undo
    return seconds


async def measured(postgres: Postgres, count: int) -> float:
    """Return the median of a claim among so many of each kind, in milliseconds."""
    made = await postgres.make_database("fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations")
    await plant(made.superuser_url, count, now=NOW)
    async with Database.open(made.service_url, application="bench") as database:
        for _ in range(CLAIMS // 10):
            await claim(database)
        return 1000 * statistics.median([await claim(database) for _ in range(CLAIMS)])


async def main(count: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(Path(folder), password=SUPERUSER_PASSWORD)
        server.start()
        try:
            await provision_roles(server)
            postgres = Postgres(server)
            few, many = await measured(postgres, FEW), await measured(postgres, count)
        finally:
            server.stop()
    print(f"{'of each kind':>12}  {'ms per claim':>12}  {'ratio':>6}")
    for rows, milliseconds in ((FEW, few), (count, many)):
        print(f"{rows:>12,}  {milliseconds:>12.2f}  {milliseconds / few:>6.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else MANY))
