"""Verifying: walk through the whole log, hash everything anew, and compare it with what is stored and published.

What it can tell depends on how far the hand reached that changed something. An entry, or a stored hash, that was
changed by itself is named exactly (a hash over two entries names the first of them). Where entries and all stored
hashes above them were changed alike, only a checkpoint tells: then it is known between which two checkpoints it
happened. What was appended after the last checkpoint and changed so is not found: hence their short pace.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import structlog

from audit.domain.checkpoint import read_checkpoint
from audit.domain.entry import leaf_hash
from audit.domain.tree import GrowingTree, Node, cover
from audit.errors import VerificationRunning
from audit.metrics import VERIFICATIONS
from audit.ports import CheckpointStore, Notary, NoteUnproven, StoredEntry, Tree

logger = structlog.get_logger(__name__)

# Hashed between two looks at other work: a few milliseconds.
BATCH = 500
# Entries between two messages to the caller.
PROGRESS_ENTRIES = 10_000
READ_SECONDS = 10.0


class Finding(Enum):
    """What a walk found. The value is the metric's label."""

    SOUND = "sound"
    ENTRY_MISSING = "entry_missing"
    ENTRY_CHANGED = "entry_changed"
    HASH_CHANGED = "hash_changed"
    CHECKPOINT_MISMATCH = "checkpoint_mismatch"
    CHECKPOINT_UNPROVEN = "checkpoint_unproven"
    LOG_TRUNCATED = "log_truncated"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk came to: the first entry that cannot be vouched for, and the checkpoint that showed it, if any."""

    finding: Finding
    bad_sequence: int | None = None
    checkpoint_size: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk is. The last one of a walk has the verdict, and the root hash of what was found sound."""

    entries: int
    size: int
    checkpoints: int
    verdict: Verdict | None = None
    root: bytes = b""


class _Bad(Exception):
    def __init__(self, finding: Finding, sequence: int, checkpoint_size: int | None = None) -> None:
        super().__init__(finding.value)
        self.verdict = Verdict(finding, sequence, checkpoint_size)


class Verifier:
    """Walks through the log for one caller at a time."""

    def __init__(self, tree: Tree, notary: Notary, store: CheckpointStore, *, origin: str) -> None:
        self._tree = tree
        self._notary = notary
        self._store = store
        self._origin = origin
        self._running = False

    async def verify(self) -> AsyncGenerator[Progress, None]:
        """Yield progress and, last, the verdict.

        Raises VerificationRunning, and CheckpointStoreUnavailable or ServiceUnavailable in its middle.
        """
        if self._running:
            raise VerificationRunning("the log is being verified already; ask again later")
        self._running = True
        walk = _Walk(self._tree, _Published(self._notary, self._store, self._origin))
        try:
            async for progress in walk.run():
                yield progress
        finally:
            self._running = False


class _Published:
    """The published checkpoints, one after the other."""

    def __init__(self, notary: Notary, store: CheckpointStore, origin: str) -> None:
        self._notary = notary
        self._notes: AsyncIterator[tuple[int, str]] = store.notes()
        self._origin = origin
        self._next: tuple[int, str] | None = None
        self.compared = 0
        self.trusted_size = 0

    async def advance(self) -> None:
        """Go to the next one."""
        self._next = await anext(self._notes, None)

    @property
    def next_size(self) -> int | None:
        """Return the size of the next one; None when there is none."""
        return self._next[0] if self._next else None

    async def compare(self, tree: GrowingTree) -> None:
        """Compare the tree with the next checkpoint, if that is of its size."""
        while self._next is not None and self._next[0] <= tree.size:
            size, note = self._next
            try:
                checkpoint = read_checkpoint(self._notary.open(note))
            except (NoteUnproven, ValueError):
                raise _Bad(Finding.CHECKPOINT_UNPROVEN, self.trusted_size, size) from None
            if (checkpoint.origin, checkpoint.size) != (self._origin, size) or size < tree.size:
                raise _Bad(Finding.CHECKPOINT_UNPROVEN, self.trusted_size, size)
            if checkpoint.root != tree.root():
                raise _Bad(Finding.CHECKPOINT_MISMATCH, self.trusted_size, size)
            self.trusted_size = size
            self.compared += 1
            await self.advance()


class _Walk:
    """One walk from the first entry to the last that was there when it began."""

    def __init__(self, tree: Tree, published: _Published) -> None:
        self._stored = tree
        self._tree = GrowingTree(0, [])
        self._published = published
        self._size = 0
        self._hashed = 0

    async def run(self) -> AsyncGenerator[Progress, None]:
        async with self._stored.reading() as reading:
            self._size = await reading.entry_count()
            filled = await reading.filled()
            edge = cover(0, self._size)
            whole = len(await reading.hashes(edge)) == len(edge)
        # Subtrees beyond may not have been filled in yet, after a rolling update.
        self._hashed = self._size if whole else filled
        await self._published.advance()
        told, verdict = 0, Verdict(Finding.SOUND)
        try:
            while self._tree.size < self._size:
                await self._verify_batch()
                if self._tree.size - told >= PROGRESS_ENTRIES:
                    told = self._tree.size
                    yield self._progress()
            await self._check_end()
        except _Bad as bad:
            verdict = bad.verdict
            logger.error(  # noqa: TRY400 # it says what was found; where is of no use
                "the log does not verify",
                finding=verdict.finding.value,
                sequence=verdict.bad_sequence,
                checkpoint_size=verdict.checkpoint_size,
            )
        VERIFICATIONS.labels(verdict.finding.value).inc()
        yield self._progress(verdict)

    async def _verify_batch(self) -> None:
        start, end = self._tree.size, min(self._tree.size + BATCH, self._size)
        async with asyncio.timeout(READ_SECONDS), self._stored.reading() as reading:
            entries = await reading.stored_entries(start, limit=end - start)
            stored = await reading.hashes(_completed(start, min(end, self._hashed)))
        await self._verify_entries(entries, stored)
        if self._tree.size < end:
            raise _Bad(Finding.ENTRY_MISSING, self._tree.size)

    async def _verify_entries(self, entries: Sequence[StoredEntry], stored: Mapping[Node, bytes]) -> None:
        for entry in entries:
            sequence = self._tree.size
            if entry.sequence != sequence:
                raise _Bad(Finding.ENTRY_MISSING, sequence)
            digest = leaf_hash(entry.canonical)
            if entry.leaf_hash != digest or _told_sequence(entry.canonical) != sequence:
                raise _Bad(Finding.ENTRY_CHANGED, sequence)
            for node, expected in self._tree.add(digest):
                if sequence < self._hashed and stored.get(node) != expected:
                    raise _Bad(Finding.HASH_CHANGED, node.first_leaf)
            await self._published.compare(self._tree)

    async def _check_end(self) -> None:
        """See that nothing larger was published, unless the log has grown meanwhile."""
        published = self._published.next_size
        if published is None:
            return
        async with asyncio.timeout(READ_SECONDS), self._stored.reading() as reading:
            count = await reading.entry_count()
        if published > count:
            raise _Bad(Finding.LOG_TRUNCATED, count, published)

    def _progress(self, verdict: Verdict | None = None) -> Progress:
        root = self._tree.root() if verdict is not None else b""
        return Progress(self._tree.size, self._size, self._published.compared, verdict, root)


def _completed(start: int, end: int) -> list[Node]:
    """Return the subtrees above the leaves that become perfect with one of the leaves from `start` to before `end`."""
    nodes: list[Node] = []
    level, below, above = 1, start >> 1, end >> 1
    while above:
        nodes += [Node(level, index) for index in range(below, above)]
        level, below, above = level + 1, below >> 1, above >> 1
    return nodes


def _told_sequence(canonical: str) -> object:
    """Return the sequence that an entry says it has; None when it cannot be read."""
    try:
        document = json.loads(canonical)
    except ValueError:
        return None
    return document.get("sequence") if isinstance(document, dict) else None
