"""Orders that are taken long after their buyer gave up: the connection was cut, and the request still lives inside.

Kept in the file like orders, so that a restart forgets none. An order that is due and that the desk refuses then (its
reference is used meanwhile, its stock is gone) was never taken, and nobody is told.
"""

import json
from dataclasses import asdict
from decimal import Decimal

from sandbox.kinguin.orders import Change, Clock, Desk
from sandbox.kinguin.plan import Circumstances, Flaps
from sandbox.kinguin.problems import Refusal
from sandbox.kinguin.rules import Line, PlaceOrder
from sandbox.kinguin.store import Store


class LateOrders:
    """Requests for orders that the desk gets to see only later."""

    def __init__(self, store: Store, desk: Desk, *, clock: Clock) -> None:
        self._store = store
        self._desk = desk
        self._clock = clock

    def take(self, order: PlaceOrder, circumstances: Circumstances, *, seconds: float) -> None:
        """Keep a request, to be taken after so many seconds as the circumstances of now have it."""
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO late_orders (due_at, request, circumstances) VALUES (?, ?, ?)",
                (
                    self._clock() + seconds,
                    json.dumps(asdict(order), default=str),
                    json.dumps(asdict(circumstances)),
                ),
            )

    def due_at(self) -> float | None:
        """Return when the next one is due."""
        row = self._store.connection.execute("SELECT min(due_at) AS at FROM late_orders").fetchone()
        return None if row["at"] is None else float(row["at"])

    def run_due(self) -> list[Change]:
        """Take what is due, and return the changes of status."""
        changes: list[Change] = []
        for row in self._store.connection.execute(
            "SELECT * FROM late_orders WHERE due_at <= ? ORDER BY due_at, number", (self._clock(),)
        ).fetchall():
            try:
                changes.append(
                    self._desk.place(_order(row["request"]), _circumstances(row["circumstances"]), late=row["number"])
                )
            except Refusal:
                with self._store.transaction():
                    self._store.drop_late(row["number"])
        return changes


def _order(text: str) -> PlaceOrder:
    body = json.loads(text)
    lines = tuple(Line(**{**line, "price": Decimal(line["price"])}) for line in body["lines"])
    return PlaceOrder(lines, body["external_id"])


def _circumstances(text: str) -> Circumstances:
    body = json.loads(text)
    flaps = None if body["flaps"] is None else Flaps(**body["flaps"])
    return Circumstances(**{**body, "flaps": flaps})
