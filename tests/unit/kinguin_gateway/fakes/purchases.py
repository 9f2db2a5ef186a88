"""The rows of all purchases in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from chassis.errors import RequestIdReused
from kinguin_gateway.domain.guard import WITHDRAWAL, next_step, when_not_taken
from kinguin_gateway.domain.guard import Step as NextStep
from kinguin_gateway.domain.looking import delivered_count, is_change, is_news
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    Problem,
    Purchase,
    PurchaseState,
    SupplierKeyState,
    SupplierOrder,
)
from kinguin_gateway.domain.switching import PauseCause, must_wait
from kinguin_gateway.errors import ExternalIdConflict
from kinguin_gateway.ports.purchases import Begun, Due, SealedSoFar

from tests.unit.kinguin_gateway.fakes.samples import Step, no_trouble
from tests.unit.kinguin_gateway.fakes.switch import FakeSwitch, Row
from tests.unit.simulated import SimulatedClock


class FakePurchases(FakeSwitch):
    """One database for any number of replicas. `step` is called around each commit: a test may fail or wait there."""

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(now or SimulatedClock().now)
        self.step: Step = no_trouble
        self.digests: dict[str, bytes] = {}
        self.events: list[tuple[str, str, int]] = []
        self.audited: list[str] = []
        self.surplus: dict[str, str] = {}

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

    async def withdraw(self, intent: Intent, *, request_id: str, window: timedelta, lease: timedelta) -> Begun:  # noqa: ARG002 # the port's
        await self.step("before withdraw")
        begun = self._withdraw(intent, request_id, lease)
        await self.step("after withdraw")
        return begun

    def _withdraw(self, intent: Intent, request_id: str, lease: timedelta) -> Begun:
        now, row = self.now(), self._row(intent)
        if row is None:
            row = self._new_in_doubt(intent, request_id) if self._forgot() else self._new(intent, request_id)
        step = self.withdrawal_step(row.purchase)
        claimed = step is NextStep.SETTLE and (row.lease_end is None or row.lease_end < now)
        if step is not NextStep.ANSWER:
            row.purchase = replace(row.purchase, withdrawn=True)
            row.last_attempt = row.purchase.attempt if row.last_attempt is None else row.last_attempt
        if claimed:
            row.lease_end = now + lease
        if step is NextStep.REFUSE:
            self._untaken(row)
        return Begun(row.purchase, opened=False, claimed=claimed, time=now)

    def withdrawal_step(self, purchase: Purchase) -> NextStep:
        return next_step(purchase.state, withdrawn=True)

    def _untaken(self, row: Row, *, parked: bool = False) -> None:
        """Write that certainly nothing was taken."""
        state = when_not_taken(withdrawn=row.purchase.withdrawn)
        row.purchase = replace(row.purchase, state=state, parked=parked and state is PurchaseState.INTENDED, doubt="")
        row.lease_end = row.next_look_time = None
        if state is PurchaseState.REFUSED:
            row.purchase = replace(row.purchase, refusal=WITHDRAWAL)
            self.audited.append("purchase.withdrawn")

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
        after = await self._undo(purchase, parked=True)
        if after.parked:
            self.audited.append("purchase.parked")
        return after

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
        return next_step(row.purchase.state, withdrawn=row.purchase.withdrawn) is NextStep.SEND

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
        await self.step("before record")
        row = self.rows[purchase.intent.external_id]
        if self._is_of(purchase, row):
            refusal = replace(problem, field="")
            row.purchase = replace(row.purchase, state=PurchaseState.REFUSED, refusal=refusal)
            row.lease_end = row.next_look_time = None
            self.audited.append("purchase.refused")
        await self.step("after record")
        return row.purchase

    async def record_not_sent(self, purchase: Purchase) -> Purchase:
        return await self._undo(purchase)

    async def record_absent(self, purchase: Purchase, *, sent_before: datetime) -> Purchase:
        if self.rows[purchase.intent.external_id].purchase.send_deadline >= sent_before:
            return self.rows[purchase.intent.external_id].purchase
        anybody_waits = self.cause is not PauseCause.NONE or any(row.purchase.parked for row in self.rows.values())
        return await self._undo(purchase, parked=anybody_waits)

    async def _undo(self, purchase: Purchase, *, parked: bool = False) -> Purchase:
        await self.step("before record")
        row = self.rows[purchase.intent.external_id]
        if self._is_of(purchase, row):
            self._untaken(row, parked=parked)
        await self.step("after record")
        return row.purchase

    @staticmethod
    def _is_of(purchase: Purchase, row: Row) -> bool:
        return row.purchase.state is PurchaseState.IN_DOUBT and row.purchase.attempt == purchase.attempt

    async def record_doubt(self, purchase: Purchase, *, why: str, look: timedelta) -> Purchase:
        await self.step("before record")
        row, now = self.rows[purchase.intent.external_id], self.now()
        if self._is_of(purchase, row):
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
