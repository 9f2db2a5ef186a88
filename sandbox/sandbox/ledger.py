"""Which processes the sandbox has started, on disk, so that the next start finds what a killed supervisor left behind.

A process is known by its id and the moment it began. Both must fit before anything is sent to it: the system gives
the id of a dead process to strangers.
"""

import json
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped] # ships no types

from sandbox.files import write_atomically

# The system computes the moment from its boot time, which moves a little whenever the clock is set.
_START_TOLERANCE_SECONDS = 2.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Started:
    """One process that we started."""

    name: str
    pid: int
    began: float
    stop_signal: int

    def is_alive(self) -> bool:
        """Tell whether this very process is still there; one that only waits to be reaped is not."""
        try:
            process = psutil.Process(self.pid)
            return bool(
                process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - self.began) < _START_TOLERANCE_SECONDS
            )
        except psutil.Error:
            return False


def _began(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


class Ledger:
    """The list of started processes, written whenever it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._started = _read(path)

    def record(self, name: str, pid: int, stop_signal: signal.Signals) -> None:
        """Remember a process that was just started, and how it wants to be stopped."""
        began = _began(pid)
        if began is not None:
            with self._lock:
                self._started[pid] = Started(name, pid, began, stop_signal)
                self._save()

    def forget(self, pid: int) -> None:
        """Forget a process that has ended."""
        with self._lock:
            if self._started.pop(pid, None) is not None:
                self._save()

    def leftovers(self) -> list[Started]:
        """Return the remembered processes that are still there, the last started first."""
        return [started for started in reversed(list(self._started.values())) if started.is_alive()]

    def stop_leftovers(self, *, grace_seconds: float) -> list[Started]:
        """End every remembered process that is still there, and nothing else; return which they were."""
        found = self.leftovers()
        for started in found:
            _send(started, started.stop_signal)
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline and any(started.is_alive() for started in found):
            time.sleep(_POLL_SECONDS)
        for started in found:
            _send(started, signal.SIGKILL)
        while any(started.is_alive() for started in found):
            time.sleep(_POLL_SECONDS)
        with self._lock:
            self._started.clear()
            self._save()
        return found

    def _save(self) -> None:
        write_atomically(self._path, json.dumps([asdict(started) for started in self._started.values()]) + "\n")


def _send(started: Started, number: int) -> None:
    with suppress(ProcessLookupError):
        if started.is_alive():
            # Each was started as the leader of a group of its own.
            os.killpg(started.pid, number)


def _read(path: Path) -> dict[int, Started]:
    try:
        return {entry["pid"]: Started(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
