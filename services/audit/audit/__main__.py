"""Put the audit service together and run it."""

from functools import partial

import structlog
from chassis.clock import SystemClock
from chassis.consumer import Consumer
from chassis.database import Database
from chassis.dead_letters import DeadLetterWatch
from chassis.housekeeping import Aging, Housekeeper
from chassis.jetstream import connect_nats
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from chassis.told_settings import SettingsTeller
from keyferry.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server

from audit.access import ACCESS
from audit.adapters.ed25519 import Ed25519Notary
from audit.adapters.jose import JosePersonKeys
from audit.adapters.postgres import PostgresLog, PostgresLogTransaction
from audit.adapters.r2 import R2Checkpoints
from audit.adapters.tables import FORGOTTEN
from audit.adapters.tree import PostgresTree
from audit.appending import GroupAppender
from audit.checkpointing import Checkpoints
from audit.config import Settings
from audit.consumer import CONSUMER, STREAM, EventRecorder
from audit.growing import TreeFiller
from audit.proving import Prover
from audit.service import SERVICE_NAME, AuditServicer
from audit.telling import OwnFacts
from audit.verifying import Verifier

logger = structlog.get_logger(__name__)

# Events wait for their turn in the log on connections of their own: a backlog of them never holds up a reveal.
EVENT_CONNECTIONS = 4
# So that what a replica takes stands behind what it told of its settings. Without a database it serves nobody anyway.
TELL_SECONDS = 5.0


async def assemble(process: Process, settings: Settings) -> GrpcServer:
    """Open what the service needs and return its server."""
    url = settings.database_url.get_secret_value()
    database = await process.enter(Database.open(url, application="audit"))
    event_database = await process.enter(Database.open(url, application="audit-events", pool_size=EVENT_CONNECTIONS))
    client = await process.enter(connect_nats(settings.nats_url, name="audit"))
    keys = JosePersonKeys(settings.keyferry_audit_secret)
    log = PostgresLog(database)
    appender = GroupAppender(log, keys)
    recorder = EventRecorder(PostgresLogTransaction, keys)
    consumer = Consumer(
        client=client, database=event_database, stream=STREAM, name=CONSUMER, handlers=recorder.handlers()
    )
    tree, origin = PostgresTree(database), settings.keyferry_log_origin
    notary = Ed25519Notary(origin, settings.keyferry_checkpoint_secret, settings.keyferry_checkpoint_retired_keys)
    store = R2Checkpoints(
        endpoint=str(settings.r2_endpoint).rstrip("/"),
        bucket=settings.keyferry_checkpoint_bucket,
        access_key_id=settings.r2_access_key_id,
        secret_access_key=settings.r2_secret_access_key.get_secret_value(),
    )
    checkpoints = Checkpoints(tree, notary, store, origin=origin, clock=SystemClock())
    logger.info("checkpoints verify with these keys", verifier_keys=notary.verifier_keys)
    servicer = AuditServicer(
        appender,
        log,
        keys,
        checkpoints=checkpoints,
        notary=notary,
        prover=Prover(tree),
        verifier=Verifier(tree, notary, store, origin=origin),
    )
    teller = SettingsTeller(database, OwnFacts(recorder), settings, service="audit")
    process.spawn("settings", teller.run)
    await teller.wait_told(TELL_SECONDS)
    process.spawn("appender", appender.run)
    process.spawn("tree filler", TreeFiller(tree).run)
    process.spawn("checkpoints", partial(checkpoints.run, settings.keyferry_checkpoint_seconds))
    process.spawn("event recorder", consumer.run)
    process.spawn("housekeeping", Housekeeper(database, [Aging(FORGOTTEN, FORGOTTEN.c.forget_time)]).run)
    process.spawn("dead letters", DeadLetterWatch(database, [CONSUMER]).run)
    process.check("database", database.ping)
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=TlsFiles(settings.keyferry_tls_dir),
        access=ACCESS,
        services=[SERVICE_NAME],
        registrars=[partial(add_AuditServiceServicer_to_server, servicer)],
    )


if __name__ == "__main__":
    run_process("audit", load_or_exit(Settings), assemble)
