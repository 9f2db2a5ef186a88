"""Runs a scenario against the real processes while failpoints fire in them, and tells which did.

Plans are files that a sandbox started with `--failpoints` gives to its services, as KEYFERRY_FAILPOINTS_FILE: a plan is
read when a process starts, so a new one is loaded by `kill -9`. A running process has no switch that anybody could
reach, here no more than in production.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.system import System
from tests.failpoint_catalogue import FOLDERS, Failpoint, find_failpoints, read_modules

# Longer than the longest wait of a caller for a key, and than the database's patience with an idle transaction.
DELAY = "delay:11"
LOOK_SECONDS = 0.05
RESTART_SECONDS = 40.0
MOST_AT_ONCE = 6
NEXT_SECONDS = 2.0
SERVICES = {
    "audit": ("audit",),
    "chassis": ("audit", "fulfillment", "kinguin-gateway", "vault"),
    "fulfillment": ("fulfillment",),
    "gateway": ("edge",),
    "kinguin-gateway": ("kinguin-gateway",),
    "vault": ("vault",),
}

Scenario = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is to happen at one failpoint in every replica of the services that have it."""

    name: str
    action: str
    services: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}={self.action}"


def all_faults(*actions: str) -> list[Fault]:
    """Return every failpoint of the system with every action that it knows."""
    return [
        Fault(point.name, action, SERVICES[part])
        for part in FOLDERS
        for point in find_failpoints(read_modules([part]))
        for action in actions
        if point.repeatable is (action == "repeat") and _is_of_a_process(point)
    ]


def _is_of_a_process(point: Failpoint) -> bool:
    # Nobody has a desk yet in whose process these could fire.
    return not point.name.startswith("dead_letter.")


@dataclass
class Faults:
    """The faults that are planned in one running system."""

    system: System
    _planned: dict[str, list[Fault]] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)
    _fired: set[tuple[str, str]] = field(default_factory=set)

    async def run(self, faults: Sequence[Fault], scenario: Scenario, *, until: Callable[[set[str]], bool]) -> set[str]:
        """Plan the faults, run the scenario until those that fired are enough, and return the names of all that did.

        Crashes are shared out among the replicas, so that each dies once per failpoint and not all of them together;
        everything else happens in each. A crash is struck from the plan when it has happened: the process that is
        started in its place reads what is left.
        """
        self._share_out(faults)
        await self._restart(set(self._planned))
        self._fired.clear()
        watching = asyncio.create_task(self._keep_striking())
        try:
            await self._keep_running(scenario, lambda: until({name for name, _ in self._fired}))
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            self._look()
            for replica in self._planned:
                self._write(replica, [])
        await self._restart(set(self._planned))
        # Without faults all goes on by itself, and nobody has to mend anything first.
        await scenario()
        return {name for name, _ in self._fired}

    async def _keep_running(self, scenario: Scenario, is_enough: Callable[[], bool]) -> None:
        """Begin the scenario again and again until it is enough, then let what was begun come to its end.

        What a crash cuts off waits for a lease: others are begun meanwhile, so that the next failpoint is met.
        """
        begun: set[asyncio.Task[None]] = set()
        try:
            while not is_enough():
                if len(begun) < MOST_AT_ONCE:
                    begun.add(asyncio.create_task(scenario()))
                done, begun = await asyncio.wait(begun, timeout=NEXT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            await asyncio.gather(*begun)
        finally:
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    def _share_out(self, faults: Sequence[Fault]) -> None:
        self._planned = {}
        for number, fault in enumerate(faults):
            for service in fault.services:
                replicas = self.system.replicas(service)
                chosen = [replicas[number % len(replicas)]] if fault.action == "crash" else replicas
                for replica in chosen:
                    self._planned.setdefault(replica, []).append(fault)
        for replica, planned in self._planned.items():
            self._write(replica, planned)
            self._read[replica] = self.system.layout.log(replica).stat().st_size

    def _write(self, replica: str, faults: Sequence[Fault]) -> None:
        file = self.system.layout.failpoints(replica)
        # Replaced, not written over: a process that starts now reads the old plan or the new one, not half of it.
        written = file.with_suffix(".new")
        written.write_text(";".join(map(str, faults)), encoding="utf-8")
        written.replace(file)

    async def _restart(self, replicas: set[str]) -> None:
        before = dict(self.system.endpoints["pids"])
        for replica in replicas:
            with suppress(ProcessLookupError):
                self.system.kill(replica)
        async with asyncio.timeout(RESTART_SECONDS):
            while any(self._pids().get(replica) in {None, before.get(replica)} for replica in replicas):  # noqa: ASYNC110 # another process writes the file
                await asyncio.sleep(LOOK_SECONDS)

    def _pids(self) -> Mapping[str, int]:
        with suppress(FileNotFoundError, ValueError):
            return dict(self.system.endpoints["pids"])
        return {}

    async def _keep_striking(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        """Read what the logs say since the last look, and strike crashes that have happened."""
        for replica, planned in self._planned.items():
            for name in self._told(replica):
                self._fired.add((name, replica))
                left = [fault for fault in planned if fault.action != "crash" or fault.name != name]
                if len(left) != len(planned):
                    planned[:] = left
                    self._write(replica, left)

    def _told(self, replica: str) -> list[str]:
        with self.system.layout.log(replica).open("rb") as log:
            log.seek(self._read[replica])
            whole = log.read().rpartition(b"\n")[0]
        self._read[replica] += len(whole)
        lines = [line for line in whole.splitlines() if b'"failpoint fires"' in line]
        return [json.loads(line)["failpoint"] for line in lines]
