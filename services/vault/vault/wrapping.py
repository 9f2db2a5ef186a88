"""Wraps DEKs under the active KEK, and unwraps what any KEK that is at hand has wrapped, whoever holds it.

Where the KEKs move from one holder to another (from the keyring to Transit, or back), both are there until every DEK
was rewrapped: a version's name says whose it is.
"""

from collections.abc import Sequence

import structlog
from chassis.secret import SecretBytes

from vault.crypto import DoesNotOpen
from vault.domain.kek import KekVersions
from vault.domain.key import WrappedDek
from vault.errors import SecretVersionMissing
from vault.ports import KekHolder

logger = structlog.get_logger(__name__)


class KeyEncryption:
    """All holders of KEKs as one. Every method raises KeyEncryptionUnavailable when a holder does not answer."""

    def __init__(self, active: KekHolder, *others: KekHolder) -> None:
        """`active` wraps; the others only unwrap."""
        self._active = active
        self._holders = (active, *others)

    async def versions(self) -> KekVersions:
        """Return the active version and every one that unwraps."""
        active = await self._active.versions()
        others = [await holder.versions() for holder in self._holders[1:]]
        return KekVersions(active.active, active.retained.union(*(other.retained for other in others)))

    async def wrap(self, dek: SecretBytes, key_id: str) -> WrappedDek:
        """Wrap a DEK for one key; it unwraps for no other."""
        (wrapped,) = await self._active.wrap([(key_id, dek)])
        return wrapped

    async def unwrap(self, wrapped: WrappedDek, key_id: str) -> SecretBytes:
        """Unwrap a DEK. Raises DoesNotOpen when it is not this key's, SecretVersionMissing when its KEK is not here."""
        (dek,) = await self._holder_of(wrapped.kek_version).unwrap([(key_id, wrapped)])
        if dek is None:
            raise DoesNotOpen("the wrapped DEK does not open")
        return dek

    async def rewrap(self, wrapped: Sequence[tuple[str, WrappedDek]]) -> Sequence[WrappedDek | None]:
        """Wrap the DEKs of these keys anew, under the active KEK; None for one that does not open.

        What is given back takes the place of the only way to a key, so that it was unwrapped again and compared.
        Raises SecretVersionMissing when the KEK of one of them is not here.
        """
        deks = await self._unwrap_all(wrapped)
        opened = [(key_id, dek) for (key_id, _), dek in zip(wrapped, deks, strict=True) if dek is not None]
        fresh = await self._active.wrap(opened)
        again = await self._active.unwrap([(key_id, new) for (key_id, _), new in zip(opened, fresh, strict=True)])
        proved: dict[str, WrappedDek] = {}
        for (key_id, dek), new, reopened in zip(opened, fresh, again, strict=True):
            if reopened is not None and reopened == dek:
                proved[key_id] = new
            else:
                logger.error("a DEK that was just wrapped does not unwrap", key_id=key_id, version=new.kek_version)
            for secret in (dek, reopened):
                if secret is not None:
                    secret.drop()
        return [proved.get(key_id) for key_id, _ in wrapped]

    async def _unwrap_all(self, wrapped: Sequence[tuple[str, WrappedDek]]) -> Sequence[SecretBytes | None]:
        found: dict[str, SecretBytes | None] = {}
        by_version: dict[str, list[tuple[str, WrappedDek]]] = {}
        for key_id, each in wrapped:
            by_version.setdefault(each.kek_version, []).append((key_id, each))
        for version, some in by_version.items():
            deks = await self._holder_of(version).unwrap(some)
            found.update((key_id, dek) for (key_id, _), dek in zip(some, deks, strict=True))
        return [found[key_id] for key_id, _ in wrapped]

    def _holder_of(self, version: str) -> KekHolder:
        for holder in self._holders:
            if holder.names(version):
                return holder
        raise SecretVersionMissing(
            "a key is under a version of a secret that this replica does not have", metadata={"version": version}
        )
