"""A game key as vault keeps it: everything about it but the key."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

CONTENT_TYPES = frozenset({"text/plain", "image/jpeg", "image/png", "image/gif"})
MOST_KEY_BYTES = 1024 * 1024
# Stands for the digest of an owner who was forgotten.
NOBODY = "-"


class KeyState(Enum):
    """Where a key is in its life."""

    SEALING = "SEALING"
    SEALED = "SEALED"
    HELD = "HELD"
    REVOKED = "REVOKED"
    SHREDDED = "SHREDDED"


@dataclass(frozen=True, slots=True)
class WrappedDek:
    """A DEK under a KEK: `nonce || ciphertext || tag`, and the KEK's version."""

    data: bytes
    kek_version: str


@dataclass(frozen=True, slots=True)
class Binding:
    """Keyed digests of the order and its owner, with the version of the secret: `v1.<base64url>`."""

    order: str
    owner: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One row: a key before or after its object is confirmed. Without a DEK it was shredded."""

    key_id: str
    source_ref: str
    seal_request_id: str
    order_id: str
    item_id: str
    binding: Binding
    content_type: str
    fingerprint: str
    dek: WrappedDek | None
    state: KeyState
    generation: int
    object_sha256: bytes | None
    create_time: datetime
    seal_time: datetime | None = None
    open_time: datetime | None = None
    revoke_time: datetime | None = None
    shred_time: datetime | None = None
    other_fingerprints: tuple[str, ...] = ()
    """Its fingerprints under the other versions of the secret that were retained when it was sealed."""
    same_key_id: str | None = None
    """Of a held key: the earlier one with the same content."""
    expire_time: datetime | None = None
    object_delete_time: datetime | None = None
    link_count: int = 0
    reveal_count: int = 0

    @property
    def is_nobodys(self) -> bool:
        """Whether its owner was forgotten."""
        return self.binding.owner == NOBODY

    @property
    def is_opened(self) -> bool:
        """Whether it was ever handed over to its owner."""
        return self.open_time is not None

    @property
    def is_taken_back(self) -> bool:
        """Whether it is never to be opened again, or cannot be."""
        return self.state in (KeyState.REVOKED, KeyState.SHREDDED)

    @property
    def object_name(self) -> str:
        """Name of the sealed object. A later generation stands beside an object that was not ours to overwrite."""
        return object_name(self.key_id, self.generation)


def object_name(key_id: str, generation: int) -> str:
    """Return the object's name."""
    return f"keys/{key_id}" if generation == 0 else f"keys/{key_id}.{generation}"
