"""Three replicas of every service, and those of fulfillment killed one after the other while orders come in.

With KEYFERRY_PROOF=full 2,000 orders and a minute of killing. KEYFERRY_SEED chooses who is killed when.
"""

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import httpx
import pytest
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentReady

from tests.e2e.system import System
from tests.proof.shop import Shop

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
ORDERS = 2000 if FULL else 40
KILLING_SECONDS = 60 if FULL else 6
SEED = int(os.environ.get("KEYFERRY_SEED", "1"))
# What a killed replica was at is another's once its lease ends, and a supervisor waits ever longer before it starts
# again what dies so often.
DRAIN_SECONDS = 900.0 if FULL else 120.0
# Nobody else sends a mail while its sender may be at it, and so not before a dead one's lease ends.
MAIL_SECONDS = 300.0 if FULL else 120.0
# Soon enough for a payment whose acceptance was told by nobody, the teller having died.
REPEAT_SECONDS = 5.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(tmp_path_factory.mktemp("replicas"), options=("--replicas", "3"))
    running.start()
    yield running
    assert running.stop() == 0


async def kill_one_after_the_other(system: System, chance: random.Random) -> Counter[str]:
    """Kill one of the replicas every second, whichever; one that is just being started again is spared by luck."""
    killed = Counter[str]()
    for _ in range(KILLING_SECONDS):
        await asyncio.sleep(1)
        names = system.replicas("fulfillment")
        assert len(names) == 3
        for name in chance.sample(names, len(names)):
            try:
                system.kill(name)
            except ProcessLookupError:
                continue
            killed[name] += 1
            break
    return killed


async def mails(system: System, http: httpx.AsyncClient) -> dict[str, Counter[str]]:
    """Return the Message-IDs of the mails of each order, by the order's number in their subject."""
    found = defaultdict[str, Counter[str]](Counter)
    for mail in (await http.get(f"{system.endpoints['mailbox']}/messages")).json():
        (order_id,) = (word for word in mail["subject"].split() if word.startswith("S"))
        found[order_id][mail["message_id"]] += 1
    return found


async def test_replicas_that_are_killed_every_second_lose_nothing_and_buy_nothing_twice(
    system: System, http: httpx.AsyncClient
) -> None:
    chance = random.Random(SEED)  # noqa: S311 # who dies next is no secret
    async with Shop.opened(system.endpoints["nats"], repeat_seconds=REPEAT_SECONDS) as shop:
        killing = asyncio.create_task(kill_one_after_the_other(system, chance))
        paying = []
        for _ in range(ORDERS):
            paying.append(asyncio.create_task(shop.pay()))
            await asyncio.sleep(KILLING_SECONDS / ORDERS)
        killed = await killing
        async with asyncio.timeout(DRAIN_SECONDS):
            await asyncio.gather(*paying)
        seconds = await shop.until_ready(DRAIN_SECONDS)
        assert not shop.attention()

    bought = Counter(
        purchase.external_id
        for fulfillment in await system.all_fulfillments()
        for line in fulfillment.lines
        for purchase in line.purchases
    )
    sold = await system.sold(http)
    assert Counter(order["external_id"] for order in sold) == bought
    assert (len(sold), set(bought.values())) == (ORDERS, {1})
    assert [len(order["keys"]) for order in sold] == [1] * ORDERS

    async def all_mailed() -> bool:
        return set(await mails(system, http)) == set(shop.paid)

    await system.until_true(all_mailed, seconds=MAIL_SECONDS)
    sent = await mails(system, http)
    assert all(len(ids) == 1 for ids in sent.values())
    copies = sum(count - 1 for ids in sent.values() for count in ids.values())
    print(  # noqa: T201 # the figures of a proof
        f"three replicas: {ORDERS} orders, killed {dict(killed)} with seed {SEED}; all ready {seconds:.1f} s after the "
        f"last was accepted, the slowest after {shop.slowest(FulfillmentReady):.1f} s; copies of mails: {copies}"
    )
    assert killed.total() >= KILLING_SECONDS / 2
