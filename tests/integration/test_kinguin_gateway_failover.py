"""Never twice, although a replica sleeps through everything, or the database comes back without its last commits."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from chassis.database import Database
from chassis.outbox import Outbox
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from kinguin_gateway.adapters.announcements import STREAMS
from kinguin_gateway.adapters.postgres import PostgresPurchases
from kinguin_gateway.adapters.postgres_listing import PostgresListing
from kinguin_gateway.adapters.postgres_switch import PostgresSwitch
from kinguin_gateway.domain.purchase import PurchaseState
from kinguin_gateway.domain.switching import PauseCause
from kinguin_gateway.ports.purchases import PurchaseFilter
from sandbox.pki import Identity
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer

from tests.integration.kinguin_gateway_system import MIGRATIONS, System, a_purchase, collect, fails, open_system, place
from tests.integration.real_servers import SUPERUSER_PASSWORD, Postgres, eventually, fetch, provision_roles
from tests.unit.kinguin_gateway.fakes import INTENT

BACKUP_SECONDS = 60.0


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(tmp_path / "primary", password=SUPERUSER_PASSWORD)
    server.start()
    await provision_roles(server)
    yield server
    server.stop()


@pytest.fixture
async def system(
    primary: PostgresServer, nats_server: NatsServer, pki: Mapping[str, Identity], tmp_path: Path
) -> AsyncIterator[System]:
    async with open_system(tmp_path, Postgres(primary), nats_server, pki) as system:
        yield system


def back_up(primary: PostgresServer, folder: Path) -> PostgresServer:
    """Copy the primary as it is now; the copy becomes a replica that has seen nothing of what comes later."""
    folder.mkdir()
    primary._hand_over(folder)
    options = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-X", "stream", "-R", "-c", "fast"]
    subprocess.run(
        primary._command("pg_basebackup", "-D", str(folder / "data"), *options),
        env={"PATH": os.environ["PATH"], "PGPASSWORD": SUPERUSER_PASSWORD},
        timeout=BACKUP_SECONDS,
        check=True,
    )
    return PostgresServer(folder, password=SUPERUSER_PASSWORD, port=primary.port)


async def put_in_place(primary: PostgresServer, replica: PostgresServer) -> None:
    """Let the primary die and the replica have its address; it can be read, and is not promoted yet."""
    os.kill(primary.pid, signal.SIGKILL)

    async def is_gone() -> bool:
        return not primary.is_running

    await eventually(is_gone)
    replica.start()


async def promote(replica: PostgresServer) -> None:
    connection = await asyncpg.connect(replica.url)
    try:
        await connection.execute("SELECT pg_promote()")
    finally:
        await connection.close()


async def test_what_a_promoted_replica_has_never_heard_of_is_found_and_not_bought_again(
    system: System, primary: PostgresServer, tmp_path: Path
) -> None:
    gateway = system.start()
    gateway.process.wait_ready()
    async with system.calling(gateway) as stub:
        await place(stub, a_purchase())
        replica = back_up(primary, tmp_path / "replica")
        system.simulator.misbehave("accept_duplicate_external_id")
        # One whose answer is lost, one that is placed and whose keys are sealed, one that was refused.
        doubtful, placed = a_purchase(), a_purchase()
        system.simulator.misbehave("search_lag", seconds=0.8, count=1)
        system.simulator.misbehave("drop_answer", operation="placeOrder", count=1)
        assert (await fails(stub.PlaceOrder(doubtful))).reason == "PURCHASE_IN_DOUBT"
        await place(stub, placed)
        keys = [key.key_id for key in (await collect(stub, placed)).keys]
        await put_in_place(primary, replica)
        try:
            assert (await fails(stub.PlaceOrder(a_purchase()))).reason == "SERVICE_UNAVAILABLE"
            await promote(replica)
            for request in (doubtful, placed, a_purchase()):
                assert (await place(stub, request)).state == pb.PURCHASE_STATE_PLACED
                assert len(system.simulator.sold(request.external_id)) == 1
            assert [key.key_id for key in (await collect(stub, placed)).keys] == keys
            status = (await stub.CheckSupplier(pb.CheckSupplierRequest())).buying
            assert status.HasField("caution_end_time")
            events = await fetch(system.database.superuser_url, "SELECT headers FROM outbox")
            assert sum("database.forgot" in row["headers"] for row in events) == 1
        finally:
            gateway.process.stop()
            replica.stop()


async def test_a_replica_that_was_stopped_before_it_could_send_sends_nothing_when_it_wakes(system: System) -> None:
    sleeper = system.start(KEYFERRY_FAILPOINTS="kinguin_gateway.before_place_order=delay:1")
    other = system.start()
    for replica in (sleeper, other):
        replica.process.wait_ready()
    system.simulator.misbehave("accept_duplicate_external_id")
    request = a_purchase()
    async with system.calling(sleeper) as sleeping, system.calling(other) as awake:
        asking = asyncio.ensure_future(place(sleeping, request))

        async def is_opened() -> bool:
            return bool(await fetch(system.database.superuser_url, "SELECT 1 FROM purchase WHERE state = 'in_doubt'"))

        await eventually(is_opened)
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        try:
            placed = await place(awake, request)
        finally:
            os.kill(sleeper.process.pid, signal.SIGCONT)
        assert (await asking).supplier_order_id == placed.supplier_order_id
        (sold,) = system.simulator.sold(request.external_id)
        assert sold["order_id"] == placed.supplier_order_id
        assert placed.attempt == 2
        # The waker writes nothing over what the other found.
        shown = (await awake.GetOrder(pb.GetOrderRequest(external_id=request.external_id))).purchase
        assert (shown.state, shown.supplier_order_id) == (pb.PURCHASE_STATE_PLACED, placed.supplier_order_id)


async def test_a_copy_of_the_database_is_not_taken_for_the_one_it_was_made_from(postgres: Postgres) -> None:
    """What was dumped, or copied, an hour ago is read into another database of the same server."""
    original = await postgres.make_database("kinguin", MIGRATIONS)
    times = {"window": timedelta(seconds=20), "lease": timedelta(seconds=3)}
    known, forgotten = (replace(INTENT, external_id=f"kf-{name}") for name in ("known", "forgotten"))
    async with Database.open(original.service_url, application="test") as database:
        purchases = PostgresPurchases(database, Outbox(STREAMS))
        first = await purchases.begin(known, request_id="1", **times)
        await purchases.record_not_sent(first.purchase)
        assert (await purchases.begin(known, request_id="1", **times)).opened
    copy = f"{original.name}_copy"
    connection = await asyncpg.connect(postgres.server.url)
    try:
        await connection.execute(f"CREATE DATABASE {copy} OWNER kinguin_migrator TEMPLATE {original.name}")
    finally:
        await connection.close()
    url = original.service_url.replace(f"/{original.name}", f"/{copy}")
    async with Database.open(url, application="test") as database:
        purchases = PostgresPurchases(database, Outbox(STREAMS))
        begun = await purchases.begin(forgotten, request_id="2", **times)
        assert (begun.opened, begun.claimed, begun.purchase.state) == (False, True, PurchaseState.IN_DOUBT)
        assert begun.purchase.send_deadline > begun.time
        again = await purchases.begin(known, request_id="1", **times)
        assert (again.opened, again.purchase.state) == (False, PurchaseState.IN_DOUBT)
        assert again.purchase.send_deadline >= begun.purchase.send_deadline - timedelta(seconds=1)


async def test_whoever_brings_back_a_snapshot_says_so_and_is_believed(postgres: Postgres) -> None:
    made = await postgres.make_database("kinguin", MIGRATIONS)
    times = {"window": timedelta(seconds=20), "lease": timedelta(seconds=3)}
    async with Database.open(made.service_url, application="test") as database:
        purchases = PostgresPurchases(database, Outbox(STREAMS))
        assert (await purchases.begin(INTENT, request_id="1", **times)).opened
        connection = await asyncpg.connect(made.migrator_url)
        try:
            await connection.execute("UPDATE buying SET incarnation = 'restored'")
        finally:
            await connection.close()
        begun = await purchases.begin(replace(INTENT, external_id="kf-new"), request_id="2", **times)
        assert (begun.opened, begun.claimed, begun.purchase.state) == (False, True, PurchaseState.IN_DOUBT)


async def test_what_is_proved_absent_stands_in_line_where_others_do(postgres: Postgres) -> None:
    made = await postgres.make_database("kinguin", MIGRATIONS)
    times = {"window": timedelta(0), "lease": timedelta(0)}
    async with Database.open(made.service_url, application="test") as database:
        purchases, switch = PostgresPurchases(database, Outbox(STREAMS)), PostgresSwitch(database, Outbox(STREAMS))
        older, newer = (replace(INTENT, external_id=f"kf-{name}") for name in ("older", "newer"))
        doubtful = (await purchases.begin(older, request_id="1", **times)).purchase
        sent = (await purchases.begin(newer, request_id="2", **times)).purchase
        await purchases.record_parked(sent, cause=PauseCause.INSUFFICIENT_BALANCE, reason="no money")
        absent = await purchases.record_absent(doubtful, sent_before=doubtful.send_deadline + timedelta(seconds=1))
        assert (absent.state, absent.parked) == (PurchaseState.INTENDED, True)
        status = await switch.status()
        assert (status.parked_count, status.oldest_parked) == (2, doubtful.create_time)
        assert await switch.release(1, balance_cents=None) == 1
        listed = await PostgresListing(database).page(PurchaseFilter("", None, parked=True), size=9, after=None)
        assert [each.intent for each in listed] == [newer]
