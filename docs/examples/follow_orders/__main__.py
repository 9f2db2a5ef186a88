"""`python -m follow_orders shop.sqlite3`: reads NATS_URL and, for a server with mutual TLS, CERTIFICATES."""

import asyncio
import logging
import os
import ssl
import sys
from contextlib import closing
from pathlib import Path

import nats
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentRefundRequested
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed

from .following import follow_orders
from .orders import Orders


def certificates(folder: str) -> ssl.SSLContext | None:
    """Load tls.crt, tls.key and ca.crt of the identity `spiffe://keyferry/shop`; none where the server has no TLS."""
    if not folder:
        return None
    context = ssl.create_default_context(cafile=str(Path(folder) / "ca.crt"))
    context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
    return context


async def pay_back(request: FulfillmentRefundRequested, _paid: PaymentConfirmed) -> str:
    """Pay back at your provider here, with `refund_request_id` as its idempotency key; return its number."""
    logging.getLogger(__name__).info("paying back %s for %s", request.refund_request_id, request.order_id)
    return f"refund-{request.refund_request_id}"


async def main() -> None:
    """Follow until the process is stopped; it may be stopped at any time."""
    client = await nats.connect(
        os.environ["NATS_URL"].split(","),
        name="shop",
        tls=certificates(os.environ.get("CERTIFICATES", "")),
        max_reconnect_attempts=-1,
    )
    try:
        with closing(Orders(Path(sys.argv[1]))) as orders:
            await follow_orders(client, orders, pay_back)
    finally:
        await client.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
