"""The shop's own tables, in SQLite: paid orders, refunds, and which events have had their effect.

What matters is the same in any database: an event's id and its effect are one transaction.
"""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentCanceled,
    FulfillmentDelivered,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
    FulfillmentRefunded,
    FulfillmentRefundRequested,
)
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed, PaymentRefunded
from keyferry.fulfillment.v1.fulfillment_pb2 import Refund

Effect = Callable[["Orders", str, Any], None]

# Rows that one look takes; the rest is there at the next.
BATCH = 100

# An order's status only moves down this list: events may come late and out of turn.
STATUSES = ("paid", "accepted", "purchased", "ready", "delivered")
SCHEMA = """
CREATE TABLE IF NOT EXISTS paid_order (
    order_id      TEXT PRIMARY KEY,
    telling       BLOB NOT NULL,              -- PaymentConfirmed, the same in every repeat
    tell_time     REAL NOT NULL DEFAULT 0,    -- when it is told again
    is_accepted   INTEGER NOT NULL DEFAULT 0,
    status        TEXT NOT NULL DEFAULT 'paid',
    attention     TEXT NOT NULL DEFAULT '',   -- why a human of Keyferry looks at it
    canceled_keys INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS status_change (order_id TEXT NOT NULL, status TEXT NOT NULL, event_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refund (
    refund_request_id TEXT PRIMARY KEY,
    order_id          TEXT NOT NULL,
    request           BLOB NOT NULL,          -- FulfillmentRefundRequested
    refund_id         TEXT,                   -- the provider's; absent until it paid back
    refund_time       REAL,
    tell_time         REAL NOT NULL DEFAULT 0,    -- when it is paid back, or told, again
    is_taken          INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS handled_event (event_id TEXT PRIMARY KEY, subject TEXT NOT NULL);
"""


class Orders:
    """The shop's own tables. Every method is one transaction; none waits for anything but the disk."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {SCHEMA}")

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def add(self, paid: PaymentConfirmed) -> None:
        """Store a paid order. A shop does this in the transaction that marks it as paid; twice is once."""
        self.database.execute(
            "INSERT INTO paid_order (order_id, telling) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (paid.payment.order_id, paid.SerializeToString()),
        )

    def payments_to_tell(self, now: float) -> list[PaymentConfirmed]:
        """Return the payments that Keyferry has not accepted and that are due to be told."""
        rows = self.database.execute(
            "SELECT telling FROM paid_order WHERE NOT is_accepted AND tell_time <= ? ORDER BY tell_time LIMIT ?",
            (now, BATCH),
        )
        return [PaymentConfirmed.FromString(telling) for (telling,) in rows]

    def refunds_to_pay(self, now: float) -> list[tuple[FulfillmentRefundRequested, PaymentConfirmed]]:
        """Return what is to be paid back now, with its payment. What names no order of ours waits for a human."""
        rows = self.database.execute(
            "SELECT request, telling FROM refund JOIN paid_order USING (order_id)"
            " WHERE refund_id IS NULL AND refund.tell_time <= ? ORDER BY refund.tell_time LIMIT ?",
            (now, BATCH),
        )
        return [
            (FulfillmentRefundRequested.FromString(asked), PaymentConfirmed.FromString(paid)) for asked, paid in rows
        ]

    def refunds_to_tell(self, now: float) -> list[tuple[str, PaymentRefunded]]:
        """Return the refunds that were paid back, that Keyferry has not taken and that are due to be told."""
        rows = self.database.execute(
            "SELECT request, telling, refund_id, refund_time FROM refund JOIN paid_order USING (order_id)"
            " WHERE refund_id IS NOT NULL AND NOT is_taken AND refund.tell_time <= ? ORDER BY refund.tell_time LIMIT ?",
            (now, BATCH),
        )
        found = []
        for asked, paid, refund_id, refund_time in rows:
            request, payment = FulfillmentRefundRequested.FromString(asked), PaymentConfirmed.FromString(paid).payment
            refund = Refund(
                refund_id=refund_id,
                payment_id=payment.payment_id,
                provider=payment.provider,
                amount=request.amount,
                # Not the lines: other keys of theirs may be the customer's for good.
                refund_request_ids=[request.refund_request_id],
            )
            refund.refund_time.FromMicroseconds(int(refund_time * 1_000_000))
            found.append((request.refund_request_id, PaymentRefunded(refund=refund)))
        return found

    def told_payment(self, order_id: str, again: float) -> None:
        """Note when to tell it again. Dying before this only tells it sooner."""
        self.database.execute("UPDATE paid_order SET tell_time = ? WHERE order_id = ?", (again, order_id))

    def told_refund(self, refund_request_id: str, again: float) -> None:
        """Note when to tell it again."""
        self.database.execute("UPDATE refund SET tell_time = ? WHERE refund_request_id = ?", (again, refund_request_id))

    def paid_back(self, refund_request_id: str, refund_id: str, now: float) -> None:
        """Note the provider's number of the refund. Dying before this pays back again, under the same key."""
        self.database.execute(
            "UPDATE refund SET refund_id = ?, refund_time = ?, tell_time = 0"
            " WHERE refund_request_id = ? AND refund_id IS NULL",
            (refund_id, now, refund_request_id),
        )

    def handle(self, event_id: str, subject: str, type_name: str, data: bytes) -> bool:
        """Commit the effect of an event together with its id; False when it was handled before."""
        effect = self._EFFECTS.get(type_name)
        body = effect[0].FromString(data) if effect else None
        with self.database:
            self.database.execute("BEGIN IMMEDIATE")
            fresh = self.database.execute(
                "INSERT INTO handled_event (event_id, subject) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (event_id, subject),
            )
            if not fresh.rowcount:
                return False
            # What this version does not know, such as an event that came later, is nothing to it.
            if effect and body is not None:
                effect[1](self, event_id, body)
        return True

    def _move(self, event_id: str, order_id: str, status: str) -> None:
        before = STATUSES[: STATUSES.index(status)]
        moved = self.database.execute(
            f"UPDATE paid_order SET status = ? WHERE order_id = ? AND status IN ({','.join('?' * len(before))})",  # noqa: S608 # only question marks
            (status, order_id, *before),
        )
        if moved.rowcount:
            self.database.execute("INSERT INTO status_change VALUES (?, ?, ?)", (order_id, status, event_id))

    def _accepted(self, event_id: str, body: FulfillmentAccepted) -> None:
        self.database.execute("UPDATE paid_order SET is_accepted = 1 WHERE order_id = ?", (body.order_id,))
        self._move(event_id, body.order_id, "accepted")

    def _purchased(self, event_id: str, body: FulfillmentPurchased) -> None:
        self._move(event_id, body.order_id, "purchased")

    def _ready(self, event_id: str, body: FulfillmentReady) -> None:
        self.database.execute("UPDATE paid_order SET attention = '' WHERE order_id = ?", (body.order_id,))
        self._move(event_id, body.order_id, "ready")

    def _delivered(self, event_id: str, body: FulfillmentDelivered) -> None:
        self._move(event_id, body.order_id, "delivered")

    def _needs_attention(self, _event_id: str, body: FulfillmentNeedsAttention) -> None:
        self.database.execute("UPDATE paid_order SET attention = ? WHERE order_id = ?", (body.reason, body.order_id))

    def _canceled(self, _event_id: str, body: FulfillmentCanceled) -> None:
        self.database.execute(
            "UPDATE paid_order SET canceled_keys = canceled_keys + ? WHERE order_id = ?",
            (body.quantity, body.order_id),
        )

    def _refund_requested(self, _event_id: str, body: FulfillmentRefundRequested) -> None:
        self.database.execute(
            "INSERT INTO refund (refund_request_id, order_id, request) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (body.refund_request_id, body.order_id, body.SerializeToString()),
        )

    def _refunded(self, _event_id: str, body: FulfillmentRefunded) -> None:
        self.database.execute(
            "UPDATE refund SET is_taken = 1 WHERE order_id = ? AND refund_id = ?", (body.order_id, body.refund_id)
        )

    # Of each type: how it is read, and what it does.
    _EFFECTS: Mapping[str, tuple[type[Message], Effect]] = {
        message.DESCRIPTOR.full_name: (message, effect)
        for message, effect in (
            (FulfillmentAccepted, _accepted),
            (FulfillmentPurchased, _purchased),
            (FulfillmentReady, _ready),
            (FulfillmentDelivered, _delivered),
            (FulfillmentNeedsAttention, _needs_attention),
            (FulfillmentCanceled, _canceled),
            (FulfillmentRefundRequested, _refund_requested),
            (FulfillmentRefunded, _refunded),
        )
    }
