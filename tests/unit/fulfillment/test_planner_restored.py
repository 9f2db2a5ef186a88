"""A database that was restored from an old backup: what kinguin-gateway knows is adopted, and bought only once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from fulfillment.domain.model import ExternalId, KeyId
from fulfillment.domain.planner import Known, Place, Plan, Planned, Unplannable, Wish, external_id, plan, replacement_id
from fulfillment.domain.product import Product
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.fulfillment.planning import (
    LIMIT,
    LINE,
    LUCK,
    ORDER,
    PRICES,
    PRODUCTS,
    WISHES,
    a_product,
    a_wish,
    an_offer,
    purchases,
)

Refuses = Callable[[], bool]


def known(planned: Planned, *, refused: bool = False) -> Known:
    return Known(planned.external_id, planned.quantity, planned.offer_id, planned.unit_limit, refused)


@given(WISHES, PRODUCTS, LUCK)
def test_what_was_forgotten_is_adopted_as_it_was(wish: Wish, product: Product, luck: Random) -> None:
    """Rows of a plan are lost, the one that asked among them or not; all had been sent."""
    before = purchases(plan(wish, product))
    assume(before)
    forgotten = [each for each in before[1:] if luck.random() < 0.5]
    own = before[0]
    quantity = own.quantity + sum(each.quantity for each in forgotten)
    told = [known(each) for each in luck.sample([own, *forgotten], 1 + len(forgotten))]
    # Whatever is for sale by now.
    for now in (product, None):
        after = plan(replace(wish, quantity=quantity), now, told)
        assert isinstance(after, Plan)
        assert after.own == own
        assert sorted(after.more, key=lambda each: each.chunk) == forgotten


@given(WISHES, PRODUCTS, LUCK)
def test_what_was_not_sent_is_planned_beside_what_was(wish: Wish, product: Product, luck: Random) -> None:
    before = purchases(plan(wish, product))
    assume(before)
    sent = [each for each in before if luck.random() < 0.5]
    after = purchases(plan(wish, product, [known(each) for each in sent]))
    assume(after)
    assert {each for each in sent if each != before[0]} < {*after}
    assert sum(each.quantity for each in after) == wish.quantity
    assert len({each.external_id for each in after}) == len(after)


@given(st.integers(1, 200), st.lists(st.tuples(st.integers(1, 200), PRICES), min_size=1, max_size=6), LUCK)
def test_a_restored_database_buys_under_the_same_references(
    quantity: int, listed: list[tuple[int, int]], luck: Random
) -> None:
    """What was sent is gone from the stock, so that the rest is cut as it was."""
    prices = {price: there for there, price in listed}  # One offer at each price.
    offers = [an_offer(str(price), price, there) for price, there in prices.items()]
    before = purchases(plan(a_wish(quantity), a_product(*offers)))
    sent = [each for each in before if luck.random() < 0.5]
    gone = Counter[str]()
    for each in sent:
        gone[each.offer_id] += each.quantity
    rest = [replace(offer, available=offer.available - gone[offer.offer_id]) for offer in offers]
    after = purchases(plan(a_wish(quantity), a_product(*rest), [known(each) for each in sent]))
    assume(before and after)
    assert {each.external_id for each in after} == {each.external_id for each in before}
    assert sum(each.quantity for each in after) == quantity


@given(st.integers(1, 60), PRODUCTS, LUCK)
def test_a_history_of_refusals_is_lived_again_without_buying_more(
    quantity: int, product: Product, luck: Random
) -> None:
    """All rows but the first are lost. Refused attempts are asked for in turn, as if for the first time."""
    gateway_rows: dict[ExternalId, Known] = {}
    first = live(a_wish(quantity), product, gateway_rows, lambda: luck.random() < 0.3)
    assume(first)
    bought = {each.external_id for each in gateway_rows.values() if not each.refused}
    again = live(a_wish(quantity), product, gateway_rows, lambda: pytest.fail("nothing is bought anew"))
    assert {each.external_id for each in again} == bought
    assert sum(each.quantity for each in again) == quantity == sum(each.quantity for each in first)


def live(wish: Wish, product: Product, rows: dict[ExternalId, Known], refuses: Refuses) -> list[Planned]:
    """Buy as fulfillment does, against a gateway that remembers `rows`: what is refused is asked for once more."""
    waiting, done, ours = [wish], list[Planned](), {wish.own.external_id}
    next_chunk = wish.next_chunk
    while waiting:
        now = replace(waiting.pop(0), next_chunk=next_chunk)
        unknown = [
            each for each in rows.values() if each.external_id not in ours or each.external_id == now.own.external_id
        ]
        planned = plan(now, product, unknown)
        if isinstance(planned, Unplannable):
            return []
        for each in (planned.own, *planned.more):
            assert each is planned.own or each.external_id not in ours
            ours.add(each.external_id)
            next_chunk = max(next_chunk, each.chunk + 1)
            if each.external_id not in rows:
                rows[each.external_id] = known(each, refused=each.attempt < 4 and refuses())
            if not rows[each.external_id].refused:
                done.append(each)
                continue
            name = external_id(ORDER, LINE, each.chunk, each.attempt + 1)
            ours.add(name)
            own = Place(name, each.chunk, each.attempt + 1)
            waiting.append(replace(wish, quantity=each.quantity, own=own, avoid=now.avoid | {each.offer_id}))
    return done


def test_a_later_attempt_of_ours_is_left_to_the_refusal_that_leads_to_it() -> None:
    """Own was refused and cut anew: adopting its parts beside it would count its keys twice."""
    wish, product = a_wish(18), a_product(an_offer("a", 10, 99))
    own, other = purchases(plan(wish, product))
    second = replace(own, external_id=external_id(ORDER, LINE, 0, 2), attempt=2, quantity=5)
    third = replace(other, external_id=external_id(ORDER, LINE, 2, 1), chunk=2, quantity=4)
    told = [known(own, refused=True), known(third), known(second), known(other)]
    assert plan(wish, product, told) == Plan(own, [other])
    retry = replace(a_wish(9, attempt=2), next_chunk=2)
    assert plan(retry, product, [known(second), known(third)]) == Plan(second, [third])


def test_what_others_hold_already_is_not_bought_again() -> None:
    wish, product = a_wish(9), a_product(an_offer("a", 10, 99))
    later = Known(external_id(ORDER, LINE, 0, 2), 9, "a", LIMIT, refused=False)
    planned = plan(wish, product, [later])
    assert isinstance(planned, Plan)
    assert (planned.own.external_id, planned.own.quantity) == (wish.own.external_id, 0)
    assert [(each.external_id, each.attempt, each.quantity) for each in planned.more] == [(later.external_id, 2, 9)]


def test_a_reference_that_cannot_be_found_again_gets_a_free_place() -> None:
    stranger = Known(replacement_id(ORDER, LINE, KeyId("key-1"), 1), 1, "a", 7, refused=False)
    refused = Known(external_id(ORDER, LINE, 1, 1), 9, "a", LIMIT, refused=True)
    planned = plan(a_wish(20), a_product(an_offer("a", 10, 99)), [stranger, refused])
    assert isinstance(planned, Plan)
    assert planned.own.quantity == 9
    adopted, *fresh = planned.more
    assert adopted == Planned(stranger.external_id, LINE, 2, 1, 1, "a", 7)
    assert [(each.chunk, each.quantity) for each in fresh] == [(3, 9), (4, 1)]


def test_what_is_missing_beside_what_was_bought_is_asked_for_though_nothing_is_sold() -> None:
    bought = Known(external_id(ORDER, LINE, 1, 1), 9, "a", LIMIT, refused=False)
    for product, pieces in ((None, [9, 2]), (a_product(preorder=True, price=99), [1] * 11)):
        planned = plan(a_wish(20), product, [bought])
        assert isinstance(planned, Plan)
        assert planned.more[0].external_id == bought.external_id
        assert [planned.own.quantity, *(each.quantity for each in planned.more[1:])] == pieces


def test_nothing_of_the_line_serves_a_replacement() -> None:
    own = Place(replacement_id(ORDER, LINE, KeyId("key-1"), 1), 5, 1)
    wish = replace(a_wish(1), own=own, next_chunk=6)
    product = a_product(an_offer("a", 10, 99))
    other = Known(external_id(ORDER, LINE, 1, 1), 1, "a", LIMIT, refused=False)
    ours = Known(own.external_id, 1, "b", 7, refused=False)
    assert plan(wish, product, [other]) == Plan(Planned(own.external_id, LINE, 5, 1, 1, "a", LIMIT), [])
    assert plan(wish, product, [other, ours]) == Plan(Planned(own.external_id, LINE, 5, 1, 1, "b", 7), [])


def test_what_another_chunk_will_come_to_by_its_own_refusal_is_left_to_it() -> None:
    """Two chunks were refused and cut anew; the database has the first attempts of both."""
    product = a_product(an_offer("a", 10, 99))
    own = Planned(external_id(ORDER, LINE, 0, 2), LINE, 0, 2, 5, "a", LIMIT)
    others = replace(own, external_id=external_id(ORDER, LINE, 1, 2), chunk=1, quantity=4)
    ours = replace(own, external_id=external_id(ORDER, LINE, 2, 1), chunk=2, attempt=1, quantity=4)
    retry = replace(a_wish(9, attempt=2), next_chunk=2)
    assert plan(retry, product, [known(others), known(ours), known(own)]) == Plan(own, [ours])
