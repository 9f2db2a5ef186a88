"""Everything the simulator remembers, in one SQLite file. Whoever is answered can rely on it after a `kill -9`.

Calls are synchronous and short: one process, one thread, one connection, so a transaction is also a critical section.
Every transaction is committed before its answer is sent. The write-ahead log belongs to the system once a commit
returns; only a power cut could take the last ones back, and then nobody was told anything either.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from sandbox.kinguin.catalogue import BY_ID, PRODUCTS, OfferStock, Product

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stock (
    offer_id TEXT PRIMARY KEY, product_id TEXT NOT NULL, price TEXT NOT NULL,
    text INTEGER NOT NULL, image INTEGER NOT NULL, promised INTEGER NOT NULL, updated_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY, order_id TEXT NOT NULL UNIQUE, external_id TEXT, status TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, visible_at REAL NOT NULL,
    total TEXT NOT NULL, requested TEXT NOT NULL, paid TEXT NOT NULL,
    release_date TEXT, is_wholesale INTEGER NOT NULL, return_requested_at REAL
);
CREATE INDEX IF NOT EXISTS orders_by_external_id ON orders (external_id);
CREATE TABLE IF NOT EXISTS lines (
    order_number INTEGER NOT NULL, position INTEGER NOT NULL, product_id TEXT NOT NULL, offer_id TEXT NOT NULL,
    qty INTEGER NOT NULL, price TEXT NOT NULL, request_price TEXT NOT NULL, key_type TEXT,
    PRIMARY KEY (order_number, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    number INTEGER PRIMARY KEY, key_id TEXT NOT NULL, order_number INTEGER NOT NULL, position INTEGER NOT NULL,
    product_id TEXT NOT NULL, offer_id TEXT NOT NULL, price TEXT NOT NULL, status TEXT NOT NULL, type TEXT NOT NULL,
    serial TEXT, shown TEXT, delivered_at REAL,
    claimed INTEGER NOT NULL DEFAULT 0, going_back INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS keys_by_order ON keys (order_number);
CREATE TABLE IF NOT EXISTS steps (
    number INTEGER PRIMARY KEY, order_number INTEGER NOT NULL, due_at REAL, action TEXT NOT NULL, amount INTEGER
);
CREATE INDEX IF NOT EXISTS steps_by_time ON steps (due_at);
CREATE INDEX IF NOT EXISTS steps_by_order ON steps (order_number);
CREATE TABLE IF NOT EXISTS planted (
    number INTEGER PRIMARY KEY, product_id TEXT NOT NULL, type TEXT NOT NULL, serial TEXT NOT NULL, shown TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS balance_history (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, amount TEXT NOT NULL, balance TEXT NOT NULL,
    reason TEXT NOT NULL, order_id TEXT
);
CREATE TABLE IF NOT EXISTS quirks (
    order_number INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (order_number, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS late_orders (
    number INTEGER PRIMARY KEY, due_at REAL NOT NULL, request TEXT NOT NULL, circumstances TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS release_dates (product_id TEXT PRIMARY KEY, release_date TEXT NOT NULL) WITHOUT ROWID;
"""
# The counters in `meta` are not among them: an order id or a key is never given twice, not even after a reset.
_EMPTIED = (
    "stock", "orders", "lines", "keys", "steps", "planted", "balance_history", "quirks", "late_orders", "release_dates",
)  # fmt: skip
_BUSY_SECONDS = 5.0
_PRODUCT_OF = {offer.offer_id: product.product_id for product in PRODUCTS for offer in product.offers}


class Store:
    """The file, its transactions, and the few facts that are no order: counters, balance, stock."""

    def __init__(self, path: Path, *, now: float, balance: Decimal) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Products whose stock or price changed since somebody asked last: in memory, as a webhook may be lost.
        self._changed: dict[str, None] = {}
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.executescript(_SCHEMA)
        with self.transaction():
            if self._meta("balance") is None:
                self._fill(now, balance)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what happens inside, or nothing of it."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def reset(self, *, now: float, balance: Decimal) -> None:
        """Forget every order and start again with the catalogue's stock."""
        with self.transaction() as connection:
            for table in _EMPTIED:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 # names of our own tables
            self._fill(now, balance)

    def _fill(self, now: float, balance: Decimal) -> None:
        rows = [
            (offer.offer_id, product.product_id, str(offer.price), offer.text, offer.image, offer.promised, now)
            for product in PRODUCTS
            for offer in product.offers
        ]
        self.connection.executemany("INSERT INTO stock VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._set_meta("balance", "0")
        self.move_balance(balance, now=now, reason="opening")

    def _meta(self, name: str) -> str | None:
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row["value"])

    def _set_meta(self, name: str, value: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def take_numbers(self, counter: str, count: int = 1) -> int:
        """Return the first of `count` numbers that were never given before. Inside a transaction."""
        first = int(self._meta(counter) or "1")
        self._set_meta(counter, str(first + count))
        return first

    @property
    def balance(self) -> Decimal:
        """The money that is left, in EUR."""
        return Decimal(self._meta("balance") or "0")

    def move_balance(self, amount: Decimal, *, now: float, reason: str, order_id: str | None = None) -> None:
        """Add to the balance, or take away, and note why. Inside a transaction."""
        balance = self.balance + amount
        self._set_meta("balance", str(balance))
        self.connection.execute(
            "INSERT INTO balance_history (at, amount, balance, reason, order_id) VALUES (?, ?, ?, ?, ?)",
            (now, str(amount), str(balance), reason, order_id),
        )

    def stock_of(self, product: Product) -> list[OfferStock]:
        """Return the present stock of each of a product's offers."""
        return [
            _offer_stock(product, row)
            for row in self.connection.execute(
                "SELECT * FROM stock WHERE product_id = ? ORDER BY offer_id", (product.product_id,)
            )
        ]

    def stock_updated_at(self, product: Product) -> float:
        """Return when a product's stock or price changed last."""
        row = self.connection.execute(
            "SELECT max(updated_at) AS at FROM stock WHERE product_id = ?", (product.product_id,)
        ).fetchone()
        return float(row["at"])

    def product(self, product_id: str) -> Product | None:
        """Return a product with the release date that it has now."""
        product = BY_ID.get(product_id)
        if product is None or not product.is_preorder:
            return product
        row = self.connection.execute(
            "SELECT release_date FROM release_dates WHERE product_id = ?", (product_id,)
        ).fetchone()
        return product if row is None else replace(product, release_date=row["release_date"])

    def products(self) -> list[Product]:
        """Return every product, with the release dates of now."""
        return [product for known in PRODUCTS if (product := self.product(known.product_id)) is not None]

    def set_release_date(self, product_id: str, release_date: str) -> None:
        """Give a pre-order another release date, also where it is ordered already. Inside a transaction."""
        self.connection.execute("INSERT OR REPLACE INTO release_dates VALUES (?, ?)", (product_id, release_date))
        self.connection.execute(
            "UPDATE orders SET release_date = ? WHERE status = 'processing' AND release_date IS NOT NULL AND number IN"
            " (SELECT order_number FROM lines WHERE product_id = ?)",
            (release_date, product_id),
        )

    def quirk(self, order_number: int, name: str) -> str | None:
        """Return what is odd about an order, by the name of the oddity."""
        row = self.connection.execute(
            "SELECT value FROM quirks WHERE order_number = ? AND name = ?", (order_number, name)
        ).fetchone()
        return None if row is None else str(row["value"])

    def set_quirk(self, order_number: int, name: str, value: str | None) -> None:
        """Make an order odd, or with None ordinary again. Inside a transaction."""
        if value is None:
            sql, values = "DELETE FROM quirks WHERE order_number = ? AND name = ?", (order_number, name)
            self.connection.execute(sql, values)
            return
        self.connection.execute("INSERT OR REPLACE INTO quirks VALUES (?, ?, ?)", (order_number, name, value))

    def drop_late(self, number: int) -> None:
        """Forget a request for an order that was to be taken late. Inside a transaction."""
        self.connection.execute("DELETE FROM late_orders WHERE number = ?", (number,))

    def take_changed_products(self) -> list[str]:
        """Return the products whose stock or price changed since the last call."""
        changed, self._changed = list(self._changed), {}
        return changed

    def take_stock(self, offer_id: str, amounts: Sequence[int], *, now: float) -> None:
        """Take text, image and promised keys out of an offer's stock. Inside a transaction."""
        self.connection.execute(
            "UPDATE stock SET text = text - ?, image = image - ?, promised = promised - ?, updated_at = ?"
            " WHERE offer_id = ?",
            (*amounts, now, offer_id),
        )
        self._changed[_PRODUCT_OF[offer_id]] = None

    def set_stock(self, stock: OfferStock, *, now: float) -> None:
        """Replace an offer's price and stock. Inside a transaction."""
        self.connection.execute(
            "UPDATE stock SET price = ?, text = ?, image = ?, promised = ?, updated_at = ? WHERE offer_id = ?",
            (str(stock.price), stock.text, stock.image, stock.promised, now, stock.offer.offer_id),
        )
        self._changed[_PRODUCT_OF[stock.offer.offer_id]] = None


def _offer_stock(product: Product, row: sqlite3.Row) -> OfferStock:
    offer = next(offer for offer in product.offers if offer.offer_id == row["offer_id"])
    return OfferStock(
        offer, price=Decimal(row["price"]), text=row["text"], image=row["image"], promised=row["promised"]
    )
