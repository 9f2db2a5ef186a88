"""A breaker in front of the supplier: while nearly nothing gets through, nothing is sent.

Libraries for this wrap one function and let any call be the probe. Here the probe must be a read: an order that is sent
to find out whether the supplier answers again would be in doubt whenever it does not.
"""

from collections import deque
from collections.abc import Callable

import structlog
from chassis.clock import Clock

from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.metrics import BREAKER_OPEN

logger = structlog.get_logger(__name__)

# Of so many calls in a row nearly all must have failed, within this time: a bad day of the supplier does not open it.
WINDOW_CALLS = 20
MOST_FAILURES = 17
WINDOW_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
# A probe whose end was never told is taken for lost.
PROBE_SECONDS = 30.0


class Breaker:
    """Counts what became of calls, and holds calls back after too many failures. One for each replica."""

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._calls: deque[tuple[float, bool]] = deque(maxlen=WINDOW_CALLS)
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until: float | None = None
        self._probe_until = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self._open_until is not None

    def enter(self, *, probe: bool) -> None:
        """Let a call through, or raise SupplierUnavailable: nothing was sent. Only a `probe` may find out anew."""
        if self._open_until is None:
            return
        now = self._clock.elapsed()
        if probe and now >= self._open_until and now >= self._probe_until:
            self._probe_until = now + PROBE_SECONDS
            return
        raise SupplierUnavailable("the supplier does not answer; it is left alone for a while and nothing was sent")

    def note(self, *, answered: bool) -> None:
        """Count what became of a call: any answer but a 5xx is one."""
        now = self._clock.elapsed()
        if self._open_until is not None:
            self._note_while_open(now, answered=answered)
            return
        self._calls.append((now, answered))
        failures = sum(not each for _, each in self._calls)
        recent = now - self._calls[0][0] <= WINDOW_SECONDS
        if failures > MOST_FAILURES and recent:
            self._open(now)

    def _note_while_open(self, now: float, *, answered: bool) -> None:
        probed = now < self._probe_until
        self._probe_until = float("-inf")
        if answered:
            logger.warning("supplier answers again")
            self._calls.clear()
            self._pause = FIRST_PAUSE_SECONDS
            self._open_until = None
            BREAKER_OPEN.set(0)
        elif probed:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._open(now)

    def _open(self, now: float) -> None:
        # Spread, so that replicas do not probe together.
        self._open_until = now + self._pause * (0.75 + self._chance() / 2)
        BREAKER_OPEN.set(1)
        logger.error("supplier does not answer, calls are held back", seconds=round(self._open_until - now, 1))
