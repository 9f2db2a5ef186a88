"""How long a report takes over very many orders.

    .venv/bin/python bench/reconciliation.py [orders]

A real PostgreSQL and the real comparisons; the others' books are in memory, so that what is measured is ours: staging,
comparing, confirming. Every kind of difference is planted once, and must be found.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from chassis.database import Database  # noqa: E402 # the tests' world is beside us, not installed
from fulfillment.adapters.reports import PostgresReports  # noqa: E402 # as above
from fulfillment.domain.reconciliation import Limits  # noqa: E402 # as above
from sandbox.servers.postgres import PostgresServer  # noqa: E402 # as above

from tests.integration.fulfillment_reports import OUTBOX, a_reconciling  # noqa: E402 # as above
from tests.integration.real_servers import SUPERUSER_PASSWORD, Postgres, provision_roles  # noqa: E402 # as above
from tests.unit.fulfillment.reconciled_world import NOW, SPAN, FixedClock, World, healthy  # noqa: E402 # as above
from tests.unit.fulfillment.spoiling import SPOILS  # noqa: E402 # as above

ORDERS = 100_000


def a_world(count: int) -> World:
    """Return a world of so many healthy orders and one of every kind of difference."""
    world = healthy(count)
    for kind, spoil in SPOILS.items():
        spoil(world, f"x-{kind.value}")
    world.ledgers.page = 1000
    return world


async def main(count: int) -> None:
    """Measure one report."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), password=SUPERUSER_PASSWORD)
        server.start()
        try:
            await provision_roles(server)
            database = await Postgres(server).make_database(
                "fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations"
            )
            world = a_world(count)
            connection = await asyncpg.connect(database.superuser_url)
            await world.load(connection)
            await connection.execute("UPDATE reconciliation_schedule SET next_time = 'infinity'")
            await connection.close()
            async with Database.open(database.service_url, application="bench") as opened:
                clock, limits = FixedClock(), Limits()
                reports = PostgresReports(opened, OUTBOX, clock=clock, limits=limits)
                replica = a_reconciling(opened, reports, world.ledgers, clock=clock, limits=limits)
                async with reports.transaction() as transaction:
                    await transaction.ask(SPAN, report_id="bench", now=NOW)
                (run,) = await replica.claim(1)
                begin, cpu = time.perf_counter(), time.process_time()
                await replica.work(run)
                seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
                report = await reports.get("bench")
        finally:
            server.stop()
    found = sum(report.differences.values()) if report else 0
    print(f"{count:>10} orders   {seconds:6.1f} s   {seconds / count * 1e6:6.1f} us/order   {cpu:6.1f} s of our CPU")
    print(f"{found:>10} differences of {len(SPOILS)} planted")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ORDERS))
