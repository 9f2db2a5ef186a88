import base64
import json

import pytest
from chassis.errors import InvalidRequest
from chassis.paging import DEFAULT_PAGE, LARGEST_PAGE, page_size, read_page_token, write_page_token
from hypothesis import given
from hypothesis import strategies as st

FILTERS = ("order-1", "", "alice")


def opened(token: str) -> dict[str, object]:
    body: dict[str, object] = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return body


def closed(body: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")


def faulty_field(token: str, filters: tuple[str, ...] = FILTERS) -> str:
    with pytest.raises(InvalidRequest) as raised:
        read_page_token(filters, token, parts=1)
    return raised.value.field_violations[0].field


@pytest.mark.parametrize(("asked", "given_"), [(0, DEFAULT_PAGE), (1, 1), (1000, 1000), (1001, LARGEST_PAGE)])
def test_pages_are_bounded(asked: int, given_: int) -> None:
    assert page_size(asked) == given_


def test_a_negative_size_is_a_fault_of_the_field() -> None:
    with pytest.raises(InvalidRequest) as raised:
        page_size(-1, default=5, largest=10)
    assert raised.value.field_violations[0].field == "page_size"


def test_no_token_is_the_first_page() -> None:
    assert read_page_token(FILTERS, "", parts=2) is None


@given(st.lists(st.text(max_size=40), max_size=4))
def test_a_token_continues_where_its_page_ended(place: list[str]) -> None:
    assert read_page_token(FILTERS, write_page_token(FILTERS, place), parts=len(place)) == place


@pytest.mark.parametrize("other", [(), ("order-1",), ("order-1", "", "bob"), ("", "order-1", "alice")])
def test_a_token_belongs_to_its_filters(other: tuple[str, ...]) -> None:
    assert faulty_field(write_page_token(FILTERS, ["7"]), other) == "page_token"


def test_a_token_names_no_filter() -> None:
    assert "alice" not in json.dumps(opened(write_page_token(FILTERS, ["7"])))


@given(st.text(min_size=1))
def test_garbage_is_refused_and_nothing_else_happens(token: str) -> None:
    assert faulty_field(token) == "page_token"


@pytest.mark.parametrize("place", [None, "7", 7, [], [7], ["7", "8"], [None], {"0": "7"}])
def test_a_forged_place_is_refused(place: object) -> None:
    assert faulty_field(closed({**opened(write_page_token(FILTERS, ["7"])), "place": place})) == "page_token"


@pytest.mark.parametrize("body", [[], 7, {}, {"place": ["1"]}, None])
def test_json_of_another_shape_is_refused(body: object) -> None:
    assert faulty_field(closed(body)) == "page_token"
