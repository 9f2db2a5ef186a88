"""Opens what is stored: the row's DEK, then the object. What does not open is counted and told, never guessed at."""

import hashlib

import structlog
from chassis.secret import SecretBytes

from vault.crypto import DoesNotOpen, open_sealed
from vault.domain.key import KeyRecord
from vault.errors import KeyCorrupted, KeyRevoked
from vault.metrics import CORRUPTED
from vault.ports import ObjectStore, ObjectTooLarge
from vault.wrapping import KeyEncryption

logger = structlog.get_logger(__name__)

# Once more than once: what is flipped or cut off on the way is not so again.
READS = 2


async def unwrap(keks: KeyEncryption, record: KeyRecord) -> SecretBytes:
    """Return a key's DEK.

    Raises KeyCorrupted, SecretVersionMissing where its KEK is not known, KeyEncryptionUnavailable where its holder does
    not answer, and KeyRevoked where it was destroyed.
    """
    if record.dek is None:
        raise KeyRevoked("the key was destroyed")
    try:
        return await keks.unwrap(record.dek, record.key_id)
    except DoesNotOpen as error:
        raise corrupted(record, "wrapped dek") from error


async def open_stored(store: ObjectStore, record: KeyRecord, dek: SecretBytes) -> SecretBytes:
    """Return the game key of a sealed object. Raises KeyCorrupted, ObjectStoreUnavailable, or ObjectMissing."""
    stored = await read_stored(store, record)
    try:
        return open_sealed(stored, dek, key_id=record.key_id, content_type=record.content_type, binding=record.binding)
    except DoesNotOpen as error:
        raise corrupted(record, "object") from error


async def read_stored(store: ObjectStore, record: KeyRecord) -> bytes:
    """Return a sealed object that is, bit for bit, the one that was opened before the key was reported as sealed.

    Raises as `open_stored`. What is another object is read once more: a fault on the way is no loss, and a loss is
    still there.
    """
    for _ in range(READS):
        try:
            stored = await store.read(record.object_name)
        except ObjectTooLarge:
            continue
        if hashlib.sha256(stored).digest() == record.object_sha256:
            return stored
    raise corrupted(record, "object")


def corrupted(record: KeyRecord, what: str) -> KeyCorrupted:
    """Count and tell that a stored key does not open, and return the error for its caller."""
    CORRUPTED.inc()
    logger.error("a stored key does not open", key_id=record.key_id, what=what)
    return KeyCorrupted("the stored key does not open; a person has to look", metadata={"key_id": record.key_id})
