"""Named places where a test may make the process die, fail or wait, to prove what a crash there leaves behind.

`KEYFERRY_FAILPOINTS="area.step=crash;area.other=error@3;area.slow=delay:2"`: the action, and after `@` the visit at
which it happens (the first unless said; `@*` every one). Without the setting a failpoint is one dictionary look-up.
"""

import asyncio
import os
import re
from dataclasses import dataclass

import structlog

_SPEC = re.compile(
    r"(?P<name>[a-z0-9_.]+)=(?P<action>crash|error|delay)(?::(?P<seconds>[0-9.]+))?(?:@(?P<visit>[0-9]+|\*))?"
)
CRASH_STATUS = 137

logger = structlog.get_logger(__name__)


class FailpointError(Exception):
    """A test asked for a failure here."""


@dataclass(slots=True)
class _Plan:
    action: str
    seconds: float
    visit: int | None
    visits: int = 0


_plans: dict[str, _Plan] = {}


def configure_failpoints(spec: str) -> None:
    """Set the plan of this process. Raises ValueError with the part that cannot be read."""
    plans: dict[str, _Plan] = {}
    for part in filter(None, (piece.strip() for piece in spec.split(";"))):
        match = _SPEC.fullmatch(part)
        if match is None:
            raise ValueError(f"KEYFERRY_FAILPOINTS: {part!r} must read name=crash|error|delay[:seconds][@visit]")
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
    if plan is None:
        return
    plan.visits += 1
    if plan.visit is not None and plan.visits != plan.visit:
        return
    if plan.action == "crash":
        # As kill -9 would: no cleanup, no flush.
        os._exit(CRASH_STATUS)
    if plan.action == "error":
        raise FailpointError(name)
    await asyncio.sleep(plan.seconds)
