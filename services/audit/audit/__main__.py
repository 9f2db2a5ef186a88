"""Put the audit service together and run it."""

from functools import partial

from chassis.consumer import Consumer
from chassis.database import Database
from chassis.dead_letters import DeadLetterWatch
from chassis.housekeeping import Housekeeper
from chassis.jetstream import connect_nats
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from keyferry.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server

from audit.access import ACCESS
from audit.adapters.jose import JosePersonKeys
from audit.adapters.postgres import PostgresLog, PostgresLogTransaction
from audit.appending import GroupAppender
from audit.config import Settings
from audit.consumer import CONSUMER, STREAM, EventRecorder
from audit.service import SERVICE_NAME, AuditServicer

# Events wait for their turn in the log on connections of their own: a backlog of them never holds up a reveal.
EVENT_CONNECTIONS = 4


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
    process.spawn("appender", appender.run)
    process.spawn("event recorder", consumer.run)
    process.spawn("housekeeping", Housekeeper(database).run)
    process.spawn("dead letters", DeadLetterWatch(database, [CONSUMER]).run)
    process.check("database", database.ping)
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=TlsFiles(settings.keyferry_tls_dir),
        access=ACCESS,
        services=[SERVICE_NAME],
        registrars=[partial(add_AuditServiceServicer_to_server, AuditServicer(appender, log, keys))],
    )


if __name__ == "__main__":
    run_process("audit", load_or_exit(Settings), assemble)
