"""What was really sold, for whoever compares: every order with its keys in plain, and where the money went."""

import sqlite3
from collections import Counter
from dataclasses import dataclass

from sandbox.kinguin.moments import exact_moment
from sandbox.kinguin.store import Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which orders are told: those that fit all that is given. `prefix` is the beginning of an `orderExternalId`."""

    external_id: str | None = None
    prefix: str | None = None
    order_id: str | None = None


EVERYTHING = Wanted()


def ledger_json(store: Store, wanted: Wanted = EVERYTHING) -> dict[str, object]:
    """Return the ledger, the oldest order first. `products` counts the keys of the orders told, `totals` all.

    Money is decimal text here, so that it can be added up exactly. `serial` is null until the key is delivered; `shown`
    is what a picture key's picture says, and for a text key the serial itself. A key is sold unless it was canceled
    before it came: what was bought twice, or given back, was sold all the same.
    """
    connection = store.connection
    orders = connection.execute(
        "SELECT * FROM orders WHERE (?1 IS NULL OR external_id = ?1) AND (?2 IS NULL OR order_id = ?2)"
        " AND (?3 IS NULL OR substr(external_id, 1, length(?3)) = ?3) ORDER BY number",
        (wanted.external_id, wanted.order_id, wanted.prefix),
    ).fetchall()
    told = [_order_json(connection, order) for order in orders]
    return {
        "orders": [order for order, _ in told],
        "products": _per_product([key for _, keys in told for key in keys]),
        "totals": _totals(connection),
        "late_orders": connection.execute("SELECT count(*) AS n FROM late_orders").fetchone()["n"],
        "balance": str(store.balance),
        "balance_history": [
            {
                "time": exact_moment(row["at"]),
                "amount": row["amount"],
                "balance": row["balance"],
                "reason": row["reason"],
                "order_id": row["order_id"],
            }
            for row in connection.execute("SELECT * FROM balance_history ORDER BY number")
        ],
    }


def _totals(connection: sqlite3.Connection) -> dict[str, object]:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM orders) AS orders, count(*) FILTER (WHERE status <> 'CANCELED') AS keys_sold,"
        " count(serial) AS keys_delivered, count(*) FILTER (WHERE status = 'RETURNED') AS keys_returned,"
        " count(*) FILTER (WHERE status = 'REFUNDED') AS keys_refunded,"
        " count(*) FILTER (WHERE status = 'CANCELED') AS keys_canceled FROM keys"
    ).fetchone()
    return dict(row)


def _per_product(keys: list[sqlite3.Row]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for key in keys:
        status = key["status"]
        counts.setdefault(key["product_id"], Counter()).update(
            sold=status != "CANCELED",
            delivered=key["serial"] is not None,
            returned=status == "RETURNED",
            refunded=status == "REFUNDED",
            canceled=status == "CANCELED",
        )
    return {product_id: dict(count) for product_id, count in counts.items()}


def _order_json(connection: sqlite3.Connection, order: sqlite3.Row) -> tuple[dict[str, object], list[sqlite3.Row]]:
    number = (order["number"],)
    keys = connection.execute("SELECT * FROM keys WHERE order_number = ? ORDER BY number", number).fetchall()
    lines = connection.execute("SELECT * FROM lines WHERE order_number = ? ORDER BY position", number).fetchall()
    returned_at = order["return_requested_at"]
    body: dict[str, object] = {
        "order_id": order["order_id"],
        "external_id": order["external_id"],
        "status": order["status"],
        "created_at": exact_moment(order["created_at"]),
        "updated_at": exact_moment(order["updated_at"]),
        "return_requested_at": None if returned_at is None else exact_moment(returned_at),
        "requested": order["requested"],
        "total": order["total"],
        "paid": order["paid"],
        "lines": [_line_json(line) for line in lines],
        "keys": [_key_json(key) for key in keys],
    }
    return body, keys


def _line_json(line: sqlite3.Row) -> dict[str, object]:
    return {name: line[name] for name in ("product_id", "offer_id", "qty", "price", "request_price", "key_type")}


def _key_json(key: sqlite3.Row) -> dict[str, object]:
    return {
        "id": key["key_id"],
        "product_id": key["product_id"],
        "offer_id": key["offer_id"],
        "price": key["price"],
        "status": key["status"],
        "type": key["type"],
        "serial": key["serial"],
        "shown": key["shown"],
        "claimed": bool(key["claimed"]),
        "delivered_at": None if key["delivered_at"] is None else exact_moment(key["delivered_at"]),
    }
