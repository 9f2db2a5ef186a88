"""The order desk: takes orders, finds them, shows their keys, takes keys back."""

import json
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from sandbox.kinguin import serials
from sandbox.kinguin.catalogue import BY_ID, TEXT
from sandbox.kinguin.keypages import Window
from sandbox.kinguin.moments import moment, parse_moment
from sandbox.kinguin.picking import Pick, pick_offers
from sandbox.kinguin.plan import GOOD_DAY, Circumstances, plan_steps
from sandbox.kinguin.problems import Refusal, violation
from sandbox.kinguin.rules import REFUSED, PlaceOrder, check_limits, is_wholesale
from sandbox.kinguin.store import Store

# The supplier takes keys back for a day after their delivery (K50).
RETURN_WINDOW = timedelta(hours=24)
STORE_ID = 1007
USER_EMAIL = "shop@example.test"

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Change:
    """An order has a new status. `updated_at` grows strictly with each change of one order."""

    order_id: str
    external_id: str | None
    status: str
    updated_at: float


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What is settled about an order before it is written. Times are seconds since 1970."""

    number: int
    now: float
    visible_at: float
    total: Decimal
    paid: Decimal
    release_date: str | None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """What is searched for. Times are seconds since 1970; absent means anything."""

    external_id: str | None = None
    order_id: str | None = None
    product_id: str | None = None
    status: str | None = None
    is_preorder: bool | None = None
    created_from: float | None = None
    created_to: float | None = None


def change_of(order: sqlite3.Row) -> Change:
    """Return an order's present status as a change."""
    return Change(order["order_id"], order["external_id"], order["status"], order["updated_at"])


class Desk:
    """Reads and writes orders in the store. Changes of status are returned: telling the world is not its task."""

    def __init__(self, store: Store, *, seed: int, fulfil_seconds: float, clock: Clock) -> None:
        self._store = store
        self._seed = seed
        self._fulfil_seconds = fulfil_seconds
        self._clock = clock

    def place(self, order: PlaceOrder, circumstances: Circumstances = GOOD_DAY, *, late: int | None = None) -> Change:
        """Take an order and charge for it: all of it is committed on return. Raises Refusal; nothing was taken then.

        `late` is the number of the kept request that this order comes from; it is forgotten with the same commit.
        """
        now = self._clock()
        with self._store.transaction():
            if late is not None:
                self._store.drop_late(late)
            if not circumstances.accept_duplicate:
                self._refuse_reused(order.external_id)
            check_limits(order, BY_ID)
            number = self._store.take_numbers("order_number")
            stocks = {line.product_id: self._store.stock_of(BY_ID[line.product_id]) for line in order.lines}
            # Not for secrets: the same seed and the same orders shall give the same keys.
            luck = random.Random(f"{self._seed}/{number}")  # noqa: S311 # see above
            picks = pick_offers(order, BY_ID, stocks, luck)
            total = sum((pick.price * pick.qty for pick in picks), Decimal(0))
            paid = max(Decimal(0), total + Decimal(circumstances.charge))
            if paid > self._store.balance:
                raise Refusal("InsufficientBalance", REFUSED, "There are not enough funds to place the order.")
            release_date = self._release_date(order)
            row = NewOrder(number, now, now + circumstances.search_lag_seconds, total, paid, release_date)
            self._write(row, order, picks)
            self._write_steps(row, picks, circumstances)
            self._write_quirks(number, circumstances)
            placed = self._row("number", number)
            self._store.move_balance(-paid, now=now, reason="order", order_id=placed["order_id"])
        return change_of(placed)

    def _release_date(self, order: PlaceOrder) -> str | None:
        product = self._store.product(order.lines[0].product_id)
        return None if product is None else product.release_date

    def _refuse_reused(self, external_id: str | None) -> None:
        if external_id is None:
            return
        if self._store.connection.execute("SELECT 1 FROM orders WHERE external_id = ?", (external_id,)).fetchone():
            # The one violation that says nothing about whether something was bought (K24, K64).
            detail = 'The "orderExternalId" value is already used.'
            raise violation(detail, "orderExternalId", external_id, status=REFUSED)

    def _write(self, row: NewOrder, order: PlaceOrder, picks: Sequence[Pick]) -> None:
        connection = self._store.connection
        number, now = row.number, row.now
        requested = sum((line.price * line.qty for line in order.lines), Decimal(0))
        wholesale = any(is_wholesale(line, BY_ID) for line in order.lines)
        connection.execute(
            "INSERT INTO orders VALUES (?, ?, ?, 'processing', ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                number,
                serials.order_id(self._seed, number),
                order.external_id,
                *(now, now, row.visible_at),
                *(str(row.total), str(requested), str(row.paid)),
                *(row.release_date, wholesale),
            ),
        )
        for position, pick in enumerate(picks):
            line = pick.line
            connection.execute(
                "INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(number, position, line.product_id, pick.offer_id, pick.qty),
                    *(str(pick.price), str(line.price), line.key_type),
                ),
            )
            self._store.take_stock(pick.offer_id, (pick.text, pick.image, pick.late), now=now)
            self._write_keys(number, position, pick)

    def _write_keys(self, number: int, position: int, pick: Pick) -> None:
        product = BY_ID[pick.line.product_id]
        # Promised keys come as text, except from those who sell nothing but pictures.
        late_type = product.picture if pick.image and not pick.text else TEXT
        types = [TEXT] * pick.text + [product.picture] * pick.image + [late_type] * pick.late
        first = self._store.take_numbers("key_number", len(types))
        self._store.connection.executemany(
            "INSERT INTO keys (number, key_id, order_number, position, product_id, offer_id, price, status, type)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'PENDING', ?)",
            [
                (
                    *(key_number, serials.key_id(self._seed, key_number), number, position),
                    *(product.product_id, pick.offer_id, str(pick.price), content_type),
                )
                for key_number, content_type in enumerate(types, start=first)
            ],
        )

    def _write_steps(self, row: NewOrder, picks: Sequence[Pick], circumstances: Circumstances) -> None:
        steps = plan_steps(
            circumstances,
            now=row.now,
            fulfil_seconds=self._fulfil_seconds,
            ordered=sum(pick.qty for pick in picks),
            on_hand=sum(pick.text + pick.image for pick in picks),
            release_at=None if row.release_date is None else parse_moment(row.release_date),
        )
        self._store.connection.executemany(
            "INSERT INTO steps (order_number, due_at, action, amount) VALUES (?, ?, ?, ?)",
            [(row.number, step.due_at, step.action, step.amount) for step in steps],
        )

    def _write_quirks(self, number: int, circumstances: Circumstances) -> None:
        if circumstances.twin is not None:
            self._store.set_quirk(number, "twin", circumstances.twin)
        if (flaps := circumstances.flaps) is not None:
            self._store.set_quirk(number, "flaps", json.dumps([flaps.rounds, flaps.seconds, flaps.word]))

    def _row(self, column: str, value: object) -> sqlite3.Row:
        row: sqlite3.Row = self._store.connection.execute(
            f"SELECT * FROM orders WHERE {column} = ?",  # noqa: S608 # a column of our own
            (value,),
        ).fetchone()
        if row is None:
            raise Refusal("OrderNotFound", 404, "The order was not found.")
        return row

    def get(self, order_id: str) -> dict[str, object]:
        """Return an order as the API shows it. Raises Refusal (OrderNotFound)."""
        return self._order_json(self._row("order_id", order_id))

    def search(self, wanted: OrderFilter, *, page: int, limit: int) -> tuple[list[dict[str, object]], int]:
        """Return one page of the orders that can be searched already, the newest first, and how many there are."""
        where, values = _conditions(wanted)
        where = f"visible_at <= ? AND {where}"
        values = [self._clock(), *values]
        count_sql = f"SELECT count(*) AS n FROM orders WHERE {where}"  # noqa: S608 # made of constants
        page_sql = f"SELECT * FROM orders WHERE {where} ORDER BY number DESC LIMIT ? OFFSET ?"  # noqa: S608 # same
        count = int(self._store.connection.execute(count_sql, values).fetchone()["n"])
        rows = self._store.connection.execute(page_sql, [*values, limit, (page - 1) * limit]).fetchall()
        return [self._order_json(row) for row in rows], count

    def keys(self, order_id: str, window: Window, *, claim: bool = False) -> list[dict[str, object]]:
        """Return one page of the keys that are delivered and not given back."""
        order = self._row("order_id", order_id)
        rows = self._store.connection.execute(
            "SELECT * FROM keys WHERE order_number = ? AND status = 'DELIVERED' ORDER BY number LIMIT ? OFFSET ?",
            (order["number"], window.count, window.start),
        ).fetchall()
        if claim:
            with self._store.transaction() as connection:
                claims = [(row["number"],) for row in rows]
                connection.executemany("UPDATE keys SET claimed = 1 WHERE number = ?", claims)
        return [_key_json(row) for row in rows]

    def give_back(self, order_id: str, delays: tuple[float, float] = (0.0, 0.0)) -> list[dict[str, object]]:
        """Start the return of an order's keys; they are `RETURNED` and `REFUNDED` later (K49 to K53).

        The keys of the answer may still say `DELIVERED`. Keys that come later go back by themselves. `delays` are
        seconds on top of the usual time, until `RETURNED` and from there until `REFUNDED`.
        """
        now = self._clock()
        with self._store.transaction() as connection:
            order = self._row("order_id", order_id)
            self._refuse_return(order)
            keys = connection.execute("SELECT * FROM keys WHERE order_number = ?", (order["number"],)).fetchall()
            eligible = [key for key in keys if _can_go_back(key, now)]
            if not eligible and not any(key["status"] in {"PENDING", "PROCESSING"} for key in keys):
                raise Refusal("NoKeysToReturn", REFUSED, "The order has no keys that can be returned.")
            connection.execute("UPDATE orders SET return_requested_at = ? WHERE number = ?", (now, order["number"]))
            connection.executemany(
                "UPDATE keys SET going_back = 1 WHERE number = ?", [(k["number"],) for k in eligible]
            )
            connection.execute(
                "INSERT INTO steps (order_number, due_at, action) VALUES (?, ?, 'return')",
                (order["number"], now + self._fulfil_seconds + delays[0]),
            )
            self._store.set_quirk(order["number"], "refund_seconds", str(delays[1]))
        return [{"id": key["key_id"], "status": key["status"]} for key in eligible]

    @staticmethod
    def _refuse_return(order: sqlite3.Row) -> None:
        if order["return_requested_at"] is not None:
            raise Refusal("OrderNotSupported", REFUSED, "A return of this order was requested already.")
        if order["is_wholesale"]:
            raise Refusal("OrderNotSupported", REFUSED, "An order with a wholesale item cannot be returned.")
        if order["release_date"] is not None:
            raise Refusal("OrderNotSupported", REFUSED, "A pre-order cannot be returned.")

    def _order_json(self, order: sqlite3.Row) -> dict[str, object]:
        connection = self._store.connection
        lines = connection.execute(
            "SELECT * FROM lines WHERE order_number = ? ORDER BY position", (order["number"],)
        ).fetchall()
        keys: dict[int, list[dict[str, object]]] = {line["position"]: [] for line in lines}
        for key in connection.execute(
            "SELECT position, key_id, status FROM keys WHERE order_number = ? ORDER BY number", (order["number"],)
        ):
            keys[key["position"]].append({"id": key["key_id"], "status": key["status"]})
        body: dict[str, object] = {
            "orderId": order["order_id"],
            "status": order["status"],
            "totalPrice": Decimal(order["total"]),
            "requestTotalPrice": Decimal(order["requested"]),
            "paymentPrice": Decimal(order["paid"]),
            "totalQty": sum(line["qty"] for line in lines),
            "isPreorder": order["release_date"] is not None,
            "createdAt": moment(order["created_at"]),
            "storeId": STORE_ID,
            "userEmail": USER_EMAIL,
            "products": [_line_json(line, keys[line["position"]], order["release_date"]) for line in lines],
        }
        if order["external_id"] is not None:
            body["orderExternalId"] = order["external_id"]
        if order["release_date"] is not None:
            body["preorderReleaseDate"] = order["release_date"]
        return body


def _can_go_back(key: Mapping[str, object] | sqlite3.Row, now: float) -> bool:
    return (
        key["status"] == "DELIVERED"
        and not key["claimed"]
        and isinstance(delivered_at := key["delivered_at"], float)
        and now - delivered_at <= RETURN_WINDOW.total_seconds()
    )


def _conditions(wanted: OrderFilter) -> tuple[str, list[object]]:
    clauses: dict[str, object] = {
        "external_id = ?": wanted.external_id,
        "order_id = ?": wanted.order_id,
        "number IN (SELECT order_number FROM lines WHERE product_id = ?)": wanted.product_id,
        "status = ?": wanted.status,
        "(release_date IS NOT NULL) = ?": wanted.is_preorder,
        "created_at >= ?": wanted.created_from,
        "created_at <= ?": wanted.created_to,
    }
    used = {clause: value for clause, value in clauses.items() if value is not None}
    return " AND ".join(used) or "1", list(used.values())


def _line_json(line: sqlite3.Row, keys: list[dict[str, object]], release_date: str | None) -> dict[str, object]:
    product = BY_ID[line["product_id"]]
    price = Decimal(line["price"])
    body: dict[str, object] = {
        "kinguinId": product.kinguin_id,
        "productId": product.product_id,
        "offerId": line["offer_id"],
        "qty": line["qty"],
        "name": product.name,
        "price": price,
        "totalPrice": price * line["qty"],
        "requestPrice": Decimal(line["request_price"]),
        "isPreorder": product.is_preorder,
        "keys": keys,
    }
    if release_date is not None:
        body["releaseDate"] = release_date
    if line["key_type"] is not None:
        body["keyType"] = line["key_type"]
    return body


def _key_json(key: sqlite3.Row) -> dict[str, object]:
    product = BY_ID[key["product_id"]]
    return {
        "id": key["key_id"],
        "serial": key["serial"],
        "type": key["type"],
        "name": product.name,
        "kinguinId": product.kinguin_id,
        "productId": product.product_id,
        "offerId": key["offer_id"],
    }
