"""Mends the differences of a report that can be mended without a person: what was bought too much, and untold keys."""

from datetime import datetime
from functools import partial

import structlog
from chassis.errors import KeyferryError
from chassis.failpoints import effect

from fulfillment.adopting import Adopter
from fulfillment.domain.model import KeyId, OrderId
from fulfillment.domain.reconciliation import Kind
from fulfillment.ports.reconciliation import Ledgers, Reports, Run

logger = structlog.get_logger(__name__)

BATCH = 100
# Beyond so many something is wrong as a whole, and for people: the rest is only told.
MOST_ADOPTED = 5_000
# What vault would open and our rows would not, or what our rows have never heard of.
_UNTOLD = (Kind.KEY_UNKNOWN_TO_ORDER, Kind.KEY_STATE_DISAGREES)


class Mending:
    """Mends. Doing it again does nothing again."""

    def __init__(self, reports: Reports, ledgers: Ledgers, adopter: Adopter) -> None:
        self._reports = reports
        self._ledgers = ledgers
        self._adopter = adopter

    async def return_surplus(self, run: Run, *, since: datetime) -> None:
        """Give back what was bought too much after `since`, while the supplier takes it."""
        after = 0
        while surplus := await self._reports.surplus(run, since=since, after=after, limit=BATCH):
            for each in surplus:
                if await effect(
                    "fulfillment.report.give_back",
                    partial(self._ledgers.give_back, each.external_id, each.supplier_order_id),
                ):
                    await self._reports.mended(run, each.position)
            after = surplus[-1].position

    async def adopt(self, run: Run) -> None:
        """Take in keys that vault has and nobody was told of; revoke what only our rows call revoked."""
        asked = dict[OrderId, frozenset[KeyId]]()
        for kind in _UNTOLD:
            after = 0
            while page := await self._reports.differences(run.run_id, kind=kind, after=after, limit=BATCH):
                for each in page:
                    order_id = OrderId(each.order_id)
                    if order_id not in asked and len(asked) >= MOST_ADOPTED:
                        logger.error("too many orders whose keys are to be taken in", report_id=run.report_id)
                        return
                    if order_id not in asked:
                        adopted = await self._adopt(order_id)
                        if adopted is None:
                            # The next report finds it as it is.
                            logger.warning("keys were not taken in", report_id=run.report_id, order_id=order_id)
                            return
                        asked[order_id] = adopted
                    if each.key_id in asked[order_id] and not each.mended:
                        await self._reports.mended(run, each.position)
                after = page[-1].position

    async def _adopt(self, order_id: OrderId) -> frozenset[KeyId] | None:
        try:
            return await self._adopter.adopt(order_id)
        except KeyferryError as error:
            logger.warning("an order's keys were not taken in", order_id=order_id, reason=error.reason)
            return None
