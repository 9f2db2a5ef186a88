"""DEKs that move to another KEK while keys are opened, on real PostgreSQL, S3, audit, and OpenBao.

KEYFERRY_PROOF=full moves 100,000 of them, within a minute, and once more through three deaths of the process.
"""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.errors import RemoteError
from chassis.settings import SettingsError
from keyferry.vault.v1 import vault_service_pb2 as pb

from tests.integration.openbao import MOUNT, running_openbao
from tests.integration.real_servers import ServiceProcess, eventually, fetch
from tests.integration.vault_many_keys import ManyKeys, game_key, seal_many
from tests.integration.vault_replicas import GAME_KEY, Bench, a_seal, a_wish, make_bench, run_audit
from tests.unit.vault.fakes import Recipient, a_secret

if TYPE_CHECKING:
    from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceAsyncStub

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
KEYS = 100_000 if FULL else 1_600
WITH_OBJECT = 300 if FULL else 12
MOST_SECONDS = 60
# In the short form they die of themselves, each time at the same place; at full size they are killed from outside.
DEATHS = (
    "vault.rewrap.move.before_commit=crash@2",
    "vault.rewrap.move.after_commit=crash",
    "vault.rewrap.move.before_commit=crash",
)
# Callers that open one key after the other.
CUSTOMERS = 3
PAUSE_SECONDS = 0.05
OLD = f"v1:{a_secret(1)}"
NEW = f"v2:{a_secret(20)}"

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)


def a_rewrap(**changes: str) -> pb.RewrapKeysRequest:
    return pb.RewrapKeysRequest(**{"request_id": str(uuid.uuid4()), "reason": "a rotation", **changes})


async def refused(call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        async for _ in call:
            pass
    return raised.value


async def reveal(stub: "VaultServiceAsyncStub", key_id: str) -> bytes:
    recipient = Recipient()
    revealed = await stub.RevealKey(pb.RevealKeyRequest(**a_wish(key_id, recipient)))
    return recipient.open(revealed.key_jwe)


@dataclass
class Customers:
    """People who open their keys all the time; any that does not open fails the test."""

    stub: "VaultServiceAsyncStub"
    keys: ManyKeys
    opened: int = 0

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._open(number)) for number in range(CUSTOMERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def _open(self, number: int) -> None:
        while True:
            key_id = self.keys.with_object[number % len(self.keys.with_object)]
            assert await reveal(self.stub, key_id) == game_key(key_id)
            self.opened += 1
            number += CUSTOMERS
            await asyncio.sleep(PAUSE_SECONDS)


async def rewrap_until(stub: "VaultServiceAsyncStub", done: int) -> int:
    """Watch a rewrap until so many are moved, or all are, and return how many that were."""
    moved = 0
    call = stub.RewrapKeys(a_rewrap())
    async for progress in call:
        moved = progress.done_count
        if moved >= done:
            break
    return moved


async def count_old(bench: Bench) -> int:
    (row,) = await fetch(bench.database.superuser_url, "SELECT count(*) AS n FROM sealed_key WHERE kek_version = 'v1'")
    return int(row["n"])


async def test_all_deks_move_while_keys_are_opened_and_the_old_kek_is_retired(bench: Bench) -> None:
    bench.s3.create_bucket(Bucket=bench.environment["R2_BUCKET"])
    keys = await seal_many(bench, KEYS, with_object=WITH_OBJECT)
    before = bench.objects()
    bench.environment["KEY_ENCRYPTION_SECRET"] = f"{NEW},{OLD}"
    _, address = bench.start()
    customers = Customers(await bench.call("fulfillment", address), keys)
    operator = await bench.call("operator", address)
    began = time.perf_counter()
    async with customers.opening():
        told = [progress async for progress in operator.RewrapKeys(a_rewrap(active_version="v2"))]
    took = time.perf_counter() - began
    print(f"rewrapped {KEYS} in {took:.1f} s while {customers.opened} keys were opened")  # noqa: T201 # the figures of a proof
    if FULL:
        assert took <= MOST_SECONDS
    assert customers.opened > 0
    assert (told[0].remaining_count, told[0].done_count) == (KEYS, 0)
    last = told[-1]
    assert (last.done_count, last.remaining_count, last.failed_count) == (KEYS, 0, 0)
    assert [
        (version.version, version.key_count, version.active, version.retirable) for version in last.kek_versions
    ] == [
        ("v2", KEYS, True, False),
        ("v1", 0, False, True),
    ]
    await keys.check_all_open(bench, NEW)
    assert bench.objects() == before
    bench.environment["KEY_ENCRYPTION_SECRET"] = NEW
    _, retired = bench.start()
    key_id = keys.with_object[0]
    assert await reveal(await bench.call("fulfillment", retired), key_id) == game_key(key_id)


async def test_a_rewrap_through_three_deaths_loses_no_key(bench: Bench) -> None:
    bench.s3.create_bucket(Bucket=bench.environment["R2_BUCKET"])
    keys = await seal_many(bench, KEYS, with_object=WITH_OBJECT)
    bench.environment["KEY_ENCRYPTION_SECRET"] = f"{NEW},{OLD}"
    _, beside = bench.start()
    moved_before_death = []
    async with Customers(await bench.call("fulfillment", beside), keys).opening():
        for number, death in enumerate(DEATHS):
            process, address = bench.start(failpoints="" if FULL else death)
            with suppress(RemoteError):
                most = 1 + KEYS * number // (2 * len(DEATHS)) if FULL else KEYS
                await rewrap_until(await bench.call("operator", address), most)
            if FULL:
                os.kill(process.pid, signal.SIGKILL)
            await eventually(process.has_ended)
            moved_before_death.append(KEYS - await count_old(bench))
        operator = await bench.call("operator", beside)
        last = [progress async for progress in operator.RewrapKeys(a_rewrap())][-1]
    print(f"moved before each death: {moved_before_death}, then {last.done_count}")  # noqa: T201 # the figures of a proof
    assert 0 < moved_before_death[0] < KEYS
    assert (last.remaining_count, last.failed_count) == (0, 0)
    assert last.done_count == KEYS - moved_before_death[-1]
    await keys.check_all_open(bench, NEW)


async def test_two_replicas_share_the_work(bench: Bench) -> None:
    bench.s3.create_bucket(Bucket=bench.environment["R2_BUCKET"])
    keys = await seal_many(bench, 1_000, with_object=0)
    bench.environment["KEY_ENCRYPTION_SECRET"] = f"{NEW},{OLD}"
    stubs = [await bench.call("operator", await bench.here()) for _ in range(2)]

    async def rewrap(stub: "VaultServiceAsyncStub") -> int:
        return [progress async for progress in stub.RewrapKeys(a_rewrap())][-1].done_count

    assert sum(await asyncio.gather(*map(rewrap, stubs))) == 1_000
    await keys.check_all_open(bench, NEW)


async def test_only_an_operator_rewraps_and_never_to_another_version_than_wanted(bench: Bench) -> None:
    here = await bench.here()
    denied = await refused((await bench.call("fulfillment", here)).RewrapKeys(a_rewrap()))
    assert denied.code == grpc.StatusCode.PERMISSION_DENIED
    operator = await bench.call("operator", here)
    other = await refused(operator.RewrapKeys(a_rewrap(active_version="v2")))
    assert (other.code, other.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEK_NOT_ACTIVE")
    bare = await refused(operator.RewrapKeys(pb.RewrapKeysRequest()))
    assert [fault.field for fault in bare.field_violations] == ["request_id", "reason"]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            "KEY_ENCRYPTION_SECRET",
            "KEY_ENCRYPTION_SECRET lacks the version v1, under which 1 key is wrapped; put it back",
        ),
        ("KEYFERRY_DIGEST_SECRET", "KEYFERRY_DIGEST_SECRET lacks the version v1, under which 1 key is recognized and"),
    ],
    ids=["kek", "digests"],
)
async def test_a_version_in_use_that_is_taken_away_keeps_vault_from_starting(
    bench: Bench, setting: str, told: str
) -> None:
    here = await bench.here()
    await (await bench.call("kinguin-gateway", here)).SealKey(a_seal())
    environment = {**bench.environment, setting: NEW, "KEYFERRY_GRPC_LISTEN": "127.0.0.1:0"}
    process = ServiceProcess("vault", bench.folder, environment)
    process.start()
    await eventually(process.has_ended)
    assert process.exit_status == 2
    said = process.log.read_text()
    assert told in said
    assert "Traceback" not in said
    assert a_secret(20) not in said


async def test_one_dek_that_was_changed_is_named_and_stops_no_other(bench: Bench) -> None:
    bench.s3.create_bucket(Bucket=bench.environment["R2_BUCKET"])
    await seal_many(bench, 5, with_object=0)
    statement = (
        "UPDATE sealed_key SET wrapped_dek = decode(repeat('00', 60), 'hex') "
        "WHERE key_id = (SELECT min(key_id) FROM sealed_key) RETURNING key_id"
    )
    (bad,) = await fetch(bench.database.superuser_url, statement)
    operator = await bench.call("operator", await bench.here(KEY_ENCRYPTION_SECRET=f"{NEW},{OLD}"))
    told = [progress async for progress in operator.RewrapKeys(a_rewrap())]
    assert [key_id for progress in told for key_id in progress.failed_key_ids] == [bad["key_id"]]
    assert (told[-1].done_count, told[-1].failed_count, told[-1].remaining_count) == (4, 1, 0)
    assert [version.retirable for version in told[-1].kek_versions] == [False, False]


async def test_keks_move_from_the_keyring_to_openbao_and_back(bench: Bench) -> None:
    before = await bench.here()
    key_id = (await (await bench.call("kinguin-gateway", before)).SealKey(a_seal())).key.key_id
    async with running_openbao(bench.folder) as server:
        key = await server.make_key()
        transit = {
            "KEYFERRY_TRANSIT_ADDRESS": server.address,
            "KEYFERRY_TRANSIT_TOKEN": await server.make_token(key),
            "KEYFERRY_TRANSIT_KEY": key,
            "KEYFERRY_TRANSIT_MOUNT": MOUNT,
        }
        moving = await bench.here(KEYFERRY_KEK="transit", **transit)
        customer = await bench.call("fulfillment", moving)
        assert await reveal(customer, key_id) == GAME_KEY
        operator = await bench.call("operator", moving)
        last = [progress async for progress in operator.RewrapKeys(a_rewrap())][-1]
        assert (last.active_version, last.done_count) == (f"transit:{key}:v1", 1)
        assert [version.version for version in last.kek_versions if version.retirable] == ["v1"]
        assert await reveal(customer, key_id) == GAME_KEY
        second = a_seal("kinguin:1:2", b"ANOTHER-KEY")
        other_id = (await (await bench.call("kinguin-gateway", moving)).SealKey(second)).key.key_id
        # Rotated in OpenBao and moved on, the old version is retired there, and the keyring's too.
        await server.rotate(key)
        last = [progress async for progress in operator.RewrapKeys(a_rewrap(active_version=f"transit:{key}:v2"))][-1]
        assert (last.done_count, last.failed_count) == (2, 0)
        await server.allow(key, min_decryption_version=2)
        retired = await bench.here(KEYFERRY_KEK="transit", KEY_ENCRYPTION_SECRET=NEW, **transit)
        assert await reveal(await bench.call("fulfillment", retired), other_id) == b"ANOTHER-KEY"
        other = {"KEYFERRY_TRANSIT_KEY": await server.make_key(), "KEYFERRY_TRANSIT_TOKEN": server.root_token}
        with pytest.raises(SettingsError, match=f"does not have the version transit:{key}:v2, under which 2 keys"):
            await bench.here(KEYFERRY_KEK="transit", **{**transit, **other})
        back = await bench.call("operator", await bench.here(KEY_ENCRYPTION_SECRET=NEW, **transit))
        assert [progress async for progress in back.RewrapKeys(a_rewrap())][-1].done_count == 2
    without = await bench.here(KEY_ENCRYPTION_SECRET=NEW)
    assert await reveal(await bench.call("fulfillment", without), key_id) == GAME_KEY
