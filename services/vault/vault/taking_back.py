"""Takes keys back: revokes them while nobody has opened them, and destroys what was revoked.

Whether a key was opened is judged by its row alone, in the transaction that changes it. A release marks the row and a
revocation changes its state, each under the row's lock, so that of the two one wins and the other is told so.

What is revoked is destroyed as `shredding.py` tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.clock import Clock
from chassis.failpoints import failpoint

from vault.domain.delivery import Act, Delivery
from vault.domain.key import KeyRecord
from vault.domain.taking_back import Shredding, opened_among, shredding_of, still_to_revoke
from vault.errors import KeyNotFound, KeyNotRevoked, KeyOpened
from vault.metrics import KEYS_TAKEN_BACK
from vault.ports import Keys, KeyTransaction, Wish
from vault.shredding import ObjectRemover, count_shredded, shred

# What an error names travels in HTTP/2 trailers, of which gRPC takes 8 KiB in all.
MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """A wish to take back keys of one order, all or none."""

    wish: Wish
    digest: bytes
    order_id: str
    key_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class ShredRequest:
    """A wish to destroy one key."""

    wish: Wish
    digest: bytes
    order_id: str
    key_id: str


class KeyTaker:
    """Takes keys back. Any number of replicas may try the same at the same time."""

    def __init__(self, keys: Keys, remover: ObjectRemover, *, clock: Clock) -> None:
        self._keys = keys
        self._remover = remover
        self._clock = clock

    async def revoke(self, request: RevokeRequest) -> Sequence[KeyRecord]:
        """Revoke all of the keys, or none, and return them as they then stand, in the order of the request.

        Raises KeyNotFound when one is unknown or another order's, KeyOpened when one was opened, RequestIdReused.
        """
        async with self._keys.transaction() as transaction:
            repeated = await transaction.is_repeat(request.wish.request_id, request.digest)
            records = await _locked(transaction, request.order_id, request.key_ids)
            taken = [] if repeated else still_to_revoke(records)
            if not repeated:
                _check_unopened(records)
                now = self._clock.now()
                taken_ids = [record.key_id for record in taken]
                await transaction.revoke(taken_ids, now=now)
                await transaction.note_delivery(taken_ids, _noted(request.wish, now))
                await transaction.tell_revoked(taken, request.wish, now=now)
                await transaction.note_done(request.wish.request_id, request.digest)
                records = await _locked(transaction, request.order_id, request.key_ids)
            await failpoint("vault.revoke.before_commit")
        await failpoint("vault.revoke.after_commit")
        KEYS_TAKEN_BACK.labels("revoked").inc(len(taken))
        found = {record.key_id: record for record in records}
        return [found[key_id] for key_id in request.key_ids]

    async def shred(self, request: ShredRequest) -> KeyRecord:
        """Destroy a key that is revoked or held, and return what is left of it once its object is gone too.

        Raises KeyNotFound, KeyOpened, KeyNotRevoked, RequestIdReused, and ObjectStoreUnavailable when the object may
        still be there: repeat the request.
        """
        record = await self._destroy_dek(request)
        await self._remover.remove(record)
        return await self._present(record)

    async def _destroy_dek(self, request: ShredRequest) -> KeyRecord:
        async with self._keys.transaction() as transaction:
            repeated = await transaction.is_repeat(request.wish.request_id, request.digest)
            (record,) = await _locked(transaction, request.order_id, [request.key_id])
            shredding = shredding_of(record)
            if shredding is Shredding.OPENED:
                _check_unopened([record])
            if shredding is Shredding.NOT_REVOKED:
                raise KeyNotRevoked(
                    "the key must be revoked before it is destroyed", metadata={"state": record.state.value}
                )
            if shredding is Shredding.NOW:
                await shred(transaction, [record], request.wish, now=self._clock.now())
            if not repeated:
                await transaction.note_done(request.wish.request_id, request.digest)
            (record,) = await transaction.lock([record.key_id])
            await failpoint("vault.shred.before_commit")
        await failpoint("vault.shred.after_commit")
        if shredding is Shredding.NOW:
            count_shredded([record], how="shredded")
        return record

    async def _present(self, record: KeyRecord) -> KeyRecord:
        async with self._keys.transaction() as transaction:
            return await transaction.key(record.key_id) or record


def _noted(wish: Wish, now: datetime) -> Delivery:
    return Delivery(Act.REVOKED, now, caller=wish.caller, request_id=wish.request_id, reason=wish.reason)


async def _locked(transaction: KeyTransaction, order_id: str, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
    records = [record for record in await transaction.lock(key_ids) if record.order_id == order_id]
    if missing := sorted({*key_ids} - {record.key_id for record in records}):
        raise KeyNotFound("the order has no such key", metadata={"key_ids": _named(missing)})
    return records


def _check_unopened(records: Sequence[KeyRecord]) -> None:
    if opened := sorted(opened_among(records)):
        raise KeyOpened(
            "a key was opened by its owner; nothing was changed",
            metadata={"opened_key_ids": _named(opened), "opened_count": str(len(opened))},
        )


def _named(key_ids: Sequence[str]) -> str:
    return ",".join(key_ids[:MOST_NAMED])
