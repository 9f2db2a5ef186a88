"""The ports of kinguin-gateway in memory: what each adapter promises, implemented once for all tests."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from chassis.clock import SystemClock
from chassis.errors import RequestIdReused
from chassis.secret import SecretBytes
from kinguin_gateway.breaker import Breaker
from kinguin_gateway.domain.guard import Lookup, NoAnswer, NotSent, Rejected, Reply, Taken
from kinguin_gateway.domain.looking import delivered_count, is_change, is_news
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    Offer,
    OrderLine,
    Problem,
    Product,
    Purchase,
    PurchaseState,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.domain.returning import ReturnReply, TakenReturn
from kinguin_gateway.domain.switching import BuyingStatus, PauseCause, must_wait
from kinguin_gateway.domain.webhook import Receipt, Webhook, WebhookOutcome, is_stale
from kinguin_gateway.errors import ExternalIdConflict, SupplierUnavailable
from kinguin_gateway.pacing import Turnstile
from kinguin_gateway.ports.pace import Slots
from kinguin_gateway.ports.purchases import Begun, Due, SealedSoFar
from kinguin_gateway.ports.supplier import (
    OrderFilter,
    SendWindow,
    SuppliedKey,
    SupplierHealth,
)
from kinguin_gateway.ports.switch import SwitchOrder
from kinguin_gateway.ports.vault import KeyToSeal, Sealed
from kinguin_gateway.ports.webhooks import ReplayOrder, WebhookFilter
from sqlalchemy.ext.asyncio import AsyncConnection

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


def a_product(**changes: object) -> Product:
    product = Product(
        product_id=INTENT.product_id,
        name="Counter-Strike: Source",
        price_cents=999,
        available=100,
        preorder=False,
        excluded_countries=(),
        activation_details="",
        offers=(Offer(999, 100, offer_id="offer-1", available_text=100),),
    )
    return replace(product, **changes)  # type: ignore[arg-type] # fields by name


def deliver(order: SupplierOrder, delivered: int, state: SupplierOrderState | None = None) -> SupplierOrder:
    lines = [replace(line, delivered=delivered) for line in order.lines]
    return replace(order, lines=lines, state=state or order.state)


@dataclass
class Row:
    purchase: Purchase
    request_id: str
    lease_end: datetime | None = None
    next_look_time: datetime | None = None
    verify_time: datetime | None = None
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
        self.surplus: dict[str, str] = {}
        self.cause = PauseCause.NONE
        self.released: list[str] = []
        # As if the database had been restored: until then, ids that are new may have been sent before.
        self.caution_end = self.forgotten_deadline = datetime.min.replace(tzinfo=UTC)

    async def stand(self, intent: Intent, *, request_id: str, window: timedelta) -> Purchase | None:  # noqa: ARG002 # the port's
        row = self._row(intent)
        if row is not None and row.purchase.state is not PurchaseState.INTENDED:
            return row.purchase
        if row is None and self._forgot():
            return None
        if self._must_wait(row):
            return self._park(intent, request_id)
        return None if row is None else row.purchase

    async def park(
        self,
        intent: Intent,
        *,
        request_id: str,
        cause: PauseCause,
        reason: str,  # noqa: ARG002 # the port's
        window: timedelta,  # noqa: ARG002 # the port's
    ) -> Purchase:
        await self.step("before park")
        self.cause = self.cause or cause
        if self._row(intent) is None and self._forgot():
            return self._new_in_doubt(intent, request_id).purchase
        return self._park(intent, request_id)

    def _new_in_doubt(self, intent: Intent, request_id: str) -> Row:
        row, deadline = self._new(intent, request_id), self.forgotten_deadline
        row.purchase = replace(row.purchase, state=PurchaseState.IN_DOUBT, attempt=1, send_deadline=deadline)
        row.next_look_time = self.now()
        return row

    async def refuse(
        self,
        intent: Intent,
        *,
        request_id: str,
        problem: Problem,
        window: timedelta,  # noqa: ARG002 # the port's
    ) -> Purchase | None:
        await self.step("before refuse")
        row = self._row(intent)
        if row is None and self._forgot():
            return None
        row = row or self._new(intent, request_id)
        if row.purchase.state is PurchaseState.INTENDED:
            row.purchase = replace(row.purchase, state=PurchaseState.REFUSED, refusal=problem, parked=False)
            self.audited.append("purchase.refused")
        return row.purchase

    def _row(self, intent: Intent) -> Row | None:
        row = self.rows.get(intent.external_id)
        if row is not None and row.purchase.intent != intent:
            raise ExternalIdConflict("the external id stands for another purchase")
        return row

    def _new(self, intent: Intent, request_id: str) -> Row:
        if any(other.request_id == request_id for other in self.rows.values()):
            raise RequestIdReused("request_id: was used with another body")
        now = self.now()
        row = Row(Purchase(intent, PurchaseState.INTENDED, 0, now, create_time=now), request_id)
        self.rows[intent.external_id] = row
        return row

    def _forgot(self) -> bool:
        return self.now() < self.caution_end

    def _must_wait(self, row: Row | None) -> bool:
        others_wait = any(other.purchase.parked for other in self.rows.values())
        is_parked = row is not None and row.purchase.parked
        return must_wait(cause=self.cause, is_new=row is None, is_parked=is_parked, others_wait=others_wait)

    def _park(self, intent: Intent, request_id: str) -> Purchase:
        row = self._row(intent) or self._new(intent, request_id)
        if row.purchase.state is PurchaseState.INTENDED:
            row.purchase = replace(row.purchase, parked=True)
        return row.purchase

    async def record_parked(self, purchase: Purchase, *, cause: PauseCause, reason: str) -> Purchase:  # noqa: ARG002 # the port's
        self.cause = self.cause or cause
        return await self._settle(purchase, "purchase.parked", state=PurchaseState.INTENDED, parked=True)

    async def status(self) -> BuyingStatus:
        parked = sum(row.purchase.parked for row in self.rows.values())
        caution_end = self.caution_end if self._forgot() else None
        return BuyingStatus(self.cause, "", self.now(), parked, caution_end)

    async def pause(self, order: SwitchOrder) -> BuyingStatus:  # noqa: ARG002 # the port's
        self.cause = PauseCause.OPERATOR
        return await self.status()

    async def resume(self, order: SwitchOrder) -> BuyingStatus:  # noqa: ARG002 # the port's
        self.cause = PauseCause.NONE
        return await self.status()

    async def release(self, limit: int, *, balance_cents: int | None) -> int:
        if self.cause is PauseCause.OPERATOR:
            return 0
        unsettled = {PurchaseState.INTENDED, PurchaseState.IN_DOUBT}
        pending = [row for row in self.rows.values() if row.purchase.state in unsettled and not row.purchase.parked]
        left = None if balance_cents is None else balance_cents - sum(_most_cents(row) for row in pending)
        count = 0
        for row in [row for row in self.rows.values() if row.purchase.parked][:limit]:
            left = None if left is None else left - _most_cents(row)
            if left is not None and left < 0:
                break
            row.purchase = replace(row.purchase, parked=False)
            self.released.append(row.purchase.intent.external_id)
            count += 1
        if self.cause is PauseCause.UNAUTHORIZED or not any(row.purchase.parked for row in self.rows.values()):
            self.cause = PauseCause.NONE
        return count

    async def begin(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        await self.step("before open")
        begun = self._begin(intent, request_id, window, lease)
        await self.step("after open")
        return begun

    def _begin(self, intent: Intent, request_id: str, window: timedelta, lease: timedelta) -> Begun:
        now = self.now()
        row = self._row(intent)
        if row is None and self._forgot():
            row = self._new_in_doubt(intent, request_id)
            row.lease_end = row.next_look_time = now + lease
            return Begun(row.purchase, opened=False, claimed=True, time=now)
        if (row is None or row.purchase.state is PurchaseState.INTENDED) and self._must_wait(row):
            return Begun(self._park(intent, request_id), opened=False, claimed=False, time=now)
        row = row or self._new(intent, request_id)
        is_free = row.lease_end is None or row.lease_end < now
        if self.may_open(row, is_free=is_free):
            row.purchase = replace(
                row.purchase,
                state=PurchaseState.IN_DOUBT,
                attempt=row.purchase.attempt + 1,
                send_deadline=now + window,
                looks=0,
                doubt="",
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
        self,
        purchase: Purchase,
        order: SupplierOrder,
        *,
        adopted: bool,
        look: timedelta,
        verify: timedelta | None = None,
        surplus: Sequence[SupplierOrder] = (),
    ) -> Purchase:
        await self.step("before record")
        row = self.rows[purchase.intent.external_id]
        if row.purchase.state in {PurchaseState.IN_DOUBT, PurchaseState.INTENDED}:
            row.purchase = replace(
                self._seen(row.purchase, order),
                state=PurchaseState.PLACED,
                supplier_order_id=order.supplier_order_id,
                looks=0,
                parked=False,
                doubt="",
            )
            if verify is not None:
                row.verify_time = max(row.purchase.send_deadline, self.now()) + verify
            self._add_surplus(row, surplus)
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
            if audited:
                self.audited.append(audited)
        await self.step("after record")
        return row.purchase

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        await self.step("before record")
        row, now = self.rows[purchase.intent.external_id], self.now()
        if row.purchase.state is PurchaseState.IN_DOUBT and row.purchase.attempt == purchase.attempt:
            row.purchase = replace(row.purchase, send_deadline=min(row.purchase.send_deadline, now), doubt=why)
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
        self._write_key_states(row, order)
        news, changed = is_news(purchase, order), is_change(purchase, order)
        row.purchase = replace(
            self._seen(row.purchase, order),
            revision=purchase.revision + 1,
            looks=0 if changed else purchase.looks + 1,
        )
        row.lease_end, row.next_look_time = None, None if look is None else self.now() + look
        if news:
            self._tell(row.purchase, order)

    async def claim_to_verify(self, limit: int, *, lease: timedelta) -> Sequence[Due]:
        await self.step("before claim")
        now = self.now()
        due = [row for row in self.rows.values() if row.verify_time is not None and row.verify_time <= now][:limit]
        for row in due:
            row.verify_time = now + lease
        return [Due(row.purchase, now) for row in due]

    async def record_verified(
        self, purchase: Purchase, surplus: Sequence[SupplierOrder], *, again: timedelta | None
    ) -> None:
        await self.step("before verify")
        row = self.rows[purchase.intent.external_id]
        if again is None:
            row.verify_time = None
        else:
            row.verify_time = max(row.verify_time or self.now(), self.now() + again)
        self._add_surplus(row, surplus)

    def _add_surplus(self, row: Row, surplus: Sequence[SupplierOrder]) -> None:
        for order in surplus:
            if order.supplier_order_id not in {row.purchase.supplier_order_id, *self.surplus}:
                self.surplus[order.supplier_order_id] = row.purchase.intent.external_id

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
        self._write_key_states(row, order)
        row.purchase = replace(self._seen(row.purchase, order), sealed_count=len(row.keys))
        if finished:
            row.next_look_time = None
        await self.step("after keys")
        return SealedSoFar(row.purchase, list(row.keys))

    @staticmethod
    def _write_key_states(row: Row, order: SupplierOrder) -> None:
        gone = {SupplierKeyState.RETURNED, SupplierKeyState.REFUNDED, SupplierKeyState.CANCELED}
        told = {key.supplier_key_id: key.state for key in order.keys if key.state in gone}
        row.keys = [replace(key, state=told.get(key.supplier_key_id) or key.state) for key in row.keys]

    @staticmethod
    def _seen(purchase: Purchase, order: SupplierOrder) -> Purchase:
        return replace(
            purchase,
            supplier_order_state=order.state,
            delivered_count=delivered_count(purchase, order),
            canceled_count=order.canceled_count,
            release_time=order.release_time if order.preorder else purchase.release_time,
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
        self.products = {INTENT.product_id: a_product()}
        self.health = SupplierHealth(reachable=True, authorized=True, balance_cents=100_00)
        self.pages_read = 0
        self.page_size = 100
        self.sent_cents: list[int] = []
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


class FakeSchedule:
    """One schedule for any number of replicas, without a wait between asking and knowing."""

    def __init__(self, clock: SimulatedClock | SystemClock, *, per_second: float, patience: float = 5.0) -> None:
        self._clock = clock
        self._interval = timedelta(seconds=1 / per_second)
        self._patience = timedelta(seconds=patience)
        self._next = datetime.min.replace(tzinfo=UTC)
        self.reservations = 0

    async def reserve(self, wanted: int) -> Slots:
        self.reservations += 1
        now = self._clock.now()
        first = max(self._next, now)
        count = min(wanted, max(0, 1 + (now + self._patience - first) // self._interval))
        self._next = first + count * self._interval
        return Slots(count, first - now, self._interval)

    async def hold(self, wait: timedelta) -> None:
        self._next = max(self._next, self._clock.now() + wait)


def a_turnstile(clock: SimulatedClock | SystemClock, *, concurrency: int = 8, per_second: float = 1000.0) -> Turnstile:
    schedule = FakeSchedule(clock, per_second=per_second)
    return Turnstile(clock, schedule, Breaker(clock, lambda: 0.5), concurrency=concurrency)


def _most_cents(row: Row) -> int:
    return row.purchase.intent.quantity * row.purchase.intent.max_unit_cents


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


class FakeWebhooks:
    """Keeps webhooks in memory; orders named in `ours` are ours, products in `bought` were bought."""

    def __init__(self, *ours: str, bought: Sequence[str] = ()) -> None:
        self.ours = set(ours)
        self.bought = set(bought)
        self.kept: dict[str, Webhook] = {}
        self.hurried: list[str] = []
        self.replayed: dict[str, bytes] = {}

    async def take(self, connection: AsyncConnection, receipts: Sequence[Receipt]) -> Sequence[WebhookOutcome]:  # noqa: ARG002 # the port's
        return [self._take(receipt) for receipt in receipts]

    def _take(self, receipt: Receipt) -> WebhookOutcome:
        about = receipt.product_id or receipt.supplier_order_id
        told = [
            webhook.receipt.told_time
            for webhook in self.kept.values()
            if (webhook.receipt.product_id or webhook.receipt.supplier_order_id) == about
        ]
        latest = max((time for time in told if time is not None), default=None)
        outcome = WebhookOutcome.STALE if is_stale(receipt.told_time, latest) else self._hurry(receipt)
        self.kept.setdefault(receipt.event_id, Webhook(receipt.event_id, receipt, outcome, None))
        return outcome

    def _hurry(self, receipt: Receipt) -> WebhookOutcome:
        about = {receipt.supplier_order_id, receipt.external_id}
        if not (about & self.ours or receipt.product_id in self.bought):
            return WebhookOutcome.UNRELATED
        self.hurried.append(receipt.product_id or receipt.supplier_order_id)
        return WebhookOutcome.HURRIED

    async def page(self, wanted: WebhookFilter, *, size: int, before: tuple[datetime, str] | None) -> Sequence[Webhook]:
        found = [
            webhook
            for webhook in sorted(
                self.kept.values(), key=lambda each: (each.receipt.receive_time, each.webhook_id), reverse=True
            )
            if wanted.event_name in {"", webhook.receipt.event_name}
            and wanted.supplier_order_id in {"", webhook.receipt.supplier_order_id}
            and wanted.external_id in {"", webhook.receipt.external_id}
            and wanted.outcome in {None, webhook.outcome}
            and (before is None or (webhook.receipt.receive_time, webhook.webhook_id) < before)
        ]
        return found[:size]

    async def replay(self, order: ReplayOrder) -> Webhook | None:
        webhook = self.kept.get(order.webhook_id)
        if webhook is None:
            return None
        if self.replayed.setdefault(order.request_id, order.digest) != order.digest:
            raise RequestIdReused("request_id: was used with another body")
        outcome = self._hurry(webhook.receipt)
        self.kept[order.webhook_id] = replace(webhook, outcome=outcome, replay_time=EPOCH)
        return self.kept[order.webhook_id]

    async def last_time(self) -> datetime | None:
        return max((webhook.receipt.receive_time for webhook in self.kept.values()), default=None)


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
