import asyncio
import os
from collections.abc import Iterator

import pytest
from chassis.failpoints import FailpointError, configure_failpoints, effect, failpoint, repeatable


@pytest.fixture(autouse=True)
def cleared() -> Iterator[None]:
    yield
    configure_failpoints("")


async def visits(name: str, count: int) -> list[bool]:
    failed = []
    for _ in range(count):
        try:
            await failpoint(name)
            failed.append(False)
        except FailpointError:
            failed.append(True)
    return failed


async def test_without_a_plan_nothing_happens() -> None:
    configure_failpoints("")
    assert await visits("area.step", 2) == [False, False]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("area.step=error", [True, False, False]),
        ("area.step=error@2", [False, True, False]),
        ("area.step=error@*", [True, True, True]),
        ("other.step=crash; area.step=error@3 ;", [False, False, True]),
    ],
)
async def test_a_fault_happens_at_its_visit(spec: str, expected: list[bool]) -> None:
    configure_failpoints(spec)
    assert await visits("area.step", 3) == expected


async def test_a_crash_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    configure_failpoints("area.step=crash")
    await failpoint("area.step")
    assert ended == [137]


async def test_a_delay_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    configure_failpoints("area.step=delay:2.5@*")
    await visits("area.step", 2)
    assert waited == [2.5, 2.5]


class Act:
    """Counts how often it was done; the answer is the number."""

    def __init__(self) -> None:
        self.done = 0

    async def __call__(self) -> int:
        self.done += 1
        return self.done


@pytest.mark.parametrize(
    ("spec", "answers"),
    [("", [1, 2]), ("area.step=repeat", [2, 3]), ("area.step=repeat@2", [1, 3]), ("area.step=repeat@*", [2, 4])],
)
async def test_an_effect_is_done_twice_where_the_plan_says_so(spec: str, answers: list[int]) -> None:
    for do in (effect, repeatable):
        configure_failpoints(spec)
        act = Act()
        assert [await do("area.step", act), await do("area.step", act)] == answers


@pytest.mark.parametrize(("place", "done"), [("before", 0), ("after", 1)])
async def test_an_effect_has_a_place_on_either_side(place: str, done: int) -> None:
    configure_failpoints(f"area.{place}_step=error")
    act = Act()
    with pytest.raises(FailpointError):
        await effect("area.step", act)
    assert act.done == done


@pytest.mark.parametrize(
    "spec",
    ["area", "area=explode", "Area=crash", "a=error@x", "a=delay:x", "a=delay:1.2.3", "a.before_step=repeat"],
)
def test_a_plan_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="KEYFERRY_FAILPOINTS"):
        configure_failpoints(spec)
