"""One history: a few orders, replicas that die, and everything around them failing, until all is over."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chassis.errors import KeyferryError, ServiceUnavailable
from fulfillment.domain.model import Amount, Customer, ExternalId, Item, ItemId, KeyId, Order, OrderId

from tests.simulation.clock import Luck, News, WorldClock, WorldLoop
from tests.simulation.gateway import Gateway
from tests.simulation.gateway_rows import GatewayDatabase
from tests.simulation.network import Died, Host, Network, Process, Sky
from tests.simulation.people import Owner, Staff
from tests.simulation.queue import Queue
from tests.simulation.replica import Replica, a_policy
from tests.simulation.rows import OrdersDatabase
from tests.simulation.shop import Shop
from tests.simulation.supplier import Account
from tests.simulation.vault import SealedKey, VaultServer, VaultStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tests.simulation.rows import Transaction
    from tests.simulation.shapes import Told

ALICE = Customer("alice", "alice@example.com", "en", "DE")
# Whatever is not over by then never will be: past every age, and every wait that grew up in the trouble.
MOST_SECONDS = 4 * 3600.0
LOOK_SECONDS = 60.0
# The last one is two purchases: the supplier sells nine at once.
QUANTITIES = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 10)


class World:
    """Everything there is in one history."""

    def __init__(self, seed: int, loop: WorldLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.luck = luck = Luck(seed)
        self.clock = WorldClock(loop)
        self.sky = Sky(loop, luck)
        self.network = Network(self.sky)
        self.policy = a_policy(refund=luck.chance(0.5))
        self.orders = OrdersDatabase(News(loop), self._published)
        self.gateway_database = GatewayDatabase(self.clock, News(loop), self._changed)
        self.account = Account(self.sky, self.clock, luck)
        self.store = VaultStore(self._opened)
        self.replicas, self.gateways, self.vaults = Host[Replica](luck), Host[Gateway](luck), Host[VaultServer](luck)
        self.queue = Queue(self.sky, self.replicas)
        self.shop = Shop(self)
        self.mails: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.lost_answers: Counter[str] = Counter()
        self.refused_mails: set[str] = set()
        self.own_refunds: set[OrderId] = set()
        self.given_up: set[tuple[str, str]] = set()
        self.faults: list[str] = []
        self.placed: dict[OrderId, Order] = {}
        self.busy = 0
        self.deaths = 0
        self._hints = 0
        self._waiting_events = 0
        self._people: set[asyncio.Task[Any]] = set()

    # What is told from one to another.

    def _published(self, identity: tuple[str, ...], told: Told) -> None:
        """Carry an event from the outbox to the shop, at least once."""
        luck, sky = self.luck, self.sky
        late = 0.01 if sky.is_clear or not sky.strikes(sky.weather.slow) else luck.upto(5)
        self.loop.call_later(late, self._heard, identity, told)
        self._waiting_events += 1

    def _heard(self, identity: tuple[str, ...], told: Told) -> None:
        self._waiting_events -= 1
        self.shop.hear(identity, told)

    def _changed(self, external_id: str) -> None:
        self._hints += 1
        now = self.clock.now

        async def handle(_: Replica, transaction: Transaction) -> None:
            await transaction.hasten(ExternalId(external_id), now=now())

        self.queue.hint(f"changed-{self._hints}", handle)

    def _opened(self, key_id: KeyId) -> None:
        async def handle(replica: Replica, transaction: Transaction) -> None:
            if await transaction.order_of_key(key_id) is None:
                self.faults.append(f"{key_id}: opened and unknown")
            await replica.openings.key_opened(transaction, key_id)

        self.queue.publish(f"opened-{key_id}", handle)

    # Processes.

    def _keep_alive(self, make: Callable[[], Process]) -> None:
        """Start a process, and another whenever it has died."""
        process = make()
        process.on_death = lambda: self._later(make)

    def _later(self, make: Callable[[], Process]) -> None:
        self.deaths += 1
        self.loop.call_later(0.2 + self.luck.random(), self._keep_alive, make)

    def _fulfillment(self) -> Process:
        process = Process(self.sky)
        replica = Replica(self, process)
        self.replicas.replicas.append((process, replica))
        process.spawn(_until_death(process, replica.run))
        return process

    def _gateway(self) -> Process:
        process = Process(self.sky)
        gateway = Gateway(
            process,
            database=self.gateway_database,
            account=self.account,
            clock=self.clock,
            luck=self.luck,
            network=self.network,
            vaults=self.vaults,
        )
        self.gateways.replicas.append((process, gateway))
        process.spawn(_until_death(process, gateway.run))
        return process

    def _vault(self) -> Process:
        process = Process(self.sky)
        self.vaults.replicas.append((process, VaultServer(self.store, process)))
        return process

    # People.

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Let somebody do something; the history is not over before it is done."""
        task = self.loop.create_task(work)
        self.busy += 1
        self._people.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.busy -= 1
        self._people.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.faults.append(f"somebody: {error!r}")

    async def ask(self, work: Callable[[Replica], Awaitable[object]]) -> bool:
        """Have a replica do something for a person, who asks again when no answer comes."""
        for _ in range(60):
            try:
                process, replica = self.replicas.find()
                await process.spawn(_answered(work, replica))
            except (ServiceUnavailable, asyncio.CancelledError, Died):
                await asyncio.sleep(0.5 + self.luck.upto(3))
            except KeyferryError:
                return False
            else:
                return True
        self.faults.append("a person was never answered")
        return False

    def _orders(self) -> None:
        luck = self.luck
        for number in range(1 if luck.chance(0.9) else 2):
            items = [
                Item(ItemId(f"item-{n}"), f"p{number}{n}", luck.pick(QUANTITIES), 120, unit_price=100)
                for n in range(1 if luck.chance(0.8) else 2)
            ]
            for item in items:
                self.account.offer(item.product_id, 100)
            total = Amount("EUR", sum(item.quantity * 100 for item in items))
            order = Order(OrderId(f"order-{number}"), ALICE, total, items)
            self.placed[order.order_id] = order

    async def live(self) -> None:
        """Live to the end."""
        luck = self.luck
        for make in (self._fulfillment, self._gateway, self._vault):
            self._keep_alive(make)
            if luck.chance(0.3):
                self._keep_alive(make)
        self._orders()
        for order in self.placed.values():
            self.start(self.shop.sell(order))
            self.start(Owner(self, order).live())
            self.start(Staff(self, order).live())
            if luck.chance(0.2):
                self.start(self.shop.cancel(order))
            if luck.chance(0.15):
                self.start(self.shop.refund_by_itself(order))
        await self._until_over()
        await self._reconcile()
        await self._until_over()
        for task in list(self._people):
            task.cancel()

    async def _until_over(self) -> None:
        while not self.is_over():
            if self.loop.time() > MOST_SECONDS:
                self.faults.append("it never ends")
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _reconcile(self) -> None:
        """Mend what a report finds: keys that nobody was told of, and orders that nobody keeps."""
        for order_id in self.placed:
            if any(differs(key, self.orders) for key in self.store.keys.values() if key.order_id == order_id):
                await self.ask(lambda replica, order_id=order_id: replica.adopter.adopt(order_id))  # type: ignore[misc] # a replica's work
        kept = {row.purchase.supplier_order_id for row in self.gateway_database.rows.values()}
        for sold in list(self.account.sold):
            external_id, number = sold.intent.external_id, sold.order.supplier_order_id
            if number not in kept and number not in self.gateway_database.returns:
                self.mended["bought too much"] += 1
                await self.ask(
                    lambda replica, name=external_id, number=number: replica.supplier.give_back_surplus(name, number)  # type: ignore[misc] # a replica's work
                )

    def met(self) -> Counter[str]:
        """Count what a history went through."""
        guarded, sealed = self.gateway_database.rows.values(), self.store.keys.values()
        return Counter(
            {
                "deaths": self.deaths,
                "doubts": self.gateway_database.doubts,
                "withdrawn": sum(row.purchase.withdrawn for row in guarded),
                "bought": len(self.account.sold),
                "gone back": sum(sold.return_time is not None for sold in self.account.sold),
                "opened": sum(key.opened for key in sealed),
                "revoked": sum(key.revoked for key in sealed),
                "never told of": len(self.store.keys) - len(self.orders.tables.table("keys")),
                **self.mended,
            }
        )

    def is_over(self) -> bool:
        """Whether nobody has anything left to do, and nothing is under way."""
        return (
            self.sky.is_clear
            and not self.busy
            and not self._waiting_events
            and not self.queue.under_way
            and not self.account.coming
            and self.orders.next_due() is None
            and self.orders.next_mail() is None
        )


def differs(sealed: SealedKey, orders: OrdersDatabase) -> bool:
    """Tell whether vault would open a key that our rows do not know, or call revoked."""
    row = orders.tables.committed["keys"].get(sealed.key_id)
    return sealed.is_openable and (row is None or row.key.revoke_time is not None)


async def _until_death(process: Process, work: Callable[[], Awaitable[None]]) -> None:
    with suppress(Died):
        await work()
    process.die()


async def _answered(work: Callable[[Replica], Awaitable[object]], replica: Replica) -> None:
    await work(replica)


def live(seed: int) -> World:
    """Live the history of a seed."""
    loop = WorldLoop()
    loop.set_exception_handler(lambda *_: None)
    world = World(seed, loop)
    try:
        loop.run_until_complete(world.live())
    finally:
        _close(loop)
    return world


def _close(loop: WorldLoop) -> None:
    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=1)

    loop.run_until_complete(cancel())
    loop.close()


def frugal() -> None:
    """Let the garbage of many histories be collected seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
