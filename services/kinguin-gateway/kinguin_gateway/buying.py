"""Buys, at most once per external id. The rules are in domain/guard.py; here they are followed, step by step.

1 commit the attempt          dies here: in doubt, though nothing was sent; a search proves it after the bounds
2 send it, inside its window  dies here: in doubt; the order is found by its reference and adopted
3 write what came of it       dies here: as above
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from chassis.clock import Clock
from chassis.deadline import remaining
from chassis.errors import KeyferryError, ServiceUnavailable
from chassis.failpoints import FailpointError

from kinguin_gateway.checking import Checker
from kinguin_gateway.domain.guard import (
    NoAnswer,
    NotSent,
    Outcome,
    Rejected,
    Reply,
    Step,
    Taken,
    Unreadable,
    answer_kind,
    classify,
    next_step,
)
from kinguin_gateway.domain.purchase import Intent, Purchase, PurchaseState
from kinguin_gateway.domain.switching import PauseCause, pause_cause
from kinguin_gateway.errors import (
    BuyingPaused,
    PurchaseInDoubt,
    PurchaseRefused,
    SupplierUnauthorized,
    SupplierUnavailable,
)
from kinguin_gateway.metrics import PURCHASES
from kinguin_gateway.ports.purchases import Begun, Purchases
from kinguin_gateway.ports.supplier import SendWindow, Supplier
from kinguin_gateway.settling import BUSY_WAIT, LEASE, Settler, tell_surplus

logger = structlog.get_logger(__name__)

# A caller that waits longer is answered "in doubt" while the attempt goes on to its own end.
MOST_SECONDS = 60.0
ANSWER_SECONDS = 0.1
# One proof of absence, one new attempt; a second proof within one call cannot be.
ROUNDS = 2
# It is told when its turn has come; whoever missed that asks again.
PARKED_WAIT = timedelta(seconds=30)


class Buyer:
    """Places orders. Several replicas may run; none relies on the others being alive, or on being told apart."""

    def __init__(
        self,
        purchases: Purchases,
        supplier: Supplier,
        settler: Settler,
        checker: Checker,
        *,
        clock: Clock,
        window: timedelta,
    ) -> None:
        """`window` is how long one attempt may take, from before its commit to the supplier's answer."""
        self._purchases = purchases
        self._supplier = supplier
        self._settler = settler
        self._checker = checker
        self._clock = clock
        self._window = window
        self._running: set[asyncio.Task[Purchase]] = set()

    async def place(self, intent: Intent, request_id: str, country_code: str = "") -> Purchase:
        """Return the placed purchase.

        Raises PurchaseRefused, PurchaseInDoubt; or BuyingPaused or SupplierUnavailable when certainly nothing was sent.
        A caller that goes away does not stop an attempt on its way: its end is written down all the same.
        """
        task = asyncio.create_task(self._place(intent, request_id, country_code))
        self._running.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait({task}, timeout=max(0.0, remaining(MOST_SECONDS) - ANSWER_SECONDS))
        if not done:
            raise PurchaseInDoubt.until(BUSY_WAIT)
        return task.result()

    @asynccontextmanager
    async def finishing(self, seconds: float) -> AsyncIterator[None]:
        """Run the block, and at its end give the attempts on their way this long to be written down."""
        yield
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)

    def _forget(self, task: asyncio.Task[Purchase]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, KeyferryError):
            logger.error("attempt ended unexpectedly, the purchase stays as it was written", exc_info=error)

    async def _place(self, intent: Intent, request_id: str, country_code: str) -> Purchase:
        purchase = await self._advance(intent, request_id, country_code)
        for _ in range(ROUNDS - 1):
            if purchase.state is PurchaseState.INTENDED and not purchase.parked:
                purchase = await self._advance(intent, request_id, country_code)
        match purchase.state:
            case PurchaseState.PLACED:
                return purchase
            case PurchaseState.REFUSED:
                raise PurchaseRefused.of(purchase.refusal)
            case PurchaseState.INTENDED if purchase.parked:
                raise BuyingPaused.until(PARKED_WAIT)
            case _:
                raise PurchaseInDoubt.until(BUSY_WAIT)

    async def _advance(self, intent: Intent, request_id: str, country_code: str) -> Purchase:
        stands = await self._purchases.stand(intent, request_id=request_id, window=self._window)
        step = Step.SEND if stands is None else next_step(stands.state, withdrawn=stands.withdrawn)
        if stands is not None and (stands.parked or step is Step.ANSWER):
            return stands
        unit_cents = None
        if step is Step.SEND:
            try:
                checked = await self._checker.check(intent, country_code)
            except SupplierUnauthorized as error:
                return await self._park(intent, request_id, error)
            unit_cents = checked.unit_cents
            if checked.refusal is not None:
                refused = await self._purchases.refuse(
                    intent, request_id=request_id, problem=checked.refusal, window=self._window
                )
                if refused is not None:
                    return refused
        return await self._attempt(intent, request_id, unit_cents)

    async def _park(self, intent: Intent, request_id: str, error: SupplierUnauthorized) -> Purchase:
        reason = error.metadata.get("detail") or error.message
        PURCHASES.labels("parked").inc()
        return await self._purchases.park(
            intent, request_id=request_id, cause=PauseCause.UNAUTHORIZED, reason=reason, window=self._window
        )

    async def _attempt(self, intent: Intent, request_id: str, unit_cents: int | None) -> Purchase:
        reply: Reply | None = None
        async with self._supplier.turn():
            # Before the commit: the window here must end before the row's deadline does.
            window = SendWindow(self._clock, self._window)
            begun = await self._purchases.begin(intent, request_id=request_id, window=self._window, lease=LEASE)
            if begun.opened:
                reply = await self._supplier.place_order(intent, window, unit_cents=unit_cents)
        if reply is not None:
            try:
                return await self._write_down(begun, reply)
            except (ServiceUnavailable, FailpointError) as error:
                # The row still says "in doubt", and so must we: unavailable would promise that nothing was sent.
                raise PurchaseInDoubt.until(BUSY_WAIT) from error
        if begun.claimed:
            return self._unless_in_doubt(await self._settler.settle(begun.purchase, begun.time), begun)
        return begun.purchase

    async def _write_down(self, begun: Begun, reply: Reply) -> Purchase:
        purchase, outcome = begun.purchase, classify(reply, begun.purchase.intent)
        PURCHASES.labels(outcome.name.lower()).inc()
        match outcome, reply:
            case Outcome.PLACED, Taken(order):
                look, verify = self._settler.first_look(), self._settler.verify_after(purchase, adopted=False)
                after = await self._purchases.record_taken(purchase, order, adopted=False, look=look, verify=verify)
                if after.supplier_order_id != order.supplier_order_id:
                    tell_surplus(after, order)
                    await self._purchases.record_verified(after, [order], again=timedelta(0))
                return after
            case Outcome.REFUSED, Rejected(_, problem) if (cause := pause_cause(problem)) is not PauseCause.NONE:
                reason = problem.detail or problem.kind
                return await self._purchases.record_parked(purchase, cause=cause, reason=reason)
            case Outcome.REFUSED, Rejected(_, problem):
                return await self._purchases.record_refused(purchase, problem)
            case Outcome.NOT_SENT, NotSent(why):
                after = await self._purchases.record_not_sent(purchase)
                if after.state is PurchaseState.REFUSED:
                    return after
                raise SupplierUnavailable(f"nothing was sent: {why}")
            case _:
                return await self._doubt(begun, reply)

    async def _doubt(self, begun: Begun, reply: Reply) -> Purchase:
        why = _why(reply, begun.purchase.intent)
        logger.warning("purchase in doubt", external_id=begun.purchase.intent.external_id, why=why)
        look = self._settler.first_look()
        purchase = await self._purchases.record_doubt(begun.purchase, why=why, look=look)
        if purchase.state is PurchaseState.IN_DOUBT:
            # Often it can be found at once. The time is the one before the attempt, so that nothing is proved by it.
            purchase = await self._settler.settle(purchase, begun.time)
        return self._unless_in_doubt(purchase, begun)

    def _unless_in_doubt(self, purchase: Purchase, begun: Begun) -> Purchase:
        if purchase.state is PurchaseState.IN_DOUBT:
            raise PurchaseInDoubt.until(self._settler.next_look(purchase, begun.time))
        return purchase


def _why(reply: Reply, intent: Intent) -> str:
    kind = answer_kind(reply, intent).value
    match reply:
        case Rejected(status, problem):
            return f"{kind}: {status} {problem.kind} {problem.detail} (trace {problem.trace})"
        case Unreadable(why) | NoAnswer(why):
            return f"{kind}: {why}"
        case _:
            return kind
