"""Vault, as fulfillment needs it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fulfillment.domain.model import (
    KeyId,
    OrderId,
)


@dataclass(frozen=True, slots=True)
class Viewer:
    """On whose behalf a key is asked for."""

    customer_id: str
    email: str = field(default="", repr=False)
    ip_address: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)


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


class Vault(Protocol):
    """Vault, which alone opens keys. Errors of vault pass through."""

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        """Return a download link for the owner."""
        ...

    async def reveal_key(self, wish: KeyWish) -> str:
        """Return the key, encrypted to the owner's one-time key."""
        ...
