from collections import Counter
from random import Random

from fulfillment.domain.money_back import share
from hypothesis import given
from hypothesis import strategies as st

TOTALS = st.integers(0, 10**9)
LINES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 1000)), min_size=1, max_size=6)


def requests(lines: list[tuple[int, int]], luck: Random) -> list[tuple[int, int]]:
    """Cancel every key of every line, in requests of any size and any order."""
    told = list[tuple[int, int]]()
    for line_index, (_, ordered) in enumerate(lines):
        left = ordered
        while left > 0:
            quantity = luck.randint(1, left)
            told.append((line_index, quantity))
            left -= quantity
    luck.shuffle(told)
    return told


def shares(total: int, lines: list[tuple[int, int]], asked: list[tuple[int, int]]) -> list[int]:
    return [share(total, lines, asked[:at], *each) for at, each in enumerate(asked)]


@given(TOTALS, LINES, st.randoms(use_true_random=False))
def test_what_never_comes_is_paid_back_to_the_cent(total: int, lines: list[tuple[int, int]], luck: Random) -> None:
    assert sum(shares(total, lines, requests(lines, luck))) == total


@given(TOTALS, LINES, st.randoms(use_true_random=False), st.integers(0, 50))
def test_no_part_exceeds_what_it_weighs(total: int, lines: list[tuple[int, int]], luck: Random, count: int) -> None:
    asked = requests(lines, luck)[:count]
    paid_back = shares(total, lines, asked)
    assert all(0 <= each <= total for each in paid_back)
    whole = sum(weight * quantity for weight, quantity in lines)
    part = sum(lines[line_index][0] * quantity for line_index, quantity in asked)
    if whole:
        assert sum(paid_back) == total * part // whole


@given(TOTALS, LINES, st.randoms(use_true_random=False))
def test_what_is_canceled_twice_is_paid_back_once(total: int, lines: list[tuple[int, int]], luck: Random) -> None:
    asked = requests(lines, luck)
    paid_back = shares(total, lines, asked + asked)
    assert sum(paid_back) == total
    assert not any(paid_back[len(asked) :])


@given(TOTALS, LINES, st.randoms(use_true_random=False))
def test_the_order_of_earlier_requests_does_not_matter(total: int, lines: list[tuple[int, int]], luck: Random) -> None:
    *earlier, last = requests(lines, luck)
    assert share(total, lines, earlier, *last) == share(total, lines, earlier[::-1], *last)


def test_a_dearer_line_is_paid_back_more() -> None:
    lines = [(300, 2), (100, 4)]
    assert shares(1000, lines, [(0, 1), (1, 1)]) == [300, 100]


def test_a_cent_that_cannot_be_shared_goes_to_who_comes_later() -> None:
    assert shares(100, [(1, 3)], [(0, 1), (0, 1), (0, 1)]) == [33, 33, 34]


def test_keys_without_a_weight_share_evenly() -> None:
    lines = [(0, 1), (0, 3)]
    assert shares(100, lines, [(0, 1), (1, 3)]) == [25, 75]
    assert Counter(shares(100, lines, [(1, 1)] * 3)) == {25: 3}
