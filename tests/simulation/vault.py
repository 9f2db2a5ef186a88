"""Vault: seals by source, opens for the owner only, and is the one judge of what was opened before it was revoked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chassis.errors import ServiceUnavailable
from fulfillment.domain.model import ItemId, KeyId, OrderId
from fulfillment.ports.vault import DownloadLink, FoundKey, NoWord, RevokeAnswer, Revoked, SomeOpened, Uploaded
from kinguin_gateway.ports.vault import KeyToSeal, Sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fulfillment.ports.vault import KeyWish, Upload

    from tests.simulation.network import Host, Network, Process

_LATER = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class SealedKey:
    """One key in vault, and what happened to it, in order."""

    key_id: KeyId
    source_ref: str
    order_id: str
    item_id: str
    customer_id: str
    serial: bytes
    held: bool
    opened: bool = False
    revoked: bool = False
    shredded: bool = False
    history: list[str] = field(default_factory=list)
    seal_time: float = 0.0
    revoke_time: float | None = None

    @property
    def is_openable(self) -> bool:
        return not (self.revoked or self.shredded)


class CannotOpen(Exception):
    """Vault refuses: the key is revoked, shredded, or somebody else's."""


class VaultServer:
    """One replica's view of the vault's database, which all replicas share."""

    def __init__(self, store: VaultStore, process: Process) -> None:
        self._store = store
        self._process = process

    def seal(self, source_ref: str, order_id: str, item_id: str, customer_id: str, serial: bytes) -> SealedKey:
        self._process.point()
        store = self._store
        key = store.by_source.get(source_ref)
        if key is None:
            held = any(other.serial == serial for other in store.keys.values())
            key_id = KeyId(f"key-{len(store.keys) + 1}")
            key = SealedKey(key_id, source_ref, order_id, item_id, customer_id, serial, held)
            key.seal_time = self._process.sky.loop.time()
            store.keys[key_id] = store.by_source[source_ref] = key
        self._process.point()
        return key

    def open(self, order_id: str, key_id: KeyId, customer_id: str) -> SealedKey:
        self._process.point()
        key = self._store.keys[key_id]
        if not key.is_openable or (key.order_id, key.customer_id) != (order_id, customer_id):
            raise CannotOpen
        key.history.append("opened")
        if not key.opened:
            key.opened = True
            self._store.opened(key_id)
        self._process.point()
        return key

    def revoke(self, order_id: str, key_ids: Sequence[KeyId]) -> RevokeAnswer:
        self._process.point()
        keys = [self._store.keys[key_id] for key_id in key_ids]
        assert all(key.order_id == order_id for key in keys), "revokes another order's key"
        opened = [key.key_id for key in keys if key.opened and not key.revoked]
        if opened:
            return SomeOpened(opened)
        for key in keys:
            key.history.append("revoked")
            if not key.revoked:
                key.revoked, key.revoke_time = True, self._process.sky.loop.time()
        self._process.point()
        return Revoked()

    def keys_of(self, order_id: str) -> list[SealedKey]:
        self._process.point()
        return [key for key in self._store.keys.values() if key.order_id == order_id]

    def shred(self, order_id: str, key_id: KeyId) -> None:
        self._process.point()
        key = self._store.keys[key_id]
        assert key.order_id == order_id, "shreds another order's key"
        key.shredded = True
        key.history.append("shredded")
        self._process.point()


@dataclass
class VaultStore:
    """Every sealed key. `opened` is called with each that is opened for the first time, in the same transaction."""

    opened: Callable[[KeyId], None]
    keys: dict[KeyId, SealedKey] = field(default_factory=dict)
    by_source: dict[str, SealedKey] = field(default_factory=dict)


class SealingVault:
    """Vault as kinguin-gateway reaches it: `kinguin_gateway.ports.vault.Vault`."""

    def __init__(self, network: Network, host: Host[VaultServer], process: Process) -> None:
        self._network, self._host, self._process = network, host, process

    async def seal(self, key: KeyToSeal) -> Sealed:
        serial = key.value.expose()

        async def ask(server: VaultServer) -> SealedKey:
            return server.seal(key.source_ref, key.order_id, key.item_id, key.customer_id, serial)

        sealed = await self._network.call(self._process, self._host, ask)
        return Sealed(sealed.key_id, held=sealed.held)


class OpeningVault:
    """Vault as fulfillment reaches it: `fulfillment.ports.vault.Vault`."""

    def __init__(self, network: Network, host: Host[VaultServer], process: Process) -> None:
        self._network, self._host, self._process = network, host, process

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        async def ask(server: VaultServer) -> SealedKey:
            return server.open(wish.order_id, wish.key_id, wish.viewer.customer_id)

        await self._network.call(self._process, self._host, ask)
        return DownloadLink("", _LATER, "", b"")

    async def reveal_key(self, wish: KeyWish) -> str:
        await self.create_download_link(wish)
        return ""

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:
        async def ask(server: VaultServer) -> list[SealedKey]:
            return server.keys_of(order_id)

        try:
            return [_found(key) for key in await self._network.call(self._process, self._host, ask)]
        except ServiceUnavailable:
            return NoWord()

    async def revoke_keys(self, order_id: OrderId, key_ids: Sequence[KeyId], *, why: str) -> RevokeAnswer:  # noqa: ARG002 # for the log
        async def ask(server: VaultServer) -> RevokeAnswer:
            return server.revoke(order_id, key_ids)

        try:
            return await self._network.call(self._process, self._host, ask)
        except ServiceUnavailable:
            return NoWord()

    async def shred_key(self, order_id: OrderId, key_id: KeyId, *, why: str) -> bool:  # noqa: ARG002 # for the log
        async def ask(server: VaultServer) -> None:
            server.shred(order_id, key_id)

        try:
            await self._network.call(self._process, self._host, ask)
        except ServiceUnavailable:
            return False
        return True

    async def upload_jwk(self) -> bytes:
        return b""

    async def seal_upload(self, upload: Upload) -> Uploaded:
        async def ask(server: VaultServer) -> SealedKey:
            serial = upload.key_jwe.encode()
            return server.seal(upload.source_ref, upload.order_id, upload.item_id, upload.customer_id, serial)

        sealed = await self._network.call(self._process, self._host, ask)
        return Uploaded(sealed.key_id, sealed.held)


def _found(key: SealedKey) -> FoundKey:
    kind, number, _ = key.source_ref.split(":", 2)
    return FoundKey(
        key.key_id,
        ItemId(key.item_id),
        number if kind == "kinguin" else "",
        "text/plain",
        held=key.held,
        taken_back=key.revoked or key.shredded,
        # When exactly is not asked for anywhere.
        open_time=_LATER if key.opened else None,
    )
