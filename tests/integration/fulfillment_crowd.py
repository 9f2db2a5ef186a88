"""Very many purchases, and what a statement costs among them."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql

PURCHASES_PER_ORDER = 10
# So many of each kind: what is due now, what waits for later, what is finished; in all lanes alike, of one customer.
_PLANT = (
    """
    INSERT INTO customer_order (
        order_id, customer_id, email, locale, country_code, total_currency, total_minor, digest, state, create_time,
        update_time
    )
    SELECT 'crowd-' || no, 'alice', 'alice@example.com', 'de', 'DE', 'EUR', 1000, '', 'PENDING', $2, $2
    FROM generate_series(0, (3 * $1::int - 1) / $3::int) AS no
    """,
    """
    INSERT INTO order_item (order_id, item_id, position, product_id, offer_id, quantity, max_unit_price, key_type)
    SELECT 'crowd-' || no, 'item-1', 0, 'product-1', '', $2::int, 999, ''
    FROM generate_series(0, (3 * $1::int - 1) / $2::int) AS no
    """,
    """
    INSERT INTO purchase (
        external_id, order_id, item_id, customer_id, chunk, attempt, quantity, state, state_time, lane, run_at
    )
    SELECT
        'kf1-crowd-' || no, 'crowd-' || no / $3::int, 'item-1', 'alice', no % $3::int, 1, 1,
        CASE no % 3 WHEN 0 THEN 'AWAITING_KEYS' WHEN 1 THEN 'AWAITING_KEYS' ELSE 'DELIVERED' END,
        $2, no / 3 % 5,
        CASE no % 3
            WHEN 0 THEN $2::timestamptz - no * interval '1 ms'
            WHEN 1 THEN $2::timestamptz + interval '1 hour' + no * interval '1 ms'
        END
    FROM generate_series(0, 3 * $1::int - 1) AS no
    """,
)


@dataclass(frozen=True)
class Cost:
    """What a statement touched, and how."""

    buffers: int
    rows: int
    indexes: frozenset[str]
    scanned: frozenset[str]
    """Tables that were read from end to end."""


async def plant(url: str, count: int, *, now: datetime) -> None:
    """Add so many purchases of each kind, as superuser."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_PLANT[0], count, now, PURCHASES_PER_ORDER)
        await connection.execute(_PLANT[1], count, PURCHASES_PER_ORDER)
        await connection.execute(_PLANT[2], count, now, PURCHASES_PER_ORDER)
        for table in ("customer_order", "order_item", "purchase"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
    finally:
        await connection.close()


async def cost(url: str, statement: Executable) -> Cost:
    """Run a statement, undo it, and tell what it touched."""
    compiled = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined,no-untyped-call] # every statement has it
    connection = await asyncpg.connect(url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        told = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}")
        await transaction.rollback()
    finally:
        await connection.close()
    plan = json.loads(told)[0]["Plan"]
    steps = _steps(plan)
    return Cost(
        buffers=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        rows=sum(step["Actual Rows"] * step["Actual Loops"] + step.get("Rows Removed by Filter", 0) for step in steps),
        indexes=frozenset(step["Index Name"] for step in steps if "Index Name" in step),
        scanned=frozenset(step["Relation Name"] for step in steps if step["Node Type"] == "Seq Scan"),
    )


def _steps(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(step for below in plan.get("Plans", ()) for step in _steps(below))]
