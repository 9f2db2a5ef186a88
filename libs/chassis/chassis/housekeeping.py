"""Forgets what nobody can ask for any more: events long published, event ids long handled, answers long given.

One retention for all three: an event that is published again out of the outbox must still be known as a repeat.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Column, ColumnElement, Table, delete, func, select, tuple_

from chassis.database import Database
from chassis.errors import ServiceUnavailable
from chassis.tables import INBOX, OUTBOX, REQUEST_LOG

logger = structlog.get_logger(__name__)

RETENTION = timedelta(days=30)
ROUND_SECONDS = 600.0
# Rows of one statement: few enough to lock and log in milliseconds.
BATCH = 1000
# Statements of one round and table; what is left waits for the next round.
MOST_BATCHES = 100


@dataclass(frozen=True, slots=True)
class Aging:
    """A table whose rows end by age, where `only` holds."""

    table: Table
    age: Column[Any]
    only: Sequence[ColumnElement[bool]] = ()
    retention: timedelta = RETENTION


# A dead letter is not here: it waits for a person, however long that takes.
_AGING = (
    Aging(OUTBOX, OUTBOX.c.create_time, (OUTBOX.c.publish_time.is_not(None),)),
    Aging(INBOX, INBOX.c.receive_time),
    Aging(REQUEST_LOG, REQUEST_LOG.c.create_time),
)


class Housekeeper:
    """Deletes in small batches, now and then. Any number of replicas may run it."""

    def __init__(self, database: Database, more: Sequence[Aging] = ()) -> None:
        """`more` are tables of the service's own."""
        self._database = database
        self._aging = (*_AGING, *more)

    async def run(self) -> None:
        """Clean until canceled."""
        while True:
            # Spread, so that replicas which started together do not clean together.
            await asyncio.sleep(ROUND_SECONDS * (0.5 + random.random()))  # noqa: S311 # not a secret
            try:
                await self.clean()
            except ServiceUnavailable as error:
                logger.warning("housekeeping is put off", why=error.message)

    async def clean(self) -> int:
        """Delete what is past its retention, and return how many rows that were."""
        return sum([await self._clean(aging) for aging in self._aging])

    async def _clean(self, aging: Aging) -> int:
        deleted = 0
        for _ in range(MOST_BATCHES):
            count = await self._delete_batch(aging)
            deleted += count
            if count < BATCH:
                break
        return deleted

    async def _delete_batch(self, aging: Aging) -> int:
        key = tuple_(*aging.table.primary_key)
        old = (
            select(*aging.table.primary_key)
            .where(aging.age < func.now() - aging.retention, *aging.only)
            .order_by(aging.age)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self._database.transaction("housekeeping") as connection:
            return (await connection.execute(delete(aging.table).where(key.in_(old)))).rowcount
