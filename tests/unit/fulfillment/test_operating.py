"""What support staff can ask for, and that whatever is offered to them works."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from fulfillment.domain.machine import TRANSITIONS
from fulfillment.domain.model import Action, Reason, State
from fulfillment.domain.policy import actions
from fulfillment.errors import (
    NothingToRetry,
    OrderNotFound,
)
from fulfillment.ports.supplier import InDoubt, Refused, ReturnRefused, Unknown, Unreadable
from fulfillment.products import FRESH_SECONDS

from tests.unit.fulfillment.desk import deliver, replace_key
from tests.unit.fulfillment.fakes import a_product, collected, key_ids
from tests.unit.fulfillment.office import Office

LONG = timedelta(days=8)


async def unplannable(office: Office) -> None:
    office.supplier.reading = [replace(a_product(), excluded_countries=frozenset({"DE"}))]
    await office.buy(2)
    await office.work()
    office.clock.pass_seconds(FRESH_SECONDS + 1)


async def refused(office: Office) -> None:
    await office.buy(2)
    office.supplier.placing = [Refused("ConstraintViolation")]
    await office.work()


async def never_planned(office: Office) -> None:
    await office.buy(2)
    await office.wait_in_vain(LONG)


async def in_doubt_too_long(office: Office) -> None:
    await office.buy(2)
    office.supplier.placing = [InDoubt(None)]
    await office.work()
    await office.wait_in_vain(LONG)


async def bought_after_all(office: Office) -> None:
    await office.buy(2)
    office.supplier.placing = [InDoubt(None)]
    await office.work()
    office.clock.pass_seconds(60)
    (claimed,) = await office.claim()
    await office.wait_in_vain(LONG)
    await office.progress.act(claimed)
    assert office.purchase().supplier_order_id


async def keys_too_late(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 1)]
    await office.work()
    await office.wait_in_vain(LONG)


async def unknown(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [Unknown()]
    await office.work()


async def unreadable(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [Unreadable()]
    await office.work()


async def held(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 2, held=1)]
    await office.work()


async def withdrawn_too_long(office: Office) -> None:
    await office.buy(2)
    await office.cancel()
    await office.wait_in_vain(LONG)


async def revoked_too_long(office: Office) -> None:
    await office.buy(2)
    await office.settle()
    await office.refund()
    await office.wait_in_vain(LONG)


async def return_refused(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.returning = [ReturnRefused("older than 24 hours")]
    await office.cancel()
    await office.settle()


async def partly_opened(office: Office) -> None:
    await office.buy(2)
    await office.settle()
    await office.open(key_ids(office.purchase())[0])
    await office.refund()
    await office.settle()


async def return_too_late(office: Office) -> None:
    await office.buy(2)
    await office.work()
    await office.cancel()
    await office.work()
    await office.wait_in_vain(LONG)


async def corrupted(office: Office) -> None:
    await office.buy(2)
    await office.settle()
    await office.open(key_ids(office.purchase())[0])
    await office.corrupt(key_ids(office.purchase())[1])


async def corrupted_while_more_are_awaited(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 1)]
    await office.work()
    await office.corrupt(key_ids(office.purchase())[0])


async def corrupted_once_delivered(office: Office) -> None:
    await office.buy(2)
    await office.settle()
    for key_id in key_ids(office.purchase()):
        await office.open(key_id)
    assert office.purchase().state is State.DELIVERED
    await office.corrupt(key_ids(office.purchase())[0])


async def corrupted_once_canceled_in_part(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 1, ended=True)]
    await office.work()
    assert office.purchase().state is State.PARTLY_CANCELED
    await office.corrupt(key_ids(office.purchase())[0])


Reach = Callable[[Office], Awaitable[None]]
# fmt: off
STUCK: list[tuple[Reach, Reason, set[Action]]] = [
    (unplannable,        Reason.PURCHASE_REFUSED, {Action.RETRY, Action.CANCEL, Action.DELIVER_MANUALLY}),
    (refused,            Reason.PURCHASE_REFUSED, {Action.RETRY, Action.CANCEL, Action.DELIVER_MANUALLY}),
    (never_planned,      Reason.PURCHASE_TOO_OLD, {Action.RETRY, Action.CANCEL, Action.DELIVER_MANUALLY}),
    (in_doubt_too_long,  Reason.PURCHASE_TOO_OLD, {Action.RETRY, Action.CANCEL, Action.DELIVER_MANUALLY}),
    (bought_after_all,   Reason.PURCHASE_TOO_OLD, {Action.RETRY, Action.CANCEL}),
    (keys_too_late,      Reason.KEYS_TOO_LATE,    {Action.RETRY, Action.CANCEL, Action.REPLACE_KEY}),
    (unknown,            Reason.PURCHASE_UNKNOWN, {Action.RETRY, Action.CANCEL}),
    (unreadable,         Reason.KEY_UNREADABLE,   {Action.RETRY, Action.CANCEL, Action.DELIVER_MANUALLY}),
    (held,               Reason.DUPLICATE_KEY,
                         {Action.RETRY, Action.CANCEL, Action.DELIVER_MANUALLY, Action.REPLACE_KEY}),
    (corrupted,          Reason.KEY_CORRUPTED,    {Action.RETRY, Action.REPLACE_KEY}),
    (corrupted_while_more_are_awaited,
                         Reason.KEY_CORRUPTED,    {Action.RETRY, Action.REPLACE_KEY}),
    (corrupted_once_delivered,
                         Reason.KEY_CORRUPTED,    {Action.RETRY, Action.REPLACE_KEY}),
    (corrupted_once_canceled_in_part,
                         Reason.KEY_CORRUPTED,    {Action.RETRY, Action.REPLACE_KEY}),
    (withdrawn_too_long, Reason.GIVE_UP_TOO_OLD,  {Action.RETRY, Action.CANCEL}),
    (revoked_too_long,   Reason.GIVE_UP_TOO_OLD,  {Action.RETRY, Action.CANCEL}),
    (return_refused,     Reason.RETURN_REFUSED,   {Action.RETRY, Action.CANCEL}),
    (partly_opened,      Reason.RETURN_REFUSED,   {Action.RETRY, Action.CANCEL}),
    (return_too_late,    Reason.RETURN_TOO_LATE,  {Action.RETRY, Action.CANCEL}),
]
# fmt: on
OFFERED = [(reach, action) for reach, _, offered in STUCK for action in Action if action in offered]
RECORDED = {
    Action.RETRY: "order.retry_asked",
    Action.CANCEL: "order.cancel_asked",
    Action.DELIVER_MANUALLY: "key.delivered_manually",
    Action.REPLACE_KEY: "key.replacement_asked",
}


def name(value: object) -> str:
    # The members of a set come in another order in each process.
    return "+".join(sorted(value)) if isinstance(value, set) else getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("reach", "reason", "offered"), STUCK, ids=name)
async def test_whatever_needs_attention_says_why_and_what_can_be_done(
    reach: Reach, reason: Reason, offered: set[Action]
) -> None:
    office = Office()
    await reach(office)
    purchase = office.purchase()
    assert (purchase.state, purchase.reason) == (State.NEEDS_ATTENTION, reason)
    assert set(actions(purchase, office.sealed())) == offered


def test_every_reason_for_attention_is_reached_by_one_of_them() -> None:
    given = {each.reason for each in TRANSITIONS.values() if each.state is State.NEEDS_ATTENTION}
    assert given == {reason for _, reason, _ in STUCK}


@pytest.mark.parametrize(("reach", "action"), OFFERED, ids=name)
async def test_whatever_is_offered_works_and_leads_to_an_end(reach: Reach, action: Action) -> None:
    office = Office()
    await reach(office)
    external_id = office.purchase().external_id
    match action:
        case Action.RETRY:
            await office.retry()
        case Action.CANCEL:
            await office.cancel()
        case Action.DELIVER_MANUALLY:
            while Action.DELIVER_MANUALLY in actions(office.purchase(), office.sealed()):
                await deliver(office, f"r-{len(office.sealed())}")
        case _:
            for key in office.sealed():
                await replace_key(office, key.key_id)
    await office.settle(within=timedelta(days=10))
    after = next(each for each in office.orders.purchases() if each.external_id == external_id)
    if action is Action.RETRY and reach is partly_opened:
        assert (after.state, after.reason) == (State.NEEDS_ATTENTION, Reason.RETURN_REFUSED)
    elif action is Action.REPLACE_KEY and reach is keys_too_late:
        assert (after.state, after.reason) == (State.NEEDS_ATTENTION, Reason.KEYS_TOO_LATE)
    else:
        assert after.state is not State.NEEDS_ATTENTION
    assert office.audited(RECORDED[action])
    # Never more than was ordered can be opened by its owner, and nothing is bought twice.
    assert sum(key.is_openable and key.replace_time is None for key in office.sealed()) <= 2


async def test_a_retry_of_what_does_not_need_it_changes_nothing() -> None:
    office = Office()
    await office.buy(2)
    with pytest.raises(NothingToRetry):
        await office.retry()
    with pytest.raises(OrderNotFound):
        await Office().retry()


async def test_a_retry_of_what_was_refused_is_another_attempt_under_another_reference() -> None:
    office = Office()
    await refused(office)
    await office.retry()
    await office.settle()
    first, second = office.orders.purchases()
    assert (first.state, second.state, second.attempt) == (State.SUPERSEDED, State.READY, 2)
    assert set(office.supplier.sold) == {second.external_id}
    assert (await office.found()).state is State.READY


async def test_a_person_who_lets_a_parked_purchase_go_on_begins_a_new_wait() -> None:
    office = Office()
    await office.buy(2)
    await office.place(
        state=State.NEEDS_ATTENTION, reason=Reason.PURCHASE_TOO_OLD, unit_limit=999, park_time=office.clock.now()
    )
    office.clock.time += LONG
    await office.retry()
    assert office.purchase().park_time is None


async def test_only_the_line_that_is_named_goes_on() -> None:
    office = Office()
    await office.buy(1, 1)
    office.supplier.placing = [Refused("ConstraintViolation"), Refused("ConstraintViolation")]
    await office.work()
    await office.retry("item-2")
    assert office.states() == [State.NEEDS_ATTENTION, State.SUPERSEDED, State.PENDING]
