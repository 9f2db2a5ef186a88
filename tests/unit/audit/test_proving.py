import pytest
from audit.domain.tree import GrowingTree, Node, is_consistent
from audit.errors import TreeDamaged, TreeTooSmall
from audit.proving import Prover
from chassis.errors import InvalidRequest
from pymerkle import InmemoryTree

from tests.unit.audit.ledger import Ledger

SIZE = 11


@pytest.fixture
async def ledger() -> Ledger:
    ledger = Ledger()
    await ledger.append(SIZE)
    return ledger


def root(ledger: Ledger, size: int) -> bytes:
    tree = GrowingTree(0, [])
    for entry in ledger.log.stored[:size]:
        tree.add(entry.appended.leaf_hash)
    return tree.root()


async def test_every_entry_is_proven_for_every_size_as_pymerkle_proves_its_canonical_form(ledger: Ledger) -> None:
    oracle = InmemoryTree()
    for entry in ledger.log.stored:
        oracle.append_entry(entry.canonical.encode())
    for size in range(1, SIZE + 1):
        assert oracle.get_root(size) == root(ledger, size)
        for sequence in range(size):
            leaf_hash, hashes = await Prover(ledger.tree).inclusion(sequence, size)
            assert [leaf_hash, *hashes] == oracle.prove_inclusion(sequence + 1, size).path


async def test_every_size_is_proven_to_be_the_beginning_of_every_larger(ledger: Ledger) -> None:
    for second in range(1, SIZE + 1):
        for first in range(1, second + 1):
            hashes = await Prover(ledger.tree).consistency(first, second)
            assert is_consistent(first, root(ledger, first), second, root(ledger, second), hashes)


@pytest.mark.parametrize(("sequence", "size"), [(-1, 3), (3, 3), (0, 0)])
async def test_an_entry_outside_of_the_tree_is_a_fault_of_the_request(ledger: Ledger, sequence: int, size: int) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await Prover(ledger.tree).inclusion(sequence, size)
    assert raised.value.field_violations[0].field == "sequence"


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 0)])
async def test_sizes_in_the_wrong_order_are_a_fault_of_the_request(ledger: Ledger, first: int, second: int) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await Prover(ledger.tree).consistency(first, second)
    assert raised.value.field_violations[0].field == "first_tree_size"


async def test_a_tree_that_is_not_there_yet_is_told_with_the_size_that_is(ledger: Ledger) -> None:
    with pytest.raises(TreeTooSmall) as raised:
        await Prover(ledger.tree).inclusion(0, SIZE + 1)
    assert raised.value.metadata == {"tree_size": str(SIZE)}
    with pytest.raises(TreeTooSmall):
        await Prover(ledger.tree).consistency(1, 2**62)


async def test_a_hash_that_is_missing_is_told(ledger: Ledger) -> None:
    del ledger.log.subtrees[Node(1, 1)]
    with pytest.raises(TreeDamaged):
        await Prover(ledger.tree).inclusion(0, SIZE)
