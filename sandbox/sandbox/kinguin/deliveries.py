"""What happens to orders with time: keys are delivered, orders canceled, keys taken back and paid back."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal

from sandbox.kinguin import serials
from sandbox.kinguin.catalogue import BY_ID, TEXT
from sandbox.kinguin.late import LateOrders
from sandbox.kinguin.moments import parse_moment
from sandbox.kinguin.orders import Change, Clock, change_of
from sandbox.kinguin.pictures import draw
from sandbox.kinguin.plan import StepAction
from sandbox.kinguin.store import Store

# Short enough that requests are answered in between.
_BATCH = 25
_LONGEST_SLEEP_SECONDS = 60.0
# An order's changes are at least this far apart: `updatedAt` is cut to milliseconds, and two must not become equal.
_TICK_SECONDS = 0.002
_UNDELIVERED = "('PENDING', 'PROCESSING')"


class Deliveries:
    """Carries out the steps that are due. A crash repeats nothing: a step goes in the transaction of its effect."""

    def __init__(self, store: Store, late: LateOrders, *, seed: int, fulfil_seconds: float, clock: Clock) -> None:
        self._store = store
        self._late = late
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
        due = [at - self._clock() for at in (row["at"], self._late.due_at()) if at is not None]
        return min([_LONGEST_SLEEP_SECONDS, *due])

    def run_due(self) -> list[Change]:
        """Take the late orders and carry out the first steps that are due now; return the changes of status."""
        now = self._clock()
        changes = self._late.run_due()
        due = self._store.connection.execute(
            "SELECT * FROM steps WHERE due_at <= ? ORDER BY due_at, number LIMIT ?", (now, _BATCH)
        ).fetchall()
        if not due:
            return changes
        act = {
            "deliver": self._deliver,
            "cancel": self._cancel,
            "return": self._return,
            "refund": self._refund,
            "flap": self._flap,
            "unflap": self._unflap,
        }
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

    def set_release_date(self, product_id: str, release_date: str) -> None:
        """Let a pre-order be released at another time, also where it was ordered already. Raises ValueError."""
        at = parse_moment(release_date)
        product = BY_ID.get(product_id)
        if product is None or not product.is_preorder:
            raise ValueError("that is no pre-order")
        with self._store.transaction() as connection:
            self._store.set_release_date(product_id, release_date)
            connection.execute(
                "UPDATE steps SET due_at = ? WHERE action = 'deliver' AND due_at IS NOT NULL AND order_number IN"
                " (SELECT order_number FROM lines WHERE product_id = ?)",
                (at, product_id),
            )
        self.wake()

    def cancel(self, order_id: str) -> bool:
        """Cancel what is not delivered of an order that is being processed; tell whether there is such an order."""
        return self._begin(order_id, "cancel")

    def take_back(self, order_id: str, count: int | None) -> int:
        """Take delivered keys back without being asked, the first of them or all, and pay for them; return how many."""
        with self._store.transaction() as connection:
            taken = connection.execute(
                "UPDATE keys SET status = 'RETURNED' WHERE number IN (SELECT keys.number FROM keys JOIN orders ON"
                " orders.number = order_number WHERE order_id = ? AND keys.status = 'DELIVERED' ORDER BY keys.number"
                " LIMIT ?)",
                (order_id, -1 if count is None else count),
            ).rowcount
        if taken:
            self._begin(order_id, "refund")
        return taken

    def _begin(self, order_id: str, action: StepAction) -> bool:
        with self._store.transaction() as connection:
            order = connection.execute("SELECT * FROM orders WHERE order_id = ?", (order_id,)).fetchone()
            if order is not None:
                self._add_step(order, self._clock(), action)
        self.wake()
        return order is not None

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
        self._plan_flap(order, now)
        return self._set_status(order, "completed", now)

    def _plan_flap(self, order: sqlite3.Row, now: float) -> None:
        flaps = self._store.quirk(order["number"], "flaps")
        if flaps is None:
            return
        rounds, seconds, word = json.loads(flaps)
        if rounds:
            self._store.set_quirk(order["number"], "flaps", json.dumps([rounds - 1, seconds, word]))
            self._add_step(order, now + seconds, "flap")
            self._store.set_quirk(order["number"], "flapping", json.dumps([seconds, word]))

    def _flap(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        if order["status"] != "completed":
            return None
        seconds, word = json.loads(self._store.quirk(order["number"], "flapping") or "null")
        self._add_step(order, now + seconds, "unflap")
        return self._set_status(order, word, now)

    def _unflap(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        _, word = json.loads(self._store.quirk(order["number"], "flapping") or "null")
        if order["status"] != word:
            return None
        self._plan_flap(order, now)
        return self._set_status(order, "completed", now)

    def _twin(self, key: sqlite3.Row) -> sqlite3.Row | None:
        """Return the key whose serial this one gets as well, where its order is to have one twice."""
        scope = self._store.quirk(key["order_number"], "twin")
        if scope is None:
            return None
        where = "order_number = ?" if scope == "order" else "order_number <> ?"
        twin: sqlite3.Row | None = self._store.connection.execute(
            f"SELECT * FROM keys WHERE {where} AND product_id = ? AND type = ? AND serial IS NOT NULL"  # noqa: S608 # a constant
            " ORDER BY number DESC LIMIT 1",
            (key["order_number"], key["product_id"], key["type"]),
        ).fetchone()
        if twin is not None:
            self._store.set_quirk(key["order_number"], "twin", None)
        return twin

    def _take_key(self, key: sqlite3.Row) -> tuple[str, str, str]:
        """Return type, serial and what it shows: of a planted key if the product has one, else of a new one."""
        if (twin := self._twin(key)) is not None:
            return twin["type"], twin["serial"], twin["shown"]
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
        whole = not self._has_keys_but(order, "('CANCELED')")
        self._pay_back(order, keys, reason="cancelation", whole=whole)
        return self._set_status(order, "canceled", now)

    def _return(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        self._store.connection.execute(
            "UPDATE keys SET status = 'RETURNED' WHERE order_number = ? AND going_back AND status = 'DELIVERED'",
            (order["number"],),
        )
        late = float(self._store.quirk(order["number"], "refund_seconds") or 0)
        self._add_step(order, now + self._fulfil_seconds + late, "refund")
        return None

    def _refund(self, order: sqlite3.Row, _step: sqlite3.Row, now: float) -> Change | None:
        connection = self._store.connection
        number = (order["number"],)
        keys = connection.execute(
            "SELECT price FROM keys WHERE order_number = ? AND status = 'RETURNED'", number
        ).fetchall()
        connection.execute("UPDATE keys SET status = 'REFUNDED' WHERE order_number = ? AND status = 'RETURNED'", number)
        whole = not self._has_keys_but(order, "('REFUNDED', 'CANCELED')")
        self._pay_back(order, keys, reason="return", whole=whole)
        return self._set_status(order, "refunded", now) if whole and keys else None

    def _has_keys_but(self, order: sqlite3.Row, statuses: str) -> bool:
        sql = f"SELECT 1 FROM keys WHERE order_number = ? AND status NOT IN {statuses} LIMIT 1"  # noqa: S608 # a constant
        return self._store.connection.execute(sql, (order["number"],)).fetchone() is not None

    def _pay_back(self, order: sqlite3.Row, keys: list[sqlite3.Row], *, reason: str, whole: bool) -> None:
        """Pay for the keys; with the last of an order also what was charged on top of the price (K25)."""
        amount = sum((Decimal(key["price"]) for key in keys), Decimal(0))
        if whole and keys:
            amount += Decimal(order["paid"]) - Decimal(order["total"])
        if amount:
            self._store.move_balance(amount, now=self._clock(), reason=reason, order_id=order["order_id"])

    def _add_step(self, order: sqlite3.Row, due_at: float, action: StepAction) -> None:
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
