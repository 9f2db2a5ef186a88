"""Starts everything in order, keeps it running, and stops what it started, and nothing else."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sandbox.endpoints import Endpoints
from sandbox.layout import Layout
from sandbox.ledger import Ledger
from sandbox.parts import Node
from sandbox.setup import Setup

WATCH_SECONDS = 0.1
FIRST_BACKOFF_SECONDS = 0.2
MOST_BACKOFF_SECONDS = 5.0
# A process that ran this long was well; if it dies now it is started again at once.
HEALTHY_SECONDS = 10.0
_LEFTOVER_SECONDS = 8.0

Tell = Callable[[str], None]


class AlreadyRunning(RuntimeError):
    """Another supervisor runs in this folder."""


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the sandbox's lock. It is given back by the system when the process dies. Raises AlreadyRunning."""
    layout.folder.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"a sandbox is running in {layout.folder}; stop it with Ctrl-C first") from None
        yield


def is_running(layout: Layout) -> bool:
    """Tell whether a supervisor holds the lock."""
    try:
        with layout.lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stop_leftovers(layout: Layout) -> list[str]:
    """End what an earlier supervisor started and could not stop; return the names. The lock must be held."""
    return [started.name for started in Ledger(layout.started).stop_leftovers(grace_seconds=_LEFTOVER_SECONDS)]


@dataclass(slots=True)
class _Health:
    """How often one part had to be started again lately."""

    started: float
    failures: int = 0
    restarting: bool = False

    def backoff(self, now: float) -> float:
        """Return how long to wait before the next start, in seconds."""
        self.failures = 1 if now - self.started > HEALTHY_SECONDS else self.failures + 1
        return min(FIRST_BACKOFF_SECONDS * 2.0 ** (self.failures - 1), MOST_BACKOFF_SECONDS)


class Supervisor:
    """One run of the sandbox. The lock must be held from `start` to the end of `stop`."""

    def __init__(self, setup: Setup, nodes: Sequence[Node], *, tell: Tell) -> None:
        self._setup = setup
        self._tell = tell
        self._nodes = nodes
        self._ready: dict[str, asyncio.Event] = {node.name: asyncio.Event() for node in self._nodes}
        self._starts: set[asyncio.Task[None]] = set()
        self._health: dict[str, _Health] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> Endpoints:
        """Start everything and return once all is ready. Raises StartFailed; `stop` is due then as well."""
        setup = self._setup
        setup.save()
        for node in self._nodes:
            _keep_last_log(node)
        self._starts = {asyncio.create_task(self._start(node), name=node.name) for node in self._nodes}
        await _all_or_first_failure(self._starts)
        endpoints = self._write_endpoints()
        self._watcher = asyncio.create_task(self._watch(), name="watch")
        return endpoints

    async def stop(self) -> None:
        """Stop everything, what needs others before what it needs."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
        self._setup.layout.endpoints.unlink(missing_ok=True)
        for ready in self._ready.values():
            ready.set()
        # A start in another thread cannot be canceled: it ends when its process does.
        while any(not task.done() for task in self._starts):
            await asyncio.gather(*(asyncio.to_thread(node.part.stop) for node in self._nodes if node.part.pid))
            await asyncio.wait(self._starts, timeout=WATCH_SECONDS)
        await asyncio.gather(*self._starts, return_exceptions=True)
        stopped = {node.name: asyncio.Event() for node in self._nodes}
        await asyncio.gather(*(self._stop(node, stopped) for node in self._nodes))

    async def _start(self, node: Node) -> None:
        for name in node.needs:
            if name in self._ready:
                await self._ready[name].wait()
        if self._stopping:
            return
        began = time.monotonic()
        await asyncio.to_thread(node.part.start)
        self._health[node.name] = _Health(time.monotonic())
        self._ready[node.name].set()
        self._tell(f"{node.name} is ready after {time.monotonic() - began:.1f} s")

    async def _stop(self, node: Node, stopped: dict[str, asyncio.Event]) -> None:
        for other in self._nodes:
            if node.name in other.needs:
                await stopped[other.name].wait()
        await asyncio.to_thread(node.part.stop)
        stopped[node.name].set()

    async def _watch(self) -> None:
        """Start again what dies."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for node in self._nodes:
                health = self._health[node.name]
                if not node.part.is_running and not health.restarting:
                    health.restarting = True
                    task = asyncio.create_task(self._restart(node, health), name=node.name)
                    self._starts.add(task)
                    task.add_done_callback(self._starts.discard)

    async def _restart(self, node: Node, health: _Health) -> None:
        seconds = health.backoff(time.monotonic())
        if self._setup.options.failpoints:
            seconds = FIRST_BACKOFF_SECONDS
        self._tell(f"{node.name} has ended; it is started again in {seconds:.1f} s")
        await asyncio.sleep(seconds)
        if self._stopping:
            return
        starting = asyncio.create_task(asyncio.to_thread(node.part.start))
        old_pid = node.part.pid
        while not starting.done() and node.part.pid == old_pid:
            await asyncio.wait([starting], timeout=WATCH_SECONDS / 2)
        self._write_endpoints()
        try:
            await starting
        except Exception as error:  # noqa: BLE001 # whatever went wrong, it is tried again
            self._tell(f"{node.name}: {error}")
        health.started = time.monotonic()
        health.restarting = False

    def _write_endpoints(self) -> Endpoints:
        running = [node for node in self._nodes if node.part.pid]
        pids = {node.name: node.part.pid for node in running} | {"supervisor": os.getpid()}
        endpoints = Endpoints.of(self._setup, pids=pids, logs={node.name: node.part.log for node in running})
        if not self._stopping:
            endpoints.write(self._setup.layout)
        return endpoints


async def _all_or_first_failure(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        if task.done():
            task.result()


def _keep_last_log(node: Node) -> None:
    """Begin a new log and keep one old one."""
    log = node.part.log
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
