"""What happens to orders with time: keys are delivered, orders canceled, keys taken back and paid back."""

import asyncio
import base64
import sqlite3
from collections.abc import Callable
from decimal import Decimal

from sandbox.kinguin import serials
from sandbox.kinguin.catalogue import BY_ID, TEXT
from sandbox.kinguin.orders import Change, Clock, change_of
from sandbox.kinguin.pictures import draw
from sandbox.kinguin.store import Store

# Short enough that requests are answered in between.
_BATCH = 25
_LONGEST_SLEEP_SECONDS = 60.0
# An order's changes are at least this far apart: `updatedAt` is cut to milliseconds, and two must not become equal.
_TICK_SECONDS = 0.002
_UNDELIVERED = "('PENDING', 'PROCESSING')"


class Deliveries:
    """Carries out the steps that are due. A crash repeats nothing: a step goes in the transaction of its effect."""

    def __init__(self, store: Store, *, seed: int, fulfil_seconds: float, clock: Clock) -> None:
        self._store = store
        self._seed = seed
        self._fulfil_seconds = fulfil_seconds
        self._clock = clock
        self._work = asyncio.Event()

    def wake(self) -> None:
        """Look again: there is a new step."""
        self._work.set()

    async def run(self, announce: Callable[[Change], None]) -> None:
        """Carry out steps for ever, and announce each change of status once it is committed."""
        while True:
            self._work.clear()
            for change in self.run_due():
                announce(change)
            # Requests come first, however much is due.
            await asyncio.sleep(0)
            pause = self._pause_seconds()
            if pause > 0:
                try:
                    await asyncio.wait_for(self._work.wait(), pause)
                except TimeoutError:
                    continue

    def _pause_seconds(self) -> float:
        row = self._store.connection.execute("SELECT min(due_at) AS at FROM steps").fetchone()
        return _LONGEST_SLEEP_SECONDS if row["at"] is None else min(_LONGEST_SLEEP_SECONDS, row["at"] - self._clock())

    def run_due(self) -> list[Change]:
        """Carry out the first steps that are due now, and return the changes of status."""
        now = self._clock()
        changes: list[Change] = []
        due = self._store.connection.execute(
            "SELECT * FROM steps WHERE due_at <= ? ORDER BY due_at, number LIMIT ?", (now, _BATCH)
        ).fetchall()
        if not due:
            return changes
        act = {"deliver": self._deliver, "cancel": self._cancel, "return": self._return, "refund": self._refund}
        with self._store.transaction() as connection:
            for step in due:
                gone = connection.execute("DELETE FROM steps WHERE number = ?", (step["number"],)).rowcount == 0
                if gone:
                    continue
                change = act[step["action"]](self._order(step["order_number"]), step, now)
                if change is not None:
                    changes.append(change)
        return changes

    def release(self, order_id: str | None) -> int:
        """Let the deliveries that wait (all, or an order's) happen now; return how many there are."""
        now = self._clock()
        with self._store.transaction() as connection:
            released = connection.execute(
                "UPDATE steps SET due_at = :now WHERE action = 'deliver' AND (due_at IS NULL OR due_at > :now) AND"
                " (:order_id IS NULL OR order_number IN (SELECT number FROM orders WHERE order_id = :order_id))",
                {"now": now, "order_id": order_id},
            ).rowcount
        self.wake()
        return released

    def _order(self, number: int) -> sqlite3.Row:
        row: sqlite3.Row = self._store.connection.execute("SELECT * FROM orders WHERE number = ?", (number,)).fetchone()
        return row

    def _deliver(self, order: sqlite3.Row, step: sqlite3.Row, now: float) -> Change | None:
        connection = self._store.connection
        most = -1 if step["amount"] is None else step["amount"]
        keys = connection.execute(
            f"SELECT * FROM keys WHERE order_number = ? AND status IN {_UNDELIVERED} ORDER BY number LIMIT ?",  # noqa: S608 # a constant
            (order["number"], most),
        ).fetchall()
        returning = order["return_requested_at"] is not None
        for key in keys:
            content_type, serial, shown = self._take_key(key)
            connection.execute(
                "UPDATE keys SET status = 'DELIVERED', type = ?, serial = ?, shown = ?, delivered_at = ?,"
                " going_back = ? WHERE number = ?",
                (content_type, serial, shown, now, returning, key["number"]),
            )
        if keys and returning:
            self._add_step(order, now + self._fulfil_seconds, "return")
        waiting = connection.execute(
            "UPDATE keys SET status = 'PROCESSING' WHERE order_number = ? AND status IN ('PENDING', 'PROCESSING')",
            (order["number"],),
        ).rowcount
        if waiting or order["status"] != "processing":
            return None
        return self._set_status(order, "completed", now)

    def _take_key(self, key: sqlite3.Row) -> tuple[str, str, str]:
        """Return type, serial and what it shows: of a planted key if the product has one, else of a new one."""
        connection = self._store.connection
        line = connection.execute(
            "SELECT key_type FROM lines WHERE order_number = ? AND position = ?", (key["order_number"], key["position"])
        ).fetchone()
        planted = connection.execute(
            "SELECT * FROM planted WHERE product_id = ? AND (? IS NULL OR type = 'text/plain') ORDER BY number LIMIT 1",
            (key["product_id"], line["key_type"]),
        ).fetchone()
        if planted is not None:
            connection.execute("DELETE FROM planted WHERE number = ?", (planted["number"],))
            return planted["type"], planted["serial"], planted["shown"]
        shown = serials.serial(self._seed, key["product_id"], key["number"], BY_ID[key["product_id"]].groups)
        return key["type"], shown if key["type"] == TEXT else picture_serial(shown, key["type"]), shown

    def _cancel(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        if order["status"] != "processing":
            return None
        connection = self._store.connection
        keys = connection.execute(
            f"SELECT price FROM keys WHERE order_number = ? AND status IN {_UNDELIVERED}",  # noqa: S608 # a constant
            (order["number"],),
        ).fetchall()
        connection.execute(
            f"UPDATE keys SET status = 'CANCELED' WHERE order_number = ? AND status IN {_UNDELIVERED}",  # noqa: S608 # same
            (order["number"],),
        )
        connection.execute("DELETE FROM steps WHERE order_number = ? AND action = 'deliver'", (order["number"],))
        self._pay_back(order, keys, reason="cancelation", now=now)
        return self._set_status(order, "canceled", now)

    def _return(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        self._store.connection.execute(
            "UPDATE keys SET status = 'RETURNED' WHERE order_number = ? AND going_back AND status = 'DELIVERED'",
            (order["number"],),
        )
        self._add_step(order, now + self._fulfil_seconds, "refund")
        return None

    def _refund(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        connection = self._store.connection
        number = (order["number"],)
        keys = connection.execute(
            "SELECT price FROM keys WHERE order_number = ? AND status = 'RETURNED'", number
        ).fetchall()
        connection.execute("UPDATE keys SET status = 'REFUNDED' WHERE order_number = ? AND status = 'RETURNED'", number)
        self._pay_back(order, keys, reason="return", now=now)
        kept = connection.execute(
            "SELECT 1 FROM keys WHERE order_number = ? AND status NOT IN ('REFUNDED', 'CANCELED') LIMIT 1", number
        ).fetchone()
        return None if kept or not keys else self._set_status(order, "refunded", now)

    def _pay_back(self, order: sqlite3.Row, keys: list[sqlite3.Row], *, reason: str, now: float) -> None:
        amount = sum((Decimal(key["price"]) for key in keys), Decimal(0))
        if amount:
            self._store.move_balance(amount, now=now, reason=reason, order_id=order["order_id"])

    def _add_step(self, order: sqlite3.Row, due_at: float, action: str) -> None:
        self._store.connection.execute(
            "INSERT INTO steps (order_number, due_at, action) VALUES (?, ?, ?)", (order["number"], due_at, action)
        )

    def _set_status(self, order: sqlite3.Row, status: str, now: float) -> Change:
        updated_at = max(now, order["updated_at"] + _TICK_SECONDS)
        self._store.connection.execute(
            "UPDATE orders SET status = ?, updated_at = ? WHERE number = ?", (status, updated_at, order["number"])
        )
        return change_of(self._order(order["number"]))


def picture_serial(shown: str, content_type: str) -> str:
    """Return the serial of a picture key that shows this text: the file in base64 (K46)."""
    return base64.b64encode(draw(shown, content_type)).decode("ascii")
