"""Destroys keys: one way for all who do, whether they were asked to, or a key's time or its owner's is over.

1 commit SHREDDED, the wrapped DEK gone     dies here: nobody can open it any more; the sweep goes on at 2
2 delete the object                         dies here: the sweep deletes what is not there
3 commit that the object is gone            dies here: as above

Nothing waits for the object store: while it is down keys are destroyed all the same, and their objects, which then open
for nobody, are deleted later.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from chassis.clock import Clock
from chassis.failpoints import effect, failpoint

from vault.domain.delivery import Act, Delivery
from vault.domain.key import KeyRecord
from vault.metrics import KEYS_TAKEN_BACK
from vault.ports import Keys, KeyTransaction, ObjectStore, Wish

logger = structlog.get_logger(__name__)

# Longer than a replica takes for all the deletions that it begins at once: then another one takes them over.
DELETE_LEASE = timedelta(seconds=120)


async def shred(
    transaction: KeyTransaction, records: Sequence[KeyRecord], wish: Wish, *, now: datetime, expired: bool = False
) -> None:
    """Destroy the DEKs of keys that the transaction has locked, note it and tell of it."""
    if not records:
        return
    key_ids = [record.key_id for record in records]
    # Who was asked to destroy a key deletes its object too; the sweep's next step is to lease what is due.
    delete_at = now if expired else now + DELETE_LEASE
    await transaction.shred(key_ids, now=now, delete_at=delete_at, expired=expired)
    noted = {"caller": wish.caller, "request_id": wish.request_id, "reason": wish.reason}
    if expired:
        await transaction.note_delivery(key_ids, Delivery(Act.EXPIRED, now, **noted))
        await transaction.tell_expired(records, now=now)
    await transaction.note_delivery(key_ids, Delivery(Act.SHREDDED, now, **noted))
    await transaction.tell_shredded(records, wish, now=now)


def count_shredded(records: Sequence[KeyRecord], *, how: str) -> None:
    """Count and log what was destroyed, once that is committed."""
    KEYS_TAKEN_BACK.labels(how).inc(len(records))
    for record in records:
        logger.info("a key was destroyed", key_id=record.key_id, how=how)


class ObjectRemover:
    """Deletes the objects of destroyed keys."""

    def __init__(self, keys: Keys, store: ObjectStore, *, clock: Clock) -> None:
        self._keys = keys
        self._store = store
        self._clock = clock

    async def remove(self, record: KeyRecord) -> None:
        """Delete a destroyed key's object. Raises ObjectStoreUnavailable when it may still be there."""
        await effect("vault.shred.delete", lambda: self._store.delete(record.object_name))
        async with self._keys.transaction() as transaction:
            await transaction.object_deleted(record.key_id, now=self._clock.now())
            await failpoint("vault.shred.before_note")
        await failpoint("vault.shred.after_note")
