"""Ends keys whose retention has passed, and finishes what was left of those that were destroyed.

Any number of replicas sweep at the same time: what one has locked or leased the others pass over. A round is bounded;
what it leaves waits for the next one.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import structlog
from chassis.clock import Clock
from chassis.errors import ServiceUnavailable
from chassis.failpoints import failpoint

from vault.domain.key import KeyRecord
from vault.domain.retention import Retention
from vault.errors import ObjectStoreUnavailable
from vault.metrics import OBJECTS_LEFT, OBJECTS_LEFT_AGE
from vault.ports import Keys, Wish
from vault.shredding import DELETE_LEASE, ObjectRemover, count_shredded, shred

logger = structlog.get_logger(__name__)

BATCH = 100
# Batches of one round and kind.
MOST_BATCHES = 20
# With a store that lets every call run into its deadline, a batch of deletions still ends within its lease.
DELETIONS_AT_ONCE = 10
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
_REASON = "its retention has passed"
_CALLER = "vault"


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round did, and whether it left anything that was due."""

    expired_count: int = 0
    deleted_object_count: int = 0
    more: bool = False


class Sweeper:
    """Sweeps at a fixed pace, and on demand."""

    def __init__(
        self, keys: Keys, remover: ObjectRemover, *, clock: Clock, retention: Retention, every_seconds: float
    ) -> None:
        self._keys = keys
        self._remover = remover
        self._clock = clock
        self._retention = retention
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Sweep until canceled."""
        while True:
            # Spread, so that replicas which started together do not sweep together.
            await asyncio.sleep(self._every_seconds * (0.5 + random.random()))  # noqa: S311 # not a secret
            try:
                await self.sweep()
            except ServiceUnavailable as error:
                logger.warning("sweeping is put off", why=error.message)

    async def answer(self, request_id: str, digest: bytes) -> Swept:
        """Sweep for a request, once: its repeat gets the same answer. Raises RequestIdReused."""
        async with self._keys.transaction() as transaction:
            earlier = await transaction.read_counts(request_id, digest)
        if earlier is not None:
            return _swept(earlier)
        swept = await self.sweep(request_id)
        async with self._keys.transaction() as transaction:
            # Of two that ran at the same time the first answer stands.
            earlier = await transaction.read_counts(request_id, digest)
            if earlier is None:
                await transaction.keep_counts(request_id, digest, asdict(swept))
            await failpoint("vault.sweep.before_answer")
        await failpoint("vault.sweep.after_answer")
        return swept if earlier is None else _swept(earlier)

    async def sweep(self, request_id: str = "") -> Swept:
        """Do one round."""
        expired, more_keys = await self._expire(request_id)
        deleted, more_objects = await self._delete()
        async with self._keys.transaction() as transaction:
            left, earliest = await transaction.read_objects_left()
        OBJECTS_LEFT.set(left)
        OBJECTS_LEFT_AGE.set(0 if earliest is None else (self._clock.now() - earliest).total_seconds())
        return Swept(expired, deleted, more_keys or more_objects)

    async def _expire(self, request_id: str) -> tuple[int, bool]:
        count = 0
        for _ in range(MOST_BATCHES):
            records = await self._expire_batch(request_id)
            count += len(records)
            if len(records) < BATCH:
                return count, False
        return count, True

    async def _expire_batch(self, request_id: str) -> Sequence[KeyRecord]:
        wish = Wish(request_id, _CALLER, _REASON)
        async with self._keys.transaction() as transaction:
            now = self._clock.now()
            records = await transaction.lock_expired(self._retention, limit=BATCH, now=now)
            await shred(transaction, records, wish, now=now, expired=True)
            await failpoint("vault.sweep.before_expire")
        await failpoint("vault.sweep.after_expire")
        count_shredded(records, how="expired")
        return records

    async def _delete(self) -> tuple[int, bool]:
        count = 0
        for _ in range(MOST_BATCHES):
            async with self._keys.transaction() as transaction:
                now = self._clock.now()
                leased = await transaction.lease_objects(limit=BATCH, now=now, until=now + DELETE_LEASE)
                await failpoint("vault.sweep.before_lease")
            await failpoint("vault.sweep.after_lease")
            deleted = await self._delete_all(leased)
            count += deleted
            if len(leased) < BATCH:
                return count, False
            if not deleted:
                # A store that is away is not asked for the next ones.
                break
        return count, True

    async def _delete_all(self, leased: Sequence[tuple[KeyRecord, int]]) -> int:
        places = asyncio.Semaphore(DELETIONS_AT_ONCE)

        async def delete(record: KeyRecord, tries: int) -> bool:
            async with places:
                return await self._delete_one(record, tries)

        return sum(await asyncio.gather(*(delete(record, tries) for record, tries in leased)))

    async def _delete_one(self, record: KeyRecord, tries: int) -> bool:
        try:
            await self._remover.remove(record)
        except ObjectStoreUnavailable as error:
            logger.warning("an object is deleted later", key_id=record.key_id, why=error.message, tries=tries)
            await self._wait(record, tries)
            return False
        except ServiceUnavailable as error:
            # The lease ends, and then it is deleted once more.
            logger.warning("a deletion was not noted", key_id=record.key_id, why=error.message)
            return False
        return True

    async def _wait(self, record: KeyRecord, tries: int) -> None:
        wait = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
        try:
            async with self._keys.transaction() as transaction:
                await transaction.object_waits(record.key_id, until=self._clock.now() + wait)
                await failpoint("vault.sweep.before_wait")
            await failpoint("vault.sweep.after_wait")
        except ServiceUnavailable as error:
            logger.warning("a wait was not noted", key_id=record.key_id, why=error.message)


def _swept(counts: Mapping[str, int]) -> Swept:
    return Swept(counts["expired_count"], counts["deleted_object_count"], bool(counts["more"]))
