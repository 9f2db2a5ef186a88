"""What every act on a claimed purchase shares: it reads the purchase anew, and writes what came back as one move."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from chassis.clock import Clock

from fulfillment.domain.machine import Command, Signal, decide
from fulfillment.domain.model import Fulfillment, Key, Line, Purchase
from fulfillment.moving import Mover, loaded, summarize
from fulfillment.ports.orders import Orders, OrderTransaction
from fulfillment.ports.supplier import Buying, Claimed

# Short, so that a dead worker's purchases are soon another's; what is under way has its lease extended.
LEASE = timedelta(seconds=15)

Act = Callable[[Buying], Awaitable[Claimed | None]]


class Turn:
    """A purchase as it is now, in a transaction that holds its order. `moved` is what it comes to."""

    def __init__(
        self, transaction: OrderTransaction, found: Fulfillment, buying: Buying, mover: Mover, now: datetime
    ) -> None:
        self.transaction = transaction
        self.now = now
        self.line, read = _present(found, buying.purchase)
        self.is_stale = read.claim != buying.purchase.claim
        """Whether somebody else has claimed the purchase meanwhile."""
        # Under its own claim, a worker that was overtaken does not end the other's lease.
        self.purchase = replace(read, claim=buying.purchase.claim)
        self.moved = self.purchase
        self.has_news = False
        """Whether the order changed in another way than by the purchase's state."""
        self._mover = mover

    @property
    def keys(self) -> Sequence[Key]:
        """Return the purchase's keys."""
        return self.line.keys_of(self.purchase.external_id)

    async def move(
        self, purchase: Purchase, signal: Signal, *, at_least: timedelta | None = None, at_once: bool = False
    ) -> None:
        """Move the purchase, as the answer changed it. No news leave it to whoever has claimed it meanwhile."""
        transition = decide(purchase.state, signal)
        if self.is_stale and transition is not None and transition.state is self.purchase.state:
            return
        self.moved = await self._mover.move(
            self.transaction, purchase, signal, now=self.now, at_least=at_least, at_once=at_once
        )

    async def go_on(self, purchase: Purchase, signal: Signal) -> tuple[Command, ...]:
        """Move the purchase and keep it; return what is to be done next."""
        self.moved, commands = await self._mover.go_on(
            self.transaction, purchase, signal, now=self.now, until=self.now + LEASE
        )
        return commands


class Bench:
    """Where acts write down what came of them."""

    def __init__(self, orders: Orders, mover: Mover, clock: Clock) -> None:
        self.orders = orders
        self.mover = mover
        self.clock = clock

    @asynccontextmanager
    async def turn(self, buying: Buying, name: str) -> AsyncIterator[Turn]:
        """Open a turn at a claimed purchase; at its end the order is summarized if the purchase has moved.

        Another worker may have moved it since the claim. What the block raises leaves nothing.
        """
        now = self.clock.now()
        async with self.orders.transaction(name) as transaction:
            order_id = buying.purchase.order_id
            turn = Turn(transaction, await loaded(transaction, order_id), buying, self.mover, now)
            yield turn
            before, after = turn.purchase, turn.moved
            if turn.has_news or (before.state, before.reason) != (after.state, after.reason):
                await summarize(transaction, order_id, now=now)


def _present(found: Fulfillment, claimed: Purchase) -> tuple[Line, Purchase]:
    for line in found.lines:
        for purchase in line.purchases:
            if purchase.external_id == claimed.external_id:
                return line, purchase
    raise LookupError("a purchase that was claimed is not there")
