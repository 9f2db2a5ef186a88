"""A shop's world as each of its books has it: healthy as it is made, and to be spoiled one book at a time."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from chassis.errors import ServiceUnavailable
from fulfillment.domain.reconciliation import Range
from fulfillment.ports.reconciliation import TheirBalance, TheirKey, TheirOrder, TheirPurchase, TheirTopUp

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
START = NOW - timedelta(hours=3)
END = NOW - timedelta(minutes=15)
SPAN = Range(START, END)
TOTAL, CHARGED = 1000, 749
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

T = TypeVar("T")


@dataclass
class FixedClock:
    """A clock that stands still until it is moved."""

    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment

    def elapsed(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class FakeLedgers:
    """The books of the others. What is `hidden` is not in a list, but found when asked for."""

    bought: dict[str, TheirPurchase] = field(default_factory=dict)
    orders: dict[str, TheirOrder] = field(default_factory=dict)
    sealed: dict[str, TheirKey] = field(default_factory=dict)
    added: list[TheirTopUp] = field(default_factory=list)
    told: TheirBalance | None = None
    hidden: set[str] = field(default_factory=set)
    returned: list[str] = field(default_factory=list)
    refusing: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    failing: int = 0
    page: int = 500

    async def purchases(self, span: Range) -> AsyncIterator[Sequence[TheirPurchase]]:
        if self.failing:
            self.failing -= 1
            raise ServiceUnavailable("not now")
        for page in self._pages(span, self.bought, lambda each: each.create_time):
            yield page

    async def supplier_orders(self, span: Range) -> AsyncIterator[Sequence[TheirOrder]]:
        for page in self._pages(span, self.orders, lambda each: each.create_time):
            yield page

    async def keys(self, span: Range) -> AsyncIterator[Sequence[TheirKey]]:
        for page in self._pages(span, self.sealed, lambda each: each.seal_time or span.start):
            yield page

    async def top_ups(self, span: Range) -> AsyncIterator[Sequence[TheirTopUp]]:
        yield [each for each in self.added if span.start <= each.top_up_time < span.end]

    async def balance(self) -> TheirBalance | None:
        return self.told

    async def purchase(self, external_id: str, order_id: str) -> TheirPurchase | None:
        self.asked["purchase"] += 1
        found = self.bought.get(external_id)
        assert found is None or not order_id or found.order_id == order_id
        return found

    async def orders_like(self, external_id: str, supplier_order_id: str) -> Sequence[TheirOrder]:
        self.asked["order"] += 1
        return [
            each
            for each in self.orders.values()
            if (supplier_order_id and each.supplier_order_id == supplier_order_id)
            or (external_id and each.external_id == external_id)
        ]

    async def key(self, key_id: str) -> TheirKey | None:
        self.asked["key"] += 1
        return self.sealed.get(key_id)

    async def give_back(self, external_id: str, supplier_order_id: str) -> bool:
        assert external_id in self.bought
        if supplier_order_id in self.refusing:
            return False
        self.returned.append(supplier_order_id)
        return True

    def _pages(self, span: Range, rows: Mapping[str, T], time: Callable[[T], datetime | None]) -> list[list[T]]:
        shown = [
            each
            for name, each in rows.items()
            if name not in self.hidden and span.start <= (time(each) or span.start) < span.end
        ]
        return [shown[first : first + self.page] for first in range(0, len(shown), self.page)]


@dataclass
class World:
    """Our rows by table, to be loaded into a database, and the books of the others."""

    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    ledgers: FakeLedgers = field(default_factory=FakeLedgers)

    def order(self, name: str, at: datetime, **changes: Any) -> None:
        """An order paid, bought, sealed, mailed and opened, a few seconds apart, each as it should be."""
        external_id, key_id, number = f"kf1-{name}", f"key-{name}", f"S-{name}"
        self.rows["customer_order"][name] = {
            "order_id": name,
            "customer_id": "alice",
            "email": "alice@example.com",
            "locale": "en",
            "country_code": "",
            "total_currency": "EUR",
            "total_minor": TOTAL,
            "paid_currency": "EUR",
            "paid_minor": TOTAL,
            "digest": b"",
            "state": "DELIVERED",
            "create_time": at,
            "update_time": at + 9 * SECOND,
            "pay_time": at + SECOND,
            **changes,
        }
        self.rows["order_item"][name] = {
            "order_id": name,
            "item_id": "a",
            "position": 0,
            "product_id": "product",
            "offer_id": "",
            "quantity": 1,
            "max_unit_price": 900,
            "key_type": "",
        }
        self.payment(name, at + SECOND)
        self.rows["purchase"][external_id] = {
            "external_id": external_id,
            "order_id": name,
            "item_id": "a",
            "chunk": 0,
            "attempt": 1,
            "quantity": 1,
            "state": "DELIVERED",
            "reason": "",
            "state_time": at + 8 * SECOND,
            "supplier_order_id": number,
            "place_time": at + 3 * SECOND,
            "charged": CHARGED,
        }
        self.rows["order_key"][key_id] = {
            "key_id": key_id,
            "order_id": name,
            "item_id": "a",
            "external_id": external_id,
            "content_type": "text/plain",
            "held": False,
            "ready_time": at + 6 * SECOND,
            "open_time": at + 8 * SECOND,
        }
        self.rows["mail"][name] = {"order_id": name, "send_time": at + 7 * SECOND, "tries": 1}
        self.ledgers.bought[external_id] = TheirPurchase(
            external_id, name, number, "PLACED", "COMPLETED", 1, CHARGED, "", at + 2 * SECOND
        )
        self.supplier_order(number, external_id, at + 3 * SECOND)
        self.ledgers.sealed[key_id] = TheirKey(key_id, name, "SEALED", at + 5 * SECOND, at + 8 * SECOND)

    def payment(self, name: str, at: datetime, **changes: Any) -> None:
        payment_id = changes.pop("payment_id", f"pay-{name}")
        self.rows["payment"][payment_id] = {
            "provider": "stripe",
            "payment_id": payment_id,
            "order_id": name,
            "currency": "EUR",
            "minor": TOTAL,
            "confirm_time": at,
            "create_time": at,
            **changes,
        }

    def refund(self, name: str, at: datetime, **changes: Any) -> None:
        self.rows["refund"][name] = {
            "provider": "stripe",
            "refund_id": f"refund-{name}",
            "payment_id": f"pay-{name}",
            "currency": "EUR",
            "minor": TOTAL,
            "refund_time": at,
            "create_time": at,
            **changes,
        }

    def supplier_order(self, number: str, external_id: str, at: datetime, charged: int = CHARGED) -> None:
        self.ledgers.orders[number] = TheirOrder(number, external_id, "COMPLETED", charged, 0, at)

    def ours(self, table: str, name: str, **changes: Any) -> None:
        self.rows[table][name] |= changes

    def theirs(self, name: str, **changes: Any) -> None:
        external_id = f"kf1-{name}"
        self.ledgers.bought[external_id] = replace(self.ledgers.bought[external_id], **changes)

    def vaults(self, name: str, **changes: Any) -> None:
        key_id = f"key-{name}"
        self.ledgers.sealed[key_id] = replace(self.ledgers.sealed[key_id], **changes)

    def suppliers(self, number: str, **changes: Any) -> None:
        self.ledgers.orders[number] = replace(self.ledgers.orders[number], **changes)

    def without(self, name: str, *tables: str) -> None:
        """Take an order's rows out of tables of ours."""
        keys = {"purchase": f"kf1-{name}", "order_key": f"key-{name}", "payment": f"pay-{name}"}
        for table in tables:
            del self.rows[table][keys.get(table, name)]

    def not_bought(self, name: str) -> None:
        """Let an order have gone no further than its payment."""
        self.without(name, "mail", "order_key", "purchase")
        del self.ledgers.bought[f"kf1-{name}"], self.ledgers.orders[f"S-{name}"], self.ledgers.sealed[f"key-{name}"]

    async def load(self, connection: Any) -> None:
        """Copy the rows into a database."""
        for table in (
            "customer_order",
            "order_item",
            "payment",
            "purchase",
            "order_key",
            "mail",
            "refund",
            "refund_request",
        ):
            rows = list(self.rows[table].values())
            if rows:
                columns = sorted({column for row in rows for column in row})
                assert all(row.keys() == set(columns) for row in rows) or table != "order_item"
                for shape in {tuple(sorted(row)) for row in rows}:
                    records = [tuple(row[column] for column in shape) for row in rows if tuple(sorted(row)) == shape]
                    await connection.copy_records_to_table(table, records=records, columns=list(shape))


def healthy(count: int, span: Range = SPAN) -> World:
    """Make a world of orders spread over a range."""
    world = World()
    step = (span.end - span.start) / (count + 1)
    for number in range(count):
        world.order(f"h{number}", span.start + step * number)
    return world
