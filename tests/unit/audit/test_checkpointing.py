import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from audit.adapters.ed25519 import Ed25519Notary
from audit.checkpointing import Checkpoints
from audit.domain.checkpoint import Checkpoint, checkpoint_text, read_checkpoint
from audit.domain.tree import EMPTY_ROOT, GrowingTree, Node
from audit.errors import CheckpointStoreUnavailable, LogInconsistent, TreeDamaged
from chassis.keyring import Keyring
from prometheus_client import REGISTRY

from tests.unit.audit.ledger import ORIGIN, SECRET, Ledger

OTHER = "v1:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(name)


async def test_what_is_published_is_the_log_signed() -> None:
    ledger = Ledger()
    replica = ledger.replica()
    await ledger.append(5)
    await replica.publish()
    present = await replica.present()
    assert ledger.published(5) == present.checkpoint
    assert read_checkpoint(ledger.notary.open(present.note)) == present.checkpoint
    assert (present.checkpoint.origin, present.checkpoint.size) == (ORIGIN, 5)


async def test_an_empty_log_is_signed_for_who_asks_and_not_published() -> None:
    ledger = Ledger()
    replica = ledger.replica()
    await replica.publish()
    assert ledger.store.published == {}
    assert (await replica.present()).checkpoint == Checkpoint(ORIGIN, 0, EMPTY_ROOT)


async def test_one_size_is_published_once_whoever_publishes() -> None:
    ledger = Ledger()
    replicas = [ledger.replica() for _ in range(3)]
    for count in (1, 4, 0, 7):
        await ledger.append(count)
        await asyncio.gather(*(replica.publish() for replica in replicas))
    assert sorted(ledger.store.published) == [1, 5, 12]


async def test_who_finds_out_by_the_store_that_another_was_first_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    await ledger.append(3)
    first, second = ledger.replica(), ledger.replica()

    async def nothing() -> None:
        return None

    await first.publish()
    monkeypatch.setattr(ledger.store, "newest_size", nothing)
    await second.publish()
    assert list(ledger.store.published) == [3]


def cut(ledger: Ledger) -> None:
    del ledger.log.stored[4:]


def swap(ledger: Ledger) -> None:
    """Exchange two entries with all that is stored over them: only what was published knows."""
    stored = ledger.log.stored
    hashes = [entry.appended.leaf_hash for entry in stored]
    hashes[1], hashes[2] = hashes[2], hashes[1]
    for number, digest in enumerate(hashes):
        stored[number] = replace(stored[number], appended=replace(stored[number].appended, leaf_hash=digest))
    rebuild(ledger)


def rebuild(ledger: Ledger) -> None:
    tree = GrowingTree(0, [])
    ledger.log.subtrees = {
        node: digest for entry in ledger.log.stored for node, digest in tree.add(entry.appended.leaf_hash)
    }


def publish_otherwise(ledger: Ledger) -> None:
    text = checkpoint_text(Checkpoint(ORIGIN, 9, bytes(32)))
    ledger.store.published[9] = ledger.notary.sign(text)


def publish_unsigned(ledger: Ledger) -> None:
    ledger.store.published[9] = Ed25519Notary(ORIGIN, Keyring.parse(OTHER)).sign(
        checkpoint_text(Checkpoint(ORIGIN, 9, bytes(32)))
    )


def publish_for_another_log(ledger: Ledger) -> None:
    text = checkpoint_text(Checkpoint("other.example/audit", 9, bytes(32)))
    ledger.store.published[9] = ledger.notary.sign(text)


def publish_for_another_size(ledger: Ledger) -> None:
    ledger.store.published[9] = ledger.store.published[6]


def take_away(ledger: Ledger) -> None:
    ledger.store.published.clear()


@pytest.mark.parametrize(
    "violate",
    [cut, swap, publish_otherwise, publish_unsigned, publish_for_another_log, publish_for_another_size, take_away],
    ids=lambda act: act.__name__,
)
async def test_of_a_log_that_does_not_continue_what_was_published_nothing_is_signed(
    violate: Callable[[Ledger], None],
) -> None:
    ledger = Ledger()
    replica = ledger.replica()
    await ledger.append(6)
    await replica.publish()
    before = dict(ledger.store.published)
    violate(ledger)
    if violate is not cut:
        await ledger.append(3)
    with pytest.raises(LogInconsistent):
        await replica.publish()
    assert metric("keyferry_audit_log_inconsistent") == 1
    with pytest.raises(LogInconsistent):
        await replica.present()
    assert metric("keyferry_audit_log_inconsistent") == 1
    if violate in {cut, swap}:
        with pytest.raises(LogInconsistent):
            await ledger.replica().present()
        assert ledger.store.published == before


async def test_a_sound_log_takes_the_alert_back() -> None:
    ledger = Ledger()
    replica = ledger.replica()
    await ledger.append(6)
    await replica.publish()
    kept = list(ledger.log.stored)
    cut(ledger)
    with pytest.raises(LogInconsistent):
        await replica.publish()
    ledger.log.stored = kept
    await replica.publish()
    assert metric("keyferry_audit_log_inconsistent") == 0
    assert (await replica.present()).checkpoint.size == 6


async def test_a_replica_that_has_never_seen_the_store_signs_nothing() -> None:
    ledger = Ledger()
    await ledger.append(2)
    ledger.store.away = True
    replica = ledger.replica()
    with pytest.raises(CheckpointStoreUnavailable):
        await replica.present()
    ledger.store.away = False
    assert (await replica.present()).checkpoint.size == 2
    ledger.store.away = True
    await ledger.append(1)
    assert (await replica.present()).checkpoint.size == 3


async def test_a_hash_that_is_missing_is_told() -> None:
    ledger = Ledger()
    replica = ledger.replica()
    await ledger.append(3)
    await replica.publish()
    await ledger.append(6)
    del ledger.log.subtrees[Node(1, 0)]
    with pytest.raises(TreeDamaged):
        await replica.publish()


async def until(replica: Checkpoints, holds: Callable[[], bool]) -> None:
    task = asyncio.create_task(replica.run(10.0))
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 # the loop under test sets no event
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_loop_outlives_everything_and_the_age_tells() -> None:
    ledger = Ledger()
    replica = ledger.replica()
    began = ledger.clock.seconds
    ledger.store.away = True
    await ledger.append(4)
    await until(replica, lambda: ledger.clock.seconds > began + 100)
    assert metric("keyferry_audit_checkpoint_age_seconds") == ledger.clock.seconds - began
    ledger.store.away = False
    await until(replica, lambda: 4 in ledger.store.published)
    await replica.publish()
    assert metric("keyferry_audit_checkpoint_age_seconds") == 0
    stopped = ledger.clock.seconds
    del ledger.log.stored[2:]
    await until(replica, lambda: ledger.clock.seconds > stopped + 100)
    assert list(ledger.store.published) == [4]


async def test_checkpoints_of_a_key_that_was_replaced_are_known_while_it_is_retained() -> None:
    ledger = Ledger()
    await ledger.append(2)
    await ledger.replica().publish()
    ledger.notary = Ed25519Notary(ORIGIN, Keyring.parse(f"{OTHER.replace('v1', 'v2')},{SECRET}"))
    await ledger.append(2)
    await ledger.replica().publish()
    assert sorted(ledger.store.published) == [2, 4]
