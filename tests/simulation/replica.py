"""One replica of fulfillment: the real table, planner, policies and use cases, put together as `__main__` does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from chassis.errors import KeyferryError, ServiceUnavailable
from fulfillment.adopting import Adopter
from fulfillment.buying import Buyer
from fulfillment.collecting import KeyCollector, Openings
from fulfillment.domain.machine import IllegalSignal
from fulfillment.domain.policy import Policy, Remedy
from fulfillment.giving_up import GivingUp
from fulfillment.intake import Intake
from fulfillment.mailing import EXTEND_SECONDS as EXTEND_MAILS_SECONDS
from fulfillment.mailing import SEND_SECONDS, Mailing
from fulfillment.moving import Mover
from fulfillment.operating import Operating
from fulfillment.ports.mail import Letter, MailDelayed, MailDue, MailRefused
from fulfillment.products import Products
from fulfillment.progress import ACT_SECONDS, EXTEND_SECONDS, Progress
from fulfillment.reading import Reading
from fulfillment.taking_back import Taker
from fulfillment.working import Bench

from tests.simulation.gateway import KinguinLine
from tests.simulation.network import Died
from tests.simulation.vault import OpeningVault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fulfillment.ports.supplier import Claimed

    from tests.simulation.network import Process
    from tests.simulation.world import World

AT_ONCE = 8


class ShortLetters:
    """Letters as `fulfillment.mailing.Letters` writes them, without their text."""

    def write(self, due: MailDue) -> Letter:
        return Letter(self.message_id(due.order_id), due.email, "", "", "")

    def message_id(self, order_id: str) -> str:
        return f"<{order_id}>"


class PostOffice:
    """A mail server that is away at times, takes a letter and loses its answer, or refuses one for ever."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    async def send(self, letter: Letter) -> None:
        world, sky = self._world, self._process.sky
        self._process.point()
        if sky.strikes(sky.weather.lost):
            raise MailDelayed("away")
        if sky.strikes(0.01):
            world.refused_mails.add(letter.message_id)
            raise MailRefused("550")
        world.mails[letter.message_id] += 1
        if sky.strikes(sky.weather.answer_lost):
            raise MailDelayed("the answer was lost")
        self._process.point()


class Replica:
    """What one process of fulfillment runs."""

    def __init__(self, world: World, process: Process) -> None:
        self.world = world
        self.process = process
        self.rows = rows = world.orders.connect(process)
        clock, luck = world.clock, world.luck
        self.supplier = supplier = KinguinLine(world.network, world.gateways, process, world.gateway_database)
        self.vault = vault = OpeningVault(world.network, world.vaults, process)
        mover = Mover(world.policy, chance=luck.random)
        giving_up, products = GivingUp(mover), Products(supplier, clock)
        self.intake, self.openings = Intake(giving_up, clock), Openings(mover, clock)
        bench = Bench(rows, mover, clock)
        self.progress = Progress(
            bench, Buyer(bench, supplier, products), KeyCollector(bench, supplier, vault), Taker(bench, supplier, vault)
        )
        self.adopter = Adopter(bench, vault)
        self.mailing = Mailing(rows, PostOffice(world, process), ShortLetters(), clock=clock, chance=luck.random)  # type: ignore[arg-type] # what it needs of letters
        self.operating = Operating(rows, mover, giving_up, supplier, vault, clock=clock)
        self.reading = Reading(rows, clock=clock)
        self._running = 0

    async def run(self) -> None:
        """Claim what is due and act on it; wake when something is."""
        orders, clock, luck = self.world.orders, self.world.clock, self.world.luck
        while True:
            now = clock.now()
            due = [time for time in (orders.next_due(), orders.next_mail()) if time is not None]
            wait = (min(due) - now).total_seconds() if due else None
            if wait is None or wait > 0 or self._running >= AT_ONCE:
                spread = luck.upto(0.3)
                await orders.news.wait(spread if self._running >= AT_ONCE else None if wait is None else wait + spread)
                continue
            try:
                found = await self._claim()
            except ServiceUnavailable:
                found = False
            if not found:
                # Somebody else has it: as soon as that one is done there is news.
                await orders.news.wait(0.2 + luck.upto(0.3))

    async def _claim(self) -> bool:
        orders, now = self.world.orders, self.world.clock.now()
        found = False
        due = orders.next_due(first_lane=True)
        if due is not None and due <= now:
            found = self._start(await self.progress.claim_first(AT_ONCE - self._running))
        due = orders.next_due(first_lane=False)
        if due is not None and due <= now and self._running < AT_ONCE:
            found = self._start(await self.progress.claim_later(AT_ONCE - self._running)) or found
        mail = orders.next_mail()
        if mail is not None and mail <= now:
            for each in await self.mailing.claim(4):
                found = True
                self.process.spawn(self._send(each))
        return found

    def _start(self, claimed: object) -> bool:
        for each in claimed:  # type: ignore[attr-defined] # a sequence of claims
            self._running += 1
            self.process.spawn(self._act(each))
        return bool(claimed)

    async def _act(self, claimed: Claimed) -> None:
        watch = _Watch(self, lambda: self.progress.extend([claimed]), ACT_SECONDS, EXTEND_SECONDS)
        try:
            await self.progress.act(claimed)
        except (ServiceUnavailable, Died):
            pass
        except LookupError as error:
            # Whoever finds that another has claimed what it worked on stops there.
            if "somebody else" not in str(error):
                self.world.faults.append(repr(error))
        except (IllegalSignal, KeyferryError) as error:
            self.world.faults.append(repr(error))
        finally:
            self._running -= 1
            watch.end()

    async def _send(self, due: MailDue) -> None:
        world, name = self.world, f"<{due.order_id}>"
        before = world.mails[name]
        watch = _Watch(self, lambda: self.mailing.extend([due]), SEND_SECONDS, EXTEND_MAILS_SECONDS)
        try:
            await self.mailing.send(due)
        except (ServiceUnavailable, Died):
            pass
        finally:
            watch.end()
            if world.mails[name] > before and world.orders.tables.table("mails")[due.order_id].send_time is None:
                # Taken, and nobody wrote that down: only this may make a copy.
                world.lost_answers[name] += 1


class _Watch:
    """Keeps the lease of one act and ends what lasts too long, as `chassis.worker.ClaimLoop` does."""

    def __init__(
        self, replica: Replica, extend: Callable[[], Awaitable[None]], seconds: float, extend_seconds: float
    ) -> None:
        sky = replica.process.sky
        self._replica, self._extend_lease, self._extend_seconds = replica, extend, extend_seconds
        self._task = asyncio.current_task()
        # Some processes are stopped for longer than their leases.
        self._is_stopped = sky.strikes(sky.weather.stopped)
        self._until = sky.loop.time() + seconds
        self._timer = sky.loop.call_later(extend_seconds, self._tick)

    def _tick(self) -> None:
        process = self._replica.process
        if not process.alive:
            return
        if process.sky.loop.time() >= self._until and self._task is not None:
            self._task.cancel()
            return
        self._timer = process.sky.loop.call_later(self._extend_seconds, self._tick)
        if not self._is_stopped:
            process.spawn(self._extend())

    async def _extend(self) -> None:
        try:
            await self._extend_lease()
        except (ServiceUnavailable, Died):
            return

    def end(self) -> None:
        self._timer.cancel()


def a_policy(*, refund: bool) -> Policy:
    """Return a shop's rules, short enough that a history sees their ends."""
    when_refused = Remedy.REFUND if refund else Remedy.ATTENTION
    return Policy(stock_patience=timedelta(seconds=60), most_attempts=3, when_refused=when_refused)
