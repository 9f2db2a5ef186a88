"""Thousands of whole histories of the order path: no promise breaks, and every planted bug is noticed.

`make simulate` lives 20,000 of them; KEYFERRY_PROOF=full does so here too.
"""

import os
from collections.abc import Iterator

import pytest

from tests.simulation.bugs import BUGS, Bug
from tests.simulation.run import Report, judged, live_some
from tests.simulation.settings import simulated

IS_FULL = os.environ.get("KEYFERRY_PROOF") == "full"
HISTORIES = 20_000 if IS_FULL else 1500
# Every bug is noticed much earlier.
MOST_HISTORIES = 20_000


@pytest.fixture(scope="module")
def report() -> Report:
    return live_some(range(HISTORIES))


@pytest.fixture
def quiet() -> Iterator[None]:
    with simulated():
        yield


def test_no_history_breaks_a_promise(report: Report) -> None:
    assert not report.broken, f"seed {report.broken[0][0]} (make simulate SEED={report.broken[0][0]})"


def test_histories_are_as_bad_as_they_should_be(report: Report) -> None:
    met = {end.partition(" ")[0] for end in report.ends}
    assert met >= {"READY", "DELIVERED", "NEEDS_ATTENTION", "PARTLY_CANCELED", "REFUNDED"}
    reasons = {end.partition(" ")[2] for end in report.ends}
    assert reasons >= {"PAYMENT_MISMATCH", "RETURN_REFUSED", "KEYS_TOO_LATE", "DUPLICATE_KEY", "KEYS_MISSING"}
    assert report.met["deaths"] > HISTORIES / 3
    assert report.met["opened"] > HISTORIES / 2
    for what in ("doubts", "withdrawn", "gone back", "revoked"):
        assert report.met[what] > HISTORIES / 20, what


@pytest.mark.usefixtures("quiet")
def test_a_seed_lives_the_same_history_again() -> None:
    for seed in (7, 8, 9):
        first, again = (judged(seed)[0] for _ in range(2))
        assert first is not None
        assert again is not None
        assert first.orders.tables.committed == again.orders.tables.committed
        assert first.store.keys == again.store.keys
        assert list(first.shop.heard) == list(again.shop.heard)
        assert first.luck.getstate() == again.luck.getstate()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    first = 0 if IS_FULL else bug.near
    with bug.planted():
        assert any(judged(seed)[1] for seed in range(first, MOST_HISTORIES))
