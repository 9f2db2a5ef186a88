"""Searching costs the same in a short log and in a long one: by what is touched, not by time.

KEYFERRY_PROOF=full plants a million entries.
"""

import os
from datetime import UTC, datetime, timedelta

from audit.adapters.searching import entries_statement, first_at_statement
from audit.domain.filters import Filters
from sqlalchemy import Executable

from tests.integration.audit_planting import plant_entries
from tests.integration.fulfillment_crowd import Cost, cost
from tests.integration.real_servers import REPOSITORY, Postgres

FEW = 2_000
MANY = 1_000_000 if os.environ.get("KEYFERRY_PROOF") == "full" else 40_000
PAGE = 51
# An index of a million has a level or two more than one of a thousand, for each form of an actor; a time is found by
# halving, each step of which goes down one index and reads one entry.
MORE_LEVELS = 4
MORE_STEPS = 4 * (MANY // FEW).bit_length() + 4 * MORE_LEVELS
MIDNIGHT = datetime(2026, 1, 2, tzinfo=UTC)
MIGRATIONS = REPOSITORY / "services" / "audit" / "migrations"


def searches(count: int) -> dict[str, Executable]:
    def search(
        *actors: str, start: int = 0, end: int | None = None, order_id: str = "", key_id: str = "", action: str = ""
    ) -> Executable:
        filters = Filters(order_id=order_id, key_id=key_id, action=action)
        return entries_statement(filters, actor_ids=actors, start=start, end=end, limit=PAGE)

    return {
        "all": search(start=count // 2),
        "order": search(order_id="order-100"),
        "nobody's order": search(order_id="none"),
        "key": search(key_id="key-100"),
        "order of a range": search(order_id="order-100", start=200, end=400),
        "person in two forms": search("alice", "p-7"),
        "service": search("vault", start=count // 2),
        "action": search(action="key.link_authorized", start=count // 2),
        "actor and action that never meet": search("vault", action="rare.action"),
        "time": first_at_statement(MIDNIGHT + timedelta(milliseconds=count // 3)),
    }


async def measured(postgres: Postgres, count: int) -> dict[str, Cost]:
    database = await postgres.make_database("audit", MIGRATIONS)
    await plant_entries(database.superuser_url, count)
    return {name: await cost(database.superuser_url, statement) for name, statement in searches(count).items()}


async def test_searching_costs_the_same_in_a_short_log_and_in_a_long_one(postgres: Postgres) -> None:
    few, many = await measured(postgres, FEW), await measured(postgres, MANY)
    for name, small in few.items():
        large = many[name]
        more = MORE_STEPS if name == "time" else MORE_LEVELS
        assert large.buffers <= 1.3 * small.buffers + more, (name, small, large)
        assert name == "time" or large.rows <= 1.3 * small.rows, (name, small, large)
        assert not large.scanned, name
    assert many["order"].indexes == {"entry_by_order"}
    assert many["key"].indexes == {"entry_by_key"}
    assert many["person in two forms"].indexes == {"entry_by_actor"}
    assert many["actor and action that never meet"].indexes == {"entry_by_actor_and_action"}
