"""Seals a game key: row, object, read-back, row. Whatever step a crash falls on, the same request again finishes it.

1 commit the row with the wrapped DEK (SEALING)   dies here: a row without an object; the repeat goes on at 2
2 put the object, never over another              dies here: the repeat finds it, opens it with the row's DEK, goes on
3 read it back and open it                        dies here: as above
4 commit SEALED, or HELD for a key seen before    dies here: the repeat answers with it
"""

import hashlib
import uuid
from dataclasses import dataclass, field

import structlog
from chassis.clock import Clock
from chassis.failpoints import failpoint
from chassis.secret import SecretBytes

from vault.crypto import Digests, DoesNotOpen, Kek, new_dek, open_sealed, seal
from vault.domain.key import KeyRecord, KeyState
from vault.errors import KeyCorrupted, SourceRefConflict
from vault.metrics import KEYS_SEALED
from vault.ports import Keys, ObjectExists, ObjectMissing, ObjectStore

logger = structlog.get_logger(__name__)

# An object under a fresh random name that is not ours happens by a crash between put and commit at most once a try.
MOST_GENERATIONS = 5


@dataclass(frozen=True, slots=True)
class SealRequest:
    """A game key and whose it is to be."""

    source_ref: str
    order_id: str
    item_id: str
    customer_id: str
    content_type: str
    plaintext: SecretBytes = field(repr=False)


class Sealer:
    """Seals game keys. Any number of replicas may seal the same one at the same time; one row comes of it."""

    def __init__(self, keys: Keys, store: ObjectStore, kek: Kek, digests: Digests, clock: Clock) -> None:
        self._keys = keys
        self._store = store
        self._kek = kek
        self._digests = digests
        self._clock = clock

    async def seal(self, request: SealRequest) -> KeyRecord:
        """Return the sealed key, or the one that this source has already.

        Raises SourceRefConflict for another key under a known source, KeyCorrupted when a stored row does not open,
        ObjectStoreUnavailable when the object could not be confirmed: repeat the request.
        """
        fingerprints = self._digests.fingerprints(request.content_type, request.plaintext)
        record = await self._row(request, fingerprints)
        self._check_same(record, request, fingerprints)
        if record.state is not KeyState.SEALING:
            return record
        dek = self._unwrap(record)
        for _ in range(MOST_GENERATIONS):
            digest = await self._store_object(record, request.plaintext, dek)
            if digest is not None:
                return await self._finish(record, fingerprints, digest)
            async with self._keys.transaction() as transaction:
                record = await transaction.next_generation(record)
            if record.state is not KeyState.SEALING:
                return record
        raise KeyCorrupted("no free name was found for the sealed object", metadata={"key_id": record.key_id})

    async def _row(self, request: SealRequest, fingerprints: list[str]) -> KeyRecord:
        """Return the source's row, made now if need be; of two who make it at once one finds the other's."""
        async with self._keys.transaction() as transaction:
            known = await transaction.key_by_source(request.source_ref)
            if known is not None:
                return known
            record = self._new_record(request, fingerprints[0])
            await failpoint("vault.seal.before_row")
            added = await transaction.add(record)
        await failpoint("vault.seal.after_row")
        if added:
            return record
        async with self._keys.transaction() as transaction:
            found = await transaction.key_by_source(request.source_ref)
        if found is None:
            raise KeyCorrupted("a row that was there is gone")
        return found

    def _new_record(self, request: SealRequest, fingerprint: str) -> KeyRecord:
        key_id = uuid.uuid4().hex
        return KeyRecord(
            key_id=key_id,
            source_ref=request.source_ref,
            order_id=request.order_id,
            item_id=request.item_id,
            binding=self._digests.bind(request.order_id, request.customer_id),
            content_type=request.content_type,
            fingerprint=fingerprint,
            dek=self._kek.wrap(new_dek(), key_id),
            state=KeyState.SEALING,
            generation=0,
            object_sha256=None,
            seal_time=None,
        )

    def _check_same(self, record: KeyRecord, request: SealRequest, fingerprints: list[str]) -> None:
        same = (
            record.fingerprint in fingerprints
            and record.content_type == request.content_type
            and self._digests.matches(record.binding, request.order_id, request.customer_id)
        )
        if not same:
            raise SourceRefConflict(
                "source_ref: another key, order or owner was sealed under it", metadata={"key_id": record.key_id}
            )

    def _unwrap(self, record: KeyRecord) -> SecretBytes:
        try:
            return self._kek.unwrap(record.dek, record.key_id)
        except DoesNotOpen as error:
            logger.exception("wrapped dek does not open", key_id=record.key_id)
            raise KeyCorrupted("the key's DEK does not open", metadata={"key_id": record.key_id}) from error

    async def _store_object(self, record: KeyRecord, plaintext: SecretBytes, dek: SecretBytes) -> bytes | None:
        """Put the object, read it back, open it; return its SHA-256, or None when the name is somebody else's."""
        sealed = seal(plaintext, dek, key_id=record.key_id, content_type=record.content_type, binding=record.binding)
        await failpoint("vault.seal.before_put")
        try:
            await self._store.create(record.object_name, sealed)
        except ObjectExists:
            logger.info("object was there, opening it", key_id=record.key_id)
        await failpoint("vault.seal.after_put")
        try:
            stored = await self._store.read(record.object_name)
            opened = open_sealed(
                stored, dek, key_id=record.key_id, content_type=record.content_type, binding=record.binding
            )
        except (ObjectMissing, DoesNotOpen):
            return None
        return hashlib.sha256(stored).digest() if opened == plaintext else None

    async def _finish(self, record: KeyRecord, fingerprints: list[str], digest: bytes) -> KeyRecord:
        now = self._clock.now()
        await failpoint("vault.seal.before_commit")
        async with self._keys.transaction() as transaction:
            same_as = await transaction.same_key(record, fingerprints)
            state = KeyState.HELD if same_as is not None else KeyState.SEALED
            finished = await transaction.finish(record, state, object_sha256=digest, now=now)
            await transaction.tell_sealed(finished, same_as=same_as, now=now)
        await failpoint("vault.seal.after_commit")
        if same_as is not None:
            logger.error("the same game key was sold to us twice", key_id=record.key_id, same_as=same_as)
        KEYS_SEALED.labels(finished.state.name.lower()).inc()
        return finished
