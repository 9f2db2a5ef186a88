"""Vault, as fulfillment needs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fulfillment.domain.model import ItemId, KeyId, OrderId


@dataclass(frozen=True, slots=True)
class Viewer:
    """On whose behalf a key is asked for."""

    customer_id: str
    email: str = field(default="", repr=False)
    ip_address: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)
    country_code: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class KeyWish:
    """An owner's wish to open one key. Its parts pass through unread."""

    request_id: str
    order_id: OrderId
    key_id: KeyId
    viewer: Viewer
    recipient_jwk: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """A link as vault made it."""

    url: str = field(repr=False)
    expire_time: datetime
    content_key_jwe: str = field(repr=False)
    object_sha256: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """A key that a person uploaded for a purchase, encrypted to vault's upload key. Passed on unread."""

    request_id: str
    source_ref: str
    order_id: OrderId
    item_id: ItemId
    customer_id: str = field(repr=False)
    content_type: str
    key_jwe: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An uploaded key as vault keeps it; `held` when it was sold before."""

    key_id: KeyId
    held: bool


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key of an order as vault has it, whoever was told of it.

    `supplier_order_id` is empty for one that a person uploaded. What is not `sealed` yet may be revoked, and cannot be
    opened. What is `taken_back` is revoked or destroyed.
    """

    key_id: KeyId
    item_id: ItemId
    supplier_order_id: str
    content_type: str
    held: bool = False
    sealed: bool = True
    taken_back: bool = False
    open_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """All of the keys are revoked."""


@dataclass(frozen=True, slots=True)
class SomeOpened:
    """Nothing was revoked, for these keys were opened. Of very many only the first are told."""

    key_ids: Sequence[KeyId]


@dataclass(frozen=True, slots=True)
class NoWord:
    """Vault could not be asked. Nothing is known that was not known before."""


RevokeAnswer = Revoked | SomeOpened | NoWord


class Vault(Protocol):
    """Vault, which alone opens keys.

    Its errors pass through, but for finding, revoking and shredding, which have answers.
    """

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        """Return a download link for the owner."""
        ...

    async def reveal_key(self, wish: KeyWish) -> str:
        """Return the key, encrypted to the owner's one-time key."""
        ...

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:
        """Return every key that vault has of an order, also those whose names were never told to anybody."""
        ...

    async def revoke_keys(self, order_id: OrderId, key_ids: Sequence[KeyId], *, why: str) -> RevokeAnswer:
        """Revoke all of these keys, or none where any was opened. Asking again changes nothing."""
        ...

    async def shred_key(self, order_id: OrderId, key_id: KeyId, *, why: str) -> bool:
        """Destroy a revoked key; False when nobody could say. Asking again changes nothing."""
        ...

    async def upload_jwk(self) -> bytes:
        """Return the public key to which a person encrypts an uploaded key."""
        ...

    async def seal_upload(self, upload: Upload) -> Uploaded:
        """Have an uploaded key sealed. Asking again gives the same key."""
        ...
