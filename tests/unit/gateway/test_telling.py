"""What the edge tells the audit log, and that it neither waits for it for long nor forgets it."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import httpx
import pytest
from gateway.convert import fact_to_proto
from gateway.domain.fact import MOST_SOURCES, Fact, RefusalCounts, network_of
from gateway.domain.order import Customer
from gateway.errors import EventsUnavailable
from keyferry.type.v1 import actor_pb2

from gateway import telling
from tests.unit.gateway.edge_fakes import START, World
from tests.unit.gateway.test_session import OWN_PAGE, begin_login, come_back

AWAY = EventsUnavailable("nats is not connected")


def told(world: World, action: str) -> list[Fact]:
    return [fact for fact in world.facts.told if fact.action == action]


def a_person() -> Customer:
    return Customer(customer_id="alice", email="alice@example.test", ip_address="192.0.2.7", user_agent="Browser/1.0")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_a_source_is_a_network_and_not_somebodys_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_refusals_are_counted_per_source_and_minute() -> None:
    counts = RefusalCounts("r")
    for second in (0, 1, 59, 60):
        counts.count("webhook.refused", "192.0.2.7", START + timedelta(seconds=second))
    counts.count("webhook.refused", "198.51.100.7", START)
    counts.count("login.refused", "192.0.2.7", START)
    facts = counts.take(START + timedelta(seconds=60))
    assert [(fact.action, fact.details["source"], fact.details["count"]) for fact in facts] == [
        ("webhook.refused", "192.0.2.0/24", "3"),
        ("webhook.refused", "198.51.100.0/24", "1"),
        ("login.refused", "192.0.2.0/24", "1"),
    ]
    assert {fact.time for fact in facts} == {START}
    assert len({(fact.action, *fact.identity) for fact in facts}) == 3
    (last,) = counts.take(START + timedelta(seconds=61), unfinished=True)
    assert last.details["count"] == "1"
    assert counts.take(START + timedelta(days=1)) == []


def test_an_attacker_with_many_networks_writes_a_bounded_number_of_entries() -> None:
    counts = RefusalCounts("r")
    for number in range(1000):
        counts.count("webhook.refused", f"10.{number // 256}.{number % 256}.1", START)
    facts = counts.take(START + timedelta(minutes=1))
    assert len(facts) == MOST_SOURCES + 1
    assert sum(int(fact.details["count"]) for fact in facts) == 1000
    assert facts[-1].details == {"source": "other", "count": str(1000 - MOST_SOURCES), "minute": START.isoformat()}


async def test_a_forged_webhook_a_bad_token_and_a_bad_login_are_counted_and_name_nobody(
    world: World, client: httpx.AsyncClient
) -> None:
    for _ in range(3):
        await client.post("/webhooks/kinguin", headers={"x-event-secret": "forged"}, content=b"{}")
        await client.get("/v1/orders", headers={"authorization": "Bearer x.y.z"})
    await client.get("/callback?code=stolen&state=other")
    await world.teller.tell_waiting()
    assert world.facts.told == []
    world.clock.advance(60)
    await world.teller.tell_waiting()
    assert {fact.action: fact.details["count"] for fact in world.facts.told} == {
        "webhook.refused": "3",
        "token.refused": "3",
        "login.refused": "1",
    }
    for fact in world.facts.told:
        assert fact_to_proto(fact).actor == actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="edge")


@pytest.mark.parametrize(
    ("roles", "actor_type"),
    [([], actor_pb2.ACTOR_TYPE_CUSTOMER), (["keyferry-admin"], actor_pb2.ACTOR_TYPE_ADMIN)],
    ids=["customer", "admin"],
)
async def test_a_login_and_a_logout_are_told_of_who_it_was(
    world: World, client: httpx.AsyncClient, roles: list[str], actor_type: actor_pb2.ActorType.ValueType
) -> None:
    world.issuer.id_token_claims = {"roles": roles}
    await come_back(world, client, await begin_login(client))
    (started,) = told(world, "session.started")
    message = fact_to_proto(started)
    assert (message.actor.type, message.actor.id, message.actor.email) == (actor_type, "alice", "alice@example.test")
    csrf = (await client.get("/logout")).text.partition('name="csrf_token" value="')[2].partition('"')[0]
    await client.post("/logout", data={"csrf_token": csrf}, headers=OWN_PAGE)
    (ended,) = told(world, "session.ended")
    assert ended.details == started.details


async def test_nobody_is_kept_from_logging_in_because_it_cannot_be_told(
    world: World, client: httpx.AsyncClient
) -> None:
    world.facts.failure = AWAY
    assert (await come_back(world, client, await begin_login(client))).status_code == 303
    world.facts.failure = None
    await world.teller.tell_waiting()
    assert [fact.action for fact in world.facts.told] == ["session.started"]


async def test_what_could_not_be_told_is_told_in_its_order_once_it_can_be(world: World) -> None:
    session, _ = world.session()
    world.facts.failure = AWAY
    await world.teller.session_started(session, a_person())
    await world.teller.session_ended(session, a_person())
    await world.teller.tell_waiting()
    assert world.facts.told == []
    world.facts.failure = None
    await world.teller.tell_waiting()
    assert [fact.action for fact in world.facts.told] == ["session.started", "session.ended"]
    assert world.facts.told[0].details == world.facts.told[1].details
    assert session.session_id not in str(world.facts.told)


async def test_a_sink_that_hangs_holds_nobody_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TELL_SECONDS", 0.01)

    async def hang(_fact: Fact) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.facts, "tell", hang)
    session, _ = world.session()
    await world.teller.session_started(session, a_person())


async def test_more_than_can_wait_are_dropped_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 2)
    for number in range(3):
        world.teller.tell_later(Fact("settings.changed", (str(number),), START))
    await world.teller.tell_waiting()
    assert [fact.identity for fact in world.facts.told] == [("0",), ("1",)]


async def test_at_its_end_it_tells_the_minute_that_is_not_over(world: World) -> None:
    world.teller.refused("webhook.refused", "192.0.2.7")
    task = asyncio.create_task(world.teller.run())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert [fact.details["count"] for fact in told(world, "webhook.refused")] == ["1"]
