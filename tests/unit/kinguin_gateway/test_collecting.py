"""Keys go to vault one by one; whatever interrupts a collection, the next one repeats nothing and loses nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.secret import SecretBytes
from kinguin_gateway.collecting import MOST_NEW_KEYS, Collection, Collector, UnreadableKey
from kinguin_gateway.domain.purchase import Intent, Purchase, PurchaseState, SupplierOrder, SupplierOrderState
from kinguin_gateway.errors import PurchaseNotPlaced, PurchaseUnknown
from kinguin_gateway.ports.supplier import SuppliedKey
from kinguin_gateway.ports.vault import Unsealable

from tests.unit.kinguin_gateway.fakes import (
    INTENT,
    REQUEST_ID,
    FakePurchases,
    FakeSupplier,
    FakeVault,
    Row,
    an_order,
    deliver,
)
from tests.unit.simulated import EPOCH

COMPLETED = SupplierOrderState.COMPLETED
DIGEST = b"digest"


def a_key(number: int, *, product_id: str | None = INTENT.product_id) -> SuppliedKey:
    return SuppliedKey(f"k{number}", product_id, "text/plain", SecretBytes(f"GAME-KEY-{number:04}".encode()))


@dataclass
class World:
    """One placed purchase, and who takes part in collecting its keys."""

    quantity: int = 2
    purchases: FakePurchases = field(default_factory=lambda: FakePurchases(lambda: EPOCH))
    supplier: FakeSupplier = field(default_factory=FakeSupplier)
    vault: FakeVault = field(default_factory=FakeVault)

    def __post_init__(self) -> None:
        intent = replace(INTENT, quantity=self.quantity)
        self.order = an_order(intent)
        self.row = Row(self._placed(intent), REQUEST_ID, next_look_time=EPOCH)
        self.purchases.rows[intent.external_id] = self.row
        self.supplier.taken.append(self.order)

    def _placed(self, intent: Intent) -> Purchase:
        return Purchase(
            intent,
            PurchaseState.PLACED,
            1,
            EPOCH,
            create_time=EPOCH,
            supplier_order_id=self.order.supplier_order_id,
            supplier_order_state=SupplierOrderState.PROCESSING,
        )

    def deliver(self, *keys: SuppliedKey, state: SupplierOrderState = COMPLETED) -> SupplierOrder:
        self.supplier.keys[self.order.supplier_order_id] = list(keys)
        order = deliver(self.order, len(keys), state)
        self.supplier.show(order)
        return order

    async def collect(self, request_id: str = "r", digest: bytes = DIGEST) -> Collection:
        collector = Collector(self.purchases, self.supplier, self.vault)
        return await collector.collect(INTENT.external_id, customer_id="alice", request_id=request_id, digest=digest)


def fails(on: str, error: BaseException) -> Callable[[str], Awaitable[None]]:
    async def step(name: str) -> None:
        if name.endswith(on):
            raise error

    return step


async def test_each_key_is_sealed_for_its_owner_and_its_order() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    collection = await world.collect()
    assert [key.key_id for key in collection.keys] == ["key-of-kinguin:PHS00001:k1", "key-of-kinguin:PHS00001:k2"]
    assert not collection.more_keys_ready
    request, value = world.vault.sealed["kinguin:PHS00001:k1"]
    assert (request.order_id, request.item_id, request.customer_id) == (INTENT.order_id, INTENT.item_id, "alice")
    assert value == b"GAME-KEY-0001"
    assert world.row.next_look_time is None


async def test_collecting_again_seals_nothing_again_and_does_not_even_fetch() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    first, again = await world.collect(), await world.collect()
    assert again.keys == first.keys
    assert len(world.vault.calls) == 2
    assert world.supplier.pages_read == 1


async def test_nothing_is_fetched_before_something_was_delivered() -> None:
    world = World()
    world.deliver(state=SupplierOrderState.PROCESSING)
    assert not (await world.collect()).keys
    assert world.supplier.pages_read == 0
    assert world.row.next_look_time is not None


async def test_a_partial_delivery_is_collected_and_the_rest_later() -> None:
    world = World()
    world.deliver(a_key(1), state=SupplierOrderState.PROCESSING)
    first = await world.collect()
    assert len(first.keys) == 1
    assert world.row.next_look_time is not None, "somebody must look again"
    world.deliver(a_key(1), a_key(2))
    assert [key.supplier_key_id for key in (await world.collect()).keys] == ["k1", "k2"]
    assert len(world.vault.calls) == 2


async def test_a_canceled_rest_ends_the_purchase_with_what_came() -> None:
    world = World()
    world.deliver(a_key(1), state=SupplierOrderState.CANCELED)
    collection = await world.collect()
    assert len(collection.keys) == 1
    assert collection.purchase.supplier_order_state is SupplierOrderState.CANCELED
    assert world.row.next_look_time is None


async def test_a_large_delivery_comes_in_bounded_calls() -> None:
    world = World(quantity=MOST_NEW_KEYS + 20)
    world.deliver(*(a_key(number) for number in range(MOST_NEW_KEYS + 20)))
    first = await world.collect()
    assert (len(first.keys), first.more_keys_ready) == (MOST_NEW_KEYS, True)
    assert world.row.next_look_time is not None
    second = await world.collect()
    assert (len(second.keys), second.more_keys_ready) == (MOST_NEW_KEYS + 20, False)
    assert len(world.vault.calls) == MOST_NEW_KEYS + 20


async def test_a_key_of_another_product_is_told_and_not_sealed(logs: list[MutableMapping[str, Any]]) -> None:
    world = World()
    world.deliver(a_key(1), a_key(2, product_id="another-product"), a_key(3, product_id=None))
    collection = await world.collect()
    assert [key.supplier_key_id for key in collection.keys] == ["k1", "k3"]
    assert "supplier delivered a key of another product" in [entry["event"] for entry in logs]


async def test_what_was_sealed_is_kept_and_told_when_vault_fails_for_another_key() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    world.vault.step = fails("k2", ServiceUnavailable("vault is away"))
    for _ in range(2):
        partly = await world.collect()
        assert [key.supplier_key_id for key in partly.keys] == ["k1"]
        assert not partly.more_keys_ready, "asking again at once would only be answered the same"
    assert world.row.next_look_time is not None
    world.vault.step = fails("nothing", ServiceUnavailable(""))
    assert len((await world.collect()).keys) == 2
    assert world.vault.calls.count("kinguin:PHS00001:k1") == 1


async def test_a_failing_vault_is_told_where_there_is_no_key_to_tell_of() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    world.vault.step = fails("", ServiceUnavailable("vault is away"))
    with pytest.raises(ServiceUnavailable):
        await world.collect()
    assert world.row.keys == []


async def test_a_crash_between_vault_and_the_database_seals_the_same_key_again() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    world.purchases.step = fails("before keys", asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await world.collect()
    assert world.row.keys == []
    world.purchases.step = fails("nothing", ServiceUnavailable(""))
    collection = await world.collect()
    assert len(collection.keys) == len(world.vault.sealed) == 2


async def test_a_key_that_vault_holds_back_is_told_as_held() -> None:
    world = World()
    world.vault.held.add(b"GAME-KEY-0001")
    world.deliver(a_key(1), a_key(2))
    assert [key.held for key in (await world.collect()).keys] == [True, False]


def no_key(number: int) -> SuppliedKey:
    return replace(a_key(number), value=None, content_type="application/pdf")


async def test_what_is_no_key_keeps_no_good_key_from_its_owner(logs: list[MutableMapping[str, Any]]) -> None:
    world = World()
    world.deliver(a_key(1), no_key(2))
    # The second answer names the key too: the first one may have been lost.
    for _ in range(2):
        collection = await world.collect()
        assert [key.supplier_key_id for key in collection.keys] == ["k1"]
        assert collection.unreadable == [UnreadableKey("kinguin:PHS00001:k2", "application/pdf")]
    assert world.row.next_look_time is not None, "the supplier may yet mend it"
    assert "GAME-KEY" not in json.dumps(logs, default=str)


async def test_another_key_under_a_used_number_is_unreadable_and_keeps_no_good_key_from_its_owner() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    await world.collect()
    # The collection that sealed it died before it was written down, and the supplier shows another key by then.
    del world.row.keys[:]
    world.deliver(replace(a_key(1), value=SecretBytes(b"ANOTHER-KEY")), a_key(2))
    collection = await world.collect()
    assert [key.supplier_key_id for key in collection.keys] == ["k2"]
    assert [key.source_ref for key in collection.unreadable] == ["kinguin:PHS00001:k1"]


async def test_a_key_that_broke_at_vault_while_it_was_sealed_is_told_at_once_and_keeps_no_good_key_from_its_owner(
    logs: list[MutableMapping[str, Any]],
) -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    world.vault.step = fails("k1", Unsealable("what vault has begun for a delivered key does not open"))
    for _ in range(2):
        collection = await world.collect()
        assert [key.supplier_key_id for key in collection.keys] == ["k2"]
        assert [key.source_ref for key in collection.unreadable] == ["kinguin:PHS00001:k1"]
    assert "what vault has begun for a delivered key does not open" in {entry["event"] for entry in logs}
    world.vault.step = fails("nothing", ServiceUnavailable(""))
    mended = await world.collect()
    assert ([key.supplier_key_id for key in mended.keys], mended.unreadable) == (["k2", "k1"], [])


async def test_very_much_that_is_no_key_keeps_no_good_key_from_its_owner() -> None:
    world = World(quantity=2 * MOST_NEW_KEYS)
    bad = [no_key(number) for number in range(MOST_NEW_KEYS + 1)]
    world.deliver(*bad, *(a_key(number) for number in range(MOST_NEW_KEYS + 1, 2 * MOST_NEW_KEYS)))
    collection = await world.collect()
    assert (len(collection.keys), len(collection.unreadable)) == (MOST_NEW_KEYS - 1, MOST_NEW_KEYS + 1)
    assert not collection.more_keys_ready


async def test_what_is_unreadable_is_told_once_nothing_else_can_be_sealed() -> None:
    world = World(quantity=3)
    world.deliver(a_key(1), no_key(2), a_key(3))
    world.vault.step = fails("k3", ServiceUnavailable("vault is away"))
    assert (await world.collect()).unreadable == ()
    world.vault.step = fails("nothing", ServiceUnavailable(""))
    assert [key.source_ref for key in (await world.collect()).unreadable] == ["kinguin:PHS00001:k2"]


async def test_plaintext_is_dropped_as_soon_as_vault_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(quantity=1)
    world.deliver(a_key(1))
    handed: list[SecretBytes] = []
    seal = world.vault.seal

    async def remember(key):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 # a stand-in for one method
        handed.append(key.value)
        return await seal(key)

    monkeypatch.setattr(world.vault, "seal", remember)
    await world.collect()
    with pytest.raises(ValueError, match="dropped"):
        handed[0].expose()


async def test_an_order_that_cannot_be_read_yet_changes_nothing() -> None:
    world = World()
    world.supplier.taken.clear()
    collection = await world.collect()
    assert (collection.keys, collection.more_keys_ready) == ([], False)


async def test_only_a_placed_purchase_has_keys() -> None:
    world = World()
    world.row.purchase = replace(world.row.purchase, state=PurchaseState.IN_DOUBT)
    with pytest.raises(PurchaseNotPlaced):
        await world.collect()
    del world.purchases.rows[INTENT.external_id]
    with pytest.raises(PurchaseUnknown):
        await world.collect()


async def test_a_request_id_stands_for_one_request() -> None:
    world = World()
    world.deliver(a_key(1), a_key(2))
    await world.collect("one", b"a")
    await world.collect("one", b"a")
    with pytest.raises(RequestIdReused):
        await world.collect("one", b"b")
