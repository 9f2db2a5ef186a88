"""Growing: the tree follows the log, in the transaction that appends, and fills up what was appended without it.

A tree that lacks the hashes of some entries (an older release appended them while this one was rolled out) lacks a
subtree in its right edge too, until they are filled in. So whoever appends notices by the edge alone, goes on without
the tree rather than making anybody wait, and the filler catches up in small turns of its own.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from chassis.errors import ServiceUnavailable

from audit.domain.tree import GrowingTree, Node, cover
from audit.errors import TreeDamaged
from audit.metrics import TREE_DAMAGED
from audit.ports import LogTransaction, Tree, TreeFilling, TreeReading

logger = structlog.get_logger(__name__)

# Appends wait meanwhile: tens of milliseconds.
LARGEST_FILL = 2_000
# Above the database's own limits for a statement and a lock, which say better what was slow.
FILL_SECONDS = 9.0
# Nothing is missing but after a rolling update; until it is filled in, proofs end before it.
LOOK_SECONDS = 5.0


async def grow_tree(log: LogTransaction, size: int, leaves: Sequence[bytes]) -> None:
    """Add leaves to a tree of this size, within the turn that appends their entries."""
    tree = await _edge(log, size)
    if tree is None:
        logger.warning("entries are appended before the tree is filled", entries=len(leaves))
        return
    await log.add_subtrees(_add(tree, leaves))


@dataclass(frozen=True, slots=True)
class PresentTree:
    """The tree as it is now."""

    size: int
    root: bytes


async def present_tree(reading: TreeReading) -> PresentTree:
    """Return the tree over all entries, or over those that it is filled for. Raises TreeDamaged."""
    count = await reading.entry_count()
    tree = await _edge(reading, count)
    if tree is None:
        # One more than is filled: it needs no subtree of its own, and may have been published.
        filled = await reading.filled()
        tree = await _edge(reading, filled + 1) if filled < count else None
    if tree is None:
        raise TreeDamaged("a hash of the stored tree is missing; verify the log")
    return PresentTree(tree.size, tree.root())


class TreeFiller:
    """Fills in what is missing. Any number of replicas may run it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def run(self) -> None:
        """Look and fill until canceled."""
        while True:
            more = False
            try:
                async with asyncio.timeout(FILL_SECONDS):
                    more = await self.fill_some()
            except (ServiceUnavailable, TimeoutError) as error:
                logger.warning("filling the tree is put off", kind=type(error).__name__)
            except TreeDamaged:
                logger.error("a hash of the stored tree is missing; no proof can be made until it is restored")  # noqa: TRY400 # the sentence says it all
            if not more:
                await asyncio.sleep(LOOK_SECONDS)

    async def fill_some(self) -> bool:
        """Add the next subtrees that are missing, if any; tell whether more may be. Raises TreeDamaged."""
        async with self._tree.reading() as reading:
            if await _edge(reading, await reading.entry_count()) is not None:
                TREE_DAMAGED.set(0)
                return False
        async with self._tree.filling() as filling:
            return await _fill(filling)


async def _fill(filling: TreeFilling) -> bool:
    count, start = await filling.entry_count(), await filling.filled()
    if await _edge(filling, count) is not None:
        return False
    tree = await _edge(filling, start) if start < count else None
    leaves = await filling.leaf_hashes(start, limit=LARGEST_FILL)
    # What is made of a log with a gap would be wrong for ever.
    if tree is None or len(leaves) < min(count - start, LARGEST_FILL):
        TREE_DAMAGED.set(1)
        raise TreeDamaged("a hash of the stored tree is missing; verify the log")
    await filling.add_subtrees(_add(tree, leaves))
    logger.info("the tree is being filled", entries=tree.size, of=count)
    return tree.size < count


async def _edge(log: LogTransaction | TreeReading, size: int) -> GrowingTree | None:
    """Return the right edge of a tree of this size; None when a part of it is missing."""
    edge = cover(0, size)
    hashes = await log.hashes(edge)
    return GrowingTree(size, [hashes[node] for node in edge]) if len(hashes) == len(edge) else None


def _add(tree: GrowingTree, leaves: Sequence[bytes]) -> dict[Node, bytes]:
    return {node: digest for leaf in leaves for node, digest in tree.add(leaf)}
