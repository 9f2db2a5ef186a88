"""Every failpoint on the road from payment to reveal, with every action: nothing is lost, nothing is bought twice.

The short form plans all failpoints at once, and so every pair of them meets in one run; only where money is spent and
keys are sealed it lets processes die. At full size (KEYFERRY_PROOF=full) they die everywhere, each failpoint has a run
of its own with each of its actions, and where money is spent and keys are sealed each pair of deaths has one too, and
each death among failures everywhere.
"""

import asyncio
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from chassis.errors import RemoteError
from sandbox.customer import Refused
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase

from tests.e2e.system import System, keys_of
from tests.failpoints import DELAY, Fault, Faults, all_faults

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
PRODUCT = PRODUCTS[0].product_id
ORDERS = 3
# Each process dies a dozen times, and each death costs a start and, for what it cut off, a lease.
PATIENCE_SECONDS = 240.0
ROUNDS_SECONDS = 240.0
# What paying, buying, sealing and opening do not come by unless a supplier, a person or a database errs as well: these
# are planned too, and may fire. Their own tests make them.
BESIDE_THE_ROAD = re.compile(
    r"kinguin_gateway\..*(return|top_up|switch|hold|replay_webhook|products|search|park|refuse|verify|postpone|balance"
    r"|release|find_orders|record_commit|stand|claim|look|read_order|withdraw)"
    r"|consumer\.bury|housekeeping|outbox\.(streams|rebuild)|audit\.fill_tree"
    r"|vault\.(revoke|shred|sweep|erase|rewrap|transit|seal\..*(rename|delete_late))"
    r"|vault\.release\..*failure|edge\.open\..*reveal|edge\.(webhook|fact)|settings"
    r"|fulfillment\.(?!(claim|plan|place|collect|mail|claim_mails)\.).*"
)
# What is irreversible: money that is spent, and a key that is taken over. Each death costs a start and a lease, so that
# only these die in the short form.
SPENDING_AND_SEALING = re.compile(r"fulfillment\.(plan|place)\.|kinguin_gateway\..*(place_order|seal)|vault\.seal\.")


def is_on_the_road(fault: Fault) -> bool:
    return BESIDE_THE_ROAD.match(fault.name) is None


def may_die(fault: Fault) -> bool:
    return is_on_the_road(fault) and (FULL or SPENDING_AND_SEALING.match(fault.name) is not None)


@pytest.fixture(scope="module")
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Give a system of this file's own: in the shared one, others would meet its faults."""
    running = System(tmp_path_factory.mktemp("faulty"), options=("--replicas", "2", "--failpoints"))
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
async def road(own_system: System) -> AsyncIterator["Road"]:
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        yield Road(own_system, http)


class Road:
    """Customers who pay, wait and open their keys, however often they have to press the button."""

    def __init__(self, system: System, http: httpx.AsyncClient) -> None:
        self._system = system
        self._http = http

    async def travel(self) -> None:
        """Pay some orders at once and open all their keys; each must be one that the supplier sold for its order."""
        await asyncio.gather(*(self._buy() for _ in range(ORDERS)))

    async def _buy(self) -> None:
        order_id = await self._system.pay("alice", Purchase(PRODUCT), seconds=PATIENCE_SECONDS)
        order = await self._system.until(self._http, "alice", order_id, "READY", "DELIVERED", seconds=PATIENCE_SECONDS)
        opened = Counter([await self._open(order_id, key_id) for key_id in keys_of(order)])
        assert opened == Counter(await self._serials(order_id))
        assert sum(opened.values()) == 1

    async def _serials(self, order_id: str) -> list[str]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self._system.serials(self._http, order_id)
            except RemoteError:
                # Both replicas may have met a fault as they started, and are being started again.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.3)

    async def _open(self, order_id: str, key_id: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                customer = self._system.customer(self._http, "alice")
                return (await customer.open_key(order_id, key_id)).plaintext.decode()
            except (Refused, httpx.TransportError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.3)

    async def check_ledger(self) -> None:
        """Compare everything that was sold with everything that was ordered."""
        sold = await self._system.sold(self._http)
        assert max(Counter(order["external_id"] for order in sold).values()) == 1
        bought = {
            purchase.external_id
            for fulfillment in await self._system.all_fulfillments()
            for line in fulfillment.lines
            for purchase in line.purchases
        }
        assert {order["external_id"] for order in sold} == bought

    async def check_audit(self) -> None:
        """No key was released that the log does not say was authorized before."""
        entries = await self._system.audit_entries()
        authorized = {entry.key_id for entry in entries if entry.action == "key.link_authorized"}
        assert {entry.key_id for entry in entries if entry.action == "key.link_released"} <= authorized


def cases() -> Iterator[tuple[str, list[Fault]]]:
    """Yield all failpoints at once, and at full size each fault by itself and what is irreversible in pairs."""
    # A call that is repeated is named differently from the points around it, which fail: both fit in one run.
    yield "all=error,repeat", all_faults("error", "repeat")
    # What is beside the road only costs time when it dies: everything before the first order is paid.
    yield "all=crash", [fault for fault in all_faults("crash") if may_die(fault)]
    if FULL:
        singles = [fault for fault in all_faults("error", "crash", DELAY, "repeat") if is_on_the_road(fault)]
        yield from ((str(fault), [fault]) for fault in singles)
        deaths = [fault for fault in singles if fault.action == "crash" and SPENDING_AND_SEALING.match(fault.name)]
        failures = [fault for fault in singles if fault.action == "error" and SPENDING_AND_SEALING.match(fault.name)]
        yield from ((f"{one}+{other}", [one, other]) for one, other in itertools.combinations(deaths, 2))
        yield from ((f"{death}+all=error", [death, *failures]) for death in deaths)


@pytest.mark.parametrize("faults", [pytest.param(faults, id=name) for name, faults in cases()])
async def test_faults_lose_nothing_and_buy_nothing_twice(own_system: System, road: Road, faults: list[Fault]) -> None:
    expected = {fault.name for fault in faults if is_on_the_road(fault)}
    deadline = time.monotonic() + ROUNDS_SECONDS

    def enough(fired: set[str]) -> bool:
        assert time.monotonic() < deadline, f"never came by {sorted(expected - fired)}"
        return expected <= fired

    await Faults(own_system).run(faults, road.travel, until=enough)
    await road.check_ledger()
    await road.check_audit()
