"""Every history of one purchase, with answers as late as they may be: what was asked once may be answered ever after.

The purchase moves by the real table and the real policy. What the world around it knows is kept beside it, so that no
answer is made up that could not be true: whether the supplier sold it, which keys came, which were opened.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from fulfillment.domain.machine import Command, Effect, Signal, decide
from fulfillment.domain.model import ExternalId, ItemId, Key, KeyId, OrderId, Purchase, Reason, State
from fulfillment.domain.policy import (
    MOST_AGE,
    Policy,
    Remedy,
    actions,
    is_all_opened,
    is_complete,
    is_deliverable,
    is_replaceable,
    missing,
    signal_on_cancel,
    signal_on_giving_up,
    signal_on_refund,
    signal_on_refusal,
    signal_on_retry,
)

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
AWAITED = {State.AWAITING_KEYS, State.READY, State.DELIVERED, State.NEEDS_ATTENTION}
REMEDIES = [Policy(when_refused=remedy) for remedy in Remedy]


@dataclass(frozen=True)
class World:
    purchase: Purchase
    keys: tuple[Key, ...] = ()
    is_sold: bool | None = None
    """None until the supplier has decided."""
    asked: frozenset[Command] = frozenset()
    is_told: bool = False
    """Whether the shop was told what will not come."""

    def after(self, signal: Signal, **changes: object) -> "World":
        """Move as the shell does; what the answer changed of the purchase is written only if the table has a row."""
        purchase = replace(self.purchase, **changes)  # type: ignore[arg-type] # fields by name
        transition = decide(purchase.state, signal)
        if transition is None:
            # Only that it was bought after all is written even so.
            return replace(self, purchase=replace(self.purchase, supplier_order_id=purchase.supplier_order_id))
        moved = replace(purchase, state=transition.state, reason=transition.reason_after(purchase.reason))
        after = replace(
            self,
            purchase=moved,
            asked=self.asked | set(transition.commands),
            is_told=self.is_told or transition.effect is Effect.MONEY_BACK,
        )
        if moved.state is State.CANCELED and moved.give_up is Reason.REFUND_TAKEN:
            return after.after(Signal.MONEY_RETURNED)
        return after


def begin(quantity: int) -> World:
    return World(Purchase(ExternalId("kf1-a"), OrderId("o"), ItemId("i"), quantity, State.PENDING, NOON))


def steps(world: World) -> Iterator[World]:
    yield from _of_time(world)
    yield from _of_people(world)
    for command in world.asked:
        yield from _ANSWERS[command](world)


def _of_time(world: World) -> Iterator[World]:
    if world.purchase.state in MOST_AGE:
        is_planned = world.purchase.state is State.PENDING and world.purchase.is_planned
        yield world.after(Signal.PLAN_MADE if is_planned else Signal.CLAIMED)
        yield world.after(Signal.TOO_OLD)


def _of_people(world: World) -> Iterator[World]:
    purchase, keys = world.purchase, world.keys
    if (signal := signal_on_retry(purchase, keys)) is not None:
        yield world.after(signal)
    if (signal := signal_on_cancel(purchase, keys)) is not None:
        is_back = purchase.give_up is Reason.REFUND_TAKEN
        yield world.after(signal, give_up=purchase.give_up if is_back else Reason.CANCEL_ASKED)
    if (signal := signal_on_refund(purchase, keys)) is not None:
        yield world.after(signal, give_up=Reason.REFUND_TAKEN)
    else:
        yield replace(world, purchase=replace(purchase, give_up=Reason.REFUND_TAKEN))
    if is_deliverable(purchase, keys) and (purchase.supplier_order_id or not world.is_sold):
        # First it was made sure that it is never sold.
        settled = replace(world, is_sold=bool(purchase.supplier_order_id))
        yield _completed(replace(settled, keys=(*keys, _key(f"by hand {len(keys)}"))))
    for place, key in enumerate(keys):
        if is_replaceable(purchase, key, keys):
            changed = replace(key, replace_time=NOON, revoke_time=key.revoke_time if key.open_time else NOON)
            yield _completed(_with_key(world, place, changed))
        if key.is_openable and key.open_time is None:
            opened = _with_key(world, place, replace(key, open_time=NOON))
            if purchase.state is State.READY and is_all_opened(opened.keys):
                opened = opened.after(Signal.ALL_KEYS_OPENED)
            yield opened


def _completed(world: World) -> World:
    purchase = world.purchase
    if purchase.state is State.NEEDS_ATTENTION and not purchase.give_up and is_complete(purchase, world.keys):
        world = world.after(Signal.DELIVERED_BY_HAND)
    if world.purchase.state is State.READY and is_all_opened(world.keys):
        world = world.after(Signal.ALL_KEYS_OPENED)
    return world


def _with_key(world: World, place: int, key: Key) -> World:
    return replace(world, keys=(*world.keys[:place], key, *world.keys[place + 1 :]))


def _key(name: str, *, held: bool = False) -> Key:
    return Key(KeyId(name), ItemId("i"), ExternalId("kf1-a"), "text/plain", held, NOON)


def _planned(world: World) -> Iterator[World]:
    if world.purchase.state is State.PENDING:
        yield world.after(Signal.PLAN_MADE, unit_limit=999)
        for signal in (Signal.PLAN_COVERED, Signal.PLAN_POSTPONED, Signal.NO_ANSWER):
            yield world.after(signal)
        yield world.after(Signal.ORDER_REFUSED)
        yield world.after(Signal.SALE_REFUSED)


def _placed(world: World) -> Iterator[World]:
    for signal in (Signal.ORDER_IN_DOUBT, Signal.BUYING_PAUSED, Signal.NO_ANSWER):
        yield world.after(signal)
    if world.is_sold is not False:
        yield replace(world, is_sold=True).after(Signal.ORDER_PLACED, supplier_order_id="PHS-1")
    if not world.is_sold:
        for policy in REMEDIES:
            for kind in ("out_of_stock", "ConstraintViolation"):
                refused = replace(world, is_sold=False)
                yield refused.after(signal_on_refusal(world.purchase, kind, policy))


def _withdrawn(world: World) -> Iterator[World]:
    for signal in (Signal.ORDER_IN_DOUBT, Signal.NO_ANSWER):
        yield world.after(signal)
    if world.is_sold:
        yield world.after(Signal.ORDER_PLACED, supplier_order_id="PHS-1")
    else:
        yield replace(world, is_sold=False).after(Signal.ORDER_WITHDRAWN)


def _collected(world: World) -> Iterator[World]:
    purchase = world.purchase
    is_awaited = purchase.state in AWAITED and not purchase.give_up
    if is_awaited:
        for signal in (Signal.NO_ANSWER, Signal.KEY_UNREADABLE, Signal.PURCHASE_UNKNOWN):
            yield world.after(signal)
    known = {key.key_id: key.held for key in world.keys}
    for count in range(purchase.quantity + 1):
        for is_held in {known.get(KeyId("key 0"), False), known.get(KeyId("key 0"), True)}:
            told = [_key(f"key {place}", held=is_held and place == 0) for place in range(count)]
            fresh = [key for key in told if key.key_id not in known]
            room = missing(purchase, world.keys) if is_awaited else 0
            surplus = [key for key in fresh if not key.held][room:]
            fresh = [replace(key, revoke_time=NOON) if not is_awaited or key in surplus else key for key in fresh]
            stored = replace(world, keys=(*world.keys, *fresh))
            if not is_awaited:
                yield stored.after(Signal.KEYS_ARRIVED) if fresh else stored
                continue
            for is_ended in (False, True):
                moved = stored.after(_signal_of_keys(world, told, is_ended=is_ended))
                if moved.purchase.state is State.READY and not fresh and is_all_opened(moved.keys):
                    moved = moved.after(Signal.ALL_KEYS_OPENED)
                yield moved


def _signal_of_keys(world: World, told: list[Key], *, is_ended: bool) -> Signal:
    there = {key.key_id for key in told} | {key.key_id for key in world.keys if key.is_openable}
    is_all = len(there) >= world.purchase.quantity
    if not is_all and not is_ended:
        return Signal.SOME_KEYS_SEALED
    if any(key.held for key in told):
        return Signal.KEY_HELD
    if is_all:
        return Signal.ALL_KEYS_SEALED
    return Signal.NO_MORE_KEYS if there else Signal.NO_KEYS_AT_ALL


def _revoked(world: World) -> Iterator[World]:
    yield world.after(Signal.NO_ANSWER)
    # Asked before the last key came.
    if world.keys:
        yield world.after(Signal.KEYS_ARRIVED)
    opened = [key for key in world.keys if key.open_time]
    keys = tuple(key if key.open_time else replace(key, revoke_time=NOON) for key in world.keys)
    after = replace(world, keys=keys)
    if opened:
        is_all = len(opened) == len(keys) >= world.purchase.quantity
        yield after.after(Signal.ALL_KEYS_OPENED if is_all else Signal.KEYS_PARTLY_OPENED)
    else:
        yield after.after(Signal.KEYS_REVOKED if world.purchase.supplier_order_id else Signal.BOUGHT_ELSEWHERE)


def _given_back(world: World) -> Iterator[World]:
    for signal in (Signal.RETURN_UNDER_WAY, Signal.KEYS_RETURNED, Signal.RETURN_REFUSED, Signal.NO_ANSWER):
        yield world.after(signal)


def _shredded(world: World) -> Iterator[World]:
    yield world.after(Signal.KEYS_SHREDDED)
    yield world.after(Signal.NO_ANSWER)


_ANSWERS = {
    Command.PLAN_PURCHASE: _planned,
    Command.PLACE_ORDER: _placed,
    Command.SETTLE_ORDER: _placed,
    Command.WITHDRAW_ORDER: _withdrawn,
    Command.COLLECT_KEYS: _collected,
    Command.REVOKE_KEYS: _revoked,
    Command.RETURN_KEYS: _given_back,
    Command.SHRED_KEYS: _shredded,
}


@pytest.fixture(scope="module", params=[1, 2])
def worlds(request: pytest.FixtureRequest) -> list[World]:
    """Every world that one purchase of so many keys can come to; that none of them raises is the first of the laws."""
    first = begin(request.param)
    seen, left = {first}, deque([first])
    while left:
        for world in steps(left.popleft()):
            if world not in seen:
                seen.add(world)
                left.append(world)
    return list(seen)


def test_every_state_is_lived_through(worlds: list[World]) -> None:
    assert {world.purchase.state for world in worlds} == set(State) - {State.AWAITING_PAYMENT}


def test_what_needs_attention_can_always_be_acted_on(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state is State.NEEDS_ATTENTION:
            assert world.purchase.reason
            assert actions(world.purchase, world.keys), world


def test_nobody_keeps_a_key_that_was_never_opened_together_with_its_money(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state in {State.CANCELED, State.REFUNDED}:
            assert not [key for key in world.keys if key.is_openable], world


def test_the_shop_is_told_of_everything_that_does_not_come(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state in {State.CANCELED, State.REFUNDED, State.PARTLY_CANCELED, State.RETURNING}:
            assert world.is_told, world


def test_the_shop_is_told_of_nothing_that_came(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state is State.READY:
            assert not world.is_told, world


def test_what_was_sold_is_never_superseded(worlds: list[World]) -> None:
    """Another attempt after a purchase that the supplier sold would be bought twice."""
    for world in worlds:
        if world.purchase.state is State.SUPERSEDED:
            assert not world.is_sold, world


def test_what_is_superseded_holds_no_key_that_could_be_opened(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state is State.SUPERSEDED:
            assert not [key for key in world.keys if key.is_openable], world


def test_what_is_delivered_leaves_nothing_to_be_opened(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state is State.DELIVERED:
            assert is_all_opened(world.keys), world


def test_giving_up_never_forgets_what_was_bought(worlds: list[World]) -> None:
    for world in worlds:
        if world.purchase.state is State.AWAITING_KEYS:
            assert signal_on_giving_up(world.purchase, world.keys) is Signal.GIVEN_UP_BOUGHT
