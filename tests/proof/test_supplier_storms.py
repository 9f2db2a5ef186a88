"""The whole system, two replicas of each service, and a supplier on its worst day. Nothing lost or bought twice.

With KEYFERRY_PROOF=full at the size that the promises name; else small, so that every run of the tests has it.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentAccepted, FulfillmentReady
from kinguin_gateway.config import Settings

from tests.e2e.system import System
from tests.proof.shop import Shop

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
STORM_ORDERS = 500 if FULL else 60
STORM_SECONDS = 300.0 if FULL else 60.0
OUTAGE_SECONDS = 60.0 if FULL else 6.0
ORDERS_PER_SECOND = 10 if FULL else 5
DRAIN_SECONDS = 120.0
ACCEPT_SECONDS = 10.0

COMMIT_BOUND, SEARCH_LAG_BOUND = 2, 4
SEARCH_LAG = 3.0
STORM = [
    {"action": "drop_answer", "operation": "placeOrder", "probability": 0.3},
    {"action": "search_lag", "seconds": SEARCH_LAG},
    {"action": "status", "operation": "*", "status": 503, "probability": 0.1},
]
# Half of the connections are cut before anything is done, the other half is answered 503.
OUTAGE = [
    {"action": "reset_before", "operation": "*", "probability": 0.5},
    {"action": "status", "operation": "*", "status": 503},
]
CALLS_PER_SECOND = Settings.model_fields["keyferry_supplier_calls_per_second"].default
OPENED = 5


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(
        tmp_path_factory.mktemp("storms"),
        options=("--replicas", "2"),
        environment={"KINGUIN_COMMIT_BOUND": str(COMMIT_BOUND), "KINGUIN_SEARCH_LAG_BOUND": str(SEARCH_LAG_BOUND)},
    )
    running.start()
    yield running
    assert running.stop() == 0


async def misbehave(system: System, http: httpx.AsyncClient, rules: Sequence[Mapping[str, object]]) -> None:
    answer = await http.post(f"{system.endpoints['kinguin_control']}/faults", json=rules)
    assert answer.status_code == httpx.codes.OK, answer.text


async def behave(system: System, http: httpx.AsyncClient) -> dict[str, int]:
    """Delete every rule, and return how often each applied."""
    faults = f"{system.endpoints['kinguin_control']}/faults"
    rules = (await http.get(faults)).json()["rules"]
    await http.delete(faults)
    return {rule["action"]: rule["hits"] for rule in rules}


async def requests(system: System, http: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await http.get(f"{system.endpoints['kinguin_control']}/requests")).json())


async def check_every_order(system: System, http: httpx.AsyncClient, shop: Shop, bought_before: int) -> None:
    """Compare what was paid, what the supplier sold and what was sealed: each exactly once. No human was asked for."""
    assert not shop.attention()
    own = [each for each in await system.all_fulfillments() if each.order_id in shop.paid]
    assert len(own) == len(shop.paid)
    keys = [key.key_id for each in own for line in each.lines for key in line.keys]
    purchases = [purchase for each in own for line in each.lines for purchase in line.purchases]
    assert len(keys) == len(set(keys)) == len(shop.paid)
    sold = (await system.sold(http))[bought_before:]
    assert sorted(order["external_id"] for order in sold) == sorted(purchase.external_id for purchase in purchases)
    assert sum(len(order["keys"]) for order in sold) == len(shop.paid)
    for each in own[:OPENED]:
        order_id, key_id = each.order_id, each.lines[0].keys[0].key_id
        opened = await system.customer(http, "alice").open_key(order_id, key_id)
        assert [opened.plaintext.decode()] == await system.serials(http, order_id)


async def test_a_storm_of_lost_answers_late_searches_and_faults_costs_time_and_nothing_else(
    system: System, http: httpx.AsyncClient
) -> None:
    before = len(await system.sold(http))
    await misbehave(system, http, STORM)
    async with Shop.opened(system.endpoints["nats"]) as shop:
        await asyncio.gather(*(shop.pay() for _ in range(STORM_ORDERS)))
        seconds = await shop.until_ready(STORM_SECONDS)
        hits = await behave(system, http)
        await check_every_order(system, http, shop, before)
    asked = await requests(system, http)
    print(  # noqa: T201 # the figures of a proof
        f"storm: {STORM_ORDERS} orders, all ready {seconds:.1f} s after the last was accepted, the slowest after "
        f"{shop.slowest(FulfillmentReady):.1f} s; faults {hits}; asked {asked['operations']}, "
        f"at most {asked['peak_per_second']} in one second"
    )
    assert hits["drop_answer"] > STORM_ORDERS / 10
    assert hits["status"] > STORM_ORDERS / 10
    assert asked["peak_per_second"] <= CALLS_PER_SECOND


async def test_an_outage_loses_no_order_and_its_backlog_is_drained_at_a_bounded_rate(
    system: System, http: httpx.AsyncClient
) -> None:
    before = len(await system.sold(http))
    await misbehave(system, http, OUTAGE)
    async with Shop.opened(system.endpoints["nats"]) as shop:
        paying = []
        begin = time.monotonic()
        for number in range(int(OUTAGE_SECONDS * ORDERS_PER_SECOND)):
            await asyncio.sleep(max(0.0, begin + number / ORDERS_PER_SECOND - time.monotonic()))
            paying.append(asyncio.create_task(shop.pay()))
        await asyncio.sleep(max(0.0, begin + OUTAGE_SECONDS - time.monotonic()))
        during = await requests(system, http)
        hits = await behave(system, http)
        await asyncio.gather(*paying)
        assert not shop.heard[FulfillmentReady]
        backlog, seconds = shop.open_orders(), await shop.until_ready(DRAIN_SECONDS)
        await check_every_order(system, http, shop, before)
    after = await requests(system, http)
    print(  # noqa: T201 # the figures of a proof
        f"outage: {OUTAGE_SECONDS:.0f} s, {len(shop.paid)} orders, the slowest was accepted after "
        f"{shop.slowest(FulfillmentAccepted):.1f} s; {backlog} waited at its end and were ready {seconds:.1f} s later; "
        f"faults {hits}; calls during {during['total']}, at most {after['peak_per_second']} in one second, "
        f"{CALLS_PER_SECOND:.0f} are allowed"
    )
    assert shop.slowest(FulfillmentAccepted) < ACCEPT_SECONDS
    assert min(hits.values()) > 0
    assert after["peak_per_second"] <= CALLS_PER_SECOND
