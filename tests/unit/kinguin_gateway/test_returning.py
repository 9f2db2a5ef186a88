"""Giving keys back, on a simulated clock."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from kinguin_gateway.domain.guard import Bounds, NoAnswer, NotSent, Rejected, Unreadable
from kinguin_gateway.domain.looking import Pace
from kinguin_gateway.domain.purchase import (
    OrderKey,
    OrderLine,
    Problem,
    Purchase,
    PurchaseState,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.domain.returning import MOST_LOOKS, MOST_SENT, KeyReturn, ReturnState
from kinguin_gateway.errors import PurchaseNotPlaced, PurchaseUnknown, ReturnNotAllowed, SupplierUnavailable
from kinguin_gateway.returning import Returner
from kinguin_gateway.settling import Settler

from tests.unit.kinguin_gateway.fakes import INTENT, REQUEST_ID, FakePurchases, FakeSupplier, Row, an_order
from tests.unit.simulated import EPOCH

D, R, F, C = (SupplierKeyState[name] for name in ("DELIVERED", "RETURNED", "REFUNDED", "CANCELED"))
P = SupplierKeyState.PENDING
ALREADY = Rejected(422, Problem("OrderNotSupported", "A return was requested already.", "trace-1"))
NO_KEYS = Rejected(422, Problem("NoKeysToReturn", "There are no keys to return.", "trace-2"))


class FakeReturns:
    def __init__(self, now: datetime = EPOCH) -> None:
        self.rows: dict[str, KeyReturn] = {}
        self.due: dict[str, timedelta | None] = {}
        self.since: datetime | None = None
        self.now = now

    async def of_purchases(self, external_ids: Sequence[str]) -> Mapping[str, Sequence[KeyReturn]]:
        return {
            external_id: [row for row in self.rows.values() if row.external_id == external_id]
            for external_id in external_ids
        }

    async def delivered_since(self, external_id: str) -> tuple[datetime | None, datetime]:
        assert external_id == INTENT.external_id
        return self.since, self.now

    async def ask(self, purchase: Purchase, *, request_id: str) -> KeyReturn:
        assert request_id == REQUEST_ID
        number = purchase.supplier_order_id
        return self.rows.setdefault(
            number,
            KeyReturn(
                number, purchase.intent.external_id, surplus=False, state=ReturnState.ASKED, create_time=self.now
            ),
        )

    async def ask_surplus(self, purchase: Purchase, surplus: Sequence[SupplierOrder]) -> None:
        for order in surplus:
            assert order.supplier_order_id != purchase.supplier_order_id
            row = KeyReturn(
                order.supplier_order_id, order.external_id, surplus=True, state=ReturnState.ASKED, create_time=self.now
            )
            self.rows.setdefault(order.supplier_order_id, row)

    async def claim(self, key_return: KeyReturn, *, lease: timedelta) -> bool:
        assert lease > timedelta(0)
        return key_return.supplier_order_id in self.rows

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[KeyReturn]:
        assert lease > timedelta(0)
        due = [number for number in self.rows if self.due.get(number, timedelta(0)) is not None]
        return [self.rows[number] for number in due][:limit]

    async def count_sending(self, key_return: KeyReturn) -> bool:
        row = self.rows[key_return.supplier_order_id]
        if row.sent_count != key_return.sent_count:
            return False
        self.rows[key_return.supplier_order_id] = replace(row, sent_count=row.sent_count + 1)
        return True

    async def record(self, key_return: KeyReturn, order: SupplierOrder | None, *, look: timedelta | None) -> KeyReturn:
        assert order is None or order.supplier_order_id == key_return.supplier_order_id
        self.rows[key_return.supplier_order_id] = key_return
        self.due[key_return.supplier_order_id] = look
        return key_return


class World:
    def __init__(self, *keys: SupplierKeyState, preorder: bool = False) -> None:
        self.purchases, self.supplier, self.returns = FakePurchases(lambda: EPOCH), FakeSupplier(), FakeReturns()
        placed = Purchase(
            INTENT, PurchaseState.PLACED, 1, EPOCH, create_time=EPOCH, supplier_order_id="PHS00001", sealed_count=2
        )
        self.purchases.rows[INTENT.external_id] = Row(placed, REQUEST_ID)
        self.order = an_order(state=SupplierOrderState.COMPLETED, preorder=preorder)
        self.supplier.taken.append(self.order)
        self.supplier.visible_at[self.order.supplier_order_id] = 0.0
        self.show(*(keys or (D, D)))
        pace = Pace(first=timedelta(seconds=2), longest=timedelta(hours=1))
        bounds = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
        self.returner = Returner(
            self.purchases,
            self.returns,
            self.supplier,
            Settler(self.purchases, self.supplier, bounds=bounds, pace=pace, chance=lambda: 0.5),
            pace=pace,
            call_limit=timedelta(seconds=20),
            chance=lambda: 0.5,
        )

    def show(self, *states: SupplierKeyState) -> None:
        keys = [OrderKey(f"key-{number}", state) for number, state in enumerate(states)]
        line = OrderLine(INTENT.product_id, None, len(keys), "Game", states.count(D), keys)
        self.order = replace(self.order, lines=[line])
        self.supplier.show(self.order)

    async def ask(self) -> KeyReturn:
        return await self.returner.give_back(INTENT.external_id, "", REQUEST_ID)

    def sell_again(self, number: str = "PHS00002", **changes: object) -> SupplierOrder:
        """Let the supplier have another order under the same reference, which nobody has noticed."""
        again = replace(self.order, supplier_order_id=number, **changes)  # type: ignore[arg-type] # fields by name
        self.supplier.taken.append(again)
        self.supplier.visible_at[number] = 0.0
        return again

    async def ask_for(self, number: str) -> KeyReturn:
        return await self.returner.give_back(INTENT.external_id, number, REQUEST_ID)

    async def work(self) -> KeyReturn:
        (due,) = await self.returner.claim(10)
        return await self.returner.work(due)

    @property
    def asked(self) -> list[str]:
        return self.supplier.returns_asked


async def test_k52_a_return_is_seen_through_until_the_money_is_back() -> None:
    world = World()
    assert (await world.ask()).state is ReturnState.ACCEPTED
    assert (await world.work()).state is ReturnState.ACCEPTED
    world.show(R, D)
    assert (await world.work()).returned_count == 1
    world.show(R, R)
    assert (await world.work()).state is ReturnState.RETURNED
    world.show(F, R)
    assert (await world.work()).refunded_count == 1
    world.show(F, F)
    assert (await world.work()).state is ReturnState.REFUNDED
    assert world.returns.due == {"PHS00001": None}


async def test_k49_an_order_is_asked_for_once_however_often_we_are() -> None:
    world = World()
    for _ in range(3):
        assert (await world.ask()).state is ReturnState.ACCEPTED
    assert world.asked == ["PHS00001"]


@pytest.mark.parametrize(
    ("world", "rule"),
    [
        (World(preorder=True), "pre-order"),
        (World(C, C), "no keys"),
        (World(F, F), "no keys"),
    ],
)
async def test_k38_k50_what_the_rules_exclude_is_not_asked_for(world: World, rule: str) -> None:
    if rule == "no keys":
        world.order = replace(world.order, state=SupplierOrderState.CANCELED)
        world.supplier.show(world.order)
    with pytest.raises(ReturnNotAllowed) as refused:
        await world.ask()
    assert rule in refused.value.metadata["rule"]
    assert (world.asked, world.returns.rows) == ([], {})


async def test_k33_k50_wholesale_keys_are_not_asked_for() -> None:
    world = World()
    row = world.purchases.rows[INTENT.external_id]
    row.purchase = replace(row.purchase, intent=replace(INTENT, quantity=10))
    with pytest.raises(ReturnNotAllowed, match="wholesale"):
        await world.ask()
    assert world.asked == []


@pytest.mark.parametrize(("hours", "allowed"), [(23.9, True), (24.1, False)])
async def test_k50_a_day_after_the_delivery_nothing_is_asked_for(hours: float, allowed: bool) -> None:  # noqa: FBT001 # from the table
    world = World()
    world.returns.since = EPOCH - timedelta(hours=hours)
    if allowed:
        assert (await world.ask()).state is ReturnState.ACCEPTED
    else:
        with pytest.raises(ReturnNotAllowed, match="24 hours"):
            await world.ask()


async def test_k53_a_refusal_is_kept_with_the_suppliers_words_and_nobody_asks_again() -> None:
    world = World()
    world.supplier.return_replies.append(NO_KEYS)
    refused = await world.ask()
    assert (refused.state, refused.refusal) == (ReturnState.REFUSED, NO_KEYS.problem)
    assert (await world.ask()).state is ReturnState.REFUSED
    assert world.returns.due == {"PHS00001": None}


@pytest.mark.parametrize("reply", [NoAnswer("timeout"), Unreadable("status 200"), Rejected(503, Problem("Error"))])
async def test_k49_after_a_lost_answer_the_keys_tell(reply: NoAnswer | Unreadable | Rejected) -> None:
    world = World()
    world.supplier.return_replies.append(reply)
    assert (await world.ask()).state is ReturnState.ASKED
    # It was taken all the same.
    world.show(R, R)
    assert (await world.work()).state is ReturnState.RETURNED


async def test_k49_a_refusal_of_the_second_request_says_nothing_about_the_first() -> None:
    world = World()
    world.supplier.return_replies += [NoAnswer("reset"), ALREADY]
    assert (await world.ask()).state is ReturnState.ASKED
    assert (await world.work()).state is ReturnState.ACCEPTED
    world.show(F, F)
    assert (await world.work()).state is ReturnState.REFUNDED


async def test_a_first_refusal_as_not_supported_is_one() -> None:
    world = World()
    world.supplier.return_replies.append(ALREADY)
    assert (await world.ask()).state is ReturnState.REFUSED


async def test_what_was_not_sent_is_sent_later_and_not_counted() -> None:
    world = World()
    world.supplier.return_replies.append(NotSent("breaker"))
    assert (await world.ask()).sent_count == 0
    assert (await world.work()).state is ReturnState.ACCEPTED


async def test_requests_without_a_clear_answer_end_with_a_person() -> None:
    world = World()
    world.supplier.return_replies += [Rejected(503, Problem("Error"))] * (MOST_SENT + 5)
    await world.ask()
    for _ in range(MOST_SENT):
        last = await world.work()
    assert (last.state, last.sent_count) == (ReturnState.REFUSED, MOST_SENT)


async def test_k51_late_keys_go_back_when_they_come() -> None:
    world = World(D, P)
    await world.ask()
    world.show(R, P)
    assert (await world.work()).state is ReturnState.ACCEPTED
    world.show(F, R)
    assert (await world.work()).state is ReturnState.RETURNED
    world.show(F, F)
    assert (await world.work()).state is ReturnState.REFUNDED


async def test_k51_keys_that_never_came_need_not_go_back() -> None:
    world = World(D, C)
    await world.ask()
    world.show(F, C)
    assert (await world.work()).state is ReturnState.REFUNDED


async def test_a_return_that_does_not_happen_ends_with_a_person() -> None:
    world = World()
    await world.ask()
    for _ in range(MOST_LOOKS + 2):
        last = await world.work()
        if world.returns.due["PHS00001"] is None:
            break
    assert last.state is ReturnState.REFUSED
    assert "have not gone back" in last.refusal.detail


async def test_a_supplier_that_is_away_changes_nothing() -> None:
    world = World()
    await world.ask()

    async def away(_supplier_order_id: str) -> None:
        raise SupplierUnavailable("the supplier failed: 503")

    world.supplier.read_order = away  # type: ignore[assignment] # a supplier that is away
    assert (await world.work()).state is ReturnState.ACCEPTED


async def test_only_orders_of_the_purchase_are_given_back() -> None:
    world = World()
    with pytest.raises(PurchaseUnknown):
        await world.returner.give_back("kf-nobody", "", REQUEST_ID)
    with pytest.raises(PurchaseUnknown):
        await world.returner.give_back(INTENT.external_id, "PHS99999", REQUEST_ID)
    row = world.purchases.rows[INTENT.external_id]
    row.purchase = replace(row.purchase, state=PurchaseState.IN_DOUBT, supplier_order_id="")
    with pytest.raises(PurchaseNotPlaced):
        await world.ask()
    assert world.asked == []


async def test_of_two_who_send_one_does() -> None:
    world = World()
    world.supplier.return_replies.append(NoAnswer("timeout"))
    stale = await world.ask()
    world.returns.rows["PHS00001"] = replace(stale, sent_count=stale.sent_count + 1)
    assert (await world.returner.work(stale)) == stale
    assert len(world.asked) == 1


async def test_a_second_order_that_nobody_noticed_is_found_and_given_back_once() -> None:
    world = World()
    world.sell_again()
    for _ in range(3):
        given = await world.ask_for("PHS00002")
        assert (given.state, given.surplus) == (ReturnState.ACCEPTED, True)
    assert world.asked == ["PHS00002"]


async def test_every_order_that_the_purchase_does_not_keep_goes_back_with_the_one_asked_for() -> None:
    world = World()
    world.sell_again("PHS00002")
    world.sell_again("PHS00003")
    await world.ask_for("PHS00003")
    assert {each.supplier_order_id: each.surplus for each in world.returns.rows.values()} == {
        "PHS00002": True,
        "PHS00003": True,
    }
    assert world.asked == ["PHS00003"], "the other one is due, for whoever looks next"


async def test_the_order_that_a_purchase_keeps_is_never_surplus_though_the_other_is_older() -> None:
    world = World()
    world.order = replace(world.order, create_time=EPOCH)
    world.supplier.show(world.order)
    world.sell_again(create_time=EPOCH - timedelta(hours=1))
    await world.ask_for("PHS00002")
    assert list(world.returns.rows) == ["PHS00002"]


async def test_what_is_surplus_is_not_hidden_by_a_search_that_leaves_out_the_purchases_own_order() -> None:
    world = World()
    world.sell_again()
    world.supplier.visible_at["PHS00001"] = 1e9
    assert (await world.ask_for("PHS00002")).surplus
    assert world.asked == ["PHS00002"]


async def test_an_order_that_is_not_under_our_reference_is_not_given_back() -> None:
    world = World()
    world.sell_again(external_id="kf1-of-another")
    with pytest.raises(PurchaseUnknown):
        await world.ask_for("PHS00002")
    assert "PHS00002" not in world.returns.rows
    assert not world.asked


async def test_an_order_under_our_reference_that_we_never_asked_for_is_for_a_person() -> None:
    world = World()
    line = replace(world.order.lines[0], product_id="something else")
    world.sell_again(lines=[line])
    with pytest.raises(ReturnNotAllowed, match="not what the purchase asked for"):
        await world.ask_for("PHS00002")
    assert (world.asked, world.returns.rows) == ([], {})


async def test_a_search_that_fails_gives_nothing_back() -> None:
    world = World()
    world.sell_again()
    world.supplier.search_fails = lambda: True
    with pytest.raises(SupplierUnavailable):
        await world.ask_for("PHS00002")
    assert (world.asked, world.returns.rows) == ([], {})


async def test_of_a_refused_purchase_whatever_was_taken_after_all_goes_back() -> None:
    world = World()
    row = world.purchases.rows[INTENT.external_id]
    row.purchase = replace(row.purchase, state=PurchaseState.REFUSED, supplier_order_id="")
    assert (await world.ask_for("PHS00001")).surplus
    assert world.asked == ["PHS00001"]
    with pytest.raises(PurchaseNotPlaced):
        await world.ask()


@pytest.mark.parametrize("state", [PurchaseState.INTENDED, PurchaseState.IN_DOUBT])
async def test_while_it_is_not_known_which_order_a_purchase_keeps_none_is_surplus(state: PurchaseState) -> None:
    world = World()
    row = world.purchases.rows[INTENT.external_id]
    row.purchase = replace(row.purchase, state=state, supplier_order_id="")
    with pytest.raises(PurchaseNotPlaced):
        await world.ask_for("PHS00001")
    assert not world.asked
