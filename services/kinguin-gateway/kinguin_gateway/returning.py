"""Gives keys back: those that fulfillment revoked, and by itself every order that was bought too much.

1 commit that it is asked for        dies here: whoever looks next asks the supplier
2 count the request, then send it    dies here: the key states tell whether it was taken, else it is sent again
3 write what came of it              dies here: as above

The supplier takes one return of an order, ever, so that sending again can do no harm; but its second answer is a
refusal, which then says nothing about the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from kinguin_gateway.domain.guard import NotSent, Rejected
from kinguin_gateway.domain.looking import Pace, gap
from kinguin_gateway.domain.purchase import Problem, Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.domain.refunds import paid_back_cents
from kinguin_gateway.domain.returning import (
    MOST_LOOKS,
    MOST_SENT,
    KeyReturn,
    ReturnReply,
    ReturnState,
    TakenReturn,
    excluded_by,
    is_clear_no,
    may_be_ours,
    progress,
)
from kinguin_gateway.errors import (
    PurchaseNotPlaced,
    PurchaseUnknown,
    ReturnNotAllowed,
    SupplierUnauthorized,
    SupplierUnavailable,
)
from kinguin_gateway.metrics import RETURNS
from kinguin_gateway.ports.purchases import SealedKeys
from kinguin_gateway.ports.returns import Returns
from kinguin_gateway.ports.supplier import Supplier
from kinguin_gateway.settling import Settler

logger = structlog.get_logger(__name__)

# Two reads of the supplier and its answer to the request.
MARGIN = timedelta(seconds=5)
_OVERDUE = Problem("", "the supplier took the return, but its keys have not gone back")
_UNCLEAR = Problem("", "no request of the return got a clear answer")


class Returner:
    """Sees returns through to their end. Any number of replicas may; of two at one return, one works."""

    def __init__(
        self,
        purchases: SealedKeys,
        returns: Returns,
        supplier: Supplier,
        settler: Settler,
        *,
        pace: Pace,
        call_limit: timedelta,
        chance: Callable[[], float],
    ) -> None:
        self._purchases = purchases
        self._returns = returns
        self._supplier = supplier
        self._settler = settler
        self._pace = pace
        self._chance = chance
        self.handle_limit = 3 * call_limit + MARGIN

    async def give_back(self, external_id: str, supplier_order_id: str, request_id: str) -> KeyReturn:
        """Ask for the return of the order that a purchase keeps, or of another one under its reference.

        Asked again it tells how far that is. Raises ReturnNotAllowed where the supplier's rules exclude it, or where
        the order is not what was asked for: nothing was asked. Raises PurchaseUnknown or PurchaseNotPlaced where there
        is nothing to give back.
        """
        purchase = await self._purchases.find(external_id)
        if purchase is None:
            raise PurchaseUnknown("no purchase was ever asked for under this external id")
        is_own = supplier_order_id in {"", purchase.supplier_order_id}
        # While it is in doubt which order it keeps, none is surplus. One that was refused keeps none.
        if purchase.state is not PurchaseState.PLACED and (is_own or purchase.state is not PurchaseState.REFUSED):
            raise PurchaseNotPlaced("the purchase has no supplier order", metadata={"state": purchase.state.value})
        wanted = supplier_order_id or purchase.supplier_order_id
        known = await self._known(external_id, wanted)
        if known is None and is_own:
            await self._check_rules(purchase)
            known = await self._returns.ask(purchase, request_id=request_id)
        elif known is None:
            known = await self._ask_surplus(purchase, wanted)
        if known.state is ReturnState.ASKED and await self._returns.claim(known, lease=self.handle_limit):
            return await self.work(known)
        return known

    async def _ask_surplus(self, purchase: Purchase, supplier_order_id: str) -> KeyReturn:
        """Search for an order that nobody noticed yet, and write down that whatever is surplus is to be given back."""
        external_id = purchase.intent.external_id
        _, now = await self._returns.delivered_since(external_id)
        others = await self._settler.find_others(purchase, now)
        await self._returns.ask_surplus(purchase, others.surplus)
        if (known := await self._known(external_id, supplier_order_id)) is not None:
            return known
        metadata = {"supplier_order_id": supplier_order_id}
        if any(order.supplier_order_id == supplier_order_id for order in others.strange):
            rule = "it is not what the purchase asked for, and a person must look at it"
            raise ReturnNotAllowed(f"the order is not given back: {rule}", metadata={**metadata, "rule": rule})
        if not others.complete:
            raise SupplierUnavailable("the supplier does not show all orders of the reference; nothing was asked")
        raise PurchaseUnknown("the supplier has no such order under the purchase's reference", metadata=metadata)

    async def _known(self, external_id: str, supplier_order_id: str) -> KeyReturn | None:
        known = (await self._returns.of_purchases([external_id])).get(external_id, ())
        return next((each for each in known if each.supplier_order_id == supplier_order_id), None)

    async def _check_rules(self, purchase: Purchase) -> None:
        order = await self._supplier.read_order(purchase.supplier_order_id)
        if order is None:
            raise SupplierUnavailable("the supplier does not show the order; nothing was asked")
        since, now = await self._returns.delivered_since(purchase.intent.external_id)
        if rule := excluded_by(purchase.intent, order, delivered_since=since, now=now):
            metadata = {"supplier_order_id": purchase.supplier_order_id, "rule": rule}
            raise ReturnNotAllowed(f"the supplier takes nothing back: {rule}", metadata=metadata)

    async def claim(self, limit: int) -> Sequence[KeyReturn]:
        """Lease returns that are due, for longer than `work` may take."""
        return await self._returns.claim_due(limit, lease=self.handle_limit)

    async def handle(self, known: KeyReturn) -> None:
        """Take one return a step further."""
        await self.work(known)

    async def work(self, known: KeyReturn) -> KeyReturn:
        """Take one return, leased to the caller, a step further and write down how far it is."""
        try:
            order = await self._supplier.read_order(known.supplier_order_id)
        except (SupplierUnavailable, SupplierUnauthorized) as error:
            logger.warning("return was not looked at", supplier_order_id=known.supplier_order_id, why=error.message)
            return await self._write(known, known, None)
        if order is not None and (moved := _moved(known, order)).state is not known.state:
            return await self._write(known, moved, order)
        if known.state is ReturnState.ASKED:
            return await self._send(known, order)
        counted = known if order is None else _moved(known, order)
        if known.looks < MOST_LOOKS:
            return await self._write(known, counted, order)
        # Returned and not paid back is for reconciliation to tell; not even returned is for a person, now.
        given_up = counted if known.state is ReturnState.RETURNED else _refused(counted, _OVERDUE)
        return await self._write(known, given_up, order, ended=True)

    async def _send(self, known: KeyReturn, order: SupplierOrder | None) -> KeyReturn:
        if known.sent_count >= MOST_SENT:
            return await self._write(known, _refused(known, _UNCLEAR), order)
        if not await self._returns.count_sending(known):
            return known
        counted = replace(known, sent_count=known.sent_count + 1)
        reply = await self._supplier.return_keys(known.supplier_order_id)
        return await self._write(known, _after(counted, reply, sent_before=known.sent_count), order)

    async def _write(
        self, before: KeyReturn, after: KeyReturn, order: SupplierOrder | None, *, ended: bool = False
    ) -> KeyReturn:
        looks = 0 if after.state is not before.state else before.looks + 1
        ended = ended or after.state in {ReturnState.REFUNDED, ReturnState.REFUSED}
        look = None if ended else gap(self._pace, looks, self._chance())
        if after.state is not before.state:
            RETURNS.labels(after.state.value).inc()
        if after.state is ReturnState.REFUSED:
            logger.error(
                "keys were not taken back",
                supplier_order_id=after.supplier_order_id,
                external_id=after.external_id,
                surplus=after.surplus,
                kind=after.refusal.kind,
                why=after.refusal.detail,
                trace=after.refusal.trace,
            )
        return await self._returns.record(replace(after, looks=looks), order, look=look)


def _moved(known: KeyReturn, order: SupplierOrder) -> KeyReturn:
    """Return the return as the order's key states tell it; they never take it back."""
    state, returned, refunded = progress(order)
    if state is ReturnState.ACCEPTED and (known.state is not ReturnState.ASKED or not returned):
        state = known.state
    if known.state is ReturnState.REFUNDED:
        state = known.state
    charged, paid_back = order.charged_cents, paid_back_cents(order)
    return replace(
        known,
        state=state,
        returned_count=returned,
        refunded_count=refunded,
        charged_cents=known.charged_cents if charged is None else charged,
        refunded_cents=known.refunded_cents if paid_back is None else paid_back,
    )


def _after(known: KeyReturn, reply: ReturnReply, *, sent_before: int) -> KeyReturn:
    match reply:
        case TakenReturn():
            return replace(known, state=ReturnState.ACCEPTED)
        case NotSent():
            return replace(known, sent_count=sent_before)
        case Rejected() if may_be_ours(reply, sent_before):
            # Its keys will tell; if they do not go back, a person is told.
            return replace(known, state=ReturnState.ACCEPTED)
        case Rejected(_, problem) if is_clear_no(reply):
            return _refused(known, problem)
        case _:
            return known


def _refused(known: KeyReturn, problem: Problem) -> KeyReturn:
    return replace(known, state=ReturnState.REFUSED, refusal=problem)
