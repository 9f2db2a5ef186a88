"""Put kinguin-gateway together and run it."""

import random
from functools import partial

from chassis.channel import open_channel
from chassis.clock import SystemClock
from chassis.consumer import Consumer
from chassis.database import Database
from chassis.housekeeping import Housekeeper
from chassis.jetstream import connect_nats
from chassis.outbox import Outbox, Relay
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from chassis.worker import ClaimLoop
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import add_KinguinServiceServicer_to_server

from kinguin_gateway.access import ACCESS
from kinguin_gateway.adapters.announcements import STREAMS
from kinguin_gateway.adapters.kinguin_http import KinguinHttp
from kinguin_gateway.adapters.postgres import PostgresPurchases, hurry_look
from kinguin_gateway.adapters.vault_grpc import VaultGrpc
from kinguin_gateway.buying import Buyer
from kinguin_gateway.collecting import Collector
from kinguin_gateway.config import Settings
from kinguin_gateway.consumer import CONSUMER, STREAM, WebhookTaker
from kinguin_gateway.looking import Watcher
from kinguin_gateway.reading import Reader
from kinguin_gateway.service import SERVICE_NAME, KinguinServicer
from kinguin_gateway.settling import Settler


async def assemble(process: Process, settings: Settings) -> GrpcServer:
    """Open what the service needs and return its server."""
    tls, clock, limit, pace = TlsFiles(settings.keyferry_tls_dir), SystemClock(), settings.call_limit, settings.pace
    chance = random.SystemRandom().random
    database = await process.enter(
        Database.open(settings.database_url.get_secret_value(), application="kinguin-gateway")
    )
    client = await process.enter(connect_nats(settings.nats_url, name="kinguin-gateway"))
    vault = VaultGrpc(await process.enter(open_channel(settings.keyferry_vault_address, peer="vault", tls=tls)))
    supplier = await process.enter(
        KinguinHttp.open(
            str(settings.kinguin_base),
            api_key=settings.kinguin_api_key.get_secret_value(),
            auth=settings.kinguin_auth,
            clock=clock,
            limits=(settings.keyferry_supplier_concurrency, settings.keyferry_supplier_calls_per_second),
            call_limit=limit,
        )
    )
    outbox = Outbox(STREAMS)
    purchases = PostgresPurchases(database, outbox)
    settler = Settler(purchases, supplier, bounds=settings.bounds, pace=pace, chance=chance)
    buyer = Buyer(purchases, supplier, settler, clock=clock, window=limit)
    await process.enter(buyer.finishing(settings.keyferry_drain_seconds))
    watcher = Watcher(purchases, supplier, settler, pace=pace, call_limit=limit, chance=chance)
    loop = ClaimLoop(
        "looks", claim=watcher.claim, handle=watcher.look, handle_seconds=watcher.handle_limit.total_seconds()
    )
    webhooks = WebhookTaker(hurry_look, loop.wakeup.set)
    consumer = Consumer(client=client, database=database, stream=STREAM, name=CONSUMER, handlers=webhooks.handlers())
    process.spawn("outbox relay", Relay(database, outbox, client).run)
    process.spawn("housekeeping", Housekeeper(database).run)
    process.spawn("looks", loop.run)
    process.spawn("webhooks", consumer.run)
    process.check("database", database.ping)
    servicer = KinguinServicer(buyer, Collector(purchases, supplier, vault), Reader(purchases, supplier, clock))
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=tls,
        access=ACCESS,
        services=[SERVICE_NAME],
        registrars=[partial(add_KinguinServiceServicer_to_server, servicer)],
    )


if __name__ == "__main__":
    run_process("kinguin-gateway", load_or_exit(Settings), assemble)
