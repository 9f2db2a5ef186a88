"""Seals a game key: row, object, read-back, row. Whatever step a crash falls on, the same request again finishes it.

1 commit the row with the wrapped DEK (SEALING)   dies here: a row without an object; the repeat goes on at 2
2 put the object, never over another              dies here: the repeat finds it, opens it with the row's DEK, goes on
3 read it back and open it                        dies here: as above
4 commit SEALED, or HELD for a key seen before    dies here: the repeat answers with it

A key that is revoked meanwhile is found so at 4, or by the repeat: it stays revoked.
"""

import hashlib
import uuid
from dataclasses import dataclass, field

import structlog
from chassis.clock import Clock
from chassis.errors import RequestIdReused
from chassis.failpoints import effect, failpoint, repeatable
from chassis.secret import SecretBytes

from vault.crypto import Digests, DoesNotOpen, new_dek, open_sealed, seal
from vault.domain.key import KeyRecord, KeyState
from vault.errors import ObjectStoreUnavailable, SourceRefConflict
from vault.metrics import KEYS_SEALED
from vault.opening import unwrap
from vault.ports import Keys, KeyTransaction, ObjectExists, ObjectMissing, ObjectStore, ObjectTooLarge
from vault.wrapping import KeyEncryption

logger = structlog.get_logger(__name__)

# Names are fresh and random: an object of somebody else's under one of them is no accident, let alone several.
MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class SealRequest:
    """A game key and whose it is to be."""

    request_id: str
    source_ref: str
    order_id: str
    item_id: str
    customer_id: str
    content_type: str
    plaintext: SecretBytes = field(repr=False)


class Sealer:
    """Seals game keys. Any number of replicas may seal the same one at the same time; one row comes of it."""

    def __init__(self, keys: Keys, store: ObjectStore, keks: KeyEncryption, digests: Digests, clock: Clock) -> None:
        self._keys = keys
        self._store = store
        self._keks = keks
        self._digests = digests
        self._clock = clock

    async def seal(self, request: SealRequest) -> KeyRecord:
        """Return the sealed key, or the one that this source has already, also where that was revoked.

        Raises SourceRefConflict for another key under a known source, RequestIdReused for another source under a known
        request id, KeyCorrupted when a stored row does not open, KeyEncryptionUnavailable, and ObjectStoreUnavailable
        when the object could not be confirmed: repeat the request.
        """
        record = await self._seal(request)
        if record.state is KeyState.SHREDDED:
            # Destroyed while it was being sealed: the object may have been put after it was deleted.
            await effect("vault.seal.delete_late", lambda: self._store.delete(record.object_name))
        return record

    async def _seal(self, request: SealRequest) -> KeyRecord:
        record = await self._row(request)
        self._check_same(record, request)
        if record.state is not KeyState.SEALING:
            return record
        with await unwrap(self._keks, record) as dek:
            return await self._store_and_finish(record, request, dek)

    async def _store_and_finish(self, record: KeyRecord, request: SealRequest, dek: SecretBytes) -> KeyRecord:
        for _ in range(MOST_TRIES):
            digest = await self._store_object(record, request.plaintext, dek)
            if digest is None:
                async with self._keys.transaction() as transaction:
                    await transaction.next_generation(record)
                    record = await _reread(transaction, record)
                    await failpoint("vault.seal.before_rename")
                await failpoint("vault.seal.after_rename")
            else:
                record = await self._finish(record, request.plaintext, digest)
            if record.state is not KeyState.SEALING:
                return record
        raise ObjectStoreUnavailable("no name was free for the sealed object; nothing was decided")

    async def _row(self, request: SealRequest) -> KeyRecord:
        """Return the source's row, made now if need be; of two who make it at once one finds the other's."""
        async with self._keys.transaction() as transaction:
            known = await transaction.key_by_source(request.source_ref)
        if known is not None:
            return known
        # Between the two: who holds the KEKs may be slow, and must not keep a transaction open.
        record = await self._new_record(request)
        async with self._keys.transaction() as transaction:
            await failpoint("vault.seal.before_row")
            added = await transaction.add(record)
        await failpoint("vault.seal.after_row")
        if added:
            return record
        async with self._keys.transaction() as transaction:
            found = await transaction.key_by_source(request.source_ref)
        if found is None:
            raise RequestIdReused(
                "request_id: was used to seal another source's key; use a new id for a new request",
                metadata={"request_id": request.request_id},
            )
        return found

    async def _new_record(self, request: SealRequest) -> KeyRecord:
        key_id = uuid.uuid4().hex
        fingerprint, *other_fingerprints = self._digests.fingerprints(request.content_type, request.plaintext)
        with new_dek() as dek:
            wrapped = await self._keks.wrap(dek, key_id)
        return KeyRecord(
            key_id=key_id,
            source_ref=request.source_ref,
            seal_request_id=request.request_id,
            order_id=request.order_id,
            item_id=request.item_id,
            binding=self._digests.bind(request.order_id, request.customer_id),
            content_type=request.content_type,
            fingerprint=fingerprint,
            other_fingerprints=tuple(other_fingerprints),
            dek=wrapped,
            state=KeyState.SEALING,
            generation=0,
            object_sha256=None,
            create_time=self._clock.now(),
        )

    def _check_same(self, record: KeyRecord, request: SealRequest) -> None:
        same = (
            self._digests.has_fingerprint(record.fingerprint, request.content_type, request.plaintext)
            and record.content_type == request.content_type
            and record.item_id == request.item_id
            and (record.is_nobodys or self._digests.matches(record.binding, request.order_id, request.customer_id))
        )
        if not same:
            raise SourceRefConflict(
                "source_ref: another key, order or owner was sealed under it", metadata={"key_id": record.key_id}
            )

    async def _store_object(self, record: KeyRecord, plaintext: SecretBytes, dek: SecretBytes) -> bytes | None:
        """Put the object, read it back, open it; return its SHA-256, or None when the name is somebody else's."""
        sealed = seal(plaintext, dek, key_id=record.key_id, content_type=record.content_type, binding=record.binding)
        await failpoint("vault.seal.before_put")
        try:
            await repeatable("vault.seal.put", lambda: self._store.create(record.object_name, sealed))
        except ObjectExists:
            logger.info("object was there, opening it", key_id=record.key_id)
        await failpoint("vault.seal.after_put")
        try:
            stored = await self._store.read(record.object_name)
            opened = open_sealed(
                stored, dek, key_id=record.key_id, content_type=record.content_type, binding=record.binding
            )
        except ObjectMissing as error:
            raise ObjectStoreUnavailable("the object store does not show what it took; nothing was decided") from error
        except (ObjectTooLarge, DoesNotOpen):
            logger.error("another's object stands under a name of ours", object_name=record.object_name)  # noqa: TRY400 # its text says nothing more
            return None
        with opened:
            return hashlib.sha256(stored).digest() if opened == plaintext else None

    async def _finish(self, record: KeyRecord, plaintext: SecretBytes, digest: bytes) -> KeyRecord:
        """Mark the key as sealed, or as held; return its row as it then stands, whoever wrote it."""
        now = self._clock.now()
        fingerprints = self._digests.fingerprints(record.content_type, plaintext)
        await failpoint("vault.seal.before_commit")
        async with self._keys.transaction() as transaction:
            same_as = await transaction.same_key(record, fingerprints)
            state = KeyState.SEALED if same_as is None else KeyState.HELD
            ours = await transaction.finish(record, state, object_sha256=digest, now=now, same_as=same_as)
            if ours:
                await transaction.tell_sealed(record, same_as=same_as, now=now)
            finished = await _reread(transaction, record)
        await failpoint("vault.seal.after_commit")
        if ours:
            KEYS_SEALED.labels(finished.state.name.lower()).inc()
            if same_as is not None:
                logger.error("the same game key was sold to us twice", key_id=record.key_id, same_as=same_as)
        return finished


async def _reread(transaction: KeyTransaction, record: KeyRecord) -> KeyRecord:
    found = await transaction.key(record.key_id)
    if found is None:
        raise AssertionError("a row of a sealed key is never deleted")
    return found
