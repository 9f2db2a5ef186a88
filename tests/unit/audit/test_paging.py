import base64
import json

import pytest
from audit.domain.paging import (
    DEFAULT_PAGE,
    LARGEST_PAGE,
    Filters,
    PageTokenUnreadable,
    make_page_token,
    page_size,
    read_page_token,
)
from hypothesis import given
from hypothesis import strategies as st

FILTERS = Filters(order_id="order-1", actor_id="alice")


@pytest.mark.parametrize(("asked", "given_"), [(0, DEFAULT_PAGE), (1, 1), (500, 500), (501, LARGEST_PAGE)])
def test_pages_are_bounded(asked: int, given_: int) -> None:
    assert page_size(asked) == given_


def test_no_token_is_the_first_page() -> None:
    assert read_page_token(FILTERS, "") == -1


@given(st.integers(0, 2**63 - 1))
def test_a_token_continues_where_its_page_ended(after: int) -> None:
    assert read_page_token(FILTERS, make_page_token(FILTERS, after)) == after


@pytest.mark.parametrize(
    "other",
    [Filters(), Filters(order_id="order-1"), Filters("order-1", "", "", "bob"), Filters("", "order-1", "", "alice")],
)
def test_a_token_belongs_to_its_filters(other: Filters) -> None:
    with pytest.raises(PageTokenUnreadable):
        read_page_token(other, make_page_token(FILTERS, 7))


def test_a_token_names_no_person() -> None:
    token = make_page_token(FILTERS, 7)
    assert b"alice" not in base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


@given(st.text())
def test_garbage_is_refused_and_nothing_else_happens(token: str) -> None:
    if token:
        with pytest.raises(PageTokenUnreadable):
            read_page_token(FILTERS, token)


@pytest.mark.parametrize("after", [-1, 2**63, 1.5, True, None, "7", [7]])
def test_a_forged_position_is_refused(after: object) -> None:
    genuine = make_page_token(FILTERS, 7)
    body = json.loads(base64.urlsafe_b64decode(genuine + "=" * (-len(genuine) % 4)))
    forged = base64.urlsafe_b64encode(json.dumps({**body, "after": after}).encode()).decode().rstrip("=")
    with pytest.raises(PageTokenUnreadable):
        read_page_token(FILTERS, forged)


@pytest.mark.parametrize("body", ["[]", "7", "{}", '{"after":1}'])
def test_json_of_another_shape_is_refused(body: str) -> None:
    with pytest.raises(PageTokenUnreadable):
        read_page_token(FILTERS, base64.urlsafe_b64encode(body.encode()).decode().rstrip("="))
