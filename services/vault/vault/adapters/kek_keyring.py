"""KEKs in a keyring of our own, KEY_ENCRYPTION_SECRET."""

from collections.abc import Sequence

from chassis.secret import SecretBytes

from vault.crypto import DoesNotOpen, Kek
from vault.domain.kek import KekVersions
from vault.domain.key import WrappedDek


class KeyringKeks:
    """Implements `vault.ports.KekHolder` in this process's memory. A version is called as in the keyring, `v2`."""

    def __init__(self, kek: Kek) -> None:
        self._kek = kek

    def names(self, version: str) -> bool:
        """See the port."""
        return version in self._kek.versions.retained

    async def versions(self) -> KekVersions:
        """See the port."""
        return self._kek.versions

    async def wrap(self, deks: Sequence[tuple[str, SecretBytes]]) -> Sequence[WrappedDek]:
        """See the port."""
        return [self._kek.wrap(dek, key_id) for key_id, dek in deks]

    async def unwrap(self, wrapped: Sequence[tuple[str, WrappedDek]]) -> Sequence[SecretBytes | None]:
        """See the port."""
        return [self._unwrap(key_id, each) for key_id, each in wrapped]

    def _unwrap(self, key_id: str, wrapped: WrappedDek) -> SecretBytes | None:
        try:
            return self._kek.unwrap(wrapped, key_id)
        except DoesNotOpen:
            return None
