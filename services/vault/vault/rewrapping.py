"""Moves every DEK to the active KEK, without touching the object store and while keys are sealed and opened.

Each batch stands for itself: read, wrap anew, and put in the place of what was read if that is still there. What was
moved is seen by its version, so that nothing else has to be remembered: whoever dies is followed by whoever asks next,
and several may do the same at once. Each begins at a place of its own, so that they seldom meet.

dies after the batch was committed     its DEKs are under the active KEK
dies anywhere else                     they are as they were; the next call finds them
"""

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from chassis.clock import Clock

from vault.domain.kek import KekUse, KekVersions, missing, uses
from vault.domain.key import WrappedDek
from vault.errors import KekNotActive, RewrapRunning, SecretVersionMissing
from vault.metrics import CORRUPTED, REWRAPPED
from vault.ports import Rewrapped, RewrapReport, Wish, WrappedDeks
from vault.wrapping import KeyEncryption

logger = structlog.get_logger(__name__)

# A batch is some ten milliseconds of the event loop and of row locks, which who opens a key beside it does not notice;
# with smaller ones the ways to the database and back take longer than the work.
BATCH = 500
# What somebody else holds is looked at again; a lock of ours lasts milliseconds, one of a release a little longer.
MOST_ROUNDS = 10
ROUND_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RewrapRequest:
    """A wish to move every DEK to the active KEK; `active_version` is what the caller believes that to be, or empty."""

    wish: Wish
    digest: bytes
    active_version: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rewrap is. `uses` are there once, at its end."""

    active_version: str
    done: int
    remaining: int
    failed: int
    failed_key_ids: Sequence[str] = ()
    uses: Sequence[KekUse] = ()


@dataclass(slots=True)
class _Tally:
    """What one rewrap has come to so far."""

    active_version: str
    remaining: int
    done: int = 0
    failed: set[str] = field(default_factory=set)

    def progress(self, failed_key_ids: Sequence[str] = (), uses: Sequence[KekUse] = ()) -> Progress:
        return Progress(self.active_version, self.done, self.remaining, len(self.failed), failed_key_ids, uses)

    def counts(self) -> Mapping[str, int]:
        return {"rewrapped": self.done, "failed": len(self.failed), "remaining": self.remaining}


class Rewrapper:
    """Moves DEKs, one batch at a time and for one caller at a time. Other replicas may do the same."""

    def __init__(self, deks: WrappedDeks, keks: KeyEncryption, *, clock: Clock) -> None:
        self._deks = deks
        self._keks = keks
        self._clock = clock
        self._running = False

    async def run(self, request: RewrapRequest) -> AsyncGenerator[Progress, None]:
        """Move all DEKs and tell after each batch how far it is.

        A DEK that does not open is counted, named and left as it is. Raises KekNotActive, RewrapRunning,
        RequestIdReused, SecretVersionMissing when a version in use is not here, and KeyEncryptionUnavailable or
        ServiceUnavailable: what was moved until then stays moved.
        """
        if self._running:
            raise RewrapRunning("this replica is rewrapping already; wait for that call to end, or ask another replica")
        self._running = True
        try:
            async for progress in self._run(request):
                yield progress
        finally:
            self._running = False

    async def _run(self, request: RewrapRequest) -> AsyncGenerator[Progress, None]:
        versions, counts = await self._keks.versions(), await self._deks.counts()
        _check_versions(versions, counts, request.active_version)
        tally = _Tally(versions.active, _outside(counts, versions.active))
        started = RewrapReport(request.wish, versions.active, {"keys": tally.remaining})
        await self._deks.begin(started, request.digest, now=self._clock.now())
        logger.info("rewrapping", active_version=versions.active, keys=tally.remaining)
        yield tally.progress()
        for number in range(MOST_ROUNDS):
            if number:
                await self._clock.sleep(ROUND_PAUSE_SECONDS)
            for version in sorted(counts.keys() - {versions.active}):
                async for progress in self._round(version, tally):
                    yield progress
            # Asked anew: Transit may have been rotated meanwhile, and what is moved once more is moved on.
            counts, versions = await self._deks.counts(), await self._keks.versions()
            tally.active_version = versions.active
            tally.remaining = max(0, _outside(counts, versions.active) - len(tally.failed))
            if not tally.remaining:
                break
        await self._deks.finish(RewrapReport(request.wish, versions.active, tally.counts()), now=self._clock.now())
        logger.info("rewrapped", active_version=versions.active, **tally.counts())
        yield tally.progress(uses=uses(counts, versions))

    async def _round(self, version: str, tally: _Tally) -> AsyncGenerator[Progress, None]:
        """Look once at every DEK under a version, from some place on and then from the beginning to there."""
        middle = secrets.token_hex(16)
        for after, before in ((middle, None), ("", middle)):
            place = after
            while page := await self._deks.page(version, after=place, before=before, size=BATCH):
                place = page[-1][0]
                failed = await self._move([piece for piece in page if piece[0] not in tally.failed], tally)
                yield tally.progress(failed)

    async def _move(self, page: Sequence[tuple[str, WrappedDek]], tally: _Tally) -> Sequence[str]:
        """Move a batch and return the keys whose DEK does not open."""
        fresh = await self._keks.rewrap(page)
        pairs = list(zip(page, fresh, strict=True))
        pieces = [Rewrapped(key_id, old, new) for (key_id, old), new in pairs if new is not None]
        failed = [key_id for (key_id, _), new in pairs if new is None]
        moved = len(await self._deks.replace(pieces))
        tally.done += moved
        tally.failed.update(failed)
        tally.remaining = max(0, tally.remaining - moved - len(failed))
        REWRAPPED.labels("done").inc(moved)
        REWRAPPED.labels("failed").inc(len(failed))
        CORRUPTED.inc(len(failed))
        for key_id in failed:
            logger.error("a wrapped DEK does not open", key_id=key_id)
        return failed


def _outside(counts: Mapping[str, int], active_version: str) -> int:
    return sum(keys for version, keys in counts.items() if version != active_version)


def _check_versions(versions: KekVersions, counts: Mapping[str, int], wanted: str) -> None:
    if wanted and wanted != versions.active:
        raise KekNotActive(
            "active_version: another version is the active one of this replica; roll the new one out everywhere first",
            metadata={"active_version": versions.active},
        )
    if gone := missing(counts, versions):
        raise SecretVersionMissing(
            "keys are under a version of a KEK that this replica does not have",
            metadata={"versions": ",".join(gone), "keys": str(sum(gone.values()))},
        )
