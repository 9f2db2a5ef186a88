"""Processes that die between any two effects, and calls between them that are lost, late or doubled."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chassis.errors import ServiceUnavailable

from tests.simulation.clock import Luck

S = TypeVar("S")
T = TypeVar("T")


class Died(BaseException):
    """The process is gone, in the middle of what it did."""


@dataclass(slots=True)
class Weather:
    """How bad a history is: probabilities, each for one point, call or commit while the trouble goes on."""

    until: float
    death: float = 0.0
    lost: float = 0.0
    answer_lost: float = 0.0
    detached: float = 0.0
    doubled: float = 0.0
    slow: float = 0.0
    refused_commit: float = 0.0
    lost_commit: float = 0.0
    pause: float = 0.0
    stopped: float = 0.0


def weather(luck: Luck) -> Weather:
    """Draw a weather: no history has every trouble, so that each is met by itself and together with some."""

    def some(most: float) -> float:
        return luck.upto(most) if luck.chance(0.4) else 0.0

    return Weather(
        until=luck.pick((5.0, 15.0, 40.0)),
        death=some(0.03),
        lost=some(0.15),
        answer_lost=some(0.15),
        detached=some(0.15),
        doubled=some(0.1),
        slow=some(0.2),
        refused_commit=some(0.06),
        lost_commit=some(0.08),
        pause=some(0.4),
        stopped=some(0.5),
    )


class Sky:
    """The weather at this moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, luck: Luck) -> None:
        self.loop = loop
        self.luck = luck
        self.weather = weather(luck)

    def strikes(self, probability: float) -> bool:
        return probability > 0 and self.loop.time() < self.weather.until and self.luck.random() < probability

    @property
    def is_clear(self) -> bool:
        return self.loop.time() >= self.weather.until


class Process:
    """One process. Once it died nothing that it still runs has an effect: every port asks it first."""

    def __init__(self, sky: Sky) -> None:
        self.sky = sky
        self.alive = True
        self.on_death: Callable[[], None] = _nothing
        # In the order of their beginning: a seed must find them in the same order again.
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = self.sky.loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def point(self) -> None:
        """Pass a place between two effects, where the process may die."""
        if not self.alive:
            raise Died
        if self.sky.strikes(self.sky.weather.death):
            self.die()
            raise Died

    def die(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.on_death()
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()


def _nothing() -> None:
    """Nobody waits for the death."""


class Host(Generic[S]):
    """Where a service is found: some replica of it that is alive, or none just now."""

    def __init__(self, luck: Luck) -> None:
        self._luck = luck
        self.replicas: list[tuple[Process, S]] = []

    def find(self) -> tuple[Process, S]:
        self.replicas = [each for each in self.replicas if each[0].alive]
        if not self.replicas:
            raise ServiceUnavailable("nobody is there")
        return self._luck.pick(self.replicas)


class Network:
    """Carries calls. Each may be carried out without its caller ever hearing of it, or twice."""

    def __init__(self, sky: Sky) -> None:
        self._sky = sky

    async def call(self, caller: Process, host: Host[S], work: Callable[[S], Awaitable[T]]) -> T:
        """Call a replica. Raises ServiceUnavailable where no answer comes, whatever was done."""
        caller.point()
        sky, bad = self._sky, self._sky.weather
        if sky.is_clear:
            return await self._inline(caller, host, work)
        if sky.strikes(bad.slow):
            await asyncio.sleep(sky.luck.pick((0.01, 0.1, 1.0, 5.0)) * sky.luck.random())
        if sky.strikes(bad.lost):
            raise ServiceUnavailable("the request was lost")
        if sky.strikes(bad.doubled):
            process, server = host.find()
            sky.loop.call_later(sky.luck.upto(3), self._again, process, server, work)
        if sky.strikes(bad.detached):
            return await self._detached(caller, host, work)
        answer = await self._inline(caller, host, work)
        if sky.strikes(bad.answer_lost):
            raise ServiceUnavailable("the answer was lost")
        caller.point()
        return answer

    async def _inline(self, caller: Process, host: Host[S], work: Callable[[S], Awaitable[T]]) -> T:
        _, server = host.find()
        try:
            answer = await work(server)
        except Died:
            # Whose death it was: its caller hears nothing.
            if caller.alive:
                raise ServiceUnavailable("the answer never came") from None
            raise
        if not caller.alive:
            raise Died
        return answer

    async def _detached(self, caller: Process, host: Host[S], work: Callable[[S], Awaitable[T]]) -> T:
        process, server = host.find()
        task = process.spawn(_quiet(work, server))
        done, _ = await asyncio.wait({task}, timeout=self._sky.luck.pick((0.1, 2.0, 20.0)))
        caller.point()
        if not done or task.cancelled():
            raise ServiceUnavailable("too late")
        answer = task.result()
        if isinstance(answer, BaseException):
            if isinstance(answer, Died):
                raise ServiceUnavailable("the answer never came")
            raise answer
        return answer

    def _again(self, process: Process, server: S, work: Callable[[S], Awaitable[T]]) -> None:
        if process.alive:
            process.spawn(_quiet(work, server))


async def _quiet(work: Callable[[S], Awaitable[T]], server: S) -> T | BaseException:
    try:
        return await work(server)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 # it is its caller's, if there is one
        return error
