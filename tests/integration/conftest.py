from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from chassis.database import Database
from chassis.outbox import Outbox
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.adapters.payments import PostgresPayments
from fulfillment.ports.orders import Orders
from sandbox.pki import Identity, ensure_pki
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer
from sandbox.servers.s3 import S3Server

from tests.integration.fulfillment_rows import Ports
from tests.integration.real_servers import (
    REPOSITORY,
    SUPERUSER_PASSWORD,
    OneDatabase,
    Postgres,
    fresh_streams,
    provision_roles,
)
from tests.unit.fulfillment.memory_orders import MemoryOrders
from tests.unit.fulfillment.memory_payments import MemoryPayments

S3_ACCESS_KEY_ID = "access-key-of-the-tests"
S3_SECRET_ACCESS_KEY = "secret-key-of-the-tests"


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """Give a real PostgreSQL with the roles of every service; `make_database` gives a test a database of its own."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), password=SUPERUSER_PASSWORD)
    server.start()
    try:
        await provision_roles(server)
        yield Postgres(server)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Give a real NATS with JetStream, shared by all: a test that stops it takes `own_nats_server` instead."""
    server = NatsServer(tmp_path_factory.mktemp("nats"), sync_always=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a NATS of the test's own, to be stopped and started at will."""
    server = NatsServer(tmp_path / "nats", sync_always=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def streams(nats_server: NatsServer) -> str:
    """Declare every stream anew and empty; the URL to reach them at."""
    return await fresh_streams(nats_server)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give a real S3 that enforces signatures; buckets are the test's to make."""
    server = S3Server(
        tmp_path_factory.mktemp("s3"), access_key_id=S3_ACCESS_KEY_ID, secret_access_key=S3_SECRET_ACCESS_KEY
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Identity]:
    """Give one identity for each service and the shop, from one authority."""
    return ensure_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def fulfillment_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations")


@pytest.fixture
async def postgres_ports(fulfillment_database: OneDatabase) -> AsyncIterator[Ports]:
    async with Database.open(fulfillment_database.service_url, application="test") as database:
        orders = PostgresOrders(database, Outbox({"fulfillment": "FULFILLMENT", "audit": "AUDIT"}))
        yield Ports(orders, PostgresPayments(database))


@pytest.fixture
def postgres_orders(postgres_ports: Ports) -> PostgresOrders:
    assert isinstance(postgres_ports.orders, PostgresOrders)
    return postgres_ports.orders


@pytest.fixture(params=["memory", "postgres"])
def ports(request: pytest.FixtureRequest, postgres_ports: Ports) -> Ports:
    """Give the rows of fulfillment as PostgreSQL keeps them, and as the memory of unit tests does."""
    if request.param == "postgres":
        return postgres_ports
    memory = MemoryOrders()
    return Ports(memory, MemoryPayments(memory))


@pytest.fixture
def orders(ports: Ports) -> Orders:
    return ports.orders
