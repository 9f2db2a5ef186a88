"""A database with orders in it is brought up to date, and what was begun goes on as it was sent."""

import shutil
from pathlib import Path

import asyncpg
from chassis.migrate import migrate

from tests.integration.real_servers import REPOSITORY, Postgres, fetch

MIGRATIONS = REPOSITORY / "services" / "fulfillment" / "migrations"
ROWS = """
INSERT INTO customer_order (
    order_id, customer_id, email, locale, country_code, total_currency, total_minor, digest, state, create_time,
    update_time
) VALUES ('order-1', 'alice', 'alice@example.com', 'de', 'DE', 'EUR', 1000, '', 'PENDING', now(), now());
INSERT INTO order_item (order_id, item_id, position, product_id, offer_id, quantity, max_unit_price, key_type)
VALUES ('order-1', 'item-1', 0, 'product-1', 'offer-7', 6, 999, '');
INSERT INTO payment (provider, payment_id, order_id, currency, minor, confirm_time) VALUES
    ('stripe', 'matched', 'order-1', 'EUR', 1000, now()), ('stripe', 'unmatched', 'order-2', 'EUR', 1000, now());
INSERT INTO purchase (external_id, order_id, item_id, chunk, attempt, quantity, state, state_time, run_at)
SELECT state, 'order-1', 'item-1', row_number() OVER (), 1, 1, state, now(), CASE WHEN place <= 3 THEN now() END
FROM unnest('{PENDING,PURCHASING,AWAITING_KEYS,NEEDS_ATTENTION,READY,DELIVERED}'::text[])
    WITH ORDINALITY AS listed(state, place);
"""


async def test_what_was_begun_without_a_plan_goes_on_as_it_was_sent(postgres: Postgres, tmp_path: Path) -> None:
    before = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, before, ignore=shutil.ignore_patterns("000[3-9]_*", "00[1-9]?_*"))
    database = await postgres.make_database("fulfillment", before, template="fulfillment_without_plans")
    connection = await asyncpg.connect(database.superuser_url)
    await connection.execute(ROWS)
    await connection.close()
    await migrate(database.migrator_url, MIGRATIONS)
    await migrate(database.migrator_url, MIGRATIONS)

    purchases = await fetch(database.service_url, "SELECT * FROM purchase")
    planned = {row["external_id"]: (row["offer_id"], row["unit_limit"]) for row in purchases if row["unit_limit"]}
    assert planned == dict.fromkeys(["PURCHASING", "AWAITING_KEYS", "NEEDS_ATTENTION"], ("offer-7", 999))
    may_wait = {row["external_id"] for row in purchases if row["customer_id"] == "alice"}
    assert may_wait == {"PENDING", "PURCHASING", "NEEDS_ATTENTION"}
    assert {(row["lane"], row["claim"], row["give_up"]) for row in purchases} == {(0, 0, "")}
    assert {row["external_id"] for row in purchases if row["run_at"]} == {"PENDING", "PURCHASING", "AWAITING_KEYS"}

    payments = await fetch(database.service_url, "SELECT payment_id FROM payment WHERE NOT is_matched")
    assert [row["payment_id"] for row in payments] == ["unmatched"]
    assert not await fetch(database.service_url, "SELECT FROM refund LEFT JOIN refund_request ON false")
