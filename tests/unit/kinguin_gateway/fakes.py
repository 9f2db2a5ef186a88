"""The ports of kinguin-gateway in memory: what each adapter promises, implemented once for all tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from chassis.errors import RequestIdReused
from chassis.secret import SecretBytes
from kinguin_gateway.domain.guard import Lookup, NoAnswer, NotSent, Rejected, Reply, Taken
from kinguin_gateway.domain.looking import delivered_count, is_change, is_news
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    OrderLine,
    Problem,
    Product,
    Purchase,
    PurchaseState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.errors import ExternalIdConflict, SupplierUnavailable
from kinguin_gateway.ports import (
    Begun,
    Due,
    KeyToSeal,
    Sealed,
    SealedSoFar,
    SendWindow,
    SuppliedKey,
    SupplierHealth,
)

from tests.unit.simulated import EPOCH, SimulatedClock, stall

INTENT = Intent(
    external_id="kf-0001",
    order_id="order-1",
    item_id="item-1",
    product_id="5c9b5f6b2539a4e8f172916a",
    offer_id="",
    quantity=2,
    max_unit_cents=1299,
    key_type="",
)
REQUEST_ID = "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"

Step = Callable[[str], Awaitable[None]]


async def no_trouble(_step: str) -> None:
    """Nothing happens between two steps."""


def an_order(intent: Intent = INTENT, number: int = 1, **changes: object) -> SupplierOrder:
    order = SupplierOrder(
        supplier_order_id=f"PHS{number:05}",
        external_id=intent.external_id,
        state=SupplierOrderState.PROCESSING,
        lines=[OrderLine(intent.product_id, None, intent.quantity, "Counter-Strike: Source", 0)],
        charged_cents=1998,
        create_time=EPOCH,
    )
    return replace(order, **changes)  # type: ignore[arg-type] # fields by name


def deliver(order: SupplierOrder, delivered: int, state: SupplierOrderState | None = None) -> SupplierOrder:
    lines = [replace(line, delivered=delivered) for line in order.lines]
    return replace(order, lines=lines, state=state or order.state)


@dataclass
class Row:
    purchase: Purchase
    request_id: str
    lease_end: datetime | None = None
    next_look_time: datetime | None = None
    doubt: str = ""
    keys: list[KeyRef] = field(default_factory=list)


class FakePurchases:
    """One database for any number of replicas. `step` is called around each commit: a test may fail or wait there."""

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        self.now = now or SimulatedClock().now
        self.step: Step = no_trouble
        self.rows: dict[str, Row] = {}
        self.digests: dict[str, bytes] = {}
        self.events: list[tuple[str, str, int]] = []
        self.audited: list[str] = []

    async def begin(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        await self.step("before open")
        begun = self._begin(intent, request_id, window, lease)
        await self.step("after open")
        return begun

    def _begin(self, intent: Intent, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        now = self.now()
        row = self.rows.get(intent.external_id)
        if row is None:
            if any(other.request_id == request_id for other in self.rows.values()):
                raise RequestIdReused("request_id: was used with another body")
            row = Row(Purchase(intent, PurchaseState.INTENDED, 0, now, create_time=now), request_id)
            self.rows[intent.external_id] = row
        if row.purchase.intent != intent:
            raise ExternalIdConflict("the external id stands for another purchase")
        is_free = row.lease_end is None or row.lease_end < now
        if self.may_open(row, is_free=is_free):
            row.purchase = replace(
                row.purchase,
                state=PurchaseState.IN_DOUBT,
                attempt=row.purchase.attempt + 1,
                send_deadline=now + window,
                looks=0,
            )
            row.lease_end = row.next_look_time = now + lease
            return Begun(row.purchase, opened=True, claimed=False, time=now)
        if row.purchase.state is PurchaseState.IN_DOUBT and is_free:
            row.lease_end = now + lease
            return Begun(row.purchase, opened=False, claimed=True, time=now)
        return Begun(row.purchase, opened=False, claimed=False, time=now)

    def may_open(self, row: Row, *, is_free: bool) -> bool:  # noqa: ARG002 # a broken guard would ask for it
        return row.purchase.state is PurchaseState.INTENDED

    async def record_taken(
        self, purchase: Purchase, order: SupplierOrder, *, adopted: bool, look: timedelta
    ) -> Purchase:
        await self.step("before record")
        row = self.rows[purchase.intent.external_id]
        if row.purchase.state in {PurchaseState.IN_DOUBT, PurchaseState.INTENDED}:
            row.purchase = replace(
                self._seen(row.purchase, order),
                state=PurchaseState.PLACED,
                supplier_order_id=order.supplier_order_id,
                looks=0,
            )
            due = self.now() + look
            row.next_look_time = min(row.next_look_time or due, due)
            row.lease_end = None
            self.audited.append("purchase.placed")
            if adopted:
                self._tell(row.purchase, order)
        await self.step("after record")
        return row.purchase

    async def record_refused(self, purchase: Purchase, problem: Problem) -> Purchase:
        return await self._settle(
            purchase, "purchase.refused", state=PurchaseState.REFUSED, refusal=replace(problem, field="")
        )

    async def record_not_sent(self, purchase: Purchase) -> Purchase:
        return await self._settle(purchase, "", state=PurchaseState.INTENDED)

    async def record_absent(self, purchase: Purchase, *, sent_before: datetime) -> Purchase:
        if self.rows[purchase.intent.external_id].purchase.send_deadline >= sent_before:
            return self.rows[purchase.intent.external_id].purchase
        return await self._settle(purchase, "", state=PurchaseState.INTENDED)

    async def _settle(self, purchase: Purchase, audited: str, **changes: object) -> Purchase:
        await self.step("before record")
        row = self.rows[purchase.intent.external_id]
        if row.purchase.state is PurchaseState.IN_DOUBT and row.purchase.attempt == purchase.attempt:
            row.purchase = replace(row.purchase, **changes)  # type: ignore[arg-type] # fields by name
            row.lease_end = row.next_look_time = None
            row.doubt = ""
            if audited:
                self.audited.append(audited)
        await self.step("after record")
        return row.purchase

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        await self.step("before record")
        row, now = self.rows[purchase.intent.external_id], self.now()
        if row.purchase.state is PurchaseState.IN_DOUBT and row.purchase.attempt == purchase.attempt:
            row.purchase = replace(row.purchase, send_deadline=min(row.purchase.send_deadline, now))
            row.doubt = why
            row.next_look_time = min(row.next_look_time or now + look, now + look)
            self.audited.append("purchase.in_doubt")
        await self.step("after record")
        return row.purchase

    async def postpone(self, purchase: Purchase, *, look: timedelta) -> None:
        await self.step("before postpone")
        row = self.rows[purchase.intent.external_id]
        if (row.purchase.state, row.purchase.attempt) == (purchase.state, purchase.attempt):
            row.purchase = replace(row.purchase, looks=purchase.looks + 1)
            row.lease_end, row.next_look_time = None, self.now() + look

    async def record_look(self, purchase: Purchase, order: SupplierOrder, *, look: timedelta | None) -> None:
        await self.step("before look")
        row = self.rows[purchase.intent.external_id]
        if row.purchase.revision != purchase.revision:
            return
        news, changed = is_news(purchase, order), is_change(purchase, order)
        row.purchase = replace(
            self._seen(row.purchase, order),
            revision=purchase.revision + 1,
            looks=0 if changed else purchase.looks + 1,
        )
        row.lease_end, row.next_look_time = None, None if look is None else self.now() + look
        if news:
            self._tell(row.purchase, order)

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        await self.step("before claim")
        now = self.now()
        due = [
            row
            for row in self.rows.values()
            if row.next_look_time is not None
            and row.next_look_time <= now
            and (row.lease_end is None or row.lease_end < now)
        ][:limit]
        for row in due:
            row.lease_end = now + lease
        return [Due(row.purchase, now) for row in due]

    async def find(self, external_id: str) -> Purchase | None:
        row = self.rows.get(external_id)
        return None if row is None else row.purchase

    async def load_keys(self, external_id: str, *, request_id: str, digest: bytes) -> SealedSoFar | None:
        if self.digests.setdefault(request_id, digest) != digest:
            raise RequestIdReused("request_id: was used with another body")
        row = self.rows.get(external_id)
        return None if row is None else SealedSoFar(row.purchase, list(row.keys))

    async def record_keys(
        self, purchase: Purchase, order: SupplierOrder, new: Sequence[KeyRef], *, finished: bool
    ) -> SealedSoFar:
        await self.step("before keys")
        row = self.rows[purchase.intent.external_id]
        known = {key.supplier_key_id for key in row.keys}
        row.keys += [key for key in new if key.supplier_key_id not in known]
        row.purchase = replace(self._seen(row.purchase, order), sealed_count=len(row.keys))
        if finished:
            row.next_look_time = None
        await self.step("after keys")
        return SealedSoFar(row.purchase, list(row.keys))

    @staticmethod
    def _seen(purchase: Purchase, order: SupplierOrder) -> Purchase:
        return replace(
            purchase,
            supplier_order_state=order.state,
            delivered_count=delivered_count(purchase, order),
            product_name=order.product_name or purchase.product_name,
            charged_cents=purchase.charged_cents if order.charged_cents is None else order.charged_cents,
        )

    def _tell(self, purchase: Purchase, order: SupplierOrder) -> None:
        self.events.append((purchase.intent.external_id, order.state.value, purchase.revision))


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
        self.products: dict[str, Product] = {}
        self.health = SupplierHealth(reachable=True, authorized=True, balance_cents=100_00)
        self.pages_read = 0
        self.page_size = 100
        self._waiting: set[asyncio.Task[None]] = set()

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def place_order(self, intent: Intent, window: SendWindow) -> Reply:
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
                if mood.late is None:
                    received = self._receive(intent, mood)
                await asyncio.sleep(1e9 if mood.answer is None else mood.answer)
        except TimeoutError:
            return NoAnswer("timeout") if sent else NotSent("timeout")
        finally:
            # From here on we have given up: now counts the bound on how late the order may still be taken.
            if sent and received is None:
                self._receive_later(intent, mood)
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

    def _receive_later(self, intent: Intent, mood: Mood) -> None:
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

    async def key_pages(self, supplier_order_id: str) -> AsyncIterator[Sequence[SuppliedKey]]:
        keys = self.keys.get(supplier_order_id, [])
        for first in range(0, len(keys) + 1, self.page_size):
            self.pages_read += 1
            await self.step("before keys page")
            page = keys[first : first + self.page_size]
            yield [replace(key, value=None if key.value is None else SecretBytes(key.value.expose())) for key in page]
            if len(page) < self.page_size:
                return

    async def read_product(self, product_id: str) -> Product | None:
        return self.products.get(product_id)

    async def check(self) -> SupplierHealth:
        return self.health


class FakeVault:
    """Seals by `source_ref`, once for ever."""

    def __init__(self) -> None:
        self.step: Step = no_trouble
        self.sealed: dict[str, tuple[KeyToSeal, bytes]] = {}
        self.calls: list[str] = []
        self.held: set[bytes] = set()

    async def seal(self, key: KeyToSeal) -> Sealed:
        self.calls.append(key.source_ref)
        await self.step(key.source_ref)
        value = key.value.expose()
        known = self.sealed.setdefault(key.source_ref, (key, value))
        assert known[1] == value
        return Sealed(f"key-of-{key.source_ref}", held=value in self.held)
