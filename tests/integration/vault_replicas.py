"""What vault's integration tests stand on: real PostgreSQL, NATS, S3 and audit, callers, and replicas of vault itself.

The functions that yield are fixtures, once a test file gives them a name with `pytest.fixture`.
"""

import hashlib
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.config import Config
from chassis.channel import open_channel
from chassis.process import Process
from chassis.tls import TlsFiles
from joserfc import jwe
from joserfc.jwk import OctKey
from keyferry.audit.v1 import audit_service_pb2 as audit_pb
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceStub
from sandbox.pki import Identity
from sandbox.ports import free_port
from sandbox.servers.nats import NatsServer
from sandbox.servers.s3 import S3Server
from vault.__main__ import assemble
from vault.config import Settings

from tests.integration.audit_replicas import checkpoint_settings
from tests.integration.conftest import S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY
from tests.integration.real_servers import (
    REPOSITORY,
    OneDatabase,
    Postgres,
    ServiceProcess,
    eventually,
    fetch,
    fresh_streams,
)
from tests.unit.vault.fakes import Recipient, a_secret

if TYPE_CHECKING:
    from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceAsyncStub
    from mypy_boto3_s3 import S3Client

GAME_KEY = b"PLANT-ED/K3Y+F0R-TH3=T3STS"
ALICE = actor_pb2.Actor(
    type=actor_pb2.ACTOR_TYPE_CUSTOMER,
    id="alice",
    email="alice@example.com",
    ip_address="192.0.2.7",
    user_agent="Browser/1.0",
)
BOB = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="bob")


@dataclass(frozen=True)
class Audit:
    """A real audit service, shared by all tests of a file."""

    address: str
    database: OneDatabase
    nats_url: str


async def run_audit(
    postgres: Postgres,
    nats_server: NatsServer,
    pki: Mapping[str, Identity],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Audit]:
    database = await postgres.make_database("audit", REPOSITORY / "services" / "audit" / "migrations")
    audit = Audit(f"127.0.0.1:{free_port()}", database, await fresh_streams(nats_server))
    environment = {
        "KEYFERRY_TLS_DIR": str(pki["audit"].folder),
        "KEYFERRY_GRPC_LISTEN": audit.address,
        "DATABASE_URL": database.service_url,
        "NATS_URL": audit.nats_url,
        "KEYFERRY_AUDIT_SECRET": f"v1:{a_secret(9)}",
        **checkpoint_settings(),
    }
    process = ServiceProcess("audit", tmp_path_factory.mktemp("audit"), environment)
    process.start()
    process.wait_ready()
    yield audit
    process.stop()


@dataclass
class Bench:
    """A database and a bucket of a test's own, and everything to do with them."""

    environment: dict[str, str]
    database: OneDatabase
    audit: Audit
    pki: Mapping[str, Identity]
    s3: "S3Client"
    folder: Path
    stack: AsyncExitStack
    started: list[ServiceProcess] = field(default_factory=list)

    @property
    def spans(self) -> Path:
        return self.folder / "spans.jsonl"

    async def call(self, identity: str, *addresses: str) -> "VaultServiceAsyncStub":
        """Give a stub that calls as one of our identities."""
        tls = TlsFiles(self.pki[identity].folder)
        return VaultServiceStub(await self.stack.enter_async_context(open_channel(addresses, peer="vault", tls=tls)))

    async def here(self, **changes: str) -> str:
        """Run a replica in this process, put together as in production; give its address."""
        return await self.stack.enter_async_context(_replica({**self.environment, **changes}))

    def start(self, module: str = "vault", *, failpoints: str = "", **changes: str) -> tuple[ServiceProcess, str]:
        """Run a replica as a process of its own; give its address too."""
        address = f"127.0.0.1:{free_port()}"
        environment = {
            **self.environment,
            "KEYFERRY_GRPC_LISTEN": address,
            "KEYFERRY_LOG_LEVEL": "debug",
            "KEYFERRY_TRACE_FILE": str(self.spans),
            "KEYFERRY_FAILPOINTS": failpoints,
            **changes,
        }
        process = ServiceProcess(module, self.folder, environment)
        self.started.append(process)
        process.start()
        process.wait_ready()
        return process, address

    def objects(self) -> dict[str, bytes]:
        bucket = self.environment["R2_BUCKET"]
        names = [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
        return {name: self.s3.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}

    async def audit_actions(self, key_id: str, *, at_least: int) -> list[str]:
        """Wait for the audit entries of a key and return their actions in the log's order."""
        tls = TlsFiles(self.pki["shop"].folder)
        async with open_channel([self.audit.address], peer="audit", tls=tls) as channel:
            stub = AuditServiceStub(channel)
            actions: list[str] = []

            async def there() -> bool:
                listed = await stub.ListEntries(audit_pb.ListEntriesRequest(key_id=key_id))
                actions[:] = [entry.action for entry in listed.entries]
                return len(actions) >= at_least

            await eventually(there)
            return actions


async def make_bench(
    request: pytest.FixtureRequest, postgres: Postgres, s3_server: S3Server, audit: Audit, tmp_path: Path
) -> AsyncIterator[Bench]:
    database = await postgres.make_database("vault", REPOSITORY / "services" / "vault" / "migrations")
    pki: Mapping[str, Identity] = request.getfixturevalue("pki")
    environment = {
        "KEYFERRY_TLS_DIR": str(pki["vault"].folder),
        "DATABASE_URL": database.service_url,
        "NATS_URL": audit.nats_url,
        "KEY_ENCRYPTION_SECRET": f"v1:{a_secret(1)}",
        "KEYFERRY_DIGEST_SECRET": f"v1:{a_secret(2)}",
        "R2_ENDPOINT": s3_server.url,
        "R2_ACCESS_KEY_ID": S3_ACCESS_KEY_ID,
        "R2_SECRET_ACCESS_KEY": S3_SECRET_ACCESS_KEY,
        "R2_BUCKET": f"vault-{uuid.uuid4().hex[:12]}",
        "KEYFERRY_AUDIT_ADDRESS": audit.address,
        "PUBLIC_URL": "http://localhost:8080/",
    }
    async with AsyncExitStack() as stack:
        client = _s3_client(s3_server)
        stack.callback(client.close)
        bench = Bench(environment, database, audit, pki, client, tmp_path, stack)
        yield bench
    for process in bench.started:
        process.stop()


@asynccontextmanager
async def _replica(environment: Mapping[str, str]) -> AsyncIterator[str]:
    values: dict[str, Any] = {name.lower(): value for name, value in environment.items()}
    settings = Settings(keyferry_grpc_listen="127.0.0.1:0", **values)
    process = Process("vault", settings)
    try:
        server = await assemble(process, settings)
        await server.start()
        yield f"127.0.0.1:{server.port}"
        await server.drain(1)
    finally:
        await process.close()


def _s3_client(server: S3Server) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=S3_ACCESS_KEY_ID,
        aws_secret_access_key=S3_SECRET_ACCESS_KEY,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def a_seal(source_ref: str = "kinguin:1:1", plaintext: bytes = GAME_KEY) -> pb.SealKeyRequest:
    return pb.SealKeyRequest(
        request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, source_ref)),
        source_ref=source_ref,
        order_id="order-1",
        item_id="item-1",
        customer_id="alice",
        content_type="text/plain",
        plaintext_key=plaintext,
    )


def a_wish(key_id: str, recipient: Recipient, actor: actor_pb2.Actor = ALICE, request_id: str = "") -> dict[str, Any]:
    return {
        "request_id": request_id or str(uuid.uuid4()),
        "order_id": "order-1",
        "key_id": key_id,
        "actor": actor,
        "recipient_jwk": recipient.jwk,
    }


async def fetch_and_open(link: pb.CreateDownloadLinkResponse, recipient: Recipient) -> bytes | None:
    """Do what the page does with a link."""
    async with httpx.AsyncClient() as http:
        sealed = (await http.get(link.url)).raise_for_status().content
    assert hashlib.sha256(sealed).digest() == link.object_sha256
    content_key = recipient.open(link.content_key_jwe)
    return jwe.decrypt_compact(sealed.decode(), OctKey.import_key(content_key)).plaintext


async def dump(database: OneDatabase) -> bytes:
    """Return every row of every table as text; bytes also as they are."""
    tables = await fetch(database.superuser_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    parts: list[bytes] = []
    for name in (table["tablename"] for table in tables):
        texts = await fetch(database.superuser_url, f"SELECT {name}::text AS row FROM {name}")  # noqa: S608 # from the catalogue
        parts += [str(row["row"]).encode() for row in texts]
        for row in await fetch(database.superuser_url, f"TABLE {name}"):
            parts += [value for value in row.values() if isinstance(value, bytes)]
    return b"\n".join(parts)
