"""Proving: that an entry is in the log, and that a smaller log is the beginning of a larger one."""

import asyncio
from collections.abc import Sequence

from chassis.errors import InvalidRequest

from audit.domain.tree import Node, ProofPath, consistency_path, fold_path, inclusion_path
from audit.errors import TreeDamaged, TreeTooSmall
from audit.growing import present_tree
from audit.ports import Tree, TreeReading

# A few dozen look-ups by key.
READ_SECONDS = 5.0


class Prover:
    """Answers with proofs, at a cost that grows with the logarithm of the log's size."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def inclusion(self, sequence: int, size: int) -> tuple[bytes, Sequence[bytes]]:
        """Return the leaf hash of an entry, and the proof that the tree of this size has it.

        Raises InvalidRequest, TreeTooSmall or TreeDamaged.
        """
        if not 0 <= sequence < size:
            raise InvalidRequest.of("sequence", "must be at least 0 and below tree_size")
        leaf = Node(0, sequence)
        async with asyncio.timeout(READ_SECONDS), self._tree.reading() as reading:
            await _check_size(reading, size)
            (found,), proof = await _prove(reading, [(leaf,)], inclusion_path(sequence, size))
        return found, proof

    async def consistency(self, first: int, second: int) -> Sequence[bytes]:
        """Return the proof that the tree of the first size is the beginning of that of the second.

        Raises InvalidRequest, TreeTooSmall or TreeDamaged.
        """
        if not 0 < first <= second:
            raise InvalidRequest.of("first_tree_size", "must be at least 1 and at most second_tree_size")
        async with asyncio.timeout(READ_SECONDS), self._tree.reading() as reading:
            await _check_size(reading, second)
            _, proof = await _prove(reading, [], consistency_path(first, second))
        return proof


async def _check_size(reading: TreeReading, size: int) -> None:
    present = (await present_tree(reading)).size
    if size > present:
        raise TreeTooSmall("the log has fewer entries", metadata={"tree_size": str(present)})


async def _prove(reading: TreeReading, more: ProofPath, path: ProofPath) -> tuple[list[bytes], list[bytes]]:
    hashes = await reading.hashes({node for step in (*more, *path) for node in step})
    try:
        return fold_path(more, hashes), fold_path(path, hashes)
    except KeyError:
        raise TreeDamaged("a hash of the stored tree is missing; verify the log") from None
