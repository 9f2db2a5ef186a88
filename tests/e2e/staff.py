"""What staff asks of Keyferry through the edge's identity, what a shop tells it, and what the shop hears."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc
import httpx
from chassis.channel import open_channel
from chassis.events import Event, new_event_id
from chassis.jetstream import Publisher, connect_nats
from chassis.tls import TlsFiles
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1 import fulfillment_events_pb2, payment_events_pb2
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.fulfillment.v1.fulfillment_admin_service_pb2_grpc import FulfillmentAdminServiceStub
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceStub
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceStub
from keyferry.type.v1 import actor_pb2, money_pb2
from nats.aio.client import Client
from nats.aio.msg import Msg
from sandbox.shop import CURRENCY, PROVIDER

from tests.e2e.system import System

if TYPE_CHECKING:
    from keyferry.fulfillment.v1.fulfillment_admin_service_pb2_grpc import FulfillmentAdminServiceAsyncStub
    from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceAsyncStub
    from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceAsyncStub

ADMIN = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="admin", email="admin@example.com")
HEAR_SECONDS = 30.0
REPEAT_SECONDS = 3.0

M = TypeVar("M", bound=Message)


@dataclass
class Shop:
    """A shop that remembers everything it heard, and tells of payments and refunds."""

    client: Client
    heard: list[Message] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def opened(cls, nats_url: str) -> AsyncIterator["Shop"]:
        """Hear all that is told from now on."""
        async with connect_nats(nats_url, name="shop") as client:
            shop = cls(client)
            await client.subscribe("fulfillment.*", cb=shop._hear)
            yield shop

    async def _hear(self, message: Msg) -> None:
        name = str((message.headers or {})["ce-type"]).rpartition(".")[2]
        self.heard.append(getattr(fulfillment_events_pb2, name).FromString(message.data))

    def told(self, kind: type[M], order_id: str) -> list[M]:
        """Return what was told of an order, each once however often it was told."""
        found: list[M] = []
        for event in self.heard:
            if isinstance(event, kind) and event.order_id == order_id and event not in found:  # type: ignore[attr-defined] # each has one
                found.append(event)
        return found

    async def hear(self, kind: type[M], order_id: str, *, count: int = 1) -> list[M]:
        """Wait until so much was told of an order."""
        deadline = time.monotonic() + HEAR_SECONDS
        while len(found := self.told(kind, order_id)) < count:
            assert time.monotonic() < deadline, f"{kind.__name__} of {order_id} was told {len(found)} times"
            await asyncio.sleep(0.05)
        return found

    async def tell(self, message: Message, *, subject: str, about: str) -> None:
        """Publish one event."""
        event = Event.of(
            message, event_id=new_event_id(), subject=subject, source="shop", about=about, time=datetime.now(UTC)
        )
        await Publisher(self.client).publish_event(event)

    async def refund(
        self,
        order_id: str,
        cents: int,
        *,
        payment_id: str = "",
        requests: Sequence[str] = (),
        items: Sequence[str] = (),
    ) -> fulfillment_events_pb2.FulfillmentRefunded:
        """Tell of a refund until it is taken; return what was said to it."""
        refund = a_refund(order_id, cents, payment_id=payment_id, requests=requests, items=items)
        deadline = time.monotonic() + HEAR_SECONDS
        while True:
            await self.tell(
                payment_events_pb2.PaymentRefunded(refund=refund), subject="payments.refunded", about=order_id
            )
            again = time.monotonic() + REPEAT_SECONDS
            while time.monotonic() < again:
                for event in self.told(fulfillment_events_pb2.FulfillmentRefunded, order_id):
                    if event.refund_id == refund.refund_id:
                        return event
                await asyncio.sleep(0.05)
            assert time.monotonic() < deadline, f"the refund of {order_id} was not taken"


@dataclass
class Story:
    """One running system, and whoever acts in it."""

    system: System
    http: httpx.AsyncClient
    shop: Shop
    orders: "FulfillmentServiceAsyncStub"
    staff: "FulfillmentAdminServiceAsyncStub"
    account: "KinguinServiceAsyncStub"

    @classmethod
    @asynccontextmanager
    async def opened(cls, system: System) -> AsyncIterator["Story"]:
        """Let the shop listen, and open channels as the edge."""
        async with (
            httpx.AsyncClient(timeout=20, trust_env=False) as http,
            Shop.opened(system.endpoints["nats"]) as shop,
            channel(system, "fulfillment", peer="fulfillment") as fulfillment,
            channel(system, "kinguin", peer="kinguin-gateway") as kinguin,
        ):
            yield cls(
                system,
                http,
                shop,
                FulfillmentServiceStub(fulfillment),
                FulfillmentAdminServiceStub(fulfillment),
                KinguinServiceStub(kinguin),
            )

    @asynccontextmanager
    async def as_shop(self) -> AsyncIterator["FulfillmentServiceAsyncStub"]:
        """Call as a service of the shop."""
        async with channel(self.system, "fulfillment", peer="fulfillment", identity="shop") as opened:
            yield FulfillmentServiceStub(opened)

    async def control(self, path: str, body: object) -> None:
        """Tell the supplier's simulator to do something."""
        answer = await self.http.post(f"{self.system.endpoints['kinguin_control']}/{path}", json=body)
        assert answer.is_success, answer.text

    async def behave(self) -> None:
        """Let the supplier forget how to misbehave."""
        await self.http.delete(f"{self.system.endpoints['kinguin_control']}/faults")

    async def buy_outside(self, external_id: str, product_id: str) -> None:
        """Buy one key as somebody does who uses our account outside of all guards."""
        secrets = json.loads(self.system.layout.secrets.read_text())
        line = {"productId": product_id, "qty": 1, "price": 12.99}
        answer = await self.http.post(
            f"{self.system.endpoints['kinguin']}/v2/order",
            json={"orderExternalId": external_id, "products": [line]},
            headers={"X-Api-Key": secrets["KINGUIN_API_KEY"]},
        )
        assert answer.is_success, answer.text

    async def until(self, order_id: str, *states: str, subject: str = "alice") -> None:
        """Wait until its owner sees the order in one of the states."""
        await self.system.until(self.http, subject, order_id, *states)

    async def bought(self, order_id: str) -> list[fulfillment_pb2.Purchase]:
        """Return the purchases of an order."""
        fulfillment = await self.system.fulfillment(order_id)
        return [purchase for line in fulfillment.lines for purchase in line.purchases]

    async def sold_keys(self, order_id: str) -> list[str]:
        """Return the states of the keys of an order in the supplier's ledger."""
        found = []
        for purchase in await self.bought(order_id):
            for sold in await self.system.sold(self.http, external_id=purchase.external_id):
                found += [key["status"] for key in sold["keys"]]
        return found

    async def key_ids(self, order_id: str) -> list[str]:
        """Return the keys that can be opened."""
        return [key.key_id for line in (await self.system.fulfillment(order_id)).lines for key in line.keys]

    async def open_key(self, order_id: str, key_id: str) -> str:
        """Open a key as its owner."""
        opened = await self.system.customer(self.http, "alice").open_key(order_id, key_id)
        return opened.plaintext.decode()


@asynccontextmanager
async def channel(
    system: System, service: str, *, peer: str, identity: str = "edge"
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to one of the services."""
    tls = TlsFiles(Path(system.endpoints["identities"][identity]["cert"]).parent)
    async with open_channel([system.endpoints["grpc"][service]], peer=peer, tls=tls) as opened:
        yield opened


def request_id() -> str:
    """Return the id of a request that is made once."""
    return str(uuid.uuid4())


def euros(cents: int) -> money_pb2.Money:
    """Return an amount."""
    return money_pb2.Money(currency_code=CURRENCY, minor_units=cents)


def moment(time: datetime) -> Timestamp:
    """Return a time as it goes over the wire."""
    found = Timestamp()
    found.FromDatetime(time)
    return found


def a_payment(order_id: str, cents: int, payment_id: str) -> fulfillment_pb2.Payment:
    """Return a confirmed payment."""
    return fulfillment_pb2.Payment(
        payment_id=payment_id,
        order_id=order_id,
        provider=PROVIDER,
        amount=euros(cents),
        confirm_time=moment(datetime.now(UTC)),
    )


def a_refund(
    order_id: str, cents: int, *, payment_id: str = "", requests: Sequence[str] = (), items: Sequence[str] = ()
) -> fulfillment_pb2.Refund:
    """Return a refund of an order's payment."""
    return fulfillment_pb2.Refund(
        refund_id=f"refund-{uuid.uuid4().hex[:12]}",
        payment_id=payment_id or f"pay-{order_id}",
        provider=PROVIDER,
        amount=euros(cents),
        item_ids=items,
        refund_time=moment(datetime.now(UTC)),
        refund_request_ids=requests,
    )
