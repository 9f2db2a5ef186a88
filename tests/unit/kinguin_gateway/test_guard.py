from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinguin_gateway.domain.guard import (
    NEXT_STEP,
    OUTCOMES,
    Absent,
    AnswerKind,
    Bounds,
    Found,
    Lookup,
    NoAnswer,
    NotSent,
    Outcome,
    Rejected,
    Reply,
    Step,
    Taken,
    Unreadable,
    Unsettled,
    absence_time,
    answer_kind,
    classify,
    judge,
)
from kinguin_gateway.domain.purchase import Problem, PurchaseState, SupplierOrder

from tests.unit.kinguin_gateway.fakes import INTENT, an_order
from tests.unit.simulated import EPOCH

BOUNDS = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
SECOND = timedelta(seconds=1)

CLEAR_NOES = ("ConstraintViolation", "Authorization", "InsufficientBalance", "Preorder", "ProductUnavailable")
UNCLEAR = (
    "Error",
    "HttpClient",
    "Http",
    "OrderFailed",
    "OrderNotFound",
    "ResourceLock",
    "OrderNotSupported",
    "NoKeysToReturn",
    "SomethingNew",
    "",
)


def refused(kind: str, status: int = 422, detail: str = "no", field: str = "") -> Rejected:
    return Rejected(status, Problem(kind, detail, "trace", field))


@pytest.mark.parametrize("kind", CLEAR_NOES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_k64_a_clear_no_is_refused(kind: str, status: int) -> None:
    assert classify(refused(kind, status), INTENT) is Outcome.REFUSED


@pytest.mark.parametrize("kind", UNCLEAR)
@pytest.mark.parametrize("status", [400, 404, 409, 422, 423, 429, 500, 503])
def test_k64_every_other_kind_is_in_doubt(kind: str, status: int) -> None:
    assert classify(refused(kind, status), INTENT) is Outcome.IN_DOUBT


@pytest.mark.parametrize("kind", CLEAR_NOES)
@pytest.mark.parametrize("status", [302, 429, 500, 502, 503, 504])
def test_k64_a_status_about_the_way_makes_a_clear_word_unclear(kind: str, status: int) -> None:
    assert classify(refused(kind, status), INTENT) is Outcome.IN_DOUBT


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (NoAnswer("reset"), Outcome.IN_DOUBT),
        (Unreadable("not JSON"), Outcome.IN_DOUBT),
        (NotSent("refused"), Outcome.NOT_SENT),
        (Taken(an_order()), Outcome.PLACED),
        (Taken(an_order(external_id="")), Outcome.PLACED),
        (Taken(an_order(external_id="kf-other")), Outcome.IN_DOUBT),
        (Taken(an_order(lines=[], total_quantity=3)), Outcome.IN_DOUBT),
    ],
)
def test_k18_only_an_order_of_ours_is_a_yes(reply: Reply, outcome: Outcome) -> None:
    assert classify(reply, INTENT) is outcome


@pytest.mark.parametrize(
    ("detail", "field"),
    [
        ('The "orderExternalId" value is already used.', "orderExternalId"),
        ("This value is already used.", ""),
        ("Reference in use", ""),
        ("Duplicate reference", ""),
        ("must be unique", ""),
        ("wrong", "order_external_id"),
    ],
)
def test_k24_a_violation_about_a_used_reference_is_in_doubt(detail: str, field: str) -> None:
    reply = refused("ConstraintViolation", 422, detail, field)
    assert answer_kind(reply, INTENT) is AnswerKind.REFERENCE_USED
    assert classify(reply, INTENT) is Outcome.IN_DOUBT


def test_every_answer_has_one_outcome() -> None:
    assert OUTCOMES.keys() == set(AnswerKind)
    assert [kind for kind, outcome in OUTCOMES.items() if outcome is Outcome.PLACED] == [AnswerKind.ORDER]
    assert [kind for kind, outcome in OUTCOMES.items() if outcome is Outcome.NOT_SENT] == [AnswerKind.NOT_SENT]
    assert {kind.value for kind, outcome in OUTCOMES.items() if outcome is Outcome.REFUSED} == set(CLEAR_NOES)


def test_only_an_intended_purchase_is_sent() -> None:
    assert NEXT_STEP.keys() == set(PurchaseState)
    assert [state for state, step in NEXT_STEP.items() if step is Step.SEND] == [PurchaseState.INTENDED]
    assert NEXT_STEP[PurchaseState.IN_DOUBT] is Step.SETTLE


def look_up(*orders: SupplierOrder, after: timedelta, complete: bool = True) -> Lookup:
    return Lookup(EPOCH + after, orders, complete)


@pytest.mark.parametrize(
    ("after", "complete", "is_proof"),
    [
        (180 * SECOND, True, False),
        (180.001 * SECOND, True, True),
        (179 * SECOND, True, False),
        (400 * SECOND, False, False),
    ],
)
def test_an_empty_search_proves_absence_only_late_and_whole(
    after: timedelta,
    complete: bool,  # noqa: FBT001 # a column of the table above
    is_proof: bool,  # noqa: FBT001 # same
) -> None:
    verdict = judge(look_up(after=after, complete=complete), INTENT, EPOCH, BOUNDS)
    assert isinstance(verdict, Absent if is_proof else Unsettled)


@given(
    after=st.timedeltas(timedelta(0), timedelta(days=1)),
    commit=st.timedeltas(timedelta(0), timedelta(hours=1)),
    lag=st.timedeltas(timedelta(0), timedelta(hours=1)),
)
def test_no_bound_is_ever_cut_short(after: timedelta, commit: timedelta, lag: timedelta) -> None:
    bounds = Bounds(commit, lag)
    verdict = judge(look_up(after=after), INTENT, EPOCH, bounds)
    assert isinstance(verdict, Absent) == (after > commit + lag)
    assert absence_time(EPOCH, bounds) == EPOCH + commit + lag


def test_what_is_found_is_adopted_at_once_and_the_oldest_of_several_is_kept() -> None:
    first, second = an_order(number=7, create_time=EPOCH), an_order(number=3, create_time=EPOCH + SECOND)
    undated = an_order(number=1, create_time=None)
    verdict = judge(look_up(undated, second, first, after=timedelta(0)), INTENT, EPOCH, BOUNDS)
    assert verdict == Found(first, surplus=[second, undated], strange=[])
    # Keys of the one that the purchase has already may have been sealed.
    lookup = look_up(undated, second, first, after=timedelta(0))
    verdict = judge(lookup, INTENT, EPOCH, BOUNDS, kept=second.supplier_order_id)
    assert verdict == Found(second, surplus=[first, undated], strange=[])


def test_an_order_that_is_not_what_we_asked_for_is_neither_adopted_nor_an_absence() -> None:
    strange = [
        an_order(replace(INTENT, product_id="other")),
        an_order(replace(INTENT, quantity=3)),
        an_order(lines=[], total_quantity=9),
    ]
    for order in strange:
        assert judge(look_up(order, after=900 * SECOND), INTENT, EPOCH, BOUNDS) == Unsettled((order,))
    kept = an_order(number=9)
    verdict = judge(look_up(*strange, kept, after=timedelta(0)), INTENT, EPOCH, BOUNDS)
    assert verdict == Found(kept, surplus=[], strange=strange)


def test_k22_several_lines_of_one_product_are_one_purchase() -> None:
    (line,) = an_order().lines
    order = an_order(lines=[replace(line, quantity=1, offer_id="a"), replace(line, quantity=1, offer_id="b")])
    assert isinstance(judge(look_up(order, after=timedelta(0)), INTENT, EPOCH, BOUNDS), Found)


def test_what_the_supplier_leaves_out_does_not_speak_against_an_order() -> None:
    (line,) = an_order().lines
    for order in (an_order(lines=[]), an_order(lines=[replace(line, product_id=None, quantity=None)])):
        assert isinstance(judge(look_up(order, after=timedelta(0)), INTENT, EPOCH, BOUNDS), Found)
