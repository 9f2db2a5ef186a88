"""Checkpoints and proofs as the service gives them: a real store, replicas that die, a log that was tampered with."""

import asyncio
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import grpc
import pytest
from audit.adapters.ed25519 import Ed25519Notary
from audit.adapters.r2 import R2Checkpoints
from audit.domain.checkpoint import Checkpoint, read_checkpoint
from audit.domain.tree import is_consistent
from audit.errors import CheckpointStoreUnavailable
from audit.ports import CheckpointExists, CheckpointMissing, CheckpointStore
from botocore.config import Config
from chassis.channel import open_channel
from chassis.errors import RemoteError
from chassis.keyring import Keyring
from chassis.tls import TlsFiles
from keyferry.audit.v1 import audit_service_pb2 as pb
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from keyferry.type.v1 import actor_pb2
from pymerkle import InmemoryTree
from sandbox.pki import Identity
from sandbox.ports import free_port
from sandbox.servers.s3 import S3Server

from tests.integration.audit_replicas import CHECKPOINT_SECRET, ORIGIN, checkpoint_settings, log_size, tamper
from tests.integration.conftest import S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, ServiceProcess, eventually, fetch
from tests.unit.audit.memory_tree import MemoryCheckpoints

if TYPE_CHECKING:
    from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceAsyncStub
    from mypy_boto3_s3 import S3Client

NOTARY = Ed25519Notary(ORIGIN, Keyring.parse(CHECKPOINT_SECRET))
VAULT = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="vault")
Finding = pb.LogVerdict


@pytest.fixture
def bucket() -> str:
    return f"checkpoints-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator["S3Client"]:
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.url,
        aws_access_key_id=S3_ACCESS_KEY_ID,
        aws_secret_access_key=S3_SECRET_ACCESS_KEY,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    yield client
    client.close()


def r2(server: S3Server, bucket: str, **changes: str) -> R2Checkpoints:
    good = {
        "endpoint": server.url,
        "bucket": bucket,
        "access_key_id": S3_ACCESS_KEY_ID,
        "secret_access_key": S3_SECRET_ACCESS_KEY,
    }
    return R2Checkpoints(**(good | changes))


# The port


@pytest.fixture(params=["memory", "s3"])
async def store(request: pytest.FixtureRequest, bucket: str) -> CheckpointStore:
    if request.param == "memory":
        return MemoryCheckpoints()
    found = r2(request.getfixturevalue("s3_server"), bucket)
    # The first look makes the bucket.
    assert await found.newest_size() is None
    return found


async def test_a_size_is_published_once_and_read_as_it_was_published(store: CheckpointStore) -> None:
    await store.publish(7, "first — \n")
    for again in ("second", "first — \n"):
        with pytest.raises(CheckpointExists):
            await store.publish(7, again)
    assert await store.read(7) == "first — \n"
    with pytest.raises(CheckpointMissing):
        await store.read(8)


async def test_of_many_who_publish_one_size_at_once_one_succeeds(store: CheckpointStore) -> None:
    notes = [f"replica {number}" for number in range(6)]
    results = await asyncio.gather(*(store.publish(5, note) for note in notes), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["CheckpointExists"] * 5 + ["NoneType"]
    assert await store.read(5) == notes[results.index(None)]


async def test_the_newest_is_the_largest_and_all_are_told_in_the_order_of_size(store: CheckpointStore) -> None:
    assert await store.newest_size() is None
    assert [note async for note in store.notes()] == []
    sizes = [1, 9, 10, 999, 1_000, 1_001, 25_000, 999_999, 1_000_000, 12_345_678_901]
    for size in sizes[::-1]:
        await store.publish(size, f"of {size}")
    assert await store.newest_size() == sizes[-1]
    assert [note async for note in store.notes()] == [(size, f"of {size}") for size in sizes]


async def test_names_sort_as_sizes_do_and_what_is_not_ours_hides_nothing(
    s3_server: S3Server, s3: "S3Client", bucket: str
) -> None:
    store = r2(s3_server, bucket)
    assert await store.newest_size() is None
    await store.publish(1234, "ours")
    for name in ("checkpoints/zzz/1", "checkpoints/000/000/000/001/zzz", "other"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"not ours")
    listed = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert "checkpoints/000/000/000/001/234" in listed
    assert await store.newest_size() == 1234
    assert sorted({note async for note in store.notes()}) == [(0, "not ours"), (1234, "ours")]


async def test_a_store_that_is_not_there_or_lets_nobody_in_is_unavailable(s3_server: S3Server, bucket: str) -> None:
    for locked in (
        r2(s3_server, bucket, endpoint=f"http://127.0.0.1:{free_port()}"),
        r2(s3_server, bucket, secret_access_key="wrong"),
    ):
        with pytest.raises(CheckpointStoreUnavailable):
            await locked.newest_size()
        with pytest.raises(CheckpointStoreUnavailable):
            await locked.publish(1, "note")
        with pytest.raises(CheckpointStoreUnavailable):
            await locked.read(1)
        with pytest.raises(CheckpointStoreUnavailable):
            await anext(locked.notes())


# The service


class System:
    """A database and a bucket, replicas on them, and what a caller and an attacker do."""

    def __init__(
        self, database: OneDatabase, pki: Mapping[str, Identity], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.database = database
        self.environment = environment
        self._pki = pki
        self._folder = folder
        self.replicas: dict[str, ServiceProcess] = {}

    def start(self, *, failpoints: str = "", ready: bool = True, **changes: str) -> str:
        """Start a replica and give its address. The log has at least one entry then: what it was told."""
        address = f"127.0.0.1:{free_port()}"
        told = {**self.environment, "KEYFERRY_GRPC_LISTEN": address, "KEYFERRY_FAILPOINTS": failpoints, **changes}
        process = ServiceProcess("audit", self._folder, told)
        self.replicas[address] = process
        process.start()
        if ready:
            process.wait_ready()
        return address

    @asynccontextmanager
    async def calling(self, *addresses: str, identity: str = "edge") -> AsyncIterator["AuditServiceAsyncStub"]:
        async with open_channel(
            list(addresses) or list(self.replicas), peer="audit", tls=TlsFiles(self._pki[identity].folder)
        ) as channel:
            yield AuditServiceStub(channel)

    async def fill(self, stub: "AuditServiceAsyncStub", size: int) -> None:
        """Append until the log has so many entries, whatever replicas have told of themselves."""
        await self.append(stub, size - await log_size(self.database))

    async def append(self, stub: "AuditServiceAsyncStub", count: int) -> None:
        requests = [
            pb.AppendEntryRequest(request_id=str(uuid.uuid4()), actor=VAULT, action="key.sealed") for _ in range(count)
        ]
        await asyncio.gather(*(stub.AppendEntry(request) for request in requests))

    async def canonical(self) -> list[bytes]:
        rows = await fetch(self.database.superuser_url, "SELECT canonical FROM entry ORDER BY sequence")
        return [row["canonical"].encode() for row in rows]

    async def tamper(self, statement: str) -> None:
        await tamper(self.database, statement)

    def metric(self, address: str, name: str) -> float:
        port = self.replicas[address].private_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@pytest.fixture
async def system(  # noqa: PLR0917 # fixtures
    postgres: Postgres, streams: str, s3_server: S3Server, pki: Mapping[str, Identity], tmp_path: Path, bucket: str
) -> AsyncIterator[System]:
    database = await postgres.make_database("audit", REPOSITORY / "services" / "audit" / "migrations")
    environment = {
        "KEYFERRY_TLS_DIR": str(pki["audit"].folder),
        "DATABASE_URL": database.service_url,
        "NATS_URL": streams,
        "KEYFERRY_AUDIT_SECRET": CHECKPOINT_SECRET,
        **checkpoint_settings(
            KEYFERRY_CHECKPOINT_SECONDS="0.2",
            KEYFERRY_CHECKPOINT_BUCKET=bucket,
            R2_ENDPOINT=s3_server.url,
            R2_ACCESS_KEY_ID=S3_ACCESS_KEY_ID,
            R2_SECRET_ACCESS_KEY=S3_SECRET_ACCESS_KEY,
        ),
    }
    system = System(database, pki, tmp_path, environment)
    yield system
    for replica in system.replicas.values():
        replica.stop()


async def newest(store: R2Checkpoints) -> Checkpoint | None:
    size = await store.newest_size()
    return read_checkpoint(NOTARY.open(await store.read(size))) if size else None


async def wait_published(store: R2Checkpoints, size: int) -> Checkpoint:
    async def there() -> bool:
        found = await newest(store)
        return found is not None and found.size >= size

    await eventually(there)
    found = await newest(store)
    assert found is not None
    return found


async def verdict(stub: "AuditServiceAsyncStub") -> pb.VerifyLogResponse:
    return [response async for response in stub.VerifyLog(pb.VerifyLogRequest())][-1]


async def test_an_entry_is_proven_under_a_signed_checkpoint_by_an_implementation_of_others(
    system: System, s3_server: S3Server, bucket: str
) -> None:
    replicas = [system.start(), system.start()]
    async with system.calling() as stub:
        await system.fill(stub, 30)
        checkpoint = await stub.GetCheckpoint(pb.GetCheckpointRequest())
        await system.fill(stub, 50)
        later = await stub.GetCheckpoint(pb.GetCheckpointRequest())
        between = pb.GetConsistencyProofRequest(first_tree_size=30, second_tree_size=50)
        consistency = (await stub.GetConsistencyProof(between)).hashes
        oracle = InmemoryTree()
        for canonical in await system.canonical():
            oracle.append_entry(canonical)
        for sequence in (0, 7, 29):
            asked = pb.GetInclusionProofRequest(sequence=sequence, tree_size=30)
            proof = await stub.GetInclusionProof(asked)
            assert [proof.leaf_hash, *proof.hashes] == oracle.prove_inclusion(sequence + 1, 30).path
            assert proof.ByteSize() <= 2048
        sound = await verdict(stub)
    assert (checkpoint.tree_size, checkpoint.root_hash) == (30, oracle.get_root(30))
    assert read_checkpoint(NOTARY.open(checkpoint.note)) == Checkpoint(ORIGIN, 30, oracle.get_root(30))
    assert list(checkpoint.verifier_keys) == NOTARY.verifier_keys
    assert is_consistent(30, checkpoint.root_hash, 50, later.root_hash, list(consistency))
    store = r2(s3_server, bucket)
    assert await wait_published(store, 50) == Checkpoint(ORIGIN, 50, oracle.get_root(50))
    published = [read_checkpoint(NOTARY.open(note)) async for _, note in store.notes()]
    assert all(each.root == oracle.get_root(each.size) for each in published)
    assert (sound.verdict.finding, sound.verified_entries) == (Finding.FINDING_SOUND, 50)
    assert not sound.verdict.HasField("bad_sequence")
    assert sound.verdict.root_hash == oracle.get_root(50)
    assert all(system.metric(replica, "keyferry_audit_log_inconsistent") == 0 for replica in replicas)
    assert NOTARY.verifier_keys[0] in system.replicas[replicas[0]].log.read_text()
    assert CHECKPOINT_SECRET.partition(":")[2] not in system.replicas[replicas[0]].log.read_text()


async def test_bad_questions_get_clear_answers(system: System) -> None:
    system.start()
    async with system.calling() as edge, system.calling(identity="vault") as vault:
        await system.fill(edge, 3)
        with pytest.raises(RemoteError) as beyond:
            await edge.GetInclusionProof(pb.GetInclusionProofRequest(sequence=3, tree_size=3))
        with pytest.raises(RemoteError) as larger:
            await edge.GetConsistencyProof(pb.GetConsistencyProofRequest(first_tree_size=1, second_tree_size=4))
        with pytest.raises(RemoteError) as refused:
            await vault.GetCheckpoint(pb.GetCheckpointRequest())
        with pytest.raises(RemoteError) as walked:
            await anext(aiter(vault.VerifyLog(pb.VerifyLogRequest())))
    assert beyond.value.field_violations[0].field == "sequence"
    assert (larger.value.code, larger.value.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TREE_TOO_SMALL")
    assert larger.value.metadata == {"tree_size": "3"}
    assert refused.value.code is walked.value.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("step", ["before_publish", "after_publish"])
async def test_a_crash_around_the_publishing_loses_no_entry_and_the_next_replica_publishes(
    system: System, s3_server: S3Server, bucket: str, step: str
) -> None:
    # It dies of the first entry, which is its own.
    dying = system.start(failpoints=f"audit.checkpoint.{step}=crash", ready=False)
    await eventually(system.replicas[dying].has_ended)
    assert system.replicas[dying].exit_status == 137
    store = r2(s3_server, bucket)
    assert await store.newest_size() == (1 if step == "after_publish" else None)
    alive = system.start()
    size = await log_size(system.database) + 1
    async with system.calling(alive) as stub:
        await system.fill(stub, size)
        assert (await verdict(stub)).verdict.finding == Finding.FINDING_SOUND
    assert (await wait_published(store, size)).size == size
    assert system.metric(alive, "keyferry_audit_log_inconsistent") == 0


async def test_appends_go_on_while_the_store_is_away_and_the_age_tells(system: System) -> None:
    replica = system.start(R2_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    async with system.calling(replica) as stub:
        await system.fill(stub, 5)
        with pytest.raises(RemoteError) as raised:
            await stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=20)
    assert raised.value.reason == "CHECKPOINT_STORE_UNAVAILABLE"
    assert system.metric(replica, "keyferry_audit_checkpoint_age_seconds") > 0
    assert len(await system.canonical()) == 5


async def test_a_log_that_was_cut_is_found_out_and_nothing_more_is_signed_or_taken(
    system: System, s3_server: S3Server, bucket: str
) -> None:
    replica = system.start()
    store = r2(s3_server, bucket)
    async with system.calling() as stub:
        await system.fill(stub, 12)
        await wait_published(store, 12)
        await system.tamper("DELETE FROM entry WHERE sequence >= 8")
        found = (await verdict(stub)).verdict
        assert (found.finding, found.bad_sequence, found.checkpoint_size) == (Finding.FINDING_LOG_TRUNCATED, 8, 12)
        with pytest.raises(RemoteError) as unsigned:
            await stub.GetCheckpoint(pb.GetCheckpointRequest())
        # Its place is taken by a hash of what was cut off.
        with pytest.raises(RemoteError) as refused:
            await system.append(stub, 2)

        async def alerted() -> bool:
            return system.metric(replica, "keyferry_audit_log_inconsistent") == 1

        await eventually(alerted)
    assert unsigned.value.reason == "LOG_INCONSISTENT"
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert "nothing is signed" in system.replicas[replica].log.read_text()
    assert await store.newest_size() == 12
