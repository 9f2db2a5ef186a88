"""The supplier's patience: so many calls in a second, then 429, and after too many of those a block (K7)."""

from collections import deque

from sandbox.kinguin.faults import Faults
from sandbox.kinguin.mischief import Operation, Rule
from sandbox.kinguin.problems import Refusal

_WINDOW_SECONDS = 1.0
_BLOCK_SECONDS = 10.0
_RETRY_AFTER_SECONDS = 1
_TOO_MANY, _FORBIDDEN = 429, 403


class Patience:
    """Counts calls where a rule sets a limit. Refused calls count towards the block, not towards the limit."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()
        self._strikes = 0
        self._blocked_until = 0.0
        self._refused = self._blocks = 0

    def refuse(self, faults: Faults, operation: Operation, now: float) -> None:
        """Let a call pass, or raise Refusal. `now` is in seconds since 1970."""
        rule = faults.standing("calls_per_second", operation)
        if rule is None or rule.limit is None:
            self._admitted.clear()
            self._strikes, self._blocked_until = 0, 0.0
            return
        if now < self._blocked_until:
            raise Refusal("Http", _FORBIDDEN, "The store is blocked: too many requests.")
        while self._admitted and self._admitted[0] <= now - _WINDOW_SECONDS:
            self._admitted.popleft()
        if len(self._admitted) < rule.limit:
            self._admitted.append(now)
            return
        self._strike(rule, now)

    def _strike(self, rule: Rule, now: float) -> None:
        rule.hits += 1
        self._refused += 1
        self._strikes += 1
        if self._strikes > rule.strikes:
            self._strikes = 0
            self._blocks += 1
            self._blocked_until = now + (_BLOCK_SECONDS if rule.seconds is None else rule.seconds)
        wait = _RETRY_AFTER_SECONDS if rule.retry_after is None else rule.retry_after
        raise Refusal("Http", _TOO_MANY, "Too many requests.", headers={"Retry-After": str(wait)})

    def forget(self) -> None:
        """Start again from zero."""
        self._admitted.clear()
        self._strikes = self._refused = self._blocks = 0
        self._blocked_until = 0.0

    def as_json(self) -> dict[str, object]:
        """Return how many calls were too many, and how often that blocked the store."""
        return {"too_many": self._refused, "blocks": self._blocks}
