"""What is changed in the log by itself is named; what is changed with all its hashes shows by what was published."""

from dataclasses import replace

import pytest
from audit.domain.entry import leaf_hash
from audit.domain.tree import GrowingTree, Node
from audit.errors import CheckpointStoreUnavailable, VerificationRunning
from audit.verifying import BATCH, PROGRESS_ENTRIES, Finding, Verdict, Verifier
from chassis.errors import ServiceUnavailable

from tests.unit.audit.ledger import ORIGIN, Ledger

SIZE = 23


@pytest.fixture
async def ledger() -> Ledger:
    """Give a log of 23 entries with checkpoints at 5, 12 and 20."""
    ledger = Ledger()
    replica = ledger.replica()
    for count in (5, 7, 8):
        await ledger.append(count)
        await replica.publish()
    await ledger.append(3)
    return ledger


async def test_a_sound_log_is_found_sound(ledger: Ledger) -> None:
    last = await ledger.verify()
    assert last.verdict == Verdict(Finding.SOUND)
    assert (last.entries, last.size, last.checkpoints) == (SIZE, SIZE, 3)
    tree = GrowingTree(0, [])
    for entry in ledger.log.stored:
        tree.add(entry.appended.leaf_hash)
    assert last.root == tree.root()


async def test_an_empty_log_is_sound() -> None:
    assert (await Ledger().verify()).verdict == Verdict(Finding.SOUND)


async def test_progress_is_told_on_the_way() -> None:
    ledger = Ledger()
    await ledger.append(PROGRESS_ENTRIES + BATCH + 1)
    verifier = Verifier(ledger.tree, ledger.notary, ledger.store, origin=ORIGIN)
    told = [progress async for progress in verifier.verify()]
    assert [progress.entries for progress in told] == [PROGRESS_ENTRIES, PROGRESS_ENTRIES + BATCH + 1]
    assert [progress.verdict is None for progress in told] == [True, False]


def change(ledger: Ledger, sequence: int, *, with_hash: bool = False) -> None:
    entry = ledger.log.stored[sequence]
    canonical = entry.canonical.replace("key.sealed", "key.opened")
    digest = leaf_hash(canonical) if with_hash else entry.appended.leaf_hash
    ledger.log.stored[sequence] = replace(
        entry, canonical=canonical, appended=replace(entry.appended, leaf_hash=digest)
    )


def rebuild(ledger: Ledger) -> None:
    tree = GrowingTree(0, [])
    ledger.log.subtrees = {
        node: digest for entry in ledger.log.stored for node, digest in tree.add(entry.appended.leaf_hash)
    }


@pytest.mark.parametrize("sequence", range(SIZE))
async def test_a_changed_entry_is_named(ledger: Ledger, sequence: int) -> None:
    change(ledger, sequence)
    assert (await ledger.verify()).verdict == Verdict(Finding.ENTRY_CHANGED, sequence)


@pytest.mark.parametrize("sequence", [*range(4), *range(5, SIZE - 1)])
async def test_an_entry_that_was_changed_with_its_hash_is_named_within_its_pair(ledger: Ledger, sequence: int) -> None:
    change(ledger, sequence, with_hash=True)
    assert (await ledger.verify()).verdict == Verdict(Finding.HASH_CHANGED, sequence & ~1)


@pytest.mark.parametrize(
    ("sequence", "verdict"),
    [
        (2, Verdict(Finding.CHECKPOINT_MISMATCH, 0, 5)),
        (5, Verdict(Finding.CHECKPOINT_MISMATCH, 5, 12)),
        (19, Verdict(Finding.CHECKPOINT_MISMATCH, 12, 20)),
        (21, Verdict(Finding.SOUND)),
    ],
    ids=["before the first", "after the first", "before the last", "after the last"],
)
async def test_an_entry_that_was_changed_with_all_its_hashes_is_found_by_the_next_checkpoint(
    ledger: Ledger, sequence: int, verdict: Verdict
) -> None:
    change(ledger, sequence, with_hash=True)
    rebuild(ledger)
    assert (await ledger.verify()).verdict == verdict


async def test_the_last_entry_of_a_checkpoint_is_found_by_the_checkpoint_before_its_pair_is_whole(
    ledger: Ledger,
) -> None:
    change(ledger, 4, with_hash=True)
    assert (await ledger.verify()).verdict == Verdict(Finding.CHECKPOINT_MISMATCH, 0, 5)


@pytest.mark.parametrize("sequence", [0, 7, SIZE - 2])
async def test_a_deleted_entry_is_named(ledger: Ledger, sequence: int) -> None:
    del ledger.log.stored[sequence]
    assert (await ledger.verify()).verdict == Verdict(Finding.ENTRY_MISSING, sequence)


async def test_two_entries_in_each_others_place_are_named(ledger: Ledger) -> None:
    stored = ledger.log.stored
    one, two = stored[8], stored[9]
    stored[8] = replace(two, appended=replace(two.appended, sequence=8))
    stored[9] = replace(one, appended=replace(one.appended, sequence=9))
    assert (await ledger.verify()).verdict == Verdict(Finding.ENTRY_CHANGED, 8)


async def test_an_entry_that_is_no_entry_is_named(ledger: Ledger) -> None:
    for canonical in ("no JSON", "[]"):
        entry = ledger.log.stored[3]
        appended = replace(entry.appended, leaf_hash=leaf_hash(canonical))
        ledger.log.stored[3] = replace(entry, canonical=canonical, appended=appended)
        assert (await ledger.verify()).verdict == Verdict(Finding.ENTRY_CHANGED, 3)


@pytest.mark.parametrize("node", [Node(1, 3), Node(2, 1), Node(4, 0)], ids=["a pair", "four", "sixteen"])
async def test_a_stored_hash_that_is_gone_or_changed_is_named_by_its_first_entry(ledger: Ledger, node: Node) -> None:
    digest = ledger.log.subtrees.pop(node)
    assert (await ledger.verify()).verdict == Verdict(Finding.HASH_CHANGED, node.first_leaf)
    ledger.log.subtrees[node] = bytes(32)
    assert (await ledger.verify()).verdict == Verdict(Finding.HASH_CHANGED, node.first_leaf)
    ledger.log.subtrees[node] = digest
    assert (await ledger.verify()).verdict == Verdict(Finding.SOUND)


@pytest.mark.parametrize("left", [0, 12, 19])
async def test_a_log_that_was_cut_short_is_told_by_what_was_published(ledger: Ledger, left: int) -> None:
    del ledger.log.stored[left:]
    rebuild(ledger)
    published = 5 if left < 5 else 20
    assert (await ledger.verify()).verdict == Verdict(Finding.LOG_TRUNCATED, left, published)


async def test_a_published_checkpoint_that_is_not_ours_is_named(ledger: Ledger) -> None:
    ledger.store.published[12] = ledger.store.published[12].replace("\n12\n", "\n13\n")
    assert (await ledger.verify()).verdict == Verdict(Finding.CHECKPOINT_UNPROVEN, 5, 12)
    ledger.store.published[12] = ledger.store.published[5]
    assert (await ledger.verify()).verdict == Verdict(Finding.CHECKPOINT_UNPROVEN, 5, 12)


async def test_something_else_in_the_bucket_is_told(ledger: Ledger) -> None:
    ledger.store.published[0] = "hello"
    verdict = (await ledger.verify()).verdict
    assert verdict == Verdict(Finding.CHECKPOINT_UNPROVEN, 0, 0)


async def test_what_an_older_release_appended_is_no_fault_while_it_waits_for_its_hashes(ledger: Ledger) -> None:
    await ledger.append_without_tree(6)
    assert (await ledger.verify()).verdict == Verdict(Finding.SOUND)


async def test_a_log_that_grows_meanwhile_is_not_cut_short(ledger: Ledger) -> None:
    verifier = Verifier(ledger.tree, ledger.notary, ledger.store, origin=ORIGIN)
    original = ledger.tree.log.stored
    walk = verifier.verify()
    counted = len(original)
    await ledger.append(2)
    await ledger.replica().publish()
    last = [progress async for progress in walk][-1]
    assert last.verdict == Verdict(Finding.SOUND)
    assert counted < last.size


async def test_one_walk_at_a_time(ledger: Ledger) -> None:
    await ledger.append(PROGRESS_ENTRIES)
    verifier = Verifier(ledger.tree, ledger.notary, ledger.store, origin=ORIGIN)
    walk = verifier.verify()
    await anext(walk)
    with pytest.raises(VerificationRunning):
        await anext(verifier.verify())
    await walk.aclose()
    assert [progress async for progress in verifier.verify()][-1].verdict == Verdict(Finding.SOUND)


async def test_without_the_store_or_the_log_there_is_no_verdict(ledger: Ledger) -> None:
    ledger.store.away = True
    with pytest.raises(CheckpointStoreUnavailable):
        await ledger.verify()
    ledger.store.away, ledger.log.away = False, True
    with pytest.raises(ServiceUnavailable):
        await ledger.verify()
