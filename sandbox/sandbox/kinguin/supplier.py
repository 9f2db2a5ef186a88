"""The whole supplier behind its two addresses: what the public API and the control port both act on."""

import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sandbox.kinguin.deliveries import Deliveries
from sandbox.kinguin.faults import Faults
from sandbox.kinguin.orders import Clock, Desk
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
    faults: Faults
    traffic: Traffic
    webhooks: Webhooks

    def reset(self) -> None:
        """Forget orders, rules, counts and webhooks that are on their way; names and keys are still never reused."""
        self.faults.clear()
        self.traffic.forget()
        self.webhooks.forget()
        self.store.reset(now=self.clock(), balance=self.settings.balance)


def open_supplier(settings: Settings, *, post: Post | None, clock: Clock = time.time) -> Supplier:
    """Open the data folder and put the parts together."""
    store = Store(settings.data / "kinguin.sqlite3", now=clock(), balance=settings.balance)
    faults = Faults(settings.seed)
    return Supplier(
        settings=settings,
        clock=clock,
        store=store,
        desk=Desk(store, seed=settings.seed, fulfil_seconds=settings.fulfil_seconds, clock=clock),
        deliveries=Deliveries(store, seed=settings.seed, fulfil_seconds=settings.fulfil_seconds, clock=clock),
        faults=faults,
        traffic=Traffic(),
        webhooks=Webhooks(post, secret=settings.webhook_secret, mode=faults.webhook_mode, seed=settings.seed),
    )
