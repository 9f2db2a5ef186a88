"""Put fulfillment together and run it."""

from functools import partial

from chassis.channel import open_channel
from chassis.clock import SystemClock
from chassis.consumer import Consumer
from chassis.database import Database
from chassis.dead_letters import DeadLetterDesk, DeadLetterWatch
from chassis.housekeeping import Aging, Housekeeper
from chassis.jetstream import connect_nats
from chassis.notifications import NotificationListener
from chassis.outbox import Outbox, Relay
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from chassis.told_settings import SettingsTeller
from chassis.worker import ClaimLoop
from keyferry.fulfillment.v1.fulfillment_admin_service_pb2_grpc import (
    add_FulfillmentAdminServiceServicer_to_server,
)
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import add_FulfillmentServiceServicer_to_server

from fulfillment.access import ACCESS
from fulfillment.adapters.connection import CHANGED, DUE
from fulfillment.adapters.erasures import PostgresErasures
from fulfillment.adapters.kinguin_grpc import GrpcSupplier
from fulfillment.adapters.ledgers_grpc import GrpcLedgers
from fulfillment.adapters.notices import PostgresNotices
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.adapters.payments import PostgresPayments
from fulfillment.adapters.reports import PostgresReports
from fulfillment.adapters.smtp import SmtpMailer
from fulfillment.adapters.tables import NOTICE
from fulfillment.adapters.vault_grpc import GrpcVault
from fulfillment.admin_service import SERVICE_NAME as ADMIN_SERVICE_NAME
from fulfillment.admin_service import FulfillmentAdminServicer
from fulfillment.adopting import Adopter
from fulfillment.buying import Buyer
from fulfillment.collecting import KeyCollector, Openings
from fulfillment.config import Settings
from fulfillment.consumer import EventHandlers
from fulfillment.erasing import Erasing
from fulfillment.giving_up import GivingUp
from fulfillment.intake import Intake
from fulfillment.mailing import EXTEND_SECONDS as EXTEND_MAILS_SECONDS
from fulfillment.mailing import SEND_SECONDS, Letters, Mailing
from fulfillment.matching import Matching
from fulfillment.mending import Mending
from fulfillment.moving import Mover
from fulfillment.noticing import NoticeLetters, Noticing
from fulfillment.operating import Operating
from fulfillment.payments import PaymentDesk, UnmatchedWatch
from fulfillment.ports.mail import MailDue, Mailer
from fulfillment.ports.notices import NoticeDue, Notices
from fulfillment.ports.orders import Orders
from fulfillment.products import Products
from fulfillment.progress import ACT_SECONDS, EXTEND_SECONDS, Progress
from fulfillment.reading import Reading
from fulfillment.reconciling import REPORT_SECONDS, Reconciling
from fulfillment.retrying import Retrying
from fulfillment.service import SERVICE_NAME, FulfillmentServicer
from fulfillment.taking_back import Taker
from fulfillment.watching import Watching
from fulfillment.working import Bench

# The supplier's pace is kept by kinguin-gateway; here it is only how much may be under way at once.
PURCHASES_AT_ONCE = 64
# Few, so that what others wait for is never behind many of these, neither here nor at the supplier.
LATER_PURCHASES_AT_ONCE = 8
MAILS_AT_ONCE = 4
NOTICES_AT_ONCE = 2
# A report that is asked for may wait so long before it is begun.
LOOK_FOR_REPORTS_SECONDS = 5.0
POOL_SIZE = 20
TOLD_NOTICES = Aging(NOTICE, NOTICE.c.access_time, (NOTICE.c.run_at.is_(None),))


async def assemble(process: Process, settings: Settings) -> GrpcServer:
    """Open what the service needs and return its server."""
    tls = TlsFiles(settings.keyferry_tls_dir)
    url = settings.database_url.get_secret_value()
    database = await process.enter(Database.open(url, application="fulfillment", pool_size=POOL_SIZE))
    client = await process.enter(connect_nats(settings.nats_url, name="fulfillment"))
    kinguin_channel = await process.enter(
        open_channel(settings.keyferry_kinguin_address, peer="kinguin-gateway", tls=tls)
    )
    vault_channel = await process.enter(open_channel(settings.keyferry_vault_address, peer="vault", tls=tls))
    outbox = Outbox({"fulfillment": "FULFILLMENT", "audit": "AUDIT"})
    clock = SystemClock()
    orders, payments = PostgresOrders(database, outbox), PostgresPayments(database)
    supplier, vault = GrpcSupplier(kinguin_channel), GrpcVault(vault_channel)
    mover = Mover(settings.policy())
    giving_up, products = GivingUp(mover), Products(supplier, clock)
    intake, openings = Intake(giving_up, clock), Openings(mover, clock)
    bench = Bench(orders, mover, clock)
    progress = Progress(
        bench, Buyer(bench, supplier, products), KeyCollector(bench, supplier, vault), Taker(bench, supplier, vault)
    )
    mailer = SmtpMailer(settings.smtp_url.get_secret_value(), sender=settings.keyferry_mail_from)
    notices = PostgresNotices(database, outbox)
    watching = Watching(orders)
    process.on_drain(watching.end)
    handlers = EventHandlers(orders.within, intake, openings, clock=clock, noticing_within=notices.within)
    loop = partial(
        ClaimLoop,
        handle=progress.act,
        handle_seconds=ACT_SECONDS,
        extend=progress.extend,
        extend_seconds=EXTEND_SECONDS,
    )
    first = loop("purchases", claim=progress.claim_first, concurrency=PURCHASES_AT_ONCE)
    later = loop("purchases of many", claim=progress.claim_later, concurrency=LATER_PURCHASES_AT_ONCE)
    mails, noticed = _mail_loop(orders, mailer, settings), _notice_loop(notices, mailer, settings)

    def wake(_payload: str) -> None:
        for each in (first, later, mails, noticed):
            each.wakeup.set()

    consumed = {
        "fulfillment-payments": ("PAYMENTS", handlers.payments()),
        "fulfillment-kinguin": ("KINGUIN", handlers.supplier()),
        "fulfillment-vault": ("VAULT", handlers.vault()),
    }
    for name, (stream, handled) in consumed.items():
        consumer = Consumer(client=client, database=database, stream=stream, name=name, handlers=handled)
        process.spawn(name, consumer.run)
    runs = {"purchases": first.run, "purchases of many": later.run, "mails": mails.run, "notices": noticed.run}
    for name, run in runs.items():
        process.spawn(name, run)
    process.spawn("notifications", NotificationListener(url, {CHANGED: watching.changed, DUE: wake}).run)
    process.spawn("outbox relay", Relay(database, outbox, client).run)
    process.spawn("housekeeping", Housekeeper(database, [TOLD_NOTICES]).run)
    process.spawn("settings", SettingsTeller(database, outbox, settings, service="fulfillment").run)
    limits = settings.limits()
    reports = PostgresReports(database, outbox, clock=clock, limits=limits)
    ledgers = GrpcLedgers(kinguin_channel, vault_channel)
    mending = Mending(reports, ledgers, Adopter(bench, vault))
    reconciling = Reconciling(reports, ledgers, mending, clock=clock, limits=limits)
    comparing = ClaimLoop(
        "reconciliation",
        claim=reconciling.claim,
        handle=reconciling.work,
        handle_seconds=REPORT_SECONDS,
        concurrency=1,
        idle_seconds=LOOK_FOR_REPORTS_SECONDS,
    )
    process.spawn("reconciliation", comparing.run)
    process.spawn("unmatched payments", UnmatchedWatch(payments, clock).run)
    process.spawn("dead letters", DeadLetterWatch(database, consumed).run)
    process.check("database", database.ping)
    operating = Operating(orders, mover, giving_up, supplier, vault, clock=clock)
    servicer = FulfillmentServicer(
        orders,
        intake=intake,
        reading=Reading(orders, clock=clock),
        watching=watching,
        operating=operating,
        products=products,
        vault=vault,
    )
    admin = FulfillmentAdminServicer(
        orders,
        operating=operating,
        retrying=Retrying(operating, clock),
        payments=PaymentDesk(payments),
        matching=Matching(intake, clock),
        reports=reports,
        clock=clock,
        dead_letters=DeadLetterDesk(database, {name: handled for name, (_, handled) in consumed.items()}),
        within=orders.within,
        vault=vault,
        keeper=vault,
        erasing=Erasing(PostgresErasures(database, outbox), vault, giving_up, openings, clock=clock),
    )
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=tls,
        access=ACCESS,
        services=[SERVICE_NAME, ADMIN_SERVICE_NAME],
        registrars=[
            partial(add_FulfillmentServiceServicer_to_server, servicer),
            partial(add_FulfillmentAdminServiceServicer_to_server, admin),
        ],
    )


def _mail_loop(orders: Orders, mailer: Mailer, settings: Settings) -> ClaimLoop[MailDue]:
    mailing = Mailing(orders, mailer, Letters(str(settings.public_url)), clock=SystemClock())
    return ClaimLoop(
        "mails",
        claim=mailing.claim,
        handle=mailing.send,
        handle_seconds=SEND_SECONDS,
        concurrency=MAILS_AT_ONCE,
        extend=mailing.extend,
        extend_seconds=EXTEND_MAILS_SECONDS,
    )


def _notice_loop(notices: Notices, mailer: Mailer, settings: Settings) -> ClaimLoop[NoticeDue]:
    noticing = Noticing(notices, mailer, NoticeLetters(str(settings.public_url)), clock=SystemClock())
    return ClaimLoop(
        "notices", claim=noticing.claim, handle=noticing.send, handle_seconds=SEND_SECONDS, concurrency=NOTICES_AT_ONCE
    )


if __name__ == "__main__":
    run_process("fulfillment", load_or_exit(Settings), assemble)
