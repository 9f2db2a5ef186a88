"""Watches which versions of the KEK are in use, so that none is taken away while a key needs it."""

import asyncio
import random

import structlog
from chassis.errors import KeyferryError
from chassis.settings import SettingsError

from vault.domain.kek import missing, uses
from vault.errors import KeyEncryptionUnavailable
from vault.metrics import KEYS_PER_KEK
from vault.ports import WrappedDeks
from vault.wrapping import KeyEncryption

logger = structlog.get_logger(__name__)

# Database and Transit may start at the same time as vault does.
START_TRIES = 10
START_PAUSE_SECONDS = 1.0
COUNT_SECONDS = 300.0


class KekWatch:
    """Compares the versions in use with those at hand: once before vault serves, and then again and again."""

    def __init__(self, deks: WrappedDeks, keks: KeyEncryption) -> None:
        self._deks = deks
        self._keks = keks
        self._shown: set[str] = set()

    async def check_start(self) -> None:
        """Raise SettingsError when keys are wrapped under a version that is not at hand.

        Raises it also when Transit cannot be asked, and ServiceUnavailable when the database cannot.
        """
        for left in reversed(range(START_TRIES)):
            try:
                await self._look()
            except KeyferryError as error:
                if not left and isinstance(error, KeyEncryptionUnavailable):
                    raise SettingsError(_outage(error)) from error
                if not left:
                    raise
                logger.warning("the versions in use cannot be compared yet", why=error.message)
                await asyncio.sleep(START_PAUSE_SECONDS)
            else:
                return

    async def run(self) -> None:
        """Count until canceled."""
        while True:
            # Spread, so that replicas which started together do not count together.
            await asyncio.sleep(COUNT_SECONDS * (0.5 + random.random()))  # noqa: S311 # not a secret
            try:
                await self._look()
            except SettingsError as error:
                # A replica with more versions than this one wraps already: here those keys cannot be opened.
                logger.error("keys are wrapped under a KEK that is not here", why=str(error))  # noqa: TRY400 # the sentence says it
            except KeyferryError as error:
                logger.warning("counting is put off", why=error.message)

    async def _look(self) -> None:
        counts, versions = await self._deks.counts(), await self._keks.versions()
        found = uses(counts, versions)
        for forgotten in self._shown - {use.version for use in found}:
            KEYS_PER_KEK.labels(forgotten).set(0)
        for use in found:
            KEYS_PER_KEK.labels(use.version).set(use.keys)
        self._shown |= {use.version for use in found}
        if gone := missing(counts, versions):
            raise SettingsError("\n".join(_sentence(version, keys) for version, keys in gone.items()))


def _outage(error: KeyEncryptionUnavailable) -> str:
    told = ", ".join([error.message, *(f"{name} {value}" for name, value in error.metadata.items())])
    return (
        f"KEYFERRY_TRANSIT_ADDRESS cannot be used: {told}; see that it is up and unsealed, and that "
        "KEYFERRY_TRANSIT_TOKEN may use KEYFERRY_TRANSIT_KEY under KEYFERRY_TRANSIT_MOUNT"
    )


def _sentence(version: str, keys: int) -> str:
    what = "1 key is" if keys == 1 else f"{keys} keys are"
    if version.startswith("transit:"):
        return (
            f"KEYFERRY_TRANSIT_KEY does not have the version {version}, under which {what} wrapped; name that key, let "
            "its min_decryption_version allow the version, and run RewrapKeys before it is raised again"
        )
    return (
        f"KEY_ENCRYPTION_SECRET lacks the version {version}, under which {what} wrapped; put it back behind the active "
        "one, and run RewrapKeys before it is taken away again"
    )
