"""What fulfillment runs against: neighbours that count, a mail server, PostgreSQL and NATS."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chassis.channel import open_channel
from chassis.errors import RemoteError
from chassis.events import Event
from chassis.jetstream import Publisher, connect_nats
from chassis.process import Process
from chassis.server import GrpcServer
from chassis.tls import TlsFiles
from fulfillment.__main__ import assemble
from fulfillment.config import Settings
from fulfillment.facts import timestamp
from google.protobuf.message import Message
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.events.v1.vault_events_pb2 import VaultKeyOpened
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceStub
from keyferry.kinguin.v1 import kinguin_service_pb2 as kinguin_pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import add_KinguinServiceServicer_to_server
from keyferry.type.v1 import actor_pb2, money_pb2
from keyferry.vault.v1 import vault_service_pb2 as vault_pb
from keyferry.vault.v1.vault_service_pb2_grpc import add_VaultServiceServicer_to_server
from sandbox.mailbox.behavior import Behavior
from sandbox.mailbox.smtp import serve_smtp
from sandbox.mailbox.store import Mailstore
from sandbox.mailbox.store import Message as Mail
from sandbox.pki import Identity
from sandbox.ports import HOST, free_port

from tests.integration.fulfillment_neighbours import CountingKinguin, CountingVault
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, ServiceProcess, eventually, fetch

if TYPE_CHECKING:
    from chassis.identity import AccessList
    from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceAsyncStub

ALICE = actor_pb2.Actor(
    type=actor_pb2.ACTOR_TYPE_CUSTOMER,
    id="alice",
    email="alice@example.com",
    ip_address="192.0.2.7",
    user_agent="Browser/1.0",
)
BOB = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="bob")
PUBLIC_URL = "https://shop.example"


@dataclass
class System:
    """One fulfillment database and everything around it; replicas run inside of the test or as processes."""

    folder: Path
    database: OneDatabase
    nats_url: str
    pki: Mapping[str, Identity]
    kinguin: CountingKinguin = field(default_factory=CountingKinguin)
    vault: CountingVault = field(default_factory=CountingVault)
    mail_behavior: Behavior = field(default_factory=Behavior)
    processes: list[ServiceProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mails = Mailstore(self.folder / "mail")
        self.mail_port = free_port()
        self._stack = AsyncExitStack()
        self._addresses: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, postgres: Postgres, nats_url: str, pki: Mapping[str, Identity], folder: Path
    ) -> AsyncIterator["System"]:
        migrations = REPOSITORY / "services" / "fulfillment" / "migrations"
        system = cls(folder, await postgres.make_database("fulfillment", migrations), nats_url, pki)
        await system._open()
        try:
            yield system
        finally:
            await system._close()

    async def _open(self) -> None:
        await self._serve("kinguin-gateway", kinguin_pb, add_KinguinServiceServicer_to_server, self.kinguin)
        await self._serve("vault", vault_pb, add_VaultServiceServicer_to_server, self.vault)
        self.start_mail_server()

    async def _close(self) -> None:
        for process in self.processes:
            process.stop()
        await self.stop_mail_server()
        await self._stack.aclose()

    async def _serve(self, name: str, contract: Any, register: Any, servicer: object) -> None:
        (service,) = contract.DESCRIPTOR.services_by_name.values()
        access: AccessList = dict.fromkeys(service.methods_by_name, frozenset({"fulfillment"}))
        server = GrpcServer(
            listen=f"{HOST}:0",
            tls=TlsFiles(self.pki[name].folder),
            access=access,
            services=[service.full_name],
            registrars=[partial(register, servicer)],
        )
        await server.start()
        self._stack.push_async_callback(server.drain, 0)
        self._addresses[name] = f"{HOST}:{server.port}"

    def start_mail_server(self) -> None:
        listen = f"{HOST}:{self.mail_port}"
        self._mail = asyncio.create_task(serve_smtp(listen, self.mails, self.mail_behavior))

    async def stop_mail_server(self) -> None:
        self._mail.cancel()
        await asyncio.gather(self._mail, return_exceptions=True)

    # Replicas.

    def environment(self, port: int) -> dict[str, str]:
        return {
            "KEYFERRY_TLS_DIR": str(self.pki["fulfillment"].folder),
            "KEYFERRY_LOG_LEVEL": "debug",
            "KEYFERRY_GRPC_LISTEN": f"{HOST}:{port}",
            "KEYFERRY_DRAIN_SECONDS": "3",
            "DATABASE_URL": self.database.service_url,
            "NATS_URL": self.nats_url,
            "KEYFERRY_KINGUIN_ADDRESS": self._addresses["kinguin-gateway"],
            "KEYFERRY_VAULT_ADDRESS": self._addresses["vault"],
            "SMTP_URL": f"smtp://{HOST}:{self.mail_port}",
            "KEYFERRY_MAIL_FROM": "Keys <keys@shop.example>",
            "PUBLIC_URL": PUBLIC_URL,
        }

    def start(self, *, failpoints: str = "") -> "Replica":
        """Start a process, as in production."""
        port = free_port()
        environment = {**self.environment(port), "KEYFERRY_FAILPOINTS": failpoints}
        process = ServiceProcess("fulfillment", self.folder, environment)
        self.processes.append(process)
        process.start()
        process.wait_ready()
        return Replica(f"{HOST}:{port}", process)

    @asynccontextmanager
    async def inside(self) -> AsyncIterator["Replica"]:
        """Run a replica inside of the test."""
        port = free_port()
        values: dict[str, Any] = {name.lower(): value for name, value in self.environment(port).items()}
        settings = Settings(**values)
        process = Process("fulfillment", settings)
        try:
            server = await assemble(process, settings)
            await server.start()
            yield Replica(f"{HOST}:{port}")
            await server.drain(1)
        finally:
            await process.close()

    # Around it.

    @asynccontextmanager
    async def calling(
        self, *replicas: "Replica", identity: str = "shop"
    ) -> AsyncIterator["FulfillmentServiceAsyncStub"]:
        tls = TlsFiles(self.pki[identity].folder)
        async with open_channel([each.address for each in replicas], peer="fulfillment", tls=tls) as channel:
            yield FulfillmentServiceStub(channel)

    async def publish(self, subject: str, *messages: Message, source: str = "shop") -> None:
        async with connect_nats(self.nats_url, name="test") as client:
            for message in messages:
                event = Event.of(
                    message,
                    event_id=str(uuid.uuid4()),
                    subject=subject,
                    source=source,
                    about="test",
                    time=datetime.now(UTC),
                )
                await Publisher(client).publish_event(event)

    async def pay(self, *order_ids: str, quantity: int = 1) -> None:
        """Tell that orders were paid, each with its order in it: one event does everything."""
        paid = [PaymentConfirmed(payment=a_payment(each), order=an_order(each, quantity)) for each in order_ids]
        await self.publish("payments.confirmed", *paid)

    async def open_keys(self, *order_ids: str) -> None:
        """Tell, as vault does, that owners opened all of their keys."""
        rows = await self.rows("SELECT order_id, key_id FROM order_key")
        opened = [VaultKeyOpened(key_id=row["key_id"]) for row in rows if row["order_id"] in order_ids]
        await self.publish("vault.key.opened", *opened, source="vault")

    async def rows(self, statement: str) -> list[Any]:
        return await fetch(self.database.superuser_url, statement)

    async def states(self) -> dict[str, str]:
        return {row["order_id"]: row["state"] for row in await self.rows("SELECT order_id, state FROM customer_order")}

    async def until(self, state: str, *order_ids: str, seconds: float = 20.0) -> None:
        async def reached() -> bool:
            states = await self.states()
            return all(states.get(order_id) == state for order_id in order_ids)

        await eventually(reached, seconds=seconds)

    async def until_mailed(self, *order_ids: str, seconds: float = 20.0) -> list[Mail]:
        async def noted() -> bool:
            rows = await self.rows("SELECT order_id FROM mail WHERE send_time IS NOT NULL")
            return {row["order_id"] for row in rows} >= set(order_ids)

        await eventually(noted, seconds=seconds)
        return self.mails.list()

    async def told(self, subject: str) -> list[bytes]:
        rows = await self.rows("SELECT subject, data FROM outbox ORDER BY position")
        return [row["data"] for row in rows if row["subject"] == subject]


@dataclass(frozen=True)
class Replica:
    address: str
    process: ServiceProcess | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.is_running


def an_order(order_id: str, quantity: int = 1, *, customer_id: str = "alice") -> fulfillment_pb2.Order:
    return fulfillment_pb2.Order(
        order_id=order_id,
        customer=fulfillment_pb2.Customer(
            customer_id=customer_id, email=f"{customer_id}@example.com", locale="de", country_code="AT"
        ),
        total=money_pb2.Money(currency_code="EUR", minor_units=1000),
        items=[
            fulfillment_pb2.Item(
                item_id="item-1",
                product_id="product-1",
                quantity=quantity,
                max_unit_price=money_pb2.Money(currency_code="EUR", minor_units=999),
            )
        ],
    )


def a_payment(order_id: str, cents: int = 1000, **changes: Any) -> fulfillment_pb2.Payment:
    fields: dict[str, Any] = {
        "payment_id": f"payment-of-{order_id}",
        "order_id": order_id,
        "provider": "stripe",
        "amount": money_pb2.Money(currency_code="EUR", minor_units=cents),
        "confirm_time": timestamp(datetime(2026, 1, 2, tzinfo=UTC)),
        **changes,
    }
    return fulfillment_pb2.Payment(**fields)


def submitting(order: fulfillment_pb2.Order, payment: fulfillment_pb2.Payment | None = None) -> pb.SubmitOrderRequest:
    return pb.SubmitOrderRequest(request_id=str(uuid.uuid4()), order=order, payment=payment)


def field_names(error: RemoteError) -> Sequence[str]:
    return [violation.field for violation in error.field_violations]
