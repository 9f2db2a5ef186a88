"""What goes over the wire: tells of payments and refunds until Keyferry has them, and takes each event once."""

import asyncio
import logging
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from google.protobuf.message import DecodeError, Message
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentRefundRequested
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from .orders import Orders

logger = logging.getLogger(__name__)

STREAM = "FULFILLMENT"
# The shop's own place in the stream; any number of processes may share it.
DURABLE = "shop-orders"
SOURCE = "/shop/checkout"
# What Keyferry has not answered is told again so often.
REPEAT_SECONDS = 60.0
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0
PAY_BACK_SECONDS = 30.0
FETCH_SECONDS = 2.0
PAUSE_SECONDS = 1.0
BATCH = 100
# After a restart of the server a pull subscription may hear nothing more and not say so: renew it now and then.
RENEW_AFTER_IDLE_FETCHES = 5

# Pays back at the provider and returns the provider's number of the refund. `refund_request_id` is the provider's
# idempotency key: the same request comes again when the shop died before it stored the answer.
PayBack = Callable[[FulfillmentRefundRequested, PaymentConfirmed], Awaitable[str]]


async def follow_orders(
    client: Client, orders: Orders, pay_back: PayBack, *, repeat_seconds: float = REPEAT_SECONDS
) -> None:
    """Tell and listen until canceled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_for_ever(lambda: tell_once(client, orders, repeat_seconds=repeat_seconds)))
        tasks.create_task(_for_ever(lambda: pay_back_once(orders, pay_back, repeat_seconds=repeat_seconds)))
        tasks.create_task(_for_ever(lambda: take_events(client, orders)))


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except (NatsError, TimeoutError, OSError, sqlite3.Error) as error:
            # NATS, the provider or the disk is away. Nothing is lost: what is to be done is in the tables.
            logger.warning("held up: %s", type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)


async def tell_once(client: Client, orders: Orders, *, repeat_seconds: float) -> None:
    """Tell everything that is due, oldest first, and wait a moment."""
    again = time.time() + repeat_seconds
    for paid in orders.payments_to_tell(time.time()):
        order_id = paid.payment.order_id
        await publish(client, "payments.confirmed", paid, about=order_id)
        orders.told_payment(order_id, again)
    for refund_request_id, refunded in orders.refunds_to_tell(time.time()):
        await publish(client, "payments.refunded", refunded, about=refunded.refund.payment_id)
        orders.told_refund(refund_request_id, again)
    await asyncio.sleep(LOOK_SECONDS)


async def publish(client: Client, subject: str, message: Message, *, about: str) -> None:
    """Publish one event and wait until JetStream has stored it. Raises NatsError or TimeoutError when nobody knows."""
    event_id = str(uuid.uuid4())
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": message.DESCRIPTOR.full_name,
        "ce-source": SOURCE,
        "ce-time": datetime.now(UTC).isoformat(),
        "ce-subject": about,
        "content-type": "application/protobuf",
        "Nats-Msg-Id": event_id,
    }
    await client.jetstream().publish(subject, message.SerializeToString(), headers=headers, timeout=ANSWER_SECONDS)


async def pay_back_once(orders: Orders, pay_back: PayBack, *, repeat_seconds: float) -> None:
    """Pay back what is asked for and due, and wait a moment."""
    for request, paid in orders.refunds_to_pay(time.time()):
        try:
            async with asyncio.timeout(PAY_BACK_SECONDS):
                refund_id = await pay_back(request, paid)
        except Exception:  # whatever the provider's client raises: one refund must not hold up the others
            logger.exception("refund %s could not be paid back", request.refund_request_id)
            orders.told_refund(request.refund_request_id, time.time() + repeat_seconds)
        else:
            orders.paid_back(request.refund_request_id, refund_id, time.time())
    await asyncio.sleep(LOOK_SECONDS)


async def take_events(client: Client, orders: Orders) -> None:
    """Take events until the subscription is due to be renewed; a connection that was lost may have left it deaf."""
    stream = client.jetstream(timeout=ANSWER_SECONDS)
    # Made when it is not there: at first, and when JetStream lost its store. Then all that the stream has comes again.
    await stream.add_consumer(
        STREAM,
        ConsumerConfig(
            durable_name=DURABLE,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=30,
            max_deliver=-1,
            max_ack_pending=1000,
        ),
    )
    subscription = await stream.pull_subscribe_bind(DURABLE, stream=STREAM)
    reconnects, idle = client.stats["reconnects"], 0
    try:
        while idle < RENEW_AFTER_IDLE_FETCHES and client.is_connected and client.stats["reconnects"] == reconnects:
            try:
                messages = await subscription.fetch(BATCH, timeout=FETCH_SECONDS)
            except TimeoutError:
                messages = []
            idle = 0 if messages else idle + 1
            for message in messages:
                await take(orders, message)
    finally:
        await subscription.unsubscribe()


async def take(orders: Orders, message: Msg) -> None:
    """Commit the effect of one event, then acknowledge it. Dying in between lets it come again, and do nothing."""
    headers = {name.lower(): value for name, value in (message.headers or {}).items()}
    try:
        event_id, type_name = headers["ce-id"], headers["ce-type"]
        orders.handle(event_id, message.subject, type_name, message.data)
    except (KeyError, DecodeError):
        # Coming again would not mend it.
        logger.exception("an event on %s cannot be understood", message.subject)
        await message.term()
    else:
        await message.ack()
