"""One process that we start: the leader of a group of its own, with its output in a file, stopped by its own signal."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sandbox.ledger import Ledger

STOP_SECONDS = 15.0
_TAIL_LINES = 5


class StartFailed(RuntimeError):
    """A process ended, or did not become ready, while it was being started. The message names its log."""


class Child:
    """A process of ours. `start` and `stop` may come from different threads, one at a time."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        ledger: Ledger | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._ledger = ledger
        self._stop_signal = stop_signal
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The process's id; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How the process ended; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process. Its output is added to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self.log.open("ab") as log:
            if self._ledger is not None:
                self._ledger.forget(self.pid)
            self._process = subprocess.Popen(  # noqa: S603 # the commands are our own
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C in the terminal reaches the supervisor only, which then stops everybody in order.
                start_new_session=True,
            )
            if self._ledger is not None:
                self._ledger.record(self.name, self._process.pid, self._stop_signal)

    def stop(self) -> None:
        """Ask the process to end and wait; end it the hard way when it does not."""
        with self._lock:
            process = self._process
            if process is None:
                return
            if process.poll() is None:
                self._signal_group(process, self._stop_signal)
                try:
                    process.wait(self._stop_seconds)
                except subprocess.TimeoutExpired:
                    self._signal_group(process, signal.SIGKILL)
                    process.wait()
            if self._ledger is not None:
                self._ledger.forget(process.pid)

    def check_running(self) -> None:
        """Raise StartFailed when the process has ended."""
        if not self.is_running:
            raise StartFailed(f"{self.name} ended with status {self.exit_status}; see {self.log}{tail(self.log)}")

    @staticmethod
    def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def tail(log: Path) -> str:
    """Return the end of a log, indented, for a person to see what went wrong."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        return ""
    return "".join(f"\n  {line}" for line in lines)
