"""Claims purchases that are due and acts on them: the table says what is to be done, others do it.

1 commit the claim (state, lease)  dies here: the lease ends and another worker asks the same question again
2 act on the table's commands      dies here: as above; every act may be repeated
3 commit the answer                dies here: as above
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from chassis.errors import ServiceUnavailable
from chassis.failpoints import FailpointError, failpoint

from fulfillment.buying import Buyer
from fulfillment.collecting import KeyCollector
from fulfillment.domain.machine import Command, decide
from fulfillment.domain.planner import LANES
from fulfillment.domain.policy import is_claimable, is_too_old, signal_on_claim
from fulfillment.metrics import UNREADABLE
from fulfillment.moving import moved_to, summarize
from fulfillment.ports.orders import OrderTransaction
from fulfillment.ports.supplier import Buying, Claimed
from fulfillment.taking_back import Taker
from fulfillment.working import LEASE, Act, Bench

Take = Callable[[OrderTransaction, Sequence[Buying], datetime], Awaitable[Sequence[Claimed]]]

logger = structlog.get_logger(__name__)

# Buying may take the supplier as long as its own timeout, and a settling search on top.
ACT_SECONDS = 75.0
EXTEND_SECONDS = 4.0
# Planning leads to placing, and nothing else leads to anything.
MOST_STEPS = 3
# What cannot even be claimed is no hurry: somebody has to mend a row, or the code.
PUT_OFF = timedelta(minutes=5)
FIRST_LANES = (0,)
LATER_LANES = tuple(range(1, LANES))


class Progress:
    """Works on purchases. Any number of replicas may."""

    def __init__(self, bench: Bench, buyer: Buyer, collector: KeyCollector, taker: Taker) -> None:
        self._bench = bench
        self._first_later = 0
        self._acts: Mapping[Command, Act] = {
            Command.PLAN_PURCHASE: buyer.plan,
            Command.PLACE_ORDER: buyer.place,
            Command.SETTLE_ORDER: buyer.place,
            Command.COLLECT_KEYS: collector.collect,
            Command.WITHDRAW_ORDER: taker.withdraw,
            Command.REVOKE_KEYS: taker.revoke,
            Command.RETURN_KEYS: taker.give_back,
            Command.SHRED_KEYS: taker.shred,
        }

    async def claim_first(self, limit: int) -> Sequence[Claimed]:
        """Claim what is due of customers who wait for little."""
        return await self._claim(limit, FIRST_LANES)

    async def claim_later(self, limit: int) -> Sequence[Claimed]:
        """Claim what is due of customers who wait for much, from each lane a part."""
        # Each lane is the first one in turn, so that a single free place is not always the same one's.
        self._first_later = (self._first_later + 1) % len(LATER_LANES)
        return await self._claim(limit, LATER_LANES[self._first_later :] + LATER_LANES[: self._first_later])

    async def _claim(self, limit: int, lanes: Sequence[int]) -> Sequence[Claimed]:
        try:
            return await self._claim_with(self._take_all, limit, lanes)
        except (ServiceUnavailable, FailpointError):
            raise
        except Exception:  # whatever is wrong with one purchase or its order, the others of its lane do not wait for it
            logger.exception("claiming failed unexpectedly; once more, each by itself")
            return await self._claim_with(self._take_apart, limit, lanes)

    async def _claim_with(self, take: Take, limit: int, lanes: Sequence[int]) -> Sequence[Claimed]:
        now = self._bench.clock.now()
        async with self._bench.orders.transaction() as transaction:
            due = await _due(transaction, limit, lanes, now)
            if not due:
                return ()
            claimed = await take(transaction, due, now)
            # Not by the transaction's name: most claims find nothing, and commit nothing.
            await failpoint("fulfillment.claim.before_commit")
        await failpoint("fulfillment.claim.after_commit")
        return claimed

    async def _take_all(self, transaction: OrderTransaction, due: Sequence[Buying], now: datetime) -> Sequence[Claimed]:
        claimed = [await self._take(transaction, buying, now) for buying in due]
        changed = [
            was.purchase.order_id
            for was, each in zip(due, claimed, strict=True)
            if not each.commands or was.purchase.state is not each.buying.purchase.state
        ]
        for order_id in dict.fromkeys(changed):
            await summarize(transaction, order_id, now=now)
        return claimed

    async def _take_apart(
        self, transaction: OrderTransaction, due: Sequence[Buying], now: datetime
    ) -> Sequence[Claimed]:
        """Take what can be taken; of the rest nothing is written but when it is tried again."""
        claimed = list[Claimed]()
        for buying in due:
            try:
                async with transaction.isolated():
                    claimed += await self._take_all(transaction, [buying], now)
            except (ServiceUnavailable, FailpointError):
                raise
            except Exception:  # as above
                UNREADABLE.labels("order").inc()
                logger.exception("a purchase cannot be claimed", order_id=buying.purchase.order_id)
                await transaction.put_off(buying.purchase.external_id, run_at=now + PUT_OFF)
        return claimed

    async def _take(self, transaction: OrderTransaction, buying: Buying, now: datetime) -> Claimed:
        before = buying.purchase
        if not is_claimable(before):
            # It stays as it is, and nobody looks at it before a person has; its order says so.
            UNREADABLE.labels("purchase").inc()
            logger.error("a purchase cannot be read and is set aside", external_id=before.external_id)
            await transaction.save_purchase(before, now=now, run_at=None)
            return Claimed(buying, ())
        transition = decide(before.state, signal_on_claim(before, now))
        if transition is None:
            raise LookupError("a purchase was due in a state that is claimed by nobody")
        moved = before
        if transition.state is not before.state:
            moved = moved_to(before, transition.state, transition.reason_after(before.reason), now)
        elif is_too_old(before, now):
            moved = replace(before, overdue_time=before.overdue_time or now)
        if transition.commands:
            moved = await transaction.lease(moved, until=now + LEASE)
        else:
            await transaction.save_purchase(moved, now=now, run_at=None)
        return Claimed(replace(buying, purchase=moved), transition.commands)

    async def extend(self, claimed: Sequence[Claimed]) -> None:
        """Keep what is under way from others for another while."""
        now = self._bench.clock.now()
        under_way = {each.buying.purchase.external_id: each.buying.purchase.claim for each in claimed}
        async with self._bench.orders.transaction("extend") as transaction:
            await transaction.extend_leases(under_way, now=now, until=now + LEASE)

    async def act(self, claimed: Claimed) -> None:
        """Do what the claim's transition asks for, and what that leads to under the same lease."""
        next_claimed: Claimed | None = claimed
        for _ in range(MOST_STEPS):
            if next_claimed is None:
                return
            current, next_claimed = next_claimed, None
            for command in current.commands:
                next_claimed = await self._acts[command](current.buying)


async def _due(transaction: OrderTransaction, limit: int, lanes: Sequence[int], now: datetime) -> Sequence[Buying]:
    """Lock what is due: from each lane its share, the first ones more; what one lane does not need is another's."""
    shares = {lane: (limit + len(lanes) - 1 - place) // len(lanes) for place, lane in enumerate(lanes)}
    shares = {lane: share for lane, share in shares.items() if share}
    due = {each.purchase.external_id: each for each in await transaction.lock_due(shares, now=now)}
    taken = Counter(each.purchase.lane for each in due.values())
    for lane in lanes:
        rest = limit - len(due)
        if rest <= 0:
            break
        # A lane that gave less than its share is empty; of another, what is locked already comes again first.
        if taken[lane] >= shares.get(lane, 0):
            more = await transaction.lock_due({lane: taken[lane] + rest}, now=now)
            due |= {each.purchase.external_id: each for each in more[: taken[lane] + rest]}
    return list(due.values())
