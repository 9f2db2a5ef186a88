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


class Breaker:
    """Counts what became of calls, and holds calls back after too many failures. One for each replica."""

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._calls: deque[tuple[float, bool]] = deque(maxlen=WINDOW_CALLS)
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self._open_until is not None

    def enter(self, *, read: bool) -> bool:
        """Let a call through, or raise SupplierUnavailable: nothing was sent.

        True says that it is the probe, which only a read can be. There is one at a time, until `leave`.
        """
        if self._open_until is None:
            return False
        if read and not self._probing and self._clock.elapsed() >= self._open_until:
            self._probing = True
            return True
        raise SupplierUnavailable("the supplier does not answer; it is left alone for a while and nothing was sent")

    def leave(self) -> None:
        """End the probe, whether or not it was ever sent: another may find out."""
        self._probing = False

    def note(self, *, answered: bool, probe: bool = False) -> None:
        """Count what became of a call: any answer but a 5xx is one."""
        now = self._clock.elapsed()
        if self._open_until is not None:
            self._note_while_open(now, answered=answered, probe=probe)
            return
        self._calls.append((now, answered))
        failures = sum(not each for _, each in self._calls)
        recent = now - self._calls[0][0] <= WINDOW_SECONDS
        if failures > MOST_FAILURES and recent:
            self._open(now)

    def _note_while_open(self, now: float, *, answered: bool, probe: bool) -> None:
        if answered:
            logger.warning("supplier answers again")
            self._calls.clear()
            self._pause = FIRST_PAUSE_SECONDS
            self._open_until = None
            BREAKER_OPEN.set(0)
        elif probe:
            # Other calls that fail now were on their way before it opened, and say nothing new.
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._open(now)

    def _open(self, now: float) -> None:
        # Spread, so that replicas do not probe together.
        self._open_until = now + self._pause * (0.75 + self._chance() / 2)
        BREAKER_OPEN.set(1)
        logger.error("supplier does not answer, calls are held back", seconds=round(self._open_until - now, 1))
