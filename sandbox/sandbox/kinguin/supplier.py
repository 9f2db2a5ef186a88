"""The whole supplier behind its two addresses: what the public API and the control port both act on."""

import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sandbox.kinguin.catalogue import Product, product_json
from sandbox.kinguin.deliveries import Deliveries
from sandbox.kinguin.faults import Faults
from sandbox.kinguin.late import LateOrders
from sandbox.kinguin.moments import moment
from sandbox.kinguin.orders import Change, Clock, Desk
from sandbox.kinguin.pace import Patience
from sandbox.kinguin.store import Store
from sandbox.kinguin.traffic import Traffic
from sandbox.kinguin.webhooks import Post, Webhooks


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says. `fulfil_seconds` is how long an order stays `processing`."""

    data: Path
    api_key: str
    webhook_secret: str
    seed: int = 1
    fulfil_seconds: float = 0.5
    balance: Decimal = Decimal("1000000.00")


@dataclass(frozen=True, slots=True)
class Supplier:
    """All parts of the simulator."""

    settings: Settings
    clock: Clock
    store: Store
    desk: Desk
    deliveries: Deliveries
    late: LateOrders
    faults: Faults
    patience: Patience
    traffic: Traffic
    webhooks: Webhooks

    def announce(self, change: Change) -> None:
        """Tell the shop of an order's status, and of the stock that changed with it."""
        self.webhooks.announce(change)
        self.announce_stock()

    def announce_stock(self) -> None:
        """Tell the shop of every product whose stock or price changed since the last call."""
        changed = self.store.take_changed_products()
        if self.faults.standing("product_updates") is None:
            return
        for product_id in changed:
            product = self.store.product(product_id)
            if product is not None:
                self.webhooks.announce_product(self.product_json(product), self.store.stock_updated_at(product))

    def product_json(self, product: Product) -> dict[str, object]:
        """Return a product as the API shows it."""
        return product_json(
            product, self.store.stock_of(product), updated_at=moment(self.store.stock_updated_at(product))
        )

    def reset(self) -> None:
        """Forget orders, rules, counts and webhooks that are on their way; names and keys are still never reused."""
        self.faults.clear()
        self.traffic.forget()
        self.patience.forget()
        self.webhooks.forget()
        self.store.reset(now=self.clock(), balance=self.settings.balance)


def open_supplier(settings: Settings, *, post: Post | None, clock: Clock = time.time) -> Supplier:
    """Open the data folder and put the parts together."""
    store = Store(settings.data / "kinguin.sqlite3", now=clock(), balance=settings.balance)
    faults = Faults(settings.seed)
    desk = Desk(store, seed=settings.seed, fulfil_seconds=settings.fulfil_seconds, clock=clock)
    late = LateOrders(store, desk, clock=clock)
    return Supplier(
        settings=settings,
        clock=clock,
        store=store,
        desk=desk,
        deliveries=Deliveries(store, late, seed=settings.seed, fulfil_seconds=settings.fulfil_seconds, clock=clock),
        late=late,
        faults=faults,
        patience=Patience(),
        traffic=Traffic(),
        webhooks=Webhooks(post, secret=settings.webhook_secret, moods=faults, seed=settings.seed),
    )
