"""Put fulfillment together and run it."""

from functools import partial

from chassis.channel import open_channel
from chassis.clock import SystemClock
from chassis.consumer import Consumer
from chassis.database import Database
from chassis.housekeeping import Housekeeper
from chassis.jetstream import connect_nats
from chassis.notifications import NotificationListener
from chassis.outbox import Outbox, Relay
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from chassis.worker import ClaimLoop
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import add_FulfillmentServiceServicer_to_server

from fulfillment.access import ACCESS
from fulfillment.adapters.kinguin_grpc import GrpcSupplier
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.adapters.postgres import CHANGED, DUE
from fulfillment.adapters.smtp import SmtpMailer
from fulfillment.adapters.vault_grpc import GrpcVault
from fulfillment.config import Settings
from fulfillment.consumer import EventHandlers
from fulfillment.intake import Intake
from fulfillment.mailing import SEND_SECONDS, Letters, Mailing
from fulfillment.progress import ACT_SECONDS, EXTEND_SECONDS, Progress
from fulfillment.reading import Reading
from fulfillment.service import SERVICE_NAME, FulfillmentServicer
from fulfillment.watching import Watching

# The supplier's pace is kept by kinguin-gateway; here it is only how much may be under way at once.
PURCHASES_AT_ONCE = 64
MAILS_AT_ONCE = 4
POOL_SIZE = 20


async def assemble(process: Process, settings: Settings) -> GrpcServer:
    """Open what the service needs and return its server."""
    tls = TlsFiles(settings.keyferry_tls_dir)
    url = settings.database_url.get_secret_value()
    database = await process.enter(Database.open(url, application="fulfillment", pool_size=POOL_SIZE))
    client = await process.enter(connect_nats(settings.nats_url, name="fulfillment"))
    kinguin = await process.enter(open_channel(settings.keyferry_kinguin_address, peer="kinguin-gateway", tls=tls))
    vault = await process.enter(open_channel(settings.keyferry_vault_address, peer="vault", tls=tls))
    outbox = Outbox({"fulfillment": "FULFILLMENT", "audit": "AUDIT"})
    clock = SystemClock()
    orders, supplier = PostgresOrders(database, outbox), GrpcSupplier(kinguin)
    intake, progress = Intake(clock), Progress(orders, supplier, clock=clock)
    mailer = SmtpMailer(settings.smtp_url.get_secret_value(), sender=settings.keyferry_mail_from)
    mailing = Mailing(orders, mailer, Letters(str(settings.public_url)), clock=clock)
    watching = Watching(orders)
    process.on_drain(watching.end)
    handlers = EventHandlers(orders.within, intake, progress, clock=clock)
    buying = ClaimLoop(
        "purchases",
        claim=progress.claim,
        handle=progress.act,
        handle_seconds=ACT_SECONDS,
        concurrency=PURCHASES_AT_ONCE,
        extend=progress.extend,
        extend_seconds=EXTEND_SECONDS,
    )
    mails = ClaimLoop(
        "mails", claim=mailing.claim, handle=mailing.send, handle_seconds=SEND_SECONDS, concurrency=MAILS_AT_ONCE
    )

    def wake(_payload: str) -> None:
        buying.wakeup.set()
        mails.wakeup.set()

    consume = partial(Consumer, client=client, database=database)
    payments = consume(stream="PAYMENTS", name="fulfillment-payments", handlers=handlers.payments())
    changes = consume(stream="KINGUIN", name="fulfillment-kinguin", handlers=handlers.supplier())
    openings = consume(stream="VAULT", name="fulfillment-vault", handlers=handlers.vault())
    process.spawn("payments", payments.run)
    process.spawn("supplier changes", changes.run)
    process.spawn("openings", openings.run)
    process.spawn("purchases", buying.run)
    process.spawn("mails", mails.run)
    process.spawn("notifications", NotificationListener(url, {CHANGED: watching.changed, DUE: wake}).run)
    process.spawn("outbox relay", Relay(database, outbox, client).run)
    process.spawn("housekeeping", Housekeeper(database).run)
    process.check("database", database.ping)
    servicer = FulfillmentServicer(
        orders, intake, Reading(orders, clock=clock), watching, supplier=supplier, vault=GrpcVault(vault)
    )
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=tls,
        access=ACCESS,
        services=[SERVICE_NAME],
        registrars=[partial(add_FulfillmentServiceServicer_to_server, servicer)],
    )


if __name__ == "__main__":
    run_process("fulfillment", load_or_exit(Settings), assemble)
