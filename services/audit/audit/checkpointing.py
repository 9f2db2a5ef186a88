"""Checkpointing: what the log is now, signed, and published at a fixed pace where the log itself can change nothing.

Before anything is signed the log must prove that it continues the last published checkpoint. A log that was cut or
changed cannot: then nothing is signed, here or for a caller, until a person has looked.

A crash before the checkpoint is put publishes nothing, one after it leaves it published: the next round, of any
replica, finds what is there. Two replicas that publish one size at once find out by the store, which takes the first.
"""

import asyncio
from dataclasses import dataclass

import structlog
from chassis.clock import Clock
from chassis.errors import KeyferryError
from chassis.failpoints import effect

from audit.domain.checkpoint import Checkpoint, checkpoint_text, read_checkpoint
from audit.domain.tree import consistency_path, fold_path, is_consistent
from audit.errors import LogInconsistent, TreeDamaged
from audit.growing import present_tree
from audit.metrics import CHECKPOINT_AGE, CHECKPOINTS_PUBLISHED, LOG_INCONSISTENT
from audit.ports import CheckpointExists, CheckpointMissing, CheckpointStore, Notary, NoteUnproven, Tree, TreeReading

logger = structlog.get_logger(__name__)

# A few dozen look-ups by key.
READ_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint, and the note that proves it."""

    checkpoint: Checkpoint
    note: str


class Checkpoints:
    """Signs and publishes. Any number of replicas may run it."""

    def __init__(self, tree: Tree, notary: Notary, store: CheckpointStore, *, origin: str, clock: Clock) -> None:
        self._tree = tree
        self._notary = notary
        self._store = store
        self._origin = origin
        self._clock = clock
        self._last: Checkpoint | None = None
        self._looked = False
        self._refuses = False
        self._covered_at = clock.elapsed()
        # Asked for by the scrape, so that it grows even when nothing here runs any more.
        CHECKPOINT_AGE.set_function(lambda: clock.elapsed() - self._covered_at)

    async def run(self, pace_seconds: float) -> None:
        """Publish until canceled. The store being away stops nothing else."""
        while True:
            try:
                await self.publish()
            except LogInconsistent:
                logger.debug("no checkpoint is published of an inconsistent log")
            except (KeyferryError, TimeoutError) as error:
                logger.warning("publishing a checkpoint is put off", kind=type(error).__name__)
            await self._clock.sleep(pace_seconds)

    async def present(self) -> SignedCheckpoint:
        """Return the present checkpoint, proven to continue what is known to be published.

        Raises LogInconsistent, TreeDamaged, or CheckpointStoreUnavailable before the store has answered once.
        """
        if self._refuses:
            raise _refusal()
        if not self._looked:
            await self._look()
        return await self._sign()

    async def publish(self) -> None:
        """Publish the present checkpoint unless one of its size was. Raises as `present` does."""
        began = self._clock.elapsed()
        await self._look()
        signed = await self._sign()
        size = signed.checkpoint.size
        if size > (self._last.size if self._last else 0):
            try:
                await effect("audit.checkpoint.publish", lambda: self._store.publish(size, signed.note))
                CHECKPOINTS_PUBLISHED.inc()
                logger.info("checkpoint published", size=size)
            except CheckpointExists:
                if await self._published(size) != signed.checkpoint:
                    raise self._inconsistent("another checkpoint of this size is published", size, size) from None
            self._last = signed.checkpoint
        self._covered_at = began
        self._refuses = False
        LOG_INCONSISTENT.set(0)

    async def _look(self) -> None:
        """Note what is published now. A checkpoint that is gone again was taken away by somebody."""
        size = await self._store.newest_size()
        known = self._last.size if self._last else 0
        if (size or 0) < known:
            raise self._inconsistent("a published checkpoint is gone", known, size or 0)
        if size is not None and size > known:
            self._last = await self._published(size)
        self._looked = True

    async def _published(self, size: int) -> Checkpoint:
        try:
            checkpoint = read_checkpoint(self._notary.open(await self._store.read(size)))
        except (NoteUnproven, CheckpointMissing, ValueError):
            raise self._inconsistent("a published checkpoint is not of our keys, or gone", size, size) from None
        if (checkpoint.origin, checkpoint.size) != (self._origin, size):
            raise self._inconsistent("a published checkpoint is another log's, or another's size", size, size)
        return checkpoint

    async def _sign(self) -> SignedCheckpoint:
        async with asyncio.timeout(READ_SECONDS), self._tree.reading() as reading:
            tree = await present_tree(reading)
            present = Checkpoint(self._origin, tree.size, tree.root)
            if self._last is not None and not await _continues(reading, self._last, present):
                raise self._inconsistent("the log does not continue it", self._last.size, present.size)
        return SignedCheckpoint(present, self._notary.sign(checkpoint_text(present)))

    def _inconsistent(self, what: str, published: int, present: int) -> LogInconsistent:
        # Until a whole round has found nothing any more.
        self._refuses = True
        LOG_INCONSISTENT.set(1)
        logger.error(
            "the log and its published checkpoints disagree; nothing is signed",
            what=what,
            published_size=published,
            present_size=present,
        )
        return _refusal()


def _refusal() -> LogInconsistent:
    return LogInconsistent("the log does not continue what was published of it; nothing is signed")


async def _continues(reading: TreeReading, last: Checkpoint, present: Checkpoint) -> bool:
    if present.size < last.size:
        return False
    path = consistency_path(last.size, present.size)
    hashes = await reading.hashes({node for step in path for node in step})
    try:
        proof = fold_path(path, hashes)
    except KeyError:
        raise TreeDamaged("a hash of the stored tree is missing; verify the log") from None
    return is_consistent(last.size, last.root, present.size, present.root, proof)
