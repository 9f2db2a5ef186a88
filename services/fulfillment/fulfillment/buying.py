"""Buys: first it is written down what, then it is bought, and what came back is a signal.

1 plan: read what is known and offered   dies here: planned anew, from what is offered then
2 commit the plan                        dies here: the lease ends and the same is asked for
3 place the order                        dies here: as above; the same reference is the same purchase
4 commit the answer                      dies here: as above
"""

from collections.abc import Sequence
from dataclasses import replace

from chassis.failpoints import effect

from fulfillment import facts
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Purchase, State
from fulfillment.domain.planner import MOST_COUNTED, Known, Place, Plan, Planned, Unplannable, Wish, lane, plan
from fulfillment.domain.policy import signal_on_plan_refused, signal_on_refusal
from fulfillment.domain.product import Product
from fulfillment.ports.supplier import (
    Buying,
    Claimed,
    InDoubt,
    NoAnswer,
    NoProduct,
    Paused,
    PlaceAnswer,
    Placed,
    ProductAnswer,
    Refused,
    Supplier,
)
from fulfillment.products import Products
from fulfillment.working import Bench, Turn


class Buyer:
    """Plans and places what was claimed."""

    def __init__(self, bench: Bench, supplier: Supplier, products: Products) -> None:
        self._bench = bench
        self._supplier = supplier
        self._products = products

    async def plan(self, buying: Buying) -> Claimed | None:
        """Write down what is bought of a purchase, and return it to be placed."""
        known, product = await effect("fulfillment.plan.call", lambda: self._look(buying))
        async with self._bench.turn(buying, "plan") as turn:
            if turn.is_stale or turn.purchase.state is not State.PENDING:
                return None
            if known is None or isinstance(product, NoAnswer):
                await turn.move(turn.purchase, Signal.NO_ANSWER)
                return None
            return await self._planned(
                turn, buying, product, [each for item_id, each in known if item_id == turn.purchase.item_id]
            )
        return None

    async def _look(self, buying: Buying) -> tuple[Sequence[tuple[str, Known]] | None, ProductAnswer]:
        """Read what the supplier's side knows of the order, and what is offered: anew, where that would not do."""
        known = await self._supplier.known_purchases(buying.purchase.order_id)
        product = await self._products.read(buying.item.product_id)
        if known is not None and isinstance(self._try(buying, product, ()), Unplannable):
            product = await self._products.read(buying.item.product_id, fresh=True)
        return known, product

    def _try(self, buying: Buying, product: ProductAnswer, known: Sequence[Known]) -> Plan | Unplannable | None:
        if isinstance(product, NoAnswer):
            return None
        return plan(self._wish(buying, buying.purchase, ()), product if isinstance(product, Product) else None, known)

    def _wish(self, buying: Buying, own: Purchase, line: Sequence[Purchase]) -> Wish:
        return Wish(
            order_id=own.order_id,
            item=buying.item,
            quantity=own.quantity,
            own=Place(own.external_id, own.chunk, own.attempt),
            country_code=buying.country_code,
            limit=self._bench.mover.policy.unit_limit(buying.item.max_unit_price),
            next_chunk=max((each.chunk for each in line), default=own.chunk) + 1,
            avoid=frozenset(
                each.offer_id for each in line if each.chunk == own.chunk and each.refusal and each.offer_id
            ),
        )

    async def _planned(
        self, turn: Turn, buying: Buying, product: Product | NoProduct, known: Sequence[Known]
    ) -> Claimed | None:
        own, line = turn.purchase, turn.line.purchases
        # What our database knows was not forgotten; but our own reference may have been asked for under another plan.
        rows = {each.external_id for each in line} - {own.external_id}
        forgotten = [each for each in known if each.external_id not in rows]
        offered = product if isinstance(product, Product) else None
        found = plan(self._wish(buying, own, line), offered, forgotten)
        if isinstance(found, Unplannable):
            refused = replace(own, refusal=found.kind)
            await turn.move(refused, signal_on_plan_refused(own, found.kind, self._bench.mover.policy, turn.now))
            return None
        if offered is not None:
            await turn.transaction.name_product(own.order_id, own.item_id, offered.name)
        await self._add_more(turn, buying, found, offered)
        if not found.own.quantity:
            await turn.move(own, Signal.PLAN_COVERED)
            return None
        written = _written(own, found.own, offered)
        commands = await turn.go_on(written, Signal.PLAN_MADE)
        return Claimed(replace(buying, purchase=turn.moved), commands)

    async def _add_more(self, turn: Turn, buying: Buying, found: Plan, product: Product | None) -> None:
        if not found.more:
            return
        own = turn.purchase
        waiting = await turn.transaction.waiting(buying.customer_id, most=MOST_COUNTED)
        more = [
            _written(
                Purchase(
                    external_id=each.external_id,
                    order_id=own.order_id,
                    item_id=own.item_id,
                    quantity=each.quantity,
                    state=State.PENDING,
                    state_time=turn.now,
                    chunk=each.chunk,
                    attempt=each.attempt,
                    replaced_key_id=own.replaced_key_id,
                    lane=max(lane(waiting + number), own.lane),
                ),
                each,
                product,
            )
            for number, each in enumerate(found.more)
        ]
        await turn.transaction.add_purchases(more, run_at=turn.now)

    async def place(self, buying: Buying) -> Claimed | None:
        """Buy, or learn what became of it."""
        answer = await effect("fulfillment.place.call", lambda: self._supplier.place(buying))
        async with self._bench.turn(buying, "place") as turn:
            await self._placed(turn, answer)
        return None

    async def _placed(self, turn: Turn, answer: PlaceAnswer) -> None:
        purchase = turn.purchase
        match answer:
            case Placed():
                await note_placed(turn, answer)
            case Refused(kind):
                refused = replace(purchase, refusal=kind)
                await turn.move(refused, signal_on_refusal(purchase, kind, self._bench.mover.policy))
            case InDoubt(ask_after):
                await turn.move(purchase, Signal.ORDER_IN_DOUBT, at_least=ask_after)
            case Paused(ask_after):
                await turn.move(purchase, Signal.BUYING_PAUSED, at_least=ask_after)
            case NoAnswer():
                await turn.move(purchase, Signal.NO_ANSWER)


async def note_placed(turn: Turn, answer: Placed) -> None:
    """Move the turn's purchase as the supplier took it, and tell of it."""
    purchase = turn.purchase
    placed = replace(
        purchase,
        supplier_order_id=answer.supplier_order_id,
        charged=answer.charged_cents,
        place_time=purchase.place_time or turn.now,
    )
    await turn.transaction.name_product(placed.order_id, placed.item_id, answer.product_name)
    await facts.tell_purchased(turn.transaction, placed, now=turn.now)
    await turn.move(placed, Signal.ORDER_PLACED)
    if turn.moved is placed and not purchase.supplier_order_id:
        # Given up as too old, and bought after all: whoever looks at it has to see that.
        await turn.transaction.save_purchase(placed, now=turn.now, run_at=purchase.next_time)
        turn.has_news = True


def _written(purchase: Purchase, planned: Planned, product: Product | None) -> Purchase:
    return replace(
        purchase,
        quantity=planned.quantity,
        offer_id=planned.offer_id,
        unit_limit=planned.unit_limit,
        refusal="",
        is_preorder=product is not None and product.preorder,
        release_time=product.release_time if product is not None and product.preorder else None,
    )
