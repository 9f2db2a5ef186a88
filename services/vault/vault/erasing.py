"""Forgets a customer: their keys, and what is personal in what is kept of keys.

1 commit what this call does with one batch of keys    dies here: the repeat goes on with the next batch
2 delete the objects of the batch                      dies here: the sweep deletes them
3 commit that the customer is known by nothing         dies here: the repeat does it, and finds no keys any more
  any more, the audit fact, and the answer

A key that was done is nobody's: its owner's digest is gone, and with it the only way from the customer to the key. So
the batches that are done are not found again, and the answer of a repeat after a crash counts the rest.

What is not reached from here, and ends by itself: events of the last month in the outbox and in the streams, which name
the customer to audit; audit's own entries, which its `EraseCustomer` makes unreadable; and backups of the database.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import structlog
from chassis.clock import Clock
from chassis.errors import ServiceUnavailable
from chassis.failpoints import failpoint

from vault.crypto import Digests
from vault.domain.key import KeyRecord
from vault.domain.retention import Erasing, erasing_of
from vault.errors import KeysUnopened, ObjectStoreUnavailable
from vault.ports import Keys, Wish
from vault.shredding import ObjectRemover, count_shredded, shred

logger = structlog.get_logger(__name__)

BATCH = 100
DELETIONS_AT_ONCE = 10
# What an error names travels in HTTP/2 trailers, of which gRPC takes 8 KiB in all.
MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class EraseRequest:
    """A wish to forget a customer."""

    wish: Wish
    digest: bytes
    customer_id: str = field(repr=False)
    forfeit_unopened: bool


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done."""

    shredded_count: int = 0
    kept_count: int = 0
    object_pending_count: int = 0


class Eraser:
    """Forgets customers."""

    def __init__(self, keys: Keys, remover: ObjectRemover, digests: Digests, *, clock: Clock) -> None:
        self._keys = keys
        self._remover = remover
        self._digests = digests
        self._clock = clock

    async def erase(self, request: EraseRequest) -> Erased:
        """Forget a customer. Raises KeysUnopened, before anything is changed, and RequestIdReused."""
        owners = self._digests.owners(request.customer_id)
        async with self._keys.transaction() as transaction:
            earlier = await transaction.read_counts(request.wish.request_id, request.digest)
            if earlier is not None:
                return _erased(earlier)
            count, order_ids = await transaction.read_owed(owners, most=MOST_NAMED)
        if count and not request.forfeit_unopened:
            raise KeysUnopened(
                "the customer has paid for keys and never opened them; nothing was changed",
                metadata={"unopened_count": str(count), "order_ids": ",".join(order_ids)},
            )
        done = Erased()
        # It ends: what a batch has done is not found again.
        while batch := await self._erase_batch(request, owners):
            gone = [record for record, erasing in batch if erasing is Erasing.SHRED]
            # A store that is away is not asked again; the sweep asks it.
            pending = len(gone) if done.object_pending_count else await self._remove_all(gone)
            done = Erased(
                done.shredded_count + len(gone),
                done.kept_count + len(batch) - len(gone),
                done.object_pending_count + pending,
            )
        return await self._finish(request, owners, done)

    async def _erase_batch(self, request: EraseRequest, owners: Sequence[str]) -> Sequence[tuple[KeyRecord, Erasing]]:
        async with self._keys.transaction() as transaction:
            # A key that is sealed or still to be opened may have come since; without being forfeited it stays.
            records = await transaction.lock_owned(owners, limit=BATCH, with_owed=request.forfeit_unopened)
            judged = [(record, erasing_of(record, forfeit_unopened=request.forfeit_unopened)) for record in records]
            gone = [record for record, erasing in judged if erasing is Erasing.SHRED]
            await shred(transaction, gone, request.wish, now=self._clock.now())
            if records:
                await transaction.forget_owner([record.key_id for record in records])
            await failpoint("vault.erase.before_batch")
        await failpoint("vault.erase.after_batch")
        count_shredded(gone, how="erased")
        return judged

    async def _remove_all(self, records: Sequence[KeyRecord]) -> int:
        places = asyncio.Semaphore(DELETIONS_AT_ONCE)

        async def remove(record: KeyRecord) -> int:
            async with places:
                try:
                    await self._remover.remove(record)
                except (ObjectStoreUnavailable, ServiceUnavailable) as error:
                    logger.warning("an object is deleted later", key_id=record.key_id, why=error.message)
                    return 1
            return 0

        return sum(await asyncio.gather(*(remove(record) for record in records)))

    async def _finish(self, request: EraseRequest, owners: Sequence[str], done: Erased) -> Erased:
        counts = asdict(done)
        async with self._keys.transaction() as transaction:
            earlier = await transaction.read_counts(request.wish.request_id, request.digest)
            if earlier is None:
                await transaction.forget_access(owners)
                await transaction.tell_erased(request.wish, counts, now=self._clock.now())
                await transaction.keep_counts(request.wish.request_id, request.digest, counts)
            await failpoint("vault.erase.before_finish")
        await failpoint("vault.erase.after_finish")
        return done if earlier is None else _erased(earlier)


def _erased(counts: Mapping[str, int]) -> Erased:
    return Erased(counts["shredded_count"], counts["kept_count"], counts["object_pending_count"])
