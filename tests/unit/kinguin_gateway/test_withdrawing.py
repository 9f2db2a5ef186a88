"""Single steps of withdrawing; whole histories are in test_histories.py."""

from dataclasses import replace
from datetime import timedelta

import pytest
from kinguin_gateway.domain.guard import NEXT_STEP, NEXT_STEP_WITHDRAWN, WITHDRAWAL, Rejected, Step, when_not_taken
from kinguin_gateway.domain.purchase import Problem, PurchaseState
from kinguin_gateway.domain.switching import PauseCause
from kinguin_gateway.errors import BuyingPaused, ExternalIdConflict, PurchaseInDoubt, PurchaseRefused
from kinguin_gateway.withdrawing import Withdrawer

from tests.unit.kinguin_gateway.fakes import INTENT
from tests.unit.kinguin_gateway.test_buying import BOUNDS, WINDOW, World
from tests.unit.simulated import simulate

OTHER_ID = "5d4c9b7a-0a35-4f0e-9c1c-5a0f7f9b1c22"
PROOF = (BOUNDS.total + WINDOW + timedelta(seconds=1)).total_seconds()


class Desk(World):
    """A world in which purchases are withdrawn as well."""

    async def withdraw(self) -> PurchaseState:
        withdrawer = Withdrawer(self.purchases, self.buyer._settler, window=WINDOW)
        return (await withdrawer.withdraw(INTENT, OTHER_ID)).state

    async def withdraw_at_last(self) -> PurchaseState:
        for _ in range(100):
            try:
                return await self.withdraw()
            except PurchaseInDoubt as doubt:
                wait = doubt.retry_after or timedelta.max
                await self.supplier.clock.sleep(wait.total_seconds())
        raise AssertionError("still in doubt")


async def is_refused(desk: Desk) -> None:
    with pytest.raises(PurchaseRefused) as refused:
        await desk.place()
    assert refused.value.metadata["kind"] == "withdrawn"
    assert desk.state() is PurchaseState.REFUSED


def test_a_withdrawal_changes_what_would_be_sent_and_nothing_else() -> None:
    changed = {state for state in PurchaseState if NEXT_STEP[state] is not NEXT_STEP_WITHDRAWN[state]}
    assert changed == {PurchaseState.INTENDED}
    assert Step.SEND not in NEXT_STEP_WITHDRAWN.values()
    assert when_not_taken(withdrawn=True) is PurchaseState.REFUSED
    assert when_not_taken(withdrawn=False) is PurchaseState.INTENDED


def test_what_was_never_heard_of_is_refused_for_ever_and_nothing_is_asked() -> None:
    async def act(desk: Desk) -> None:
        desk.supplier.search_fails = lambda: True
        for _ in range(2):
            assert await desk.withdraw() is PurchaseState.REFUSED
        await is_refused(desk)
        assert desk.purchases.rows[INTENT.external_id].purchase.refusal == WITHDRAWAL
        assert desk.purchases.audited == ["purchase.withdrawn"]

    desk = Desk()
    simulate(act(desk))
    assert desk.supplier.sent_at == []


def test_a_parked_purchase_leaves_the_line_and_its_money_is_free() -> None:
    async def act(desk: Desk) -> None:
        desk.purchases.cause = PauseCause.OPERATOR
        with pytest.raises(BuyingPaused):
            await desk.place()
        assert await desk.withdraw() is PurchaseState.REFUSED
        assert (await desk.purchases.status()).parked_count == 0
        desk.purchases.cause = PauseCause.INSUFFICIENT_BALANCE
        other = replace(INTENT, external_id="kf-0002", quantity=1)
        with pytest.raises(BuyingPaused):
            await desk.buyer.place(other, OTHER_ID)
        assert await desk.purchases.release(9, balance_cents=INTENT.max_unit_cents) == 1
        await is_refused(desk)

    desk = Desk()
    simulate(act(desk))
    assert desk.supplier.sent_at == []


def test_what_was_bought_is_told() -> None:
    async def act(desk: Desk) -> None:
        await desk.place()
        assert await desk.withdraw() is PurchaseState.PLACED

    simulate(act(Desk()))


def test_what_the_supplier_refused_stays_refused_in_its_words() -> None:
    async def act(desk: Desk) -> None:
        with pytest.raises(PurchaseRefused):
            await desk.place()
        assert await desk.withdraw() is PurchaseState.REFUSED
        assert desk.purchases.rows[INTENT.external_id].purchase.refusal.kind == "ProductUnavailable"

    simulate(act(Desk(take=False)))


def test_what_may_have_been_sent_is_in_doubt_until_its_absence_is_proved_and_then_refused() -> None:
    async def act(desk: Desk) -> None:
        with pytest.raises(PurchaseInDoubt):
            await desk.place()
        with pytest.raises(PurchaseInDoubt):
            await desk.withdraw()
        assert desk.state() is PurchaseState.IN_DOUBT
        began = desk.supplier.clock.elapsed()
        assert await desk.withdraw_at_last() is PurchaseState.REFUSED
        assert desk.supplier.clock.elapsed() - began > BOUNDS.total.total_seconds() - WINDOW.total_seconds()
        await is_refused(desk)

    desk = Desk(take=False, reply=Rejected(500, Problem("Error")))
    simulate(act(desk))
    assert len(desk.supplier.sent_at) == 1


def test_what_shows_late_is_adopted_and_not_refused() -> None:
    async def act(desk: Desk) -> None:
        with pytest.raises(PurchaseInDoubt):
            await desk.place()
        assert await desk.withdraw_at_last() is PurchaseState.PLACED

    desk = Desk(answer=None, lag=50)
    simulate(act(desk))
    assert len(desk.supplier.taken) == 1


@pytest.mark.parametrize("settled_by", ["a look", "a repeat"])
def test_the_wish_is_kept_whoever_settles_the_doubt(settled_by: str) -> None:
    async def act(desk: Desk) -> None:
        with pytest.raises(PurchaseInDoubt):
            await desk.place()
        with pytest.raises(PurchaseInDoubt):
            await desk.withdraw()
        await desk.supplier.clock.sleep(PROOF)
        if settled_by == "a look":
            (due,) = await desk.purchases.claim_due(1, lease=WINDOW)
            await desk.buyer._settler.settle(due.purchase, due.time)
        await is_refused(desk)

    desk = Desk(take=False, reply=Rejected(500, Problem("Error")))
    simulate(act(desk))
    assert len(desk.supplier.sent_at) == 1


def test_an_attempt_that_turns_out_not_to_have_been_sent_is_not_made_again() -> None:
    async def act(desk: Desk) -> None:
        async def step(name: str) -> None:
            if name == "before send":
                with pytest.raises(PurchaseInDoubt):
                    await desk.withdraw()

        desk.supplier.step = step
        await is_refused(desk)
        assert await desk.withdraw() is PurchaseState.REFUSED

    desk = Desk(connect=WINDOW.total_seconds() + 5)
    simulate(act(desk))
    assert desk.supplier.sent_at == []


def test_an_attempt_that_is_refused_for_want_of_money_does_not_join_the_line() -> None:
    async def act(desk: Desk) -> None:
        async def step(name: str) -> None:
            if name == "before send":
                with pytest.raises(PurchaseInDoubt):
                    await desk.withdraw()

        desk.supplier.step = step
        await is_refused(desk)
        assert desk.purchases.cause is PauseCause.INSUFFICIENT_BALANCE
        assert (await desk.purchases.status()).parked_count == 0

    simulate(act(Desk(take=False, reply=Rejected(422, Problem("InsufficientBalance")))))


def test_a_withdrawn_purchase_is_refused_as_such_after_however_many_attempts() -> None:
    async def act(desk: Desk) -> None:
        with pytest.raises(PurchaseInDoubt):
            await desk.place()
        row = desk.purchases.rows[INTENT.external_id]
        row.purchase = replace(row.purchase, attempt=10)
        assert await desk.withdraw_at_last() is PurchaseState.REFUSED
        assert row.purchase.refusal == WITHDRAWAL

    simulate(act(Desk(take=False, reply=Rejected(500, Problem("Error")))))


def test_after_the_database_forgot_what_is_new_to_it_is_searched_for_before_it_is_refused() -> None:
    async def act(desk: Desk) -> None:
        await desk.place()
        desk.purchases.rows.clear()
        now = desk.purchases.now()
        desk.purchases.forgotten_deadline, desk.purchases.caution_end = now + WINDOW, now + timedelta(days=7)
        assert await desk.withdraw_at_last() is PurchaseState.PLACED
        desk.purchases.rows.clear()
        desk.supplier.taken.clear()
        began = desk.supplier.clock.elapsed()
        assert await desk.withdraw_at_last() is PurchaseState.REFUSED
        assert desk.supplier.clock.elapsed() - began > BOUNDS.total.total_seconds()

    simulate(act(Desk()))


def test_another_purchase_under_the_same_reference_is_not_withdrawn() -> None:
    async def act(desk: Desk) -> None:
        await desk.place()
        withdrawer = Withdrawer(desk.purchases, desk.buyer._settler, window=WINDOW)
        with pytest.raises(ExternalIdConflict):
            await withdrawer.withdraw(replace(INTENT, quantity=1), OTHER_ID)

    simulate(act(Desk()))
