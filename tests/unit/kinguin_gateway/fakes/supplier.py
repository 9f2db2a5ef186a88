"""A supplier with moods."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

from chassis.secret import SecretBytes
from kinguin_gateway.domain.guard import Lookup, NoAnswer, NotSent, Rejected, Reply, Taken
from kinguin_gateway.domain.purchase import (
    Intent,
    Problem,
    Product,
    SupplierKeyState,
    SupplierOrder,
)
from kinguin_gateway.domain.returning import ReturnReply, TakenReturn
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.ports.supplier import (
    OrderFilter,
    SendWindow,
    SuppliedKey,
    SupplierHealth,
)

from tests.unit.kinguin_gateway.fakes.samples import INTENT, Step, a_product, an_order, no_trouble
from tests.unit.simulated import SimulatedClock, stall


@dataclass
class Mood:
    """How the supplier treats one attempt. Times are in seconds.

    `stall`: our process stops before it can send. `connect`: the connection takes so long. `take`: it takes the order,
    `late` after we gave up (None: before it answers). `reply`: what it answers, None for its true answer; `answer`: how
    long that takes, None for never.
    """

    stall: float = 0.0
    connect: float = 0.0
    take: bool = True
    late: float | None = None
    lag: float = 0.0
    reply: Reply | None = None
    answer: float | None = 0.0


class FakeSupplier:
    """A supplier that takes orders as the moods say, and shows what it took, `lag` later, to who searches."""

    def __init__(self, clock: SimulatedClock | None = None, *, rejects_reuse: bool = False) -> None:
        self.clock = clock or SimulatedClock()
        self.rejects_reuse = rejects_reuse
        self.step: Step = no_trouble
        self.next_mood: Callable[[], Mood] = Mood
        self.search_fails: Callable[[], bool] = bool
        self.taken: list[SupplierOrder] = []
        self.visible_at: dict[str, float] = {}
        self.keys: dict[str, list[SuppliedKey]] = {}
        self.products = {INTENT.product_id: a_product()}
        self.health = SupplierHealth(reachable=True, authorized=True, balance_cents=100_00)
        self.pages_read = 0
        self.page_size = 100
        self.sent_cents: list[int] = []
        self.sent_at: list[float] = []
        self.return_replies: list[ReturnReply] = []
        self.returns_asked: list[str] = []
        self.away = False
        self._waiting: set[asyncio.Task[None]] = set()

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def place_order(self, intent: Intent, window: SendWindow, *, unit_cents: int | None = None) -> Reply:
        self.sent_cents.append(intent.max_unit_cents if unit_cents is None else unit_cents)
        mood = self.next_mood()
        await self.step("before send")
        reply = await self._exchange(intent, window, mood)
        await self.step("after send")
        return reply

    async def _exchange(self, intent: Intent, window: SendWindow, mood: Mood) -> Reply:
        sent, received = False, None
        try:
            async with asyncio.timeout(window.seconds_left()):
                await stall(mood.stall)
                await asyncio.sleep(mood.connect)
                if window.seconds_left() <= 0:
                    return NotSent("the window has ended")
                sent = True
                self.sent_at.append(self.clock.elapsed())
                if mood.late is None:
                    received = self._receive(intent, mood)
                await asyncio.sleep(1e9 if mood.answer is None else mood.answer)
        except TimeoutError:
            return NoAnswer("timeout") if sent else NotSent("timeout")
        finally:
            # From here on we have given up: now counts the bound on how late the order may still be taken.
            if sent and received is None:
                self.receive_later(intent, mood)
        return mood.reply or received or NoAnswer("reset")

    def _receive(self, intent: Intent, mood: Mood) -> Reply:
        if not mood.take:
            return mood.reply or Rejected(422, Problem("ProductUnavailable", "sold out", "trace-1"))
        if self.rejects_reuse and any(order.external_id == intent.external_id for order in self.taken):
            return Rejected(422, Problem("ConstraintViolation", "The value is already used.", "trace-2"))
        order = an_order(intent, len(self.taken) + 1, create_time=self.clock.now())
        self.taken.append(order)
        self.visible_at[order.supplier_order_id] = self.clock.elapsed() + mood.lag
        return Taken(order)

    def receive_later(self, intent: Intent, mood: Mood) -> None:
        async def receive() -> None:
            await asyncio.sleep(mood.late or 0.0)
            self._receive(intent, mood)

        task = asyncio.ensure_future(receive())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def find_orders(self, external_id: str, *, start_time: datetime) -> Lookup:
        await self.step("before search")
        if self.search_fails():
            return self.failed_search(start_time)
        now = self.clock.elapsed()
        found = [
            order
            for order in self.taken
            if order.external_id == external_id and self.visible_at[order.supplier_order_id] <= now
        ]
        await self.step("after search")
        return Lookup(start_time, found, complete=True)

    def failed_search(self, start_time: datetime) -> Lookup:  # noqa: ARG002 # a broken guard would ask for it
        raise SupplierUnavailable("the supplier failed: 503")

    def show(self, order: SupplierOrder) -> None:
        """Change an order that was taken."""
        self.taken = [order if known.supplier_order_id == order.supplier_order_id else known for known in self.taken]

    async def read_order(self, supplier_order_id: str) -> SupplierOrder | None:
        await self.step("before read")
        return next((order for order in self.taken if order.supplier_order_id == supplier_order_id), None)

    async def key_pages(self, supplier_order_id: str, *, first: int = 1) -> AsyncGenerator[Sequence[SuppliedKey], None]:
        keys = self.keys.get(supplier_order_id, [])
        for number in range(first, 41):
            self.pages_read += 1
            await self.step("before keys page")
            page = self.page_of(keys, number)
            if not page:
                return
            yield [replace(key, value=None if key.value is None else SecretBytes(key.value.expose())) for key in page]

    def page_of(self, keys: Sequence[SuppliedKey], number: int) -> Sequence[SuppliedKey]:
        return keys[(number - 1) * self.page_size : number * self.page_size]

    async def search_orders(self, wanted: OrderFilter) -> AsyncGenerator[Sequence[SupplierOrder], None]:
        self._answer_or_raise()
        found = [order for order in reversed(self.taken) if _fits(order, wanted)]
        for first in range(0, len(found) + 1, self.page_size):
            page = found[first : first + self.page_size]
            yield page
            if len(page) < self.page_size:
                return

    async def return_keys(self, supplier_order_id: str) -> ReturnReply:
        """Answer as told; by itself take one return of an order, ever, and say NoKeysToReturn where none is there."""
        await self.step("before return")
        told = self.return_replies.pop(0) if self.return_replies else None
        # What is told may be no answer at all; the return is taken all the same.
        taken = None if isinstance(told, Rejected | NotSent) else self._take_back(supplier_order_id)
        reply = told or taken
        assert reply is not None
        await self.step("after return")
        return reply

    def _take_back(self, supplier_order_id: str) -> ReturnReply:
        order = next((order for order in self.taken if order.supplier_order_id == supplier_order_id), None)
        if order is None:
            return Rejected(404, Problem("OrderNotFound", "The order was not found.", "trace-3"))
        if supplier_order_id in self.returns_asked:
            return Rejected(422, Problem("OrderNotSupported", "A return was requested already.", "trace-4"))
        keys = [key for line in order.lines for key in line.keys]
        if keys and all(key.state is not SupplierKeyState.DELIVERED for key in keys):
            return Rejected(422, Problem("NoKeysToReturn", "There are no keys to return.", "trace-5"))
        self.returns_asked.append(supplier_order_id)
        return TakenReturn(keys)

    async def changed_products(self, product_ids: Sequence[str], *, since: datetime | None) -> Sequence[Product]:
        self._answer_or_raise()
        known = [self.products[product_id] for product_id in product_ids if product_id in self.products]
        return [each for each in known if since is None or each.update_time is None or each.update_time >= since]

    async def read_balance(self) -> int:
        self._answer_or_raise()
        assert self.health.balance_cents is not None
        return self.health.balance_cents

    def _answer_or_raise(self) -> None:
        if self.away:
            raise SupplierUnavailable("the supplier failed: 503")

    async def read_product(self, product_id: str) -> Product | None:
        self._answer_or_raise()
        return self.products.get(product_id)

    async def check(self) -> SupplierHealth:
        return self.health


def _fits(order: SupplierOrder, wanted: OrderFilter) -> bool:
    told = order.create_time
    return (
        wanted.external_id in {"", order.external_id}
        and wanted.supplier_order_id in {"", order.supplier_order_id}
        and (not wanted.product_id or any(line.product_id == wanted.product_id for line in order.lines))
        and wanted.state in {None, order.state}
        and wanted.preorder in {None, order.preorder}
        and (wanted.start_time is None or told is None or told >= wanted.start_time)
        and (wanted.end_time is None or told is None or told < wanted.end_time)
    )
