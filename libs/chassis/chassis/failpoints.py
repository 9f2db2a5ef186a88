"""Named places where a test may make the process die, fail, wait or do a thing twice, to prove what that leaves behind.

`KEYFERRY_FAILPOINTS="area.before_step=crash;area.after_step=error@3;area.before_other=delay:2;area.step=repeat"`: the
action, and after `@` the visit at which it happens (the first unless said; `@*` every one). Without the setting a
failpoint is one dictionary look-up. The plan is read once, when the process starts, and nothing can change it later:
a running process has no switch that anybody could reach.

An effect named `area.step` has the places `area.before_step` and `area.after_step`; `area.step` itself may only be
repeated, as when its answer was lost and it was asked for again. A commit is never repeated: it has the two places.
docs/failpoints.md lists all names.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

_SPEC = re.compile(
    r"(?P<name>[a-z0-9_.]+)=(?P<action>crash|error|delay|repeat)"
    r"(?::(?P<seconds>[0-9]+(?:\.[0-9]+)?))?(?:@(?P<visit>[0-9]+|\*))?"
)
_PLACE = re.compile(r"(?:.*\.)?(?:before|after)_[a-z0-9_]+")
CRASH_STATUS = 137

T = TypeVar("T")

logger = structlog.get_logger(__name__)


class FailpointError(Exception):
    """A test asked for a failure here."""


@dataclass(slots=True)
class _Plan:
    action: str
    seconds: float
    visit: int | None
    visits: int = 0

    def is_due(self, name: str) -> bool:
        """Count a visit and tell whether it is the one; say so in the log, the only trace that a crash leaves."""
        self.visits += 1
        due = self.visit is None or self.visits == self.visit
        if due:
            logger.warning("failpoint fires", failpoint=name, action=self.action)
        return due


_plans: dict[str, _Plan] = {}


def configure_failpoints(spec: str) -> None:
    """Set the plan of this process. Raises ValueError with the part that cannot be read."""
    plans: dict[str, _Plan] = {}
    for part in filter(None, (piece.strip() for piece in spec.split(";"))):
        match = _SPEC.fullmatch(part)
        if match is None:
            raise ValueError(f"KEYFERRY_FAILPOINTS: {part!r} must read name=crash|error|delay[:seconds]|repeat[@visit]")
        if match["action"] == "repeat" and _PLACE.fullmatch(match["name"]):
            raise ValueError(f"KEYFERRY_FAILPOINTS: {part!r} names a place; only an effect can be repeated")
        visit = match["visit"] or "1"
        plans[match["name"]] = _Plan(
            match["action"], float(match["seconds"] or 0), None if visit == "*" else int(visit)
        )
    _plans.clear()
    _plans.update(plans)
    if plans:
        logger.warning("failpoints are set", names=sorted(plans))


async def failpoint(name: str) -> None:
    """Do what the plan says for this place; nothing without one."""
    plan = _plans.get(name)
    if plan is None or not plan.is_due(name):
        return
    if plan.action == "crash":
        # As kill -9 would: no cleanup, no flush.
        os._exit(CRASH_STATUS)
    if plan.action == "error":
        raise FailpointError(name)
    await asyncio.sleep(plan.seconds)


async def repeatable(name: str, act: Callable[[], Awaitable[T]]) -> T:
    """Do an effect whose places stand around it already, and once more where the plan says so; return the last answer.

    Only for what may happen twice by itself: a call that is retried, an object put again, an event told again.
    """
    answer = await act()
    plan = _plans.get(name)
    if plan is not None and plan.action == "repeat" and plan.is_due(name):
        answer = await act()
    return answer


async def effect(name: str, act: Callable[[], Awaitable[T]]) -> T:
    """Do an effect between its two places: `area.before_step`, the act (see `repeatable`), `area.after_step`."""
    if not _plans:
        return await act()
    area, _, step = name.rpartition(".")
    await failpoint(f"{area}.before_{step}")
    answer = await repeatable(name, act)
    await failpoint(f"{area}.after_{step}")
    return answer
