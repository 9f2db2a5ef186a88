"""The tree's arithmetic, against a library of others (pymerkle) and against the tree as RFC 9162 defines it."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from audit.domain.tree import (
    EMPTY_ROOT,
    GrowingTree,
    Node,
    ProofPath,
    consistency_path,
    cover,
    fold,
    fold_path,
    inclusion_path,
    is_consistent,
    node_hash,
)
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

SIZES = st.integers(min_value=1, max_value=130)
LARGEST = 130


def entry(number: int) -> bytes:
    return f"entry {number}".encode()


def leaf(number: int) -> bytes:
    return hashlib.sha256(b"\0" + entry(number)).digest()


@cache
def stored() -> Mapping[Node, bytes]:
    """Give every hash that is stored of a tree of the largest size: leaves, and perfect subtrees as they grow."""
    tree, hashes = GrowingTree(0, []), dict[Node, bytes]()
    for number in range(LARGEST):
        hashes[Node(0, number)] = leaf(number)
        hashes.update(tree.add(leaf(number)))
    return hashes


@cache
def oracle() -> InmemoryTree:
    tree = InmemoryTree()
    for number in range(LARGEST):
        tree.append_entry(entry(number))
    return tree


def root(size: int) -> bytes:
    return fold([stored()[node] for node in cover(0, size)])


def proof(path: ProofPath) -> list[bytes]:
    return fold_path(path, stored())


def root_of_inclusion(index: int, size: int, digest: bytes, hashes: Sequence[bytes]) -> bytes:
    """Compute the root as a verifier does (RFC 9162 section 2.1.3.2)."""
    here, last = index, size - 1
    for sibling in hashes:
        assert last > 0
        if here & 1 or here == last:
            digest = node_hash(sibling, digest)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        here, last = here >> 1, last >> 1
    assert last == 0
    return digest


def test_the_empty_tree_and_the_first_leaves_are_as_in_the_rfc() -> None:
    assert EMPTY_ROOT == hashlib.sha256(b"").digest() == GrowingTree(0, []).root()
    assert root(1) == leaf(0)
    assert root(3) == node_hash(node_hash(leaf(0), leaf(1)), leaf(2))


@given(size=SIZES)
def test_the_root_is_that_of_pymerkle_however_it_is_made(size: int) -> None:
    tree = GrowingTree(0, [])
    for number in range(size):
        tree.add(leaf(number))
    assert tree.root() == root(size) == oracle().get_root(size)


@given(size=SIZES, data=st.data())
def test_a_tree_that_grows_from_its_edge_is_the_same_tree(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(min_value=0, max_value=size))
    tree = GrowingTree(start, [stored()[node] for node in cover(0, start)])
    for number in range(start, size):
        for node, digest in tree.add(leaf(number)):
            assert node.level > 0
            assert stored()[node] == digest
    assert tree.root() == root(size)


def test_an_edge_of_another_size_is_no_edge() -> None:
    with pytest.raises(ValueError, match="edge"):
        GrowingTree(3, [leaf(0)])


@given(size=SIZES, data=st.data())
def test_a_cover_is_whole_and_as_small_as_can_be(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(min_value=0, max_value=size))
    nodes = cover(start, size)
    covered = [number for node in nodes for number in range(node.first_leaf, (node.index + 1) << node.level)]
    assert covered == list(range(start, size))
    assert len(cover(0, size)) == size.bit_count()


@given(size=SIZES, data=st.data())
def test_an_inclusion_proof_is_accepted_and_the_one_that_pymerkle_makes(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    hashes = proof(inclusion_path(index, size))
    theirs = oracle().prove_inclusion(index + 1, size)
    verify_inclusion(leaf(index), root(size), theirs)
    assert [leaf(index), *hashes] == theirs.path
    assert root_of_inclusion(index, size, leaf(index), hashes) == root(size)
    assert len(hashes) <= (size - 1).bit_length()


@given(second=SIZES, data=st.data())
def test_a_consistency_proof_is_accepted_and_made_of_what_pymerkle_makes_it_of(
    second: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(min_value=1, max_value=second))
    hashes = proof(consistency_path(first, second))
    assert is_consistent(first, root(first), second, root(second), hashes)
    theirs = oracle().prove_consistency(first, second)
    verify_consistency(root(first), root(second), theirs)
    # Theirs always has the old root where that is a subtree of the new one; the RFC's leaves it out.
    left_out = [root(first)] if first & (first - 1) == 0 or first == second else []
    assert sorted([*left_out, *hashes]) == sorted(without_split(theirs))


def without_split(theirs: Any) -> list[bytes]:
    """Join what pymerkle splits further than the RFC does: what lies right of the old tree, beside its last subtree."""
    split = theirs.subset.index(1)
    if not split:
        return list(theirs.path)
    joined = theirs.path[0]
    for side, digest in zip(theirs.rule, theirs.path[1:split], strict=False):
        joined = node_hash(digest, joined) if side else node_hash(joined, digest)
    return [joined, *theirs.path[split:]]


@given(second=SIZES, data=st.data())
def test_a_consistency_proof_of_anything_else_is_refused(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(min_value=1, max_value=second))
    hashes = proof(consistency_path(first, second))
    other = hashlib.sha256(b"other").digest()
    assert not is_consistent(first, other, second, root(second), hashes)
    assert not is_consistent(first, root(first), second, other, hashes)
    assert not is_consistent(first, root(first), second, root(second), [*hashes, other])
    if hashes:
        place = data.draw(st.integers(min_value=0, max_value=len(hashes) - 1))
        changed = [*hashes[:place], other, *hashes[place + 1 :]]
        assert not is_consistent(first, root(first), second, root(second), changed)
        assert not is_consistent(first, root(first), second, root(second), hashes[:-1])
        assert not is_consistent(second, root(second), first, root(first), hashes)


def test_the_empty_log_is_the_beginning_of_every_log() -> None:
    assert consistency_path(0, 5) == []
    assert is_consistent(0, EMPTY_ROOT, 5, root(5), [])
    assert not is_consistent(0, root(1), 5, root(5), [])
    assert is_consistent(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])


@given(size=st.integers(min_value=1, max_value=2**44), data=st.data())
def test_a_proof_of_any_size_has_at_most_2_kb_and_needs_few_hashes(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    first = data.draw(st.integers(min_value=1, max_value=size))
    for path in (inclusion_path(index, size), consistency_path(first, size)):
        assert len(path) * (32 + 2) <= 2048
        assert sum(map(len, path)) <= 2 * size.bit_length()


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_what_is_not_in_the_tree_has_no_path(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="not in the tree"):
        inclusion_path(index, size)


@pytest.mark.parametrize(("first", "second"), [(-1, 3), (4, 3)])
def test_a_larger_tree_is_not_the_beginning_of_a_smaller(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="larger"):
        consistency_path(first, second)


def test_a_missing_subtree_is_told() -> None:
    with pytest.raises(KeyError):
        fold_path([(Node(5, 99),)], stored())
