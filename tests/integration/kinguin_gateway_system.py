"""kinguin-gateway as it runs: replicas, PostgreSQL, NATS, the supplier's simulator, and a vault that counts."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.channel import open_channel
from chassis.errors import RemoteError
from chassis.server import GrpcServer
from chassis.tls import TlsFiles
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceStub
from keyferry.type.v1 import money_pb2
from keyferry.vault.v1 import vault_service_pb2 as vault_pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceServicer, add_VaultServiceServicer_to_server
from sandbox.pki import Identity
from sandbox.ports import free_port
from sandbox.servers.nats import NatsServer

from tests.integration.real_servers import (
    REPOSITORY,
    OneDatabase,
    Postgres,
    ServiceProcess,
    fetch,
    fresh_streams,
)
from tests.integration.supplier_simulator import API_KEY, LANTERN, SupplierSimulator

if TYPE_CHECKING:
    from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceAsyncStub

MIGRATIONS = REPOSITORY / "services" / "kinguin-gateway" / "migrations"
VAULT_SERVICE = vault_pb.DESCRIPTOR.services_by_name["VaultService"].full_name
# Both bounds, the window of an attempt, and the time of two replicas to notice.
SETTLE_SECONDS = 20.0
# Asking again is what fulfillment does after these.
PASSING = {"PURCHASE_IN_DOUBT", "BUYING_PAUSED", "SUPPLIER_UNAVAILABLE", "SERVICE_UNAVAILABLE"}
CALL_SECONDS = 8.0


class CountingVault(VaultServiceServicer):
    """A vault that keeps what it is given; one key for each `source_ref`."""

    def __init__(self) -> None:
        self.sealed: dict[str, vault_pb.SealKeyRequest] = {}
        self.calls = 0
        self.fails_on = ""

    async def SealKey(  # noqa: N802 # the name in the contract
        self, request: vault_pb.SealKeyRequest, context: Any
    ) -> vault_pb.SealKeyResponse:
        self.calls += 1
        if self.fails_on and self.fails_on in request.plaintext_key.decode("latin-1"):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
        known = self.sealed.setdefault(request.source_ref, request)
        assert known == request
        key_id = str(uuid.uuid5(uuid.NAMESPACE_URL, request.source_ref))
        return vault_pb.SealKeyResponse(key=vault_pb.SealedKey(key_id=key_id, state=vault_pb.STATE_SEALED))

    def plaintexts(self, order_id: str) -> list[bytes]:
        return [request.plaintext_key for request in self.sealed.values() if request.order_id == order_id]


@dataclass
class System:
    """Everything that two replicas run against."""

    folder: Path
    database: OneDatabase
    nats_url: str
    pki: Mapping[str, Identity]
    simulator: SupplierSimulator
    vault: CountingVault
    vault_port: int
    processes: list[ServiceProcess] = field(default_factory=list)

    def start(self, *, port: int | None = None, **changes: str) -> "Replica":
        port = port or free_port()
        environment = {
            "KEYFERRY_TLS_DIR": str(self.pki["kinguin-gateway"].folder),
            "KEYFERRY_LOG_LEVEL": "debug",
            "KEYFERRY_GRPC_LISTEN": f"127.0.0.1:{port}",
            "DATABASE_URL": self.database.service_url,
            "NATS_URL": self.nats_url,
            "KEYFERRY_VAULT_ADDRESS": f"127.0.0.1:{self.vault_port}",
            "KINGUIN_API_KEY": API_KEY,
            "KINGUIN_BASE": self.simulator.base,
            "KINGUIN_TIMEOUT": "1.5",
            "KINGUIN_COMMIT_BOUND": "1",
            "KINGUIN_SEARCH_LAG_BOUND": "1",
            "KEYFERRY_POLL_FIRST_SECONDS": "0.3",
            "KEYFERRY_POLL_MAX_SECONDS": "1",
            **changes,
        }
        process = ServiceProcess("kinguin_gateway", self.folder, environment)
        self.processes.append(process)
        process.start()
        return Replica(process, port)

    @asynccontextmanager
    async def calling(
        self, *replicas: "Replica", identity: str = "fulfillment"
    ) -> AsyncIterator["KinguinServiceAsyncStub"]:
        addresses = [f"127.0.0.1:{replica.port}" for replica in replicas]
        tls = TlsFiles(self.pki[identity].folder)
        async with open_channel(addresses, peer="kinguin-gateway", tls=tls) as channel:
            yield KinguinServiceStub(channel)

    def logs(self) -> str:
        return "".join(process.log.read_text(encoding="utf-8") for process in self.processes)


@dataclass
class Replica:
    process: ServiceProcess
    port: int


@asynccontextmanager
async def open_system(
    folder: Path, postgres: Postgres, nats_server: NatsServer, pki: Mapping[str, Identity]
) -> AsyncIterator[System]:
    """Start everything but the replicas."""
    database = await postgres.make_database("kinguin", MIGRATIONS)
    nats_url = await fresh_streams(nats_server)
    simulator, vault = SupplierSimulator(folder), CountingVault()  # type: ignore[abstract] # gRPC answers for what it does not serve
    simulator.start()
    server = GrpcServer(
        listen="127.0.0.1:0",
        tls=TlsFiles(pki["vault"].folder),
        access={"SealKey": frozenset({"kinguin-gateway"})},
        services=[VAULT_SERVICE],
        registrars=[partial(add_VaultServiceServicer_to_server, vault)],
    )
    await server.start()
    system = System(folder, database, nats_url, pki, simulator, vault, server.port)
    try:
        yield system
    finally:
        for process in system.processes:
            process.stop()
        simulator.stop()
        await server.drain(1)


def a_purchase(**changes: Any) -> pb.PlaceOrderRequest:
    unique = uuid.uuid4()
    fields: dict[str, Any] = {
        "request_id": str(unique),
        "external_id": f"kf-{unique}",
        "order_id": f"order-{unique}",
        "item_id": "item-1",
        "product_id": LANTERN,
        "quantity": 2,
        "max_unit_price": money_pb2.Money(currency_code="EUR", minor_units=1299),
        **changes,
    }
    return pb.PlaceOrderRequest(**fields)


def collecting(request: pb.PlaceOrderRequest) -> pb.CollectKeysRequest:
    return pb.CollectKeysRequest(request_id=str(uuid.uuid4()), external_id=request.external_id, customer_id="alice")


async def place(gateway: "KinguinServiceAsyncStub", request: pb.PlaceOrderRequest) -> pb.Purchase:
    """Ask until it is known, as fulfillment does."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                return (await gateway.PlaceOrder(request, timeout=CALL_SECONDS)).purchase
            except RemoteError as error:
                if error.reason not in {
                    "PURCHASE_IN_DOUBT",
                    "BUYING_PAUSED",
                    "SUPPLIER_UNAVAILABLE",
                    "SERVICE_UNAVAILABLE",
                }:
                    raise
                wait = error.retry_after.total_seconds() if error.retry_after else 0.2
            await asyncio.sleep(min(wait, 0.5))


async def collect(gateway: "KinguinServiceAsyncStub", request: pb.PlaceOrderRequest) -> pb.CollectKeysResponse:
    """Ask until every key is there."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            answer: pb.CollectKeysResponse = await gateway.CollectKeys(collecting(request))
            if len(answer.keys) == request.quantity:
                return answer
            await asyncio.sleep(0.1)


async def fails(call: Awaitable[object]) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await call
    return caught.value


async def told(system: System, subject: str, external_id: str) -> list[bytes]:
    statement = f"SELECT data, headers FROM outbox WHERE subject = '{subject}' ORDER BY position"  # noqa: S608 # our own
    rows = await fetch(system.database.superuser_url, statement)
    return [row["data"] for row in rows if external_id in row["headers"]]
