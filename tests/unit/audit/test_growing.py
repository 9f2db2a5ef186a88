import pytest
from audit.domain.tree import EMPTY_ROOT, GrowingTree, Node
from audit.errors import TreeDamaged
from audit.growing import LARGEST_FILL, PresentTree, TreeFiller, present_tree
from chassis.errors import ServiceUnavailable

from tests.unit.audit.ledger import Ledger


def whole_tree(ledger: Ledger, size: int) -> tuple[PresentTree, dict[Node, bytes]]:
    """Give the tree and its subtrees as they must be, made of the leaves alone."""
    tree, subtrees = GrowingTree(0, []), dict[Node, bytes]()
    for entry in ledger.log.stored[:size]:
        subtrees.update(tree.add(entry.appended.leaf_hash))
    return PresentTree(size, tree.root()), subtrees


async def now(ledger: Ledger) -> PresentTree:
    async with ledger.tree.reading() as reading:
        return await present_tree(reading)


async def test_an_empty_log_has_the_empty_tree() -> None:
    assert await now(Ledger()) == PresentTree(0, EMPTY_ROOT)


async def test_the_tree_grows_with_the_log_however_appends_are_grouped() -> None:
    ledger = Ledger()
    for count in (1, 1, 3, 8, 2, 17, 1):
        await ledger.append(count)
        expected, subtrees = whole_tree(ledger, len(ledger.log.stored))
        assert await now(ledger) == expected
        assert ledger.log.subtrees == subtrees


async def test_what_an_older_release_appended_is_filled_in_by_turns() -> None:
    ledger = Ledger()
    await ledger.append(5)
    await ledger.append_without_tree(LARGEST_FILL + 100)
    filler = TreeFiller(ledger.tree)
    assert [await filler.fill_some() for _ in range(3)] == [True, False, False]
    expected, subtrees = whole_tree(ledger, LARGEST_FILL + 105)
    assert await now(ledger) == expected
    assert ledger.log.subtrees == subtrees


@pytest.mark.parametrize("grown", range(9))
@pytest.mark.parametrize("older", range(1, 5))
async def test_while_it_is_not_filled_the_tree_keeps_its_size_at_least_and_appends_go_on(
    grown: int, older: int
) -> None:
    ledger = Ledger()
    await ledger.append(grown)
    await ledger.append_without_tree(older)
    unfilled = await now(ledger)
    assert unfilled.size >= grown
    assert unfilled == whole_tree(ledger, unfilled.size)[0]
    await ledger.append(3)
    await TreeFiller(ledger.tree).fill_some()
    expected, subtrees = whole_tree(ledger, grown + older + 3)
    assert await now(ledger) == expected
    assert ledger.log.subtrees == subtrees


@pytest.mark.parametrize("lost", [Node(1, 2), Node(2, 0)], ids=["at the edge", "at the edge, above"])
async def test_a_hash_that_is_gone_stops_proofs_and_no_append(lost: Node) -> None:
    ledger = Ledger()
    await ledger.append(6)
    del ledger.log.subtrees[lost]
    filler = TreeFiller(ledger.tree)
    if lost.level == 1:
        # The last subtree of two is missing just as if an older release had appended its entries.
        assert not await filler.fill_some()
        assert await now(ledger) == whole_tree(ledger, 6)[0]
        return
    with pytest.raises(TreeDamaged):
        await now(ledger)
    with pytest.raises(TreeDamaged):
        await filler.fill_some()
    await ledger.append(1)
    assert len(ledger.log.stored) == 7


async def test_a_log_with_a_gap_is_not_made_a_tree_of() -> None:
    ledger = Ledger()
    await ledger.append(4)
    await ledger.append_without_tree(5)
    del ledger.log.stored[6]
    with pytest.raises(TreeDamaged):
        await TreeFiller(ledger.tree).fill_some()
    assert not any(node.first_leaf >= 4 for node in ledger.log.subtrees)


async def test_while_the_log_is_away_nothing_is_filled() -> None:
    ledger = Ledger()
    ledger.log.away = True
    with pytest.raises(ServiceUnavailable):
        await TreeFiller(ledger.tree).fill_some()
