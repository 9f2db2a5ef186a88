"""What a comparison is: a statement over one slice of what it reads, and the pieces that statements share.

A statement gives subject, order, external id, supplier order, key, payment, what is expected and what was found. `:run`
is the run whose staged rows it sees; `:cutoff` the moment before which everything must have been told; `:first` is true
while candidates are looked for, where what was not staged is still to be asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fulfillment.domain.reconciliation import OUR_PREFIX, Kind

BETWEEN = chr(31)
"""Between the parts of a subject that has two; no id holds a control character."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows in the order of a time. `staged` ones belong to a run."""

    table: str
    alias: str
    time: str
    staged: bool = False


PAYMENTS = Source("payment", "p", "create_time")
REFUNDS = Source("refund", "r", "create_time")
REQUESTS = Source("refund_request", "q", "create_time")
PLACED = Source("purchase", "u", "place_time")
MOVED = Source("purchase", "u", "state_time")
READY = Source("order_key", "k", "ready_time")
REVOKED = Source("order_key", "k", "revoke_time")
THEIR_PURCHASES = Source("stage_purchase", "t", "create_time", staged=True)
THEIR_ORDERS = Source("stage_supplier_order", "s", "create_time", staged=True)
THEIR_KEYS = Source("stage_key", "v", "seal_time", staged=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One statement. `age` names the limit that its rows must have passed; `key` is what a subject is looked up by."""

    kind: Kind
    source: Source
    key: str
    body: str
    age: str = ""


PAYMENT_KEY = f"p.provider || chr({ord(BETWEEN)}) || p.payment_id"
REFUND_KEY = f"r.provider || chr({ord(BETWEEN)}) || r.refund_id"
PAID_KEY = f"r.provider || chr({ord(BETWEEN)}) || r.payment_id"
LOOKED_UP: Mapping[str, str] = {
    PAYMENT_KEY: "(p.provider, p.payment_id)",
    REFUND_KEY: "(r.provider, r.refund_id)",
    PAID_KEY: "(r.provider, r.payment_id)",
}
"""Subjects of two parts, and the columns that an index finds them by."""

GROSS = """(SELECT coalesce(sum(x.minor), 0) FROM payment x
             WHERE x.order_id = o.order_id AND x.currency = o.total_currency AND x.close_time IS NULL)"""
BACK = """(SELECT coalesce(sum(y.minor), 0) FROM payment x
            JOIN refund y ON y.provider = x.provider AND y.payment_id = x.payment_id AND y.currency = o.total_currency
            WHERE x.order_id = o.order_id AND x.close_time IS NULL)"""
OWED = "o.total_currency || ' ' || o.total_minor"
OPENABLE = "NOT k.held AND k.revoke_time IS NULL"
GOING_BACK = "('WITHDRAWING', 'REVOKING', 'RETURNING', 'SHREDDING')"
OURS = f"'{OUR_PREFIX}%'"
UNPAID_BACK = "('ASKED', 'ACCEPTED', 'RETURNED')"
AT_VAULT = "stage_key v ON v.run_id = :run AND v.key_id = k.key_id"
AT_GATEWAY = "stage_purchase t ON t.run_id = :run AND t.external_id = u.external_id"
OUR_PURCHASE_IDS = "u.order_id, u.external_id, u.supplier_order_id, '', ''"
THEIR_PURCHASE_IDS = "t.order_id, t.external_id, t.supplier_order_id, '', ''"
KEY_IDS = "k.key_id, k.order_id, k.external_id, '', k.key_id, ''"
