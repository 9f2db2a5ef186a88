"""Put kinguin-gateway together and run it."""

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from typing import TypeVar

from chassis.channel import open_channel
from chassis.clock import SystemClock
from chassis.consumer import Consumer
from chassis.database import Database
from chassis.dead_letters import DeadLetterWatch
from chassis.housekeeping import Aging, Housekeeper
from chassis.jetstream import connect_nats
from chassis.outbox import Outbox, Relay
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from chassis.told_settings import SettingsTeller
from chassis.worker import ClaimLoop
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import add_KinguinServiceServicer_to_server

from kinguin_gateway.access import ACCESS
from kinguin_gateway.accounting import Accountant
from kinguin_gateway.adapters.announcements import STREAMS
from kinguin_gateway.adapters.kinguin_http import KinguinHttp
from kinguin_gateway.adapters.postgres import PostgresPurchases
from kinguin_gateway.adapters.postgres_account import PostgresAccount
from kinguin_gateway.adapters.postgres_listing import PostgresListing
from kinguin_gateway.adapters.postgres_pace import PostgresSchedule
from kinguin_gateway.adapters.postgres_products import PostgresProducts
from kinguin_gateway.adapters.postgres_returns import PostgresReturns
from kinguin_gateway.adapters.postgres_switch import PostgresSwitch
from kinguin_gateway.adapters.postgres_webhooks import PostgresWebhooks
from kinguin_gateway.adapters.tables import WEBHOOK
from kinguin_gateway.adapters.vault_grpc import VaultGrpc
from kinguin_gateway.breaker import Breaker
from kinguin_gateway.buying import Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.collecting import Collector
from kinguin_gateway.config import Settings
from kinguin_gateway.consumer import CONSUMER, STREAM, WebhookTaker
from kinguin_gateway.listing import Lister
from kinguin_gateway.looking import Watcher
from kinguin_gateway.pacing import PATIENCE_SECONDS, Turnstile
from kinguin_gateway.products import KnownProducts, ProductWatcher
from kinguin_gateway.reading import Reader
from kinguin_gateway.returning import Returner
from kinguin_gateway.service import SERVICE_NAME, KinguinServicer
from kinguin_gateway.settling import VERIFY_LEASE, Settler
from kinguin_gateway.switching import Releaser
from kinguin_gateway.webhooks import WebhookDesk
from kinguin_gateway.withdrawing import Withdrawer

# As long as somebody may ask what the supplier told us, and when.
WEBHOOK_RETENTION = timedelta(days=90)
# Returns and second searches are rare, and nobody waits for them.
RARELY_SECONDS = 5.0
T = TypeVar("T")


async def assemble(process: Process, settings: Settings) -> GrpcServer:
    """Open what the service needs and return its server."""
    tls, clock, limit, pace = TlsFiles(settings.keyferry_tls_dir), SystemClock(), settings.call_limit, settings.pace
    chance = random.SystemRandom().random
    database = await process.enter(
        Database.open(settings.database_url.get_secret_value(), application="kinguin-gateway")
    )
    client = await process.enter(connect_nats(settings.nats_url, name="kinguin-gateway"))
    vault = VaultGrpc(await process.enter(open_channel(settings.keyferry_vault_address, peer="vault", tls=tls)))
    breaker = Breaker(clock, chance)
    supplier = await process.enter(_supplier(settings, database, breaker, clock))
    outbox = Outbox(STREAMS)
    purchases, returns = PostgresPurchases(database, outbox), PostgresReturns(database, outbox)
    switch, webhooks = PostgresSwitch(database, outbox), PostgresWebhooks(database, outbox)
    products = PostgresProducts(database, outbox)
    settler = Settler(purchases, supplier, bounds=settings.bounds, pace=pace, chance=chance)
    buyer = Buyer(purchases, supplier, settler, Checker(supplier, clock), clock=clock, window=limit)
    await process.enter(buyer.finishing(settings.keyferry_drain_seconds))
    watcher = Watcher(purchases, supplier, settler, pace=pace, call_limit=limit, chance=chance)
    returner = Returner(purchases, returns, supplier, settler, pace=pace, call_limit=limit, chance=chance)
    accountant = Accountant(
        PostgresAccount(database, outbox),
        supplier,
        clock=clock,
        chance=chance,
        every=settings.balance_gap,
        alert_days=settings.keyferry_balance_alert_days,
    )
    looks = ClaimLoop(
        "looks", claim=watcher.claim, handle=watcher.look, handle_seconds=watcher.handle_limit.total_seconds()
    )
    known = KnownProducts(products, clock)
    taker = WebhookTaker(webhooks, looks.wakeup.set, is_known=known.__contains__)
    consumer = Consumer(client=client, database=database, stream=STREAM, name=CONSUMER, handlers=taker.handlers())
    aging = Aging(WEBHOOK, WEBHOOK.c.receive_time, retention=WEBHOOK_RETENTION)
    product_watcher = ProductWatcher(products, supplier, clock=clock, chance=chance, every=settings.product_gap)
    process.spawn("outbox relay", Relay(database, outbox, client).run)
    process.spawn("housekeeping", Housekeeper(database, [aging]).run)
    process.spawn("dead letters", DeadLetterWatch(database, [CONSUMER]).run)
    process.spawn("settings", SettingsTeller(database, outbox, settings, service="kinguin-gateway").run)
    process.spawn("looks", looks.run)
    process.spawn("returns", _rare_loop("returns", returner.claim, returner.handle, returner.handle_limit).run)
    process.spawn(
        "second searches", _rare_loop("second searches", settler.claim_to_verify, settler.verify, VERIFY_LEASE).run
    )
    process.spawn("releases", Releaser(switch, supplier, clock=clock, chance=chance).run)
    process.spawn("balance", accountant.run)
    process.spawn("bought products", known.run)
    process.spawn("products", product_watcher.run)
    process.spawn("webhooks", consumer.run)
    process.check("database", database.ping)
    servicer = KinguinServicer(
        buyer=buyer,
        withdrawer=Withdrawer(purchases, settler, window=limit),
        collector=Collector(purchases, supplier, vault),
        reader=Reader(purchases, supplier, switch, webhooks, breaker, clock=clock),
        lister=Lister(PostgresListing(database), returns),
        returner=returner,
        switch=switch,
        accountant=accountant,
        webhooks=WebhookDesk(webhooks),
    )
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=tls,
        access=ACCESS,
        services=[SERVICE_NAME],
        registrars=[partial(add_KinguinServiceServicer_to_server, servicer)],
    )


def _supplier(
    settings: Settings, database: Database, breaker: Breaker, clock: SystemClock
) -> AbstractAsyncContextManager[KinguinHttp]:
    schedule = PostgresSchedule(
        database,
        per_second=settings.keyferry_supplier_calls_per_second,
        patience=timedelta(seconds=PATIENCE_SECONDS),
    )
    return KinguinHttp.open(
        str(settings.kinguin_base),
        api_key=settings.kinguin_api_key.get_secret_value(),
        auth=settings.kinguin_auth,
        turnstile=Turnstile(clock, schedule, breaker, concurrency=settings.keyferry_supplier_concurrency),
        concurrency=settings.keyferry_supplier_concurrency,
        call_limit=settings.call_limit,
    )


def _rare_loop(
    name: str,
    claim: Callable[[int], Awaitable[Sequence[T]]],
    handle: Callable[[T], Awaitable[None]],
    limit: timedelta,
) -> ClaimLoop[T]:
    seconds = limit.total_seconds()
    return ClaimLoop(
        name, claim=claim, handle=handle, handle_seconds=seconds, concurrency=2, idle_seconds=RARELY_SECONDS
    )


if __name__ == "__main__":
    run_process("kinguin-gateway", load_or_exit(Settings), assemble)
