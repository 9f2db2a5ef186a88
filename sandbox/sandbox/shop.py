"""What a shop's internal service does: it tells of paid orders, by event or by gRPC, as the identity `shop`."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from chassis.channel import open_channel
from chassis.errors import ServiceUnavailable
from chassis.events import Event, new_event_id
from chassis.jetstream import Publisher, connect_nats
from chassis.tls import TlsFiles
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1 import fulfillment_events_pb2, payment_events_pb2
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.type.v1 import money_pb2
from nats.aio.msg import Msg

from sandbox.endpoints import Endpoints
from sandbox.issuer.accounts import account_of

SUBJECT = "payments.confirmed"
ACCEPTED_SUBJECT = "fulfillment.accepted"
PROVIDER = "sandbox-pay"
CURRENCY = "EUR"
# A real shop repeats every minute, out of its database.
REPEAT_SECONDS = 3.0


class NotAccepted(RuntimeError):
    """Keyferry did not say that it had taken the payment."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a customer puts into the basket: some keys of one product, each at most at this price."""

    product_id: str
    quantity: int = 1
    unit_price_cents: int = 1499


def paid_order(
    subject: str, purchase: Purchase, *, order_id: str, now: datetime
) -> payment_events_pb2.PaymentConfirmed:
    """Return the event of one order, paid in full."""
    account = account_of(subject)
    time = Timestamp()
    time.FromDatetime(now)
    price = money_pb2.Money(currency_code=CURRENCY, minor_units=purchase.unit_price_cents)
    total = money_pb2.Money(currency_code=CURRENCY, minor_units=purchase.unit_price_cents * purchase.quantity)
    return payment_events_pb2.PaymentConfirmed(
        payment=fulfillment_pb2.Payment(
            payment_id=f"pay-{order_id}", order_id=order_id, provider=PROVIDER, amount=total, confirm_time=time
        ),
        order=fulfillment_pb2.Order(
            order_id=order_id,
            customer=fulfillment_pb2.Customer(
                customer_id=account.subject, email=account.email, locale=account.locale, country_code="DE"
            ),
            total=total,
            items=[
                fulfillment_pb2.Item(
                    item_id="1",
                    product_id=purchase.product_id,
                    quantity=purchase.quantity,
                    max_unit_price=price,
                )
            ],
        ),
    )


def new_order_id(now: datetime) -> str:
    """Return a fresh order number that a person can read out."""
    return f"S{now:%y%m%d}-{secrets.token_hex(3).upper()}"


async def tell_paid(nats_url: str, message: payment_events_pb2.PaymentConfirmed, *, seconds: float) -> None:
    """Publish the event again and again until it is accepted. Raises NotAccepted when the time is over."""
    order_id = message.payment.order_id
    accepted = asyncio.Event()

    async def hear(heard: Msg) -> None:
        if fulfillment_events_pb2.FulfillmentAccepted.FromString(heard.data).order_id == order_id:
            accepted.set()

    try:
        async with asyncio.timeout(seconds), connect_nats(nats_url, name="shop") as client:
            await client.subscribe(ACCEPTED_SUBJECT, cb=hear)
            publisher = Publisher(client)
            while not accepted.is_set():
                event = Event.of(
                    message,
                    event_id=new_event_id(),
                    subject=SUBJECT,
                    source="shop",
                    about=order_id,
                    time=datetime.now(UTC),
                )
                await publisher.publish_event(event)
                await _wait(accepted, REPEAT_SECONDS)
    except (TimeoutError, ServiceUnavailable, OSError) as error:
        raise NotAccepted(f"order {order_id} was not accepted within {seconds:.0f} s") from error


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


@asynccontextmanager
async def open_as_shop(endpoints: Endpoints, service: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to one of Keyferry's services as the identity `shop`."""
    tls = TlsFiles(Path(endpoints["identities"]["shop"]["cert"]).parent)
    async with open_channel([endpoints["grpc"][service]], peer=service, tls=tls) as channel:
        yield channel
