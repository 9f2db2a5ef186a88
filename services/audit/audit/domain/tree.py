"""The Merkle tree over the entries: RFC 9162 section 2.1 (and RFC 6962 section 2.1, whose hashes it keeps).

    leaf hash = SHA-256(0x00 || canonical entry)          node hash = SHA-256(0x01 || left || right)

Hashes are kept of *perfect* subtrees only, those over 2^level leaves that begin at a multiple of 2^level. Such a
hash never changes once its last leaf is there, and everything else is folded from a few of them:

    level 2                       (2,0)                               a tree of 7 leaves; its right edge, the
    level 1           (1,0)               (1,1)         (1,2)         perfect subtrees that cover it, is
    level 0       (0,0)   (0,1)   (0,2)   (0,3)   (0,4)   (0,5)   (0,6)       (2,0) (1,2) (0,6)

A tree of n leaves has at most log2(n) + 1 subtrees in its right edge; a proof needs twice as many at most.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_PREFIX = b"\x01"
EMPTY_ROOT = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class Node:
    """A perfect subtree: 2^level leaves from `index` * 2^level on. At level 0 it is a leaf, its hash a leaf hash."""

    level: int
    index: int

    @property
    def first_leaf(self) -> int:
        """Return the first leaf that it covers."""
        return self.index << self.level


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash over two halves."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def cover(start: int, end: int) -> tuple[Node, ...]:
    """Return the fewest perfect subtrees that cover the leaves from `start` to before `end`, from left to right."""
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return tuple(nodes)


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the one hash over adjacent subtrees that grow smaller from left to right; of none, the empty tree's."""
    if not hashes:
        return EMPTY_ROOT
    *rest, root = hashes
    for left in reversed(rest):
        root = node_hash(left, root)
    return root


class GrowingTree:
    """The right edge of a tree: all that is needed to add leaves and to tell the root."""

    def __init__(self, size: int, edge: Sequence[bytes]) -> None:
        """`edge` are the hashes of `cover(0, size)`."""
        if len(edge) != size.bit_count():
            raise ValueError("a tree of this size has another right edge")
        self.size = size
        self._edge = list(edge)

    def add(self, leaf: bytes) -> list[tuple[Node, bytes]]:
        """Add a leaf hash, and return the subtrees above the leaves that are perfect with it, the smallest first."""
        completed: list[tuple[Node, bytes]] = []
        level, index, carried = 0, self.size, leaf
        while index & 1:
            carried = node_hash(self._edge.pop(), carried)
            level, index = level + 1, index >> 1
            completed.append((Node(level, index), carried))
        self._edge.append(carried)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Return the tree's root hash."""
        return fold(self._edge)


ProofPath = Sequence[Sequence[Node]]
"""What a proof is made of: each of its hashes is the fold over some adjacent subtrees."""


def inclusion_path(index: int, size: int) -> ProofPath:
    """Return the path that proves a leaf to be in the tree of this size (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError("the leaf is not in the tree")
    path: list[Sequence[Node]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left_half(end - start)
        if index < middle:
            path.append(cover(middle, end))
            end = middle
        else:
            path.append(cover(start, middle))
            start = middle
    return path[::-1]


def consistency_path(first: int, second: int) -> ProofPath:
    """Return the path that proves one tree to be the beginning of another (RFC 9162 section 2.1.4.1)."""
    if not 0 <= first <= second:
        raise ValueError("the first tree is larger than the second")
    path: list[Sequence[Node]] = []
    start, end = 0, second
    while 0 < first < end:
        middle = start + _left_half(end - start)
        if first <= middle:
            path.append(cover(middle, end))
            end = middle
        else:
            path.append(cover(start, middle))
            start = middle
    if start:
        path.append(cover(start, end))
    return path[::-1]


def fold_path(path: ProofPath, hashes: Mapping[Node, bytes]) -> list[bytes]:
    """Return the hashes of a proof. Raises KeyError where one of its subtrees is missing."""
    return [fold([hashes[node] for node in step]) for step in path]


def is_consistent(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Check a consistency proof (RFC 9162 section 2.1.4.2): is the first tree the beginning of the second?"""
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 and second else second_root
        return not proof and first_root == expected
    if not (first < second and proof):
        return False
    # A first tree that is one perfect subtree of the second is not repeated in the proof.
    steps = list(proof) if first & (first - 1) else [first_root, *proof]
    left, right = first - 1, second - 1
    while left & 1:
        left, right = left >> 1, right >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if right == 0:
            return False
        if left & 1 or left == right:
            old, new = node_hash(step, old), node_hash(step, new)
            while left and not left & 1:
                left, right = left >> 1, right >> 1
        else:
            new = node_hash(new, step)
        left, right = left >> 1, right >> 1
    return right == 0 and old == first_root and new == second_root


def _left_half(size: int) -> int:
    """Return the largest power of two below a size of at least two."""
    return 1 << ((size - 1).bit_length() - 1)
