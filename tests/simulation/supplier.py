"""The supplier's account: what was sold, and everything that its contract allows it to do wrong.

It takes an order at most `BOUNDS.commit` after we gave up on it, its search shows it at most `BOUNDS.search_lag` later,
and nothing keeps it from taking the same reference twice. Now and then it books what it took once more, at any time.
What happens to an order is drawn when it is taken, and read off the clock whenever somebody looks.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from chassis.secret import SecretBytes
from kinguin_gateway.domain.guard import Bounds, Lookup, NoAnswer, NotSent, Rejected, Reply, Taken
from kinguin_gateway.domain.purchase import (
    Intent,
    Offer,
    OrderKey,
    OrderLine,
    Problem,
    Product,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.domain.returning import ReturnReply, TakenReturn
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.supplier import SendWindow, SuppliedKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from tests.simulation.clock import Luck, WorldClock
    from tests.simulation.network import Process, Sky

BOUNDS = Bounds(commit=timedelta(seconds=12), search_lag=timedelta(seconds=6))
WINDOW = timedelta(seconds=4)
PAY_BACK_SECONDS = 2.0
DELIVERED, RETURNED, REFUNDED, CANCELED, PROCESSING = (
    SupplierKeyState.DELIVERED,
    SupplierKeyState.RETURNED,
    SupplierKeyState.REFUNDED,
    SupplierKeyState.CANCELED,
    SupplierKeyState.PROCESSING,
)
_NOES = (
    "ProductUnavailable",
    "ProductUnavailable",
    "ProductUnavailable",
    "ConstraintViolation",
    "InsufficientBalance",
)
_UNCLEAR: tuple[Reply, ...] = (
    Rejected(500, Problem("Error", "bad day")),
    Rejected(429, Problem("Http", "too many")),
    Rejected(409, Problem("ResourceLock", "locked")),
    NoAnswer("reset"),
)
NEVER = 1e12


@dataclass(slots=True)
class Sold:
    """An order that was taken. `times` tells when each key is delivered; NEVER where it is canceled instead."""

    order: SupplierOrder
    intent: Intent
    visible: float
    times: list[float]
    end: float
    serials: list[str]
    unreadable: bool = False
    return_time: float | None = None
    """When the keys have gone back; NEVER for a return that was taken and stays."""
    refuses_return: bool = False

    def states(self, now: float) -> list[SupplierKeyState]:
        if self.return_time is not None and now >= self.return_time:
            gone = REFUNDED if now >= self.return_time + PAY_BACK_SECONDS else RETURNED
            return [gone if time < NEVER else CANCELED for time in self.times]
        return [
            DELIVERED if now >= time else CANCELED if time == NEVER and now >= self.end else PROCESSING
            for time in self.times
        ]


@dataclass(slots=True)
class Habits:
    """How the supplier is in one history: probabilities, each for one attempt, order or search."""

    refuse: float = 0.0
    unclear: float = 0.0
    late: float = 0.0
    lag: float = 0.0
    stall: float = 0.0
    search_fails: float = 0.0
    slow_keys: float = 0.0
    short: float = 0.0
    canceled: float = 0.0
    sold_before: float = 0.0
    unreadable: float = 0.0
    never: float = 0.0
    no_return: float = 0.0
    twice: float = 0.0
    out_of_stock: float = 0.0


def habits(luck: Luck) -> Habits:
    def some(most: float, often: float = 0.3) -> float:
        return luck.upto(most) if luck.chance(often) else 0.0

    return Habits(
        refuse=some(0.4),
        unclear=some(0.6),
        late=some(0.8),
        lag=some(1.0),
        stall=some(0.5, 0.1),
        search_fails=some(0.7),
        slow_keys=some(1.0),
        short=some(0.5, 0.15),
        canceled=some(0.5, 0.15),
        sold_before=some(0.4, 0.15),
        unreadable=some(0.4, 0.1),
        never=some(0.3, 0.05),
        no_return=some(0.8, 0.2),
        twice=some(0.5, 0.1),
        out_of_stock=some(0.8, 0.1),
    )


@dataclass
class Account:
    """Everything that was ever sold to us, and what is offered."""

    sky: Sky
    clock: WorldClock
    luck: Luck
    products: dict[str, Product] = field(default_factory=dict)
    sold: list[Sold] = field(default_factory=list)
    returns_asked: int = 0
    coming: int = 0
    """Orders that it will book once more."""
    out_of_money: bool = False

    def __post_init__(self) -> None:
        self.habits = habits(self.luck)
        self.stock_time = self.luck.upto(90) if self.luck.chance(self.habits.out_of_stock) else 0.0

    def offer(self, product_id: str, cents: int) -> None:
        """Put a product on sale, with two offers."""
        offers = (
            Offer(cents, 50, offer_id=f"{product_id}-a", available_text=50),
            Offer(cents + 1, 50, offer_id=f"{product_id}-b", available_text=50),
        )
        self.products[product_id] = Product(
            product_id,
            f"Game {product_id}",
            cents,
            available=100,
            preorder=False,
            excluded_countries=(),
            activation_details="",
            offers=offers,
        )

    def show(self, product_id: str) -> Product | None:
        product = self.products.get(product_id)
        if product is not None and self.clock.elapsed() < self.stock_time:
            return replace(product, offers=tuple(replace(offer, available=0) for offer in product.offers))
        return product

    def take(self, intent: Intent) -> SupplierOrder:
        """Sell. Nobody looks whether the reference was used before."""
        luck, likes, now = self.luck, self.habits, self.clock.elapsed()
        number = f"PHS{len(self.sold) + 1}"
        end = now + luck.upto(2)
        times = [now] * intent.quantity
        if luck.chance(likes.slow_keys):
            times = [now + luck.pick((0.5, 5.0, 60.0)) * luck.random() for _ in times]
            end = max(times)
        fate = luck.random()
        if fate < likes.short:
            times[-1] = NEVER
        elif fate < likes.short + likes.canceled:
            times = [NEVER] * intent.quantity
        elif fate < likes.short + likes.canceled + likes.never:
            times, end = [NEVER] * intent.quantity, NEVER
        serials = [f"{number}/{n}" for n in range(intent.quantity)]
        if luck.chance(likes.sold_before) and self.sold:
            serials[0] = self.sold[0].serials[0]
        line = OrderLine(intent.product_id, None, intent.quantity, f"Game {intent.product_id}", 0)
        order = SupplierOrder(
            supplier_order_id=number,
            external_id=intent.external_id,
            state=SupplierOrderState.PROCESSING,
            lines=[line],
            charged_cents=90 * intent.quantity,
            create_time=self.clock.now(),
        )
        lag = luck.random() ** 0.3 * BOUNDS.search_lag.total_seconds() * 0.99 if luck.chance(likes.lag) else 0.0
        unreadable = luck.chance(likes.unreadable)
        self.sold.append(Sold(order, intent, now + lag, times, end, serials, unreadable))
        self.sold[-1].refuses_return = luck.chance(likes.no_return)
        if luck.chance(likes.twice):
            self.coming += 1
            self.sky.loop.call_later(luck.pick((1.0, 30.0, 600.0)) * luck.random(), self._book_again, self.sold[-1])
        return order

    def _book_again(self, sold: Sold) -> None:
        """Take an order once more by mistake, whole and at once."""
        self.coming -= 1
        now, number = self.clock.elapsed(), f"PHS{len(self.sold) + 1}"
        order = replace(sold.order, supplier_order_id=number, create_time=self.clock.now())
        serials = [f"{number}/{n}" for n in range(sold.intent.quantity)]
        self.sold.append(Sold(order, sold.intent, now, [now] * sold.intent.quantity, now, serials))

    def read(self, sold: Sold) -> SupplierOrder:
        """Return an order as it is now."""
        now = self.clock.elapsed()
        states = sold.states(now)
        keys = [OrderKey(f"{sold.order.supplier_order_id}-{n}", state) for n, state in enumerate(states)]
        state = SupplierOrderState.PROCESSING
        if now >= sold.end:
            state = SupplierOrderState.CANCELED if CANCELED in states else SupplierOrderState.COMPLETED
        if sold.return_time is not None and now >= sold.return_time:
            state = SupplierOrderState.REFUNDED
        line = replace(sold.order.lines[0], delivered=states.count(DELIVERED), keys=keys)
        return replace(sold.order, state=state, lines=[line])

    def find(self, supplier_order_id: str) -> Sold | None:
        return next((sold for sold in self.sold if sold.order.supplier_order_id == supplier_order_id), None)

    def take_back(self, supplier_order_id: str) -> ReturnReply:
        """Take one return of an order, ever (K49)."""
        sold = self.find(supplier_order_id)
        if sold is None:
            return Rejected(404, Problem("OrderNotFound", "The order was not found."))
        if sold.return_time is not None or sold.refuses_return:
            return Rejected(422, Problem("OrderNotSupported", "A return was requested already."))
        if DELIVERED not in sold.states(self.clock.elapsed()):
            return Rejected(422, Problem("NoKeysToReturn", "There are no keys to return."))
        sold.return_time = self.clock.elapsed() + self.luck.pick((0.0, 1.0, 30.0)) * self.luck.random()
        return TakenReturn(self.read(sold).keys)


class SupplierLine:
    """The supplier as one process of kinguin-gateway reaches it: `kinguin_gateway.ports.supplier.Supplier`."""

    def __init__(self, account: Account, process: Process) -> None:
        self._account = account
        self._process = process
        self._luck = account.luck

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def place_order(self, intent: Intent, window: SendWindow, *, unit_cents: int | None = None) -> Reply:  # noqa: ARG002 # every offer is within it
        account, luck, likes, sky = self._account, self._luck, self._account.habits, self._process.sky
        self._process.point()
        if sky.strikes(likes.stall):
            # Our own process stops before it can send, and does not notice.
            await asyncio.sleep(luck.pick((1.0, 6.0, 60.0)) * luck.random())
        if window.seconds_left() <= 0:
            return NotSent("the window has ended")
        self._process.point()
        if account.out_of_money:
            return Rejected(422, Problem("InsufficientBalance", "no money"))
        if sky.strikes(likes.refuse):
            kind = luck.pick(_NOES)
            account.out_of_money = kind == "InsufficientBalance"
            return Rejected(422, Problem(kind, "no"))
        if not sky.strikes(likes.unclear):
            reply = Taken(account.take(intent))
            self._process.point()
            return reply
        # Nobody will know: an answer that says nothing, or none, and the order is taken now, late, or never.
        seconds = luck.pick((0.0, 1.0, window.seconds_left()))
        reply_unclear = luck.pick(_UNCLEAR)
        if luck.chance(likes.late):
            late = luck.random() ** 0.3 * BOUNDS.commit.total_seconds() * 0.99
            sky.loop.call_later(seconds + late, account.take, intent)
        elif luck.chance(0.5):
            account.take(intent)
        if seconds:
            await asyncio.sleep(seconds)
        self._process.point()
        return reply_unclear

    async def find_orders(self, external_id: str, *, start_time: datetime) -> Lookup:
        await self._read()
        if self._process.sky.strikes(self._account.habits.search_fails):
            return self.failed_search(start_time)
        now = self._account.clock.elapsed()
        found = [
            self._account.read(sold)
            for sold in self._account.sold
            if sold.intent.external_id == external_id and sold.visible <= now
        ]
        return Lookup(start_time, found, complete=True)

    def failed_search(self, start_time: datetime) -> Lookup:  # noqa: ARG002 # a broken guard would ask for it
        raise SupplierUnavailable("the supplier failed: 503")

    async def read_order(self, supplier_order_id: str) -> SupplierOrder | None:
        await self._read()
        sold = self._account.find(supplier_order_id)
        return None if sold is None else self._account.read(sold)

    async def key_pages(self, supplier_order_id: str, *, first: int = 1) -> AsyncGenerator[Sequence[SuppliedKey], None]:
        await self._read()
        sold = self._account.find(supplier_order_id)
        if sold is None or first > 1:
            return
        yield [
            SuppliedKey(
                f"{supplier_order_id}-{n}",
                sold.intent.product_id,
                "text/plain",
                None if sold.unreadable and n == 0 else SecretBytes(sold.serials[n].encode()),
            )
            for n, state in enumerate(sold.states(self._account.clock.elapsed()))
            if state is DELIVERED
        ]

    async def return_keys(self, supplier_order_id: str) -> ReturnReply:
        self._process.point()
        self._account.returns_asked += 1
        if self._process.sky.strikes(self._account.habits.unclear):
            if self._luck.chance(0.5):
                self._account.take_back(supplier_order_id)
            return NoAnswer("timeout")
        reply = self._account.take_back(supplier_order_id)
        self._process.point()
        return reply

    async def read_product(self, product_id: str) -> Product | None:
        await self._read()
        return self._account.show(product_id)

    async def _read(self) -> None:
        self._process.point()
        weather = self._process.sky.weather
        if self._process.sky.strikes(weather.slow):
            await asyncio.sleep(self._luck.upto(1.0))
        if self._process.sky.strikes(weather.lost):
            raise SupplierUnavailable("the supplier failed: 503")
