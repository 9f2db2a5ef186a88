"""Claiming, and counting what waits, cost the same however many purchases there are: by what is touched, not by time.

KEYFERRY_PROOF=full plants a million of each kind.
"""

import os
from datetime import timedelta

from fulfillment.adapters.postgres_purchases import due_statement, waiting_statement

from tests.integration.fulfillment_crowd import Cost, cost, plant
from tests.integration.real_servers import REPOSITORY, Postgres
from tests.unit.fulfillment.examples import NOON

FEW = 1_000
MANY = 1_000_000 if os.environ.get("KEYFERRY_PROOF") == "full" else 100_000
SHARES = {0: 32, 1: 16, 2: 8, 3: 4, 4: 4}
MOST_GROWTH = 1.3
# A tree of a million has a level or two more than one of a thousand: where nothing is found, that is all there is.
MORE_LEVELS = 2 * len(SHARES)
MIGRATIONS = REPOSITORY / "services" / "fulfillment" / "migrations"


async def measured(postgres: Postgres, count: int) -> dict[str, Cost]:
    database = await postgres.make_database("fulfillment", MIGRATIONS)
    await plant(database.superuser_url, count, now=NOON)
    return {
        "claiming": await cost(database.superuser_url, due_statement(SHARES, NOON)),
        "nothing due": await cost(database.superuser_url, due_statement(SHARES, NOON - timedelta(days=1))),
        "waiting": await cost(database.superuser_url, waiting_statement("alice", 64)),
    }


async def test_claiming_and_counting_cost_the_same_among_few_and_among_very_many(postgres: Postgres) -> None:
    few, many = await measured(postgres, FEW), await measured(postgres, MANY)
    for name, small in few.items():
        large = many[name]
        assert large.buffers <= max(MOST_GROWTH * small.buffers, small.buffers + MORE_LEVELS), name
        assert large.rows <= MOST_GROWTH * small.rows, name
        assert not large.scanned, name
    assert many["claiming"].indexes == {"purchase_due_by_lane", "customer_order_pkey"}
    assert many["waiting"].indexes == {"purchase_waiting"}
