"""The people around an order: its owner, who opens keys, and staff, who mends what needs attention."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from fulfillment.domain.model import Action, KeyId, State
from fulfillment.domain.policy import actions, is_replaceable
from fulfillment.errors import KeyNotNeeded
from fulfillment.operating import Asked, Delivery
from fulfillment.ports.vault import KeyWish, Viewer
from keyferry.type.v1 import actor_pb2

from tests.simulation.vault import CannotOpen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fulfillment.domain.model import Line, Order, Purchase

    from tests.simulation.replica import Replica
    from tests.simulation.world import World

CUSTOMER = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="alice")
STAFF = Asked(actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="boss"), "it did not work")
VIEWER = Viewer("alice")
MOST_REPAIRS = 4


class Owner:
    """A customer who opens the keys of an order, in any order, some of them at one moment, some never."""

    def __init__(self, world: World, order: Order) -> None:
        self._world = world
        self._order = order
        self._asked: set[KeyId] = set()

    async def live(self) -> None:
        world, luck = self._world, self._world.luck
        idle = 0 if luck.chance(0.8) else 99
        while idle < 8:
            await asyncio.sleep(luck.pick((1.0, 15.0, 60.0)) * luck.random())
            found = world.orders.fulfillment(self._order.order_id)
            keys = [key.key_id for line in found.lines for key in line.keys if key.is_openable] if found else []
            fresh = [key_id for key_id in keys if key_id not in self._asked]
            idle = idle + 1 if not fresh else 0
            for key_id in fresh[:1] if luck.chance(0.5) else fresh:
                self._asked.add(key_id)
                world.start(self._open(key_id))

    async def _open(self, key_id: KeyId) -> None:
        wish = KeyWish(f"open/{key_id}", self._order.order_id, key_id, VIEWER, b"")

        async def ask(replica: Replica) -> None:
            await replica.reading.openable(wish, CUSTOMER, method="CreateDownloadLink")
            with suppress(CannotOpen):
                await replica.vault.create_download_link(wish)

        await self._world.ask(ask)


class Staff:
    """Somebody who looks at what needs attention and does one of the things that are offered, a few times."""

    def __init__(self, world: World, order: Order) -> None:
        self._world = world
        self._order_id = order.order_id
        self._uploads = 0

    async def live(self) -> None:
        luck = self._world.luck
        repairs, idle = luck.randint(0, MOST_REPAIRS), 0
        while repairs and idle < 6:
            await asyncio.sleep(luck.pick((5.0, 20.0, 120.0, 600.0)) * luck.random())
            choices = self._choices()
            if not choices:
                idle += 1
                continue
            repairs -= 1
            action, line, purchase = luck.pick(choices)
            await self._world.ask(self._doing(action, line, purchase))

    def _choices(self) -> list[tuple[Action, Line, Purchase]]:
        found, luck = self._world.orders.fulfillment(self._order_id), self._world.luck
        return [
            (action, line, purchase)
            for line in (found.lines if found else ())
            for purchase in line.purchases
            for action in actions(purchase, line.keys_of(purchase.external_id))
            if purchase.state is State.NEEDS_ATTENTION or (action is Action.REPLACE_KEY and luck.chance(0.05))
        ]

    def _doing(self, action: Action, line: Line, purchase: Purchase) -> Callable[[Replica], Awaitable[object]]:
        match action:
            case Action.RETRY:
                return self._retry
            case Action.REPLACE_KEY:
                return self._replacing(line, purchase)
            case Action.DELIVER_MANUALLY:
                return self._delivering(purchase)
            case _:
                return self._canceling(line)

    async def _retry(self, replica: Replica) -> None:
        async with replica.rows.transaction() as transaction:
            await replica.operating.retry(transaction, self._order_id, None, STAFF)

    def _canceling(self, line: Line) -> Callable[[Replica], Awaitable[object]]:
        self._world.given_up.add((self._order_id, line.item.item_id))

        async def cancel(replica: Replica) -> None:
            async with replica.rows.transaction() as transaction:
                await replica.operating.cancel(transaction, self._order_id, [line.item.item_id], STAFF)

        return cancel

    def _replacing(self, line: Line, purchase: Purchase) -> Callable[[Replica], Awaitable[object]]:
        own = line.keys_of(purchase.external_id)
        key_id = self._world.luck.pick([key.key_id for key in own if is_replaceable(purchase, key, own)])

        async def replace_key(replica: Replica) -> None:
            answer = await replica.operating.revoke_for_replacement(self._order_id, key_id)
            async with replica.rows.transaction() as transaction:
                await replica.operating.replace_key(transaction, self._order_id, key_id, answer, STAFF)

        return replace_key

    def _delivering(self, purchase: Purchase) -> Callable[[Replica], Awaitable[object]]:
        self._uploads += 1
        name = f"upload-{self._order_id}-{self._uploads}"
        delivery = Delivery(name, self._order_id, purchase.external_id, "text/plain", f"jwe-of-{name}")

        async def deliver(replica: Replica) -> None:
            key = await replica.operating.seal(delivery)
            try:
                async with replica.rows.transaction() as transaction:
                    await replica.operating.deliver(transaction, self._order_id, key, STAFF)
            except KeyNotNeeded:
                await replica.operating.destroy(self._order_id, key.key_id)

        return deliver
