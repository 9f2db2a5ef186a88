"""Watches which versions of secrets are in use, so that none is taken away while a key needs it."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog
from chassis.errors import KeyferryError
from chassis.settings import SettingsError

from vault.crypto import Digests
from vault.domain.kek import missing, uses
from vault.errors import KeyEncryptionUnavailable
from vault.metrics import KEYS_PER_KEK
from vault.ports import StoredDigests, WrappedDeks
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
        try:
            await _patiently(self._look)
        except KeyEncryptionUnavailable as error:
            raise SettingsError(_outage(error)) from error

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


class DigestCheck:
    """Compares the versions of the digests in use with those at hand, once before vault serves.

    Without one of them a key is neither recognized when it is sold to us again, nor given to its owner.
    """

    def __init__(self, stored: StoredDigests, digests: Digests) -> None:
        self._stored = stored
        self._digests = digests

    async def check_start(self) -> None:
        """Raise SettingsError when keys have digests under a version that is not at hand.

        Raises ServiceUnavailable when the database cannot be asked.
        """
        await _patiently(self._look)

    async def _look(self) -> None:
        gone = sorted(await self._stored.versions() - self._digests.versions)
        # Only what is missing is counted: of what is at hand there may be many millions, and they are well.
        counts = [(version, await self._stored.count(version)) for version in gone]
        if counts:
            raise SettingsError("\n".join(_digest_sentence(version, keys) for version, keys in counts))


async def _patiently(look: Callable[[], Awaitable[None]]) -> None:
    for left in reversed(range(START_TRIES)):
        try:
            await look()
        except KeyferryError as error:
            if not left:
                raise
            logger.warning("the versions in use cannot be compared yet", why=error.message)
            await asyncio.sleep(START_PAUSE_SECONDS)
        else:
            return


def _digest_sentence(version: str, keys: int) -> str:
    what = "1 key is" if keys == 1 else f"{keys} keys are"
    return (
        f"KEYFERRY_DIGEST_SECRET lacks the version {version}, under which {what} recognized and bound to their owners; "
        "put it back behind the active one: a version of it is never taken away"
    )


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
