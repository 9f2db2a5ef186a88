"""Put vault together and run it."""

import asyncio
from datetime import timedelta
from functools import partial

from chassis.channel import open_channel
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.housekeeping import Aging, Housekeeper
from chassis.jetstream import connect_nats
from chassis.outbox import Outbox, Relay
from chassis.process import Process, run_process
from chassis.server import GrpcServer
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from chassis.told_settings import SettingsTeller
from keyferry.vault.v1.vault_service_pb2_grpc import add_VaultServiceServicer_to_server

from vault.access import ACCESS
from vault.adapters.audit_grpc import GrpcAuditLog
from vault.adapters.kek_keyring import KeyringKeks
from vault.adapters.kek_transit import TransitKeks
from vault.adapters.postgres import PostgresKeys
from vault.adapters.r2 import R2ObjectStore
from vault.adapters.r2_bucket import check_bucket, provision_bucket
from vault.adapters.stored_digests import PostgresStoredDigests
from vault.adapters.tables import KNOWN_ACCESS
from vault.adapters.wrapped_deks import PostgresWrappedDeks
from vault.config import Settings
from vault.crypto import Digests, Kek
from vault.erasing import Eraser
from vault.listing import KeyReader
from vault.releasing import Releaser
from vault.retiring import DigestCheck, KekWatch
from vault.rewrapping import Rewrapper
from vault.sealing import Sealer
from vault.service import SERVICE_NAME, VaultServicer
from vault.shredding import ObjectRemover
from vault.sweeping import Sweeper
from vault.taking_back import KeyTaker
from vault.uploading import UploadKeys
from vault.wrapping import KeyEncryption

PROVISION_SECONDS = 20.0
# Who was not here for so long is met like somebody new.
ACCESS_MEMORY = timedelta(days=400)


async def assemble(process: Process, settings: Settings) -> GrpcServer:
    """Open what the service needs and return its server."""
    tls = TlsFiles(settings.keyferry_tls_dir)
    url = settings.database_url.get_secret_value()
    database = await process.enter(Database.open(url, application="vault"))
    client = await process.enter(connect_nats(settings.nats_url, name="vault"))
    channel = await process.enter(open_channel(settings.keyferry_audit_address, peer="audit", tls=tls))
    outbox = Outbox({"vault": "VAULT", "audit": "AUDIT"})
    place = {
        "endpoint": str(settings.r2_endpoint).rstrip("/"),
        "bucket": settings.r2_bucket,
        "access_key_id": settings.r2_access_key_id,
        "secret_access_key": settings.r2_secret_access_key.get_secret_value(),
    }
    origin = str(settings.public_url).rstrip("/")
    async with asyncio.timeout(PROVISION_SECONDS):
        await asyncio.to_thread(partial(provision_bucket, **place, origin=origin))
        await asyncio.to_thread(partial(check_bucket, **place))
    store = R2ObjectStore(**place)
    keys = PostgresKeys(database, outbox)
    keks, digests = await _key_encryption(process, settings), Digests(settings.keyferry_digest_secret)
    deks = PostgresWrappedDeks(database, outbox)
    watch = KekWatch(deks, keks)
    await watch.check_start()
    await DigestCheck(PostgresStoredDigests(database), digests).check_start()
    clock = SystemClock()
    remover = ObjectRemover(keys, store, clock=clock)
    sweeper = Sweeper(
        keys,
        remover,
        clock=clock,
        retention=settings.retention(),
        every_seconds=settings.keyferry_sweep_seconds,
    )
    servicer = VaultServicer(
        sealer=Sealer(keys, store, keks, digests, clock),
        releaser=Releaser(
            keys,
            store,
            GrpcAuditLog(channel),
            keks,
            digests,
            clock=clock,
            most_per_hour=settings.keyferry_releases_per_hour,
        ),
        taker=KeyTaker(keys, remover, clock=clock),
        reader=KeyReader(keys),
        upload_keys=UploadKeys(settings.key_encryption_secret),
        rewrapper=Rewrapper(deks, keks, clock=clock),
        sweeper=sweeper,
        eraser=Eraser(keys, remover, digests, clock=clock),
    )
    process.spawn("kek watch", watch.run)
    process.spawn("outbox relay", Relay(database, outbox, client).run)
    process.spawn("settings", SettingsTeller(database, outbox, settings, service="vault").run)
    forgotten = Aging(KNOWN_ACCESS, KNOWN_ACCESS.c.use_time, retention=ACCESS_MEMORY)
    process.spawn("housekeeping", Housekeeper(database, [forgotten]).run)
    process.spawn("sweep", sweeper.run)
    process.check("database", database.ping)
    return GrpcServer(
        listen=settings.keyferry_grpc_listen,
        tls=tls,
        access=ACCESS,
        services=[SERVICE_NAME],
        registrars=[partial(add_VaultServiceServicer_to_server, servicer)],
    )


async def _key_encryption(process: Process, settings: Settings) -> KeyEncryption:
    keyring = KeyringKeks(Kek(settings.key_encryption_secret))
    address, token = settings.keyferry_transit_address, settings.keyferry_transit_token
    if address is None or token is None:
        return KeyEncryption(keyring)
    transit = await process.enter(
        TransitKeks.open(
            str(address),
            token=token.get_secret_value(),
            mount=settings.keyferry_transit_mount,
            key=settings.keyferry_transit_key,
            namespace=settings.keyferry_transit_namespace,
            ca_file=settings.keyferry_transit_ca_file,
        )
    )
    process.spawn("transit token", transit.keep_token)
    return KeyEncryption(transit, keyring) if settings.keyferry_kek == "transit" else KeyEncryption(keyring, transit)


if __name__ == "__main__":
    run_process("vault", load_or_exit(Settings), assemble)
