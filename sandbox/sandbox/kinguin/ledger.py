"""What was really sold, for whoever compares: every order with its keys in plain, and where the money went."""

import sqlite3

from sandbox.kinguin.moments import exact_moment
from sandbox.kinguin.store import Store


def ledger_json(store: Store, *, external_id: str | None = None, order_id: str | None = None) -> dict[str, object]:
    """Return the ledger, the oldest order first; with an id only the orders that bear it.

    Money is decimal text here, so that it can be added up exactly. `serial` is null until the key is delivered; `shown`
    is what a picture key's picture says, and for a text key the serial itself.
    """
    connection = store.connection
    orders = connection.execute(
        "SELECT * FROM orders WHERE (?1 IS NULL OR external_id = ?1) AND (?2 IS NULL OR order_id = ?2) ORDER BY number",
        (external_id, order_id),
    ).fetchall()
    sold = connection.execute("SELECT count(*) AS n FROM keys WHERE status <> 'CANCELED'").fetchone()["n"]
    delivered = connection.execute("SELECT count(*) AS n FROM keys WHERE serial IS NOT NULL").fetchone()["n"]
    history = connection.execute("SELECT * FROM balance_history ORDER BY number")
    return {
        "orders": [_order_json(connection, order) for order in orders],
        "totals": {
            "orders": connection.execute("SELECT count(*) AS n FROM orders").fetchone()["n"],
            "keys_sold": sold,
            "keys_delivered": delivered,
        },
        "balance": str(store.balance),
        "balance_history": [
            {
                "time": exact_moment(row["at"]),
                "amount": row["amount"],
                "balance": row["balance"],
                "reason": row["reason"],
                "order_id": row["order_id"],
            }
            for row in history
        ],
    }


def _order_json(connection: sqlite3.Connection, order: sqlite3.Row) -> dict[str, object]:
    keys = connection.execute("SELECT * FROM keys WHERE order_number = ? ORDER BY number", (order["number"],))
    return {
        "order_id": order["order_id"],
        "external_id": order["external_id"],
        "status": order["status"],
        "created_at": exact_moment(order["created_at"]),
        "updated_at": exact_moment(order["updated_at"]),
        "paid": order["paid"],
        "keys": [_key_json(key) for key in keys],
    }


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
        "delivered_at": None if key["delivered_at"] is None else exact_moment(key["delivered_at"]),
    }
