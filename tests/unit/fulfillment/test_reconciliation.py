import csv
import io
import re
from datetime import timedelta
from pathlib import Path

import pytest
from chassis.errors import InvalidRequest
from fulfillment import report_csv
from fulfillment.domain.model import ItemId, OrderId
from fulfillment.domain.planner import external_id
from fulfillment.domain.reconciliation import (
    ASKS,
    FIXES,
    OUR_PREFIX,
    Charge,
    Fix,
    Kind,
    Range,
    close_account,
    fix_of,
    known_kind,
    merged,
)
from fulfillment.ports.reconciliation import Difference
from fulfillment.report_convert import difference_to_proto, span_from_proto
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2

from tests.unit.fulfillment.examples import NOON
from tests.unit.fulfillment.spoiling import SPOILS

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
PAGE = Path(__file__).parents[3] / "docs" / "reconciliation.md"
REQUEST_ID = "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"


def test_every_kind_has_its_fix_and_a_way_to_bring_it_about() -> None:
    assert set(FIXES) == set(Kind)
    assert set(SPOILS) == set(Kind) - {Kind.BALANCE_UNEXPLAINED}
    assert set(ASKS) < set(Kind)
    assert len(Kind) >= 25


def test_the_page_tells_every_kind_with_its_fix() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| [^|]+ \| [^|]+ \| `([A-Z_]+)` \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert dict(rows) == {kind.value: fix.value for kind, fix in FIXES.items()}
    assert [kind for kind, _ in rows] == [kind.value for kind in Kind]


def test_our_references_begin_as_the_supplier_is_searched_for() -> None:
    assert external_id(OrderId("order"), ItemId("a"), 0, 1).startswith(OUR_PREFIX)


def test_money_that_is_missing_is_no_top_up_that_was_forgotten() -> None:
    assert fix_of(Kind.BALANCE_UNEXPLAINED, "+5") is Fix.RECORD_TOP_UP
    assert fix_of(Kind.BALANCE_UNEXPLAINED, "-5") is Fix.INVESTIGATE


def test_ranges_that_touch_are_read_once() -> None:
    def span(start: int, end: int) -> Range:
        return Range(NOON + start * HOUR, NOON + end * HOUR)

    assert merged([span(5, 6), span(0, 2), span(2, 3), span(1, 2), span(4, 4)]) == [span(0, 3), span(5, 6)]
    assert span(0, 3).until(NOON + HOUR) == span(0, 1)
    assert span(0, 3).until(NOON - HOUR) == span(0, 0)
    assert span(2, 3).shifted(HOUR) == span(1, 2)


@given(st.integers(0, 10**9), st.lists(st.integers(1, 10**6), max_size=20), st.integers(0, 20), st.integers(-60, 60))
def test_any_cut_between_orders_is_found_and_the_rest_is_left_for_the_next_report(
    opening: int, charges: list[int], taken: int, skew: int
) -> None:
    taken = min(taken, len(charges))
    unsure = [Charge(f"S-{n:02}", NOON + n * SECOND, minor) for n, minor in enumerate(charges)]
    told = opening + 70 - 20 + 5 - sum(charges[:taken])
    at = NOON + (taken + skew) * SECOND
    statement = close_account(opening=opening, top_ups=70, charges=20, refunds=5, unsure=unsure, told=told, at=at)
    assert statement.unexplained == 0
    assert statement.books == told
    assert list(statement.left_out) == [f"S-{n:02}" for n in range(taken, len(charges))]


def test_without_a_cut_that_explains_the_balance_the_clocks_are_believed() -> None:
    unsure = [Charge("S-1", NOON - SECOND, 100), Charge("S-2", NOON + SECOND, 100)]
    statement = close_account(opening=1000, top_ups=0, charges=0, refunds=0, unsure=unsure, told=899, at=NOON)
    assert (statement.unexplained, statement.books, statement.left_out) == (-1, 900, ("S-2",))


def a_difference(*, kind: Kind | str = Kind.BOUGHT_TWICE, **changes: str) -> Difference:
    words = dict.fromkeys(("order_id", "external_id", "supplier_order_id", "key_id", "payment_id"), "")
    words |= {"expected": "", "found": "", **changes}
    return Difference(position=1, kind=kind, mended=True, **words)


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_is_a_formula(evil: str) -> None:
    ((*_, cell, _, _),) = list(
        csv.reader(io.StringIO(report_csv.lines([a_difference(found=evil)]).decode(), newline=""))
    )
    assert cell == f"'{evil}"


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")))
def test_what_is_written_as_csv_is_read_again(text: str) -> None:
    written = report_csv.header() + report_csv.lines([a_difference(payment_id=text)] * 2)
    assert written.endswith(b"\r\n")
    header, *rows = list(csv.reader(io.StringIO(written.decode(), newline=""), strict=True))
    assert tuple(header) == report_csv.COLUMNS
    assert [row[5].removeprefix("'") for row in rows] == [text.removeprefix("'")] * 2
    assert rows[0][-2:] == ["RETURN", "true"]


def a_request(hours: float, **changes: object) -> pb.ReconcilePaymentsRequest:
    start, end = Timestamp(), Timestamp()
    start.FromDatetime(NOON)
    end.FromDatetime(NOON + hours * HOUR)
    actor = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")
    fields = {"request_id": REQUEST_ID, "start_time": start, "end_time": end, "actor": actor} | changes
    return pb.ReconcilePaymentsRequest(**{name: value for name, value in fields.items() if value is not None})  # type: ignore[arg-type] # by name


def test_a_range_is_read() -> None:
    assert span_from_proto(a_request(31 * 24)) == (REQUEST_ID, Range(NOON, NOON + timedelta(days=31)))


@pytest.mark.parametrize(
    ("hours", "changes", "field"),
    [
        (0, {}, "end_time"),
        (-1, {}, "end_time"),
        (31 * 24 + 1, {}, "end_time"),
        (1, {"start_time": None}, "start_time"),
        (1, {"end_time": None}, "end_time"),
        (1, {"actor": None}, "actor"),
        (1, {"request_id": "1"}, "request_id"),
    ],
)
def test_a_range_that_cannot_be_compared_is_refused(hours: float, changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        span_from_proto(a_request(hours, **changes))
    assert [each.field for each in refused.value.field_violations] == [field]


def test_a_difference_is_rendered_with_its_fix() -> None:
    message = difference_to_proto(a_difference(supplier_order_id="S-1"))
    assert (message.kind, message.fix, message.mended) == ("BOUGHT_TWICE", pb.FIX_RETURN, True)


def test_a_difference_of_a_kind_that_only_another_version_knows_is_rendered_under_its_name_for_a_person() -> None:
    assert known_kind("BOUGHT_TWICE") is Kind.BOUGHT_TWICE
    difference = a_difference(kind=known_kind("GIFT_CARD_SHORT"), found="3", order_id="order-1")
    message = difference_to_proto(difference)
    assert (message.kind, message.fix, message.found) == ("GIFT_CARD_SHORT", pb.FIX_INVESTIGATE, "3")
    assert report_csv.lines([difference]) == b"GIFT_CARD_SHORT,order-1,,,,,,3,INVESTIGATE,true\r\n"
