import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from chassis.channel import open_channel
from chassis.errors import RemoteError
from chassis.events import Event
from chassis.jetstream import Publisher, connect_nats
from chassis.tls import TlsFiles
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.audit.v1 import audit_service_pb2 as pb
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2
from sandbox.pki import Identity
from sandbox.ports import free_port

from tests.integration.audit_replicas import SETTINGS_CHANGED, checkpoint_settings, entries_of_others, log_size
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, ServiceProcess, eventually, fetch

if TYPE_CHECKING:
    from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceAsyncStub

SECRET = "v1:" + base64.urlsafe_b64encode(bytes(range(32))).decode()
ALICE = actor_pb2.Actor(
    type=actor_pb2.ACTOR_TYPE_CUSTOMER,
    id="alice",
    email="alice@example.com",
    ip_address="192.0.2.7",
    user_agent="Browser/1.0",
)
VAULT = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="vault")


@pytest.fixture
async def audit_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("audit", REPOSITORY / "services" / "audit" / "migrations")


class AuditReplica:
    """One process of the service."""

    def __init__(self, process: ServiceProcess, port: int) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"


MakeReplica = Callable[..., AuditReplica]


@pytest.fixture
def make_replica(
    audit_database: OneDatabase, streams: str, pki: Mapping[str, Identity], tmp_path: Path
) -> Iterator[MakeReplica]:
    started: list[AuditReplica] = []
    # The same for all: a replica with settings of its own tells of them in the log.
    checkpoints = checkpoint_settings()

    def make(*, port: int | None = None, failpoints: str = "", ready: bool = True) -> AuditReplica:
        port = port or free_port()
        environment = {
            "KEYFERRY_TLS_DIR": str(pki["audit"].folder),
            "KEYFERRY_LOG_LEVEL": "debug",
            "KEYFERRY_GRPC_LISTEN": f"127.0.0.1:{port}",
            "KEYFERRY_FAILPOINTS": failpoints,
            "KEYFERRY_TRACE_FILE": str(tmp_path / "spans.jsonl"),
            "DATABASE_URL": audit_database.service_url,
            "NATS_URL": streams,
            "KEYFERRY_AUDIT_SECRET": SECRET,
            **checkpoints,
        }
        replica = AuditReplica(ServiceProcess("audit", tmp_path, environment), port)
        started.append(replica)
        replica.process.start()
        if ready:
            replica.process.wait_ready()
        return replica

    yield make
    for replica in started:
        replica.process.stop()


@asynccontextmanager
async def stub_as(
    pki: Mapping[str, Identity], identity: str, *replicas: AuditReplica
) -> AsyncIterator["AuditServiceAsyncStub"]:
    addresses = [replica.address for replica in replicas]
    async with open_channel(addresses, peer="audit", tls=TlsFiles(pki[identity].folder)) as channel:
        yield AuditServiceStub(channel)


def a_request(number: int = 0, **rest: str) -> pb.AppendEntryRequest:
    return pb.AppendEntryRequest(
        request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"request {number}")),
        actor=ALICE,
        action="key.link_authorized",
        order_id=rest.get("order_id", "order-1"),
        key_id="key-1",
        details={"expires": "15 min", "note": '\u2028 "quoted" \x7f'},
    )


def a_fact(number: int = 0, *, source: str = "vault", action: str = "key.sealed") -> Event:
    moment = Timestamp()
    moment.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    body = AuditRecorded(
        actor=VAULT, action=action, order_id="order-1", key_id=f"key-{number}", request_id="r-1", occur_time=moment
    )
    return Event.of(
        body, event_id=f"fact-{number}", subject="audit.recorded", source=source, about="k", time=datetime.now(UTC)
    )


async def publish(url: str, events: Sequence[Event]) -> None:
    async with connect_nats(url, name="test") as client:
        for event in events:
            await Publisher(client).publish_event(event)


async def redeliver_soon(url: str) -> None:
    """Have JetStream hand out again after 2 s, instead of 30 s, what a dead process did not acknowledge."""
    async with connect_nats(url, name="test") as client:
        context = client.jetstream()
        config = (await context.consumer_info("AUDIT", "audit-recorder")).config
        await context.add_consumer("AUDIT", replace(config, ack_wait=2))


async def dead_letters(database: OneDatabase) -> list[asyncpg.Record]:
    return await fetch(database.superuser_url, "TABLE dead_letter")


async def wait_for(
    database: OneDatabase,
    count: int,
    rows: Callable[[OneDatabase], Awaitable[list[asyncpg.Record]]] = entries_of_others,
) -> list[asyncpg.Record]:
    async def there() -> bool:
        return len(await rows(database)) >= count

    await eventually(there)
    return await rows(database)


async def test_a_replica_tells_of_its_settings_before_it_serves_and_each_change_once(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase
) -> None:
    first, _same = make_replica(), make_replica()
    assert await log_size(audit_database) == 1
    make_replica(failpoints="audit.after_commit=delay:0")
    async with stub_as(pki, "shop", first) as shop:
        told, changed = (await shop.ListEntries(pb.ListEntriesRequest(action=SETTINGS_CHANGED))).entries
    assert (told.actor.type, told.actor.id, told.details["changed"]) == (actor_pb2.ACTOR_TYPE_SERVICE, "audit", "all")
    assert changed.details["changed"] == "KEYFERRY_FAILPOINTS"
    assert changed.details["digest"] != told.details["digest"]
    assert b'"recorder":"audit"' in told.canonical_entry
    assert SECRET.partition(":")[2] not in str([told, changed])


async def test_a_replica_that_dies_around_its_telling_has_told_it_once_in_the_end(
    make_replica: MakeReplica, audit_database: OneDatabase
) -> None:
    for step in ("before", "after"):
        dying = make_replica(failpoints=f"settings.{step}_commit=crash", ready=False)
        await eventually(dying.process.has_ended)
        assert dying.process.exit_status == 137
    assert await log_size(audit_database) == 1
    make_replica()
    assert await log_size(audit_database) == 2


async def test_an_entry_is_appended_and_listed(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase
) -> None:
    replica = make_replica()
    next_sequence = await log_size(audit_database)
    async with stub_as(pki, "vault", replica) as vault, stub_as(pki, "shop", replica) as shop:
        appended = await vault.AppendEntry(a_request())
        assert appended == await vault.AppendEntry(a_request())
        (entry,) = (await shop.ListEntries(pb.ListEntriesRequest(order_id="order-1"))).entries
    assert entry.sequence == appended.sequence == next_sequence
    assert entry.leaf_hash == appended.leaf_hash
    assert entry.append_time == appended.append_time
    assert entry.actor == ALICE
    assert entry.request_id == a_request().request_id
    assert entry.details == a_request().details
    assert b'"recorder":"vault"' in entry.canonical_entry
    assert b"alice" not in entry.canonical_entry
    assert "alice" not in replica.process.log.read_text()


async def test_pages_are_bound_to_their_filters(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase
) -> None:
    replica = make_replica()
    first_sequence = await log_size(audit_database)
    async with stub_as(pki, "edge", replica) as edge:
        for number in range(3):
            await edge.AppendEntry(a_request(number))
        first = await edge.ListEntries(pb.ListEntriesRequest(page_size=2, actor_id="alice"))
        second = await edge.ListEntries(
            pb.ListEntriesRequest(page_size=2, actor_id="alice", page_token=first.next_page_token)
        )
        with pytest.raises(RemoteError) as raised:
            await edge.ListEntries(pb.ListEntriesRequest(page_size=2, page_token=first.next_page_token))
    sequences = [entry.sequence for entry in (*first.entries, *second.entries)]
    assert sequences == [first_sequence + number for number in range(3)]
    assert second.next_page_token == ""
    assert raised.value.reason == "INVALID_REQUEST"
    assert raised.value.field_violations[0].field == "page_token"


async def test_only_who_is_listed_may_call(make_replica: MakeReplica, pki: Mapping[str, Identity]) -> None:
    replica = make_replica()
    async with stub_as(pki, "shop", replica) as shop, stub_as(pki, "vault", replica) as vault:
        with pytest.raises(RemoteError) as append:
            await shop.AppendEntry(a_request())
        with pytest.raises(RemoteError) as listing:
            await vault.ListEntries(pb.ListEntriesRequest())
    assert append.value.code is listing.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert append.value.reason == "METHOD_NOT_ALLOWED"


async def test_faults_are_told_by_field_and_nothing_is_stored(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase
) -> None:
    bad = pb.AppendEntryRequest(request_id="7", action="Key Opened", details={"näme": "x"})
    replica = make_replica()
    async with stub_as(pki, "vault", replica) as vault:
        with pytest.raises(RemoteError) as raised:
            await vault.AppendEntry(bad)
    assert {violation.field for violation in raised.value.field_violations} == {
        "request_id",
        "actor.type",
        "actor.id",
        "action",
        "details",
    }
    assert await entries_of_others(audit_database) == []


async def test_a_request_id_with_another_body_is_refused(
    make_replica: MakeReplica, pki: Mapping[str, Identity]
) -> None:
    replica = make_replica()
    async with stub_as(pki, "vault", replica) as vault:
        await vault.AppendEntry(a_request())
        with pytest.raises(RemoteError) as raised:
            await vault.AppendEntry(a_request(order_id="order-2"))
    assert raised.value.code is grpc.StatusCode.ALREADY_EXISTS
    assert raised.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("step", ["audit.before_commit", "audit.after_commit"])
async def test_a_crash_around_the_commit_leaves_one_entry_once_the_caller_repeats(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase, step: str
) -> None:
    dying = make_replica(failpoints=f"{step}=crash")
    async with stub_as(pki, "vault", dying) as vault:
        with pytest.raises(RemoteError) as raised:
            await vault.AppendEntry(a_request())
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
        again = make_replica(port=int(dying.address.rpartition(":")[2]))
        appended = await vault.AppendEntry(a_request(), wait_for_ready=True)
    assert dying.process.exit_status == 137
    assert again.process.is_running
    (row,) = await wait_for(audit_database, 1)
    assert (row["sequence"], row["leaf_hash"]) == (appended.sequence, appended.leaf_hash)


async def test_two_replicas_take_calls_and_events_without_a_gap(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase, streams: str
) -> None:
    replicas = [make_replica(), make_replica()]
    first_sequence = await log_size(audit_database)
    async with stub_as(pki, "vault", *replicas) as vault:
        answers, _ = await asyncio.gather(
            asyncio.gather(*(vault.AppendEntry(a_request(number)) for number in range(100))),
            publish(streams, [a_fact(number) for number in range(100)]),
        )
    rows = await wait_for(audit_database, 200)
    assert [row["sequence"] for row in rows] == [first_sequence + number for number in range(200)]
    assert len({answer.sequence for answer in answers}) == 100


async def test_an_event_is_appended_once_however_often_it_is_told(
    make_replica: MakeReplica, pki: Mapping[str, Identity], audit_database: OneDatabase, streams: str
) -> None:
    replica = make_replica()
    fact = a_fact()
    for _ in range(3):
        async with connect_nats(streams, name="test") as client:
            # Without the message id JetStream sees three messages, as it does after its window has passed.
            headers = {name: value for name, value in fact.headers().items() if name != "Nats-Msg-Id"}
            await Publisher(client).publish(subject=fact.subject, headers=headers, data=fact.data)
    await publish(streams, [a_fact(1)])
    await wait_for(audit_database, 2)
    async with stub_as(pki, "shop", replica) as shop:
        entries = (await shop.ListEntries(pb.ListEntriesRequest(order_id="order-1"))).entries
    assert sorted(entry.key_id for entry in entries) == ["key-0", "key-1"]
    assert entries[0].actor == VAULT
    assert entries[0].request_id == "r-1"
    assert b'"occur_time":"2026-01-02T03:04:05.000006Z"' in entries[0].canonical_entry
    assert b'"recorder":"vault"' in entries[0].canonical_entry


async def test_what_cannot_be_understood_becomes_a_dead_letter_and_the_rest_goes_on(
    make_replica: MakeReplica, audit_database: OneDatabase, streams: str
) -> None:
    make_replica()
    await publish(streams, [a_fact(0, action="Not An Action"), a_fact(1)])
    (letter,) = await wait_for(audit_database, 1, dead_letters)
    (row,) = await wait_for(audit_database, 1)
    assert letter["event_id"] == "fact-0"
    assert letter["reason"].startswith("INVALID_REQUEST: action")
    assert row["key_id"] == "key-1"


async def test_a_crash_before_the_events_commit_appends_it_once(
    make_replica: MakeReplica, audit_database: OneDatabase, streams: str
) -> None:
    await redeliver_soon(streams)
    dying = make_replica(failpoints="consumer.before_commit=crash")
    await publish(streams, [a_fact(number) for number in range(5)])
    await eventually(dying.process.has_ended)
    assert await entries_of_others(audit_database) == []
    make_replica()
    rows = await wait_for(audit_database, 5)
    assert sorted(row["key_id"] for row in rows) == [f"key-{number}" for number in range(5)]


async def test_it_drains_and_ends_well(make_replica: MakeReplica, pki: Mapping[str, Identity]) -> None:
    replica = make_replica()
    async with stub_as(pki, "vault", replica) as vault:
        await vault.AppendEntry(a_request())
    replica.process.stop()
    assert replica.process.exit_status == 0


async def test_spans_are_written_and_name_nobody(
    make_replica: MakeReplica, pki: Mapping[str, Identity], tmp_path: Path
) -> None:
    replica = make_replica()
    async with stub_as(pki, "vault", replica) as vault:
        await vault.AppendEntry(a_request())
    replica.process.stop()
    text = (tmp_path / "spans.jsonl").read_text()
    spans = [json.loads(line) for line in text.splitlines()]
    assert "keyferry.audit.v1.AuditService/AppendEntry" in {span["name"] for span in spans}
    assert "alice" not in text
    assert all(span["resource"]["attributes"]["service.name"] == "audit" for span in spans)


async def test_a_start_without_settings_says_which(tmp_path: Path) -> None:
    process = ServiceProcess("audit", tmp_path, {"KEYFERRY_SPELLING": "wrong"})
    process.start()
    await eventually(process.has_ended)
    assert process.exit_status == 2
    said = process.log.read_text()
    settings = ("KEYFERRY_TLS_DIR", "KEYFERRY_AUDIT_SECRET", "DATABASE_URL", "NATS_URL", *checkpoint_settings())
    for name in ("KEYFERRY_SPELLING", *settings):
        assert f"{name} is not" in said
