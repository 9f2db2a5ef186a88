"""The real servers as the sandbox starts them: started, used, killed, stopped; what was stored is there again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import boto3
import httpx
import nats
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from sandbox.child import Child, StartFailed
from sandbox.ledger import Ledger
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import DATABASES, PostgresServer, database_url, provision, role_names
from sandbox.servers.s3 import REGION, S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PASSWORD = "p@ss/w:rd"
ROLE_PASSWORDS = {role: f"{role}'s \\ password" for role in role_names()}
S3_ACCESS, S3_SECRET = "test-access", "test-secret-key"


@pytest.fixture
def private_folder(tmp_path: Path) -> Path:
    """Give a folder that only its owner may enter, as homes and temporary folders are."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


def wait_for_end(process: Child | PostgresServer) -> None:
    while process.is_running:
        time.sleep(0.01)


def start_patiently(server: PostgresServer) -> None:
    """Start it as the supervisor does: again and again, since what a killed server left has to go first."""
    for attempt in range(50):
        try:
            server.start()
        except StartFailed:
            time.sleep(0.1 if attempt < 49 else 0)
        else:
            return


def sleeper(name: str, folder: Path, ledger: Ledger | None = None, code: str = "import time; time.sleep(600)") -> Child:
    return Child(name, [sys.executable, "-c", code], environment={}, log=folder / f"{name}.log", ledger=ledger)


async def test_postgres_keeps_its_data_and_asks_for_passwords(private_folder: Path) -> None:
    first = PostgresServer(private_folder, password=PASSWORD)
    first.start()
    try:
        connection = await asyncpg.connect(first.url)
        assert (await connection.fetchval("SHOW server_version")).startswith("18")
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(database_url(first.url, "postgres", "postgres", "wrong"))
    finally:
        first.stop()
    assert not first.is_running
    second = PostgresServer(private_folder, password=PASSWORD)
    second.start()
    try:
        connection = await asyncpg.connect(second.url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()
    finally:
        second.stop()


async def test_postgres_comes_back_after_a_kill(private_folder: Path) -> None:
    server = PostgresServer(private_folder, password=PASSWORD)
    server.start()
    try:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        wait_for_end(server)
        connection.terminate()
        start_patiently(server)
        assert server.pid != killed
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()
    finally:
        server.stop()


async def test_each_role_reaches_its_own_database_only(private_folder: Path) -> None:
    server = PostgresServer(private_folder, password=PASSWORD)
    server.start()
    try:
        for _ in range(2):
            await provision(server.url, ROLE_PASSWORDS)
        for database in DATABASES:
            owner = f"{database}_migrator"
            connection = await asyncpg.connect(database_url(server.url, database, owner, ROLE_PASSWORDS[owner]))
            await connection.execute("CREATE TABLE owned (id int)")
            await connection.close()
            service = f"{database}_service"
            connection = await asyncpg.connect(database_url(server.url, database, service, ROLE_PASSWORDS[service]))
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SELECT * FROM owned")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("CREATE TABLE mine (id int)")
            await connection.close()
        foreign = database_url(server.url, "audit", "vault_service", ROLE_PASSWORDS["vault_service"])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(foreign)
    finally:
        server.stop()


async def test_nats_keeps_its_streams(private_folder: Path) -> None:
    first = NatsServer(private_folder)
    first.start()
    try:
        client = await nats.connect(first.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
        await client.jetstream().publish("kept.one", b"1")
        await client.close()
    finally:
        first.stop()
    second = NatsServer(private_folder)
    second.start()
    try:
        client = await nats.connect(second.url)
        assert (await client.jetstream().get_last_msg("KEPT", "kept.one")).data == b"1"
        await client.close()
    finally:
        second.stop()


def test_s3_enforces_what_r2_does_and_keeps_its_objects(private_folder: Path) -> None:
    def client_of(server: S3Server, secret: str = S3_SECRET) -> "S3Client":
        return boto3.client(
            "s3",
            endpoint_url=server.url,
            aws_access_key_id=S3_ACCESS,
            aws_secret_access_key=secret,
            region_name=REGION,
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
        )

    first = S3Server(private_folder, access_key_id=S3_ACCESS, secret_access_key=S3_SECRET)
    first.start()
    try:
        client = client_of(first)
        client.create_bucket(Bucket="keys")
        client.put_object(Bucket="keys", Key="one", Body=b"ciphertext", IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            client.put_object(Bucket="keys", Key="one", Body=b"another", IfNoneMatch="*")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client_of(first, "wrong").get_object(Bucket="keys", Key="one")
        one = {"Bucket": "keys", "Key": "one"}
        lasting = client.generate_presigned_url("get_object", Params=one, ExpiresIn=600)
        ending = client.generate_presigned_url("get_object", Params=one, ExpiresIn=1)
        time.sleep(2.1)
        assert httpx.get(lasting, trust_env=False).content == b"ciphertext"
        assert httpx.get(ending, trust_env=False).status_code == 403
        client.close()
    finally:
        first.stop()
    second = S3Server(private_folder, access_key_id=S3_ACCESS, secret_access_key=S3_SECRET)
    second.start()
    try:
        client = client_of(second)
        assert client.get_object(Bucket="keys", Key="one")["Body"].read() == b"ciphertext"
        client.close()
    finally:
        second.stop()
    assert not list(Path("/tmp").glob(f"seaweedfs-*-grpc-{second.port}*.sock"))  # noqa: S108 # where it leaves them


def test_a_program_that_ends_while_starting_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = sleeper("broken", tmp_path, code="print('no such setting')")
    child.start()
    wait_for_end(child)
    with pytest.raises(StartFailed, match="no such setting"):
        child.check_running()


def test_a_stubborn_program_is_ended(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    child = Child(
        "stubborn", [sys.executable, "-c", code], environment={}, log=tmp_path / "stubborn.log", stop_seconds=0.2
    )
    child.start()
    while "deaf" not in (tmp_path / "stubborn.log").read_text():
        time.sleep(0.01)
    child.stop()
    assert child.exit_status == -signal.SIGKILL


def test_a_program_goes_with_the_ones_it_has_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time;"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(inner.pid, flush=True); time.sleep(600)"
    )
    child = sleeper("parent", tmp_path, code=code)
    child.start()
    while not (tmp_path / "parent.log").read_text().strip():
        time.sleep(0.01)
    inner = int((tmp_path / "parent.log").read_text())
    child.stop()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{inner}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{inner}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{inner}").exists()


def test_leftovers_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "started.json")
    ours, ended = sleeper("ours", tmp_path, ledger), sleeper("ended", tmp_path, ledger)
    ours.start()
    ended.start()
    ended.stop()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        # The id of a process of ours that died long ago, given to somebody else since.
        path = tmp_path / "started.json"
        path.write_text(
            path.read_text().replace(
                "[", f'[{{"name": "x", "pid": {stranger.pid}, "began": 5.0, "stop_signal": 9}}, ', 1
            )
        )
        stopped = Ledger(path).stop_leftovers(grace_seconds=5)
        assert [started.name for started in stopped] == ["ours"]
        assert not ours.is_running
        assert stranger.poll() is None
        assert Ledger(path).leftovers() == []
    finally:
        stranger.kill()
        stranger.wait()
        ours.stop()


def test_a_leftover_that_does_not_listen_is_ended(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "started.json")
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    child = sleeper("deaf", tmp_path, ledger, code)
    child.start()
    while "deaf" not in (tmp_path / "deaf.log").read_text():
        time.sleep(0.01)
    Ledger(tmp_path / "started.json").stop_leftovers(grace_seconds=0.2)
    assert child.exit_status == -signal.SIGKILL


def test_processes_that_choose_ports_at_once_never_choose_the_same() -> None:
    script = "from sandbox.ports import free_port; print(*(free_port() for _ in range(300)), flush=True); input()"
    choosing = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    chosen = [set(map(int, process.stdout.readline().split())) for process in choosing if process.stdout]
    for process in choosing:
        process.communicate("\n", timeout=20)
    assert [len(ports) for ports in chosen] == [300] * 3
    assert len(set.union(*chosen)) == 900
