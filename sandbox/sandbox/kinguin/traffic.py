"""Counts requests, so that a test can tell how often, how fast and with what answer the supplier was asked."""

from collections import Counter, defaultdict

from sandbox.kinguin.mischief import OPERATIONS, Operation

CUT = "cut"


class Traffic:
    """Counts since the start or the last reset; in memory only."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._second = self._in_second = self._peak = 0

    def asked(self, operation: Operation, at: float) -> None:
        """Count a request as it arrives; `at` is in seconds since 1970."""
        self._asked[operation] += 1
        if int(at) != self._second:
            self._second, self._in_second = int(at), 0
        self._in_second += 1
        self._peak = max(self._peak, self._in_second)

    def answered(self, operation: Operation, status: int | None) -> None:
        """Count an answer; None where the connection was cut instead."""
        self._answers[operation][CUT if status is None else str(status)] += 1

    def forget(self) -> None:
        """Start again from zero."""
        self._asked.clear()
        self._answers.clear()
        self._second = self._in_second = self._peak = 0

    def as_json(self) -> dict[str, object]:
        """Return requests per operation, answers per operation and status, and the most in one second of the clock."""
        return {
            "operations": {operation: self._asked[operation] for operation in OPERATIONS},
            "answers": {operation: dict(counts) for operation, counts in self._answers.items()},
            "total": self._asked.total(),
            "peak_per_second": self._peak,
        }
