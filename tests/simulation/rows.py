"""Fulfillment's rows, lean enough for thousands of histories: the ports of `fulfillment.ports.orders` over `Tables`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from chassis.errors import RequestIdReused, ServiceUnavailable
from fulfillment.domain.model import (
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Order,
    OrderId,
    Purchase,
    Reason,
    State,
)
from fulfillment.domain.payments import Paid
from fulfillment.domain.policy import Trouble, is_stranded
from fulfillment.ports.mail import MailDue
from fulfillment.ports.supplier import Buying
from google.protobuf.message import Message

from tests.simulation.clock import News
from tests.simulation.money_rows import MoneyRows
from tests.simulation.network import Process
from tests.simulation.shapes import NAMES, KeyRow, MailRow, OrderRow, PurchaseRow, Told, render
from tests.simulation.tables import Tables, first

R = TypeVar("R", bound=Message)

_WAITING = frozenset({State.PENDING, State.PURCHASING})


class OrdersDatabase:
    """One database for all replicas. `published` is called with what an outbox was given, in the order of commits."""

    def __init__(self, news: News, published: Callable[[tuple[str, ...], Told], None]) -> None:
        self.tables = Tables(*NAMES)
        self.news = news
        self.published = published
        self.lost_events = False

    def connect(self, process: Process) -> "Rows":
        return Rows(self, process)

    def next_due(self, *, first_lane: bool | None = None) -> datetime | None:
        """Return when the next purchase is due."""
        return min(
            (
                row.run_at
                for row in self.tables.committed["purchases"].values()
                if row.run_at is not None and (first_lane is None or (row.purchase.lane == 0) is first_lane)
            ),
            default=None,
        )

    def next_mail(self) -> datetime | None:
        return min(
            (row.run_at for row in self.tables.committed["mails"].values() if row.run_at is not None), default=None
        )

    def fulfillment(self, order_id: OrderId) -> Fulfillment | None:
        row = self.tables.committed["orders"].get(order_id)
        return None if row is None else render(self.tables.committed, row)


class Rows:
    """The database as one process reaches it: it may refuse a commit, or lose the answer of one."""

    def __init__(self, database: OrdersDatabase, process: Process) -> None:
        self._database = database
        self._process = process

    def transaction(self, _step: str = "") -> "Transaction":
        return Transaction(self._database, self._process)

    async def page(
        self, *, customer_id: str, state: State | None, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Fulfillment]:
        tables = self._database.tables.committed
        rows = sorted(tables["orders"].values(), key=lambda row: (row.create_time, row.order.order_id), reverse=True)
        return [
            render(tables, row)
            for row in rows
            if (not customer_id or row.order.customer.customer_id == customer_id)
            and (state is None or row.state is state)
            and (after is None or (row.create_time, row.order.order_id) < after)
        ][:size]

    async def due_mails(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[MailDue]:
        async with self.transaction() as transaction:
            return await transaction.claim_mails(limit, until=now + lease, now=now)

    async def extend_mails(self, claims: Mapping[OrderId, int], *, now: datetime, until: datetime) -> None:
        async with self.transaction() as transaction:
            for order_id, claim in claims.items():
                await transaction.extend_mail(order_id, claim, now=now, until=until)

    async def mail_waits(self, order_id: OrderId, claim: int, *, run_at: datetime | None, failure: str) -> None:
        def waits(row: MailRow) -> MailRow:
            return row._replace(run_at=run_at, lease_until=None, failure=failure) if row.claim == claim else row

        async with self.transaction() as transaction:
            await transaction.change("mails", order_id, waits)


class Transaction(MoneyRows):
    """One transaction, in the words of `fulfillment.ports.orders.OrderTransaction`."""

    def __init__(self, database: OrdersDatabase, process: Process) -> None:
        super().__init__(database.tables, process)
        self._database = database
        self._fresh: list[tuple[tuple[str, ...], Told]] = []
        self._has_news = False

    async def __aenter__(self) -> Self:
        self.process.point()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        process = self.process
        try:
            if kind is not None:
                return
            process.point()
            if process.sky.strikes(process.sky.weather.refused_commit):
                raise ServiceUnavailable("the database does not answer")
            self.commit()
        finally:
            self.end()
        process.point()
        if process.sky.strikes(process.sky.weather.lost_commit):
            raise ServiceUnavailable("the answer of the commit was lost")

    def commit(self) -> None:
        super().commit()
        for identity, told in self._fresh:
            self._database.published(identity, told)
        if self._has_news:
            self._database.news.tell()

    @asynccontextmanager
    async def isolated(self) -> AsyncIterator[None]:
        before = self.written(), list(self._fresh), self._has_news
        try:
            yield
        except BaseException:
            self.restore(before[0])
            self._fresh, self._has_news = before[1:]
            raise

    async def is_first(self, event_id: str) -> bool:
        """Write an event into the inbox; False when it is there."""
        await self.lock(("inbox", event_id))
        if self.get("inbox", event_id) is not None:
            return False
        self.put("inbox", event_id, event_id)
        return True

    # Orders.

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:
        await self.pause()
        if lock:
            await self.lock(("orders", order_id))
        row = self.get("orders", order_id)
        return None if row is None else render(self, row)

    async def digest(self, order_id: OrderId) -> bytes | None:
        row = self.get("orders", order_id)
        return None if row is None else row.digest

    async def add_order(self, order: Order, digest: bytes, *, now: datetime) -> bool:
        await self.pause()
        await self.lock(("money",))
        if self.get("orders", order.order_id) is not None:
            return False
        self.put("orders", order.order_id, OrderRow(order, digest, now, now))
        return True

    async def cancel_order(self, order_id: OrderId, *, now: datetime) -> None:
        await self.change("orders", order_id, lambda row: row._replace(cancel_time=row.cancel_time or now))

    async def troubled(
        self, trouble: Trouble, *, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[tuple[datetime, OrderId]]:
        found = [
            (row.create_time, row.order.order_id)
            for row in self.scan("orders")
            if row.state is State.NEEDS_ATTENTION
            and any(
                trouble.includes(each) and (each.state is State.NEEDS_ATTENTION or is_stranded(each))
                for each in render(self, row).purchases
            )
        ]
        return sorted(place for place in found if after is None or place > after)[:size]

    async def save_summary(
        self,
        order_id: OrderId,
        state: State,
        reason: Reason,
        *,
        now: datetime,
        paid: Paid,
        pay_time: datetime | None,
    ) -> None:
        await self.change(
            "orders",
            order_id,
            lambda row: row._replace(
                state=state,
                reason=reason,
                paid=paid.amount,
                refunded=paid.refunded,
                pay_time=pay_time,
                update_time=now,
                version=row.version + 1,
            ),
        )

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        if name:
            self.put("names", (order_id, item_id), name)

    # Purchases.

    async def add_purchases(self, purchases: Sequence[Purchase], *, run_at: datetime) -> None:
        await self.pause()
        for purchase in purchases:
            await self.lock(("purchases", purchase.external_id))
            if self.get("purchases", purchase.external_id) is None:
                self.put("purchases", purchase.external_id, PurchaseRow(replace(purchase, next_time=run_at), run_at))
        self._has_news = True

    async def waiting(self, customer_id: str, *, most: int) -> int:
        found = [row for row in self.scan("purchases") if row.purchase.state in _WAITING]
        orders = {row.purchase.order_id: self.get("orders", row.purchase.order_id) for row in found}
        count = sum(orders[row.purchase.order_id].order.customer.customer_id == customer_id for row in found)
        return min(int(count), most)

    async def lock_due(self, shares: Mapping[int, int], *, now: datetime) -> Sequence[Buying]:
        await self.pause()
        found = list[PurchaseRow]()
        due = [row for row in self.scan("purchases") if row.run_at is not None and row.run_at <= now]
        for lane, share in sorted(shares.items()):
            rows = [row for row in due if row.purchase.lane == lane]
            for row in first(rows, share, key=lambda row: row.run_at) if rows else ():
                locks = (("purchases", row.purchase.external_id), ("orders", row.purchase.order_id))
                if all(self.is_free(lock) for lock in locks):
                    for lock in locks:
                        self.take(lock)
                    found.append(row)
        return [self._buying(row.purchase) for row in found]

    def _buying(self, purchase: Purchase) -> Buying:
        order = self.get("orders", purchase.order_id).order
        item = next(item for item in order.items if item.item_id == purchase.item_id)
        return Buying(purchase, item, order.customer.customer_id, order.customer.country_code)

    async def lease(self, purchase: Purchase, *, until: datetime) -> Purchase:
        await self.lock(("purchases", purchase.external_id))
        claim = self.get("purchases", purchase.external_id).purchase.claim + 1
        leased = replace(purchase, claim=claim, next_time=until)
        self.put("purchases", purchase.external_id, PurchaseRow(leased, until, until))
        return leased

    async def renew(self, purchase: Purchase, *, until: datetime) -> None:
        await self.lock(("purchases", purchase.external_id))
        row = self.get("purchases", purchase.external_id)
        if row.purchase.claim != purchase.claim:
            raise LookupError("a purchase that somebody else has claimed cannot be gone on with")
        renewed = replace(purchase, next_time=until)
        self.put("purchases", purchase.external_id, PurchaseRow(renewed, until, until, row.hastened))

    async def extend_leases(self, claims: Mapping[ExternalId, int], *, now: datetime, until: datetime) -> None:
        for external_id, claim in claims.items():
            if not self.is_free(("purchases", external_id)):
                continue
            self.take(("purchases", external_id))
            row = self.get("purchases", external_id)
            if row.purchase.claim == claim and row.lease_until is not None and row.lease_until > now:
                self.put("purchases", external_id, row._replace(run_at=until, lease_until=until))

    async def save_purchase(self, purchase: Purchase, *, now: datetime, run_at: datetime | None) -> None:
        await self.pause()
        await self.lock(("purchases", purchase.external_id))
        row = self.get("purchases", purchase.external_id)
        lease_until, hastened = None, False
        foreign = row.purchase.claim != purchase.claim and row.lease_until is not None and row.lease_until > now
        if run_at is not None:
            if foreign:
                run_at, lease_until, hastened = row.run_at, row.lease_until, row.hastened
            elif row.hastened:
                run_at = now
            self._has_news = True
        saved = replace(purchase, claim=row.purchase.claim, next_time=run_at)
        self.put("purchases", purchase.external_id, PurchaseRow(saved, run_at, lease_until, hastened))

    async def put_off(self, external_id: ExternalId, *, run_at: datetime) -> None:
        def later(row: PurchaseRow) -> PurchaseRow:
            return row._replace(purchase=replace(row.purchase, next_time=run_at), run_at=run_at, lease_until=None)

        await self.change("purchases", external_id, later)

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        def hastened(row: PurchaseRow) -> PurchaseRow:
            if row.run_at is None:
                return row
            if row.lease_until is not None and row.lease_until > now:
                return row._replace(hastened=True)
            return row._replace(run_at=now)

        await self.change("purchases", external_id, hastened)
        self._has_news = True

    # Keys.

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        row = self.get("keys", key_id)
        return None if row is None else row.order_id

    async def add_keys(self, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        fresh = []
        for key in keys:
            await self.lock(("keys", key.key_id))
            if self.get("keys", key.key_id) is None:
                self.put("keys", key.key_id, KeyRow(key, order_id))
                fresh.append(key)
        return fresh

    async def open_key(self, key_id: KeyId, *, now: datetime) -> bool:
        await self.pause()
        return await self._note(key_id, "open_time", now)

    async def revoke_keys(self, key_ids: Sequence[KeyId], *, now: datetime) -> None:
        for key_id in key_ids:
            await self._note(key_id, "revoke_time", now)

    async def replace_key(self, key_id: KeyId, *, now: datetime) -> bool:
        return await self._note(key_id, "replace_time", now)

    async def _note(self, key_id: KeyId, name: str, now: datetime) -> bool:
        await self.lock(("keys", key_id))
        row = self.get("keys", key_id)
        if getattr(row.key, name) is not None:
            return False
        changes: dict[str, Any] = {name: now}
        self.put("keys", key_id, row._replace(key=replace(row.key, **changes)))
        return True

    # Mails.

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        await self.lock(("mails", order_id))
        if self.get("mails", order_id) is None:
            self.put("mails", order_id, MailRow(run_at=now))
        self._has_news = True

    async def want_mail_again(
        self, order_id: OrderId, *, now: datetime, most: int, within: timedelta
    ) -> datetime | None:
        await self.lock(("mails", order_id))
        row = self.get("mails", order_id)
        if row is None:
            raise LookupError("no mail was ever wanted for the order")
        recent = tuple(time for time in row.again if time > now - within)
        if len(recent) >= most:
            again: datetime = recent[-most] + within
            return again
        again_now = MailRow(now, send_time=row.send_time, again=(*recent, now), claim=row.claim + 1)
        self.put("mails", order_id, again_now)
        self._has_news = True
        return None

    async def mail_done(self, order_id: OrderId, claim: int, *, now: datetime) -> None:
        def done(row: MailRow) -> MailRow:
            if row.claim == claim:
                row = row._replace(run_at=None, lease_until=None)
            return row._replace(send_time=now, failure="")

        await self.change("mails", order_id, done)
        await self.change("orders", order_id, lambda row: row._replace(mail_time=now, version=row.version + 1))

    async def extend_mail(self, order_id: OrderId, claim: int, *, now: datetime, until: datetime) -> None:
        if not self.is_free(("mails", order_id)):
            return
        self.take(("mails", order_id))
        row = self.get("mails", order_id)
        if row.claim == claim and row.lease_until is not None and row.lease_until > now:
            self.put("mails", order_id, row._replace(run_at=until, lease_until=until))

    async def claim_mails(self, limit: int, *, until: datetime, now: datetime) -> list[MailDue]:
        tables = self._database.tables.committed
        claimed = []
        for order_id, row in list(tables["mails"].items()):
            if row.run_at is None or row.run_at > now or not self.is_free(("mails", order_id)):
                continue
            self.take(("mails", order_id))
            tries, claim = row.tries + 1, row.claim + 1
            self.put("mails", order_id, row._replace(run_at=until, lease_until=until, tries=tries, claim=claim))
            order = tables["orders"][order_id].order
            names = [tables["names"].get((order_id, item.item_id)) or item.product_id for item in order.items]
            claimed.append(MailDue(order_id, order.customer.email, order.customer.locale, names, tries, claim))
            if len(claimed) == limit:
                break
        return claimed

    # What is told.

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:  # noqa: ARG002 # when it was told first is enough
        if subject == "audit.recorded":
            return
        name = (subject, *identity)
        if self.get("told", name) is None:
            told = Told(subject, message, about)
            self.put("told", name, told)
            self._fresh.append((name, told))

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        await self.lock(("answers", request_id))
        kept = self.get("answers", request_id)
        if kept is None:
            return None
        if kept[0] != digest:
            raise RequestIdReused("request_id: was used with another body")
        return response_class.FromString(kept[1])

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        self.put("answers", request_id, (digest, response.SerializeToString(deterministic=True)))
