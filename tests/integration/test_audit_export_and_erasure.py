"""Exporting and erasing over the wire, and the command line against a real service."""

import asyncio
import uuid
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from chassis.errors import RemoteError
from chassis.tls import TlsFiles
from cli.app import app
from cli.exporting import export_to
from keyferry.audit.v1 import audit_service_pb2 as pb
from sandbox.pki import Identity
from typer.testing import CliRunner

from tests.integration.audit_replicas import SETTINGS_CHANGED, log_size
from tests.integration.real_servers import OneDatabase
from tests.integration.test_audit_service import ALICE, VAULT, MakeReplica, a_request, stub_as
from tests.integration.test_audit_service import audit_database as audit_database  # noqa: PLC0414 # a fixture
from tests.integration.test_audit_service import make_replica as make_replica  # noqa: PLC0414 # a fixture
from tests.unit.cli.signed_notes import LogKey


def an_erasure(request_id: str, customer_id: str = "alice") -> pb.EraseCustomerRequest:
    return pb.EraseCustomerRequest(request_id=request_id, customer_id=customer_id, actor=VAULT)


async def test_a_customer_is_erased_once_and_only_by_who_may(
    make_replica: MakeReplica, pki: Mapping[str, Identity]
) -> None:
    replica, request_id = make_replica(), str(uuid.uuid4())
    async with stub_as(pki, "vault", replica) as vault, stub_as(pki, "shop", replica) as shop:
        await vault.AppendEntry(a_request())
        erased = await shop.EraseCustomer(an_erasure(request_id))
        assert erased == await shop.EraseCustomer(an_erasure(request_id))
        told, first, second = (await shop.ListEntries(pb.ListEntriesRequest())).entries
        assert told.action == SETTINGS_CHANGED
        assert first.actor.id.startswith("p-")
        assert (first.actor.email, first.actor.ip_address, first.actor.user_agent) == ("", "", "")
        assert (second.action, second.sequence, second.leaf_hash) == (
            "customer.erased",
            erased.sequence,
            erased.leaf_hash,
        )
        assert not (await shop.ListEntries(pb.ListEntriesRequest(actor_id="alice"))).entries
        with pytest.raises(RemoteError) as reused:
            await shop.EraseCustomer(an_erasure(request_id, "bob"))
        with pytest.raises(RemoteError) as denied:
            await vault.EraseCustomer(an_erasure(str(uuid.uuid4())))
        with pytest.raises(RemoteError) as about_a_customer:
            await shop.EraseCustomer(
                pb.EraseCustomerRequest(request_id=str(uuid.uuid4()), customer_id="alice", actor=ALICE)
            )
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert [violation.field for violation in about_a_customer.value.field_violations] == ["actor.type"]
    assert "alice" not in replica.process.log.read_text()


async def test_an_export_is_fetched_across_a_restart_and_is_what_was_signed(
    make_replica: MakeReplica, audit_database: OneDatabase, pki: Mapping[str, Identity], tmp_path: Path
) -> None:
    replica, key = make_replica(), LogKey()
    size = await log_size(audit_database) + 30
    async with stub_as(pki, "vault", replica) as vault, stub_as(pki, "shop", replica) as shop:
        await asyncio.gather(*(vault.AppendEntry(a_request(number)) for number in range(30)))
        listed = (await shop.ListEntries(pb.ListEntriesRequest(page_size=100))).entries
        part = [chunk async for chunk in shop.ExportEntries(pb.ExportEntriesRequest(start_sequence=size - 2))]
        with pytest.raises(RemoteError) as refused:
            async for _ in shop.ExportEntries(pb.ExportEntriesRequest(start_sequence=-1)):
                pass
    assert (part[0].first_sequence, part[-1].next_sequence) == (size - 2, size)
    assert refused.value.field_violations[0].field == "start_sequence"
    output, tls = tmp_path / "log.ndjson", TlsFiles(pki["shop"].folder)
    replica.process.stop()
    fetching = asyncio.create_task(export_to(output, addresses=[replica.address], tls=tls, end=None))
    await asyncio.sleep(0.2)
    again = make_replica(port=int(replica.address.rpartition(":")[2]))
    assert await fetching == size
    assert output.read_bytes() == b"".join(entry.canonical_entry + b"\n" for entry in listed)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(key.checkpoint_of([entry.canonical_entry for entry in listed]))
    arguments = ["--export", str(output), "--checkpoint", str(checkpoint), "--public-key", key.vkey]
    verified = CliRunner().invoke(app, ["audit", "verify", *arguments])
    assert verified.output == f"OK: {size} entries are those that were signed\n"
    identity = str(pki["shop"].folder)
    for end, status in (("7", 0), (str(size + 1), 1)):
        fetched = await asyncio.to_thread(
            CliRunner().invoke,
            app,
            [
                "audit",
                "export",
                "--address",
                again.address,
                "--identity",
                identity,
                "--output",
                str(output),
                "--end",
                end,
            ],
        )
        assert fetched.exit_code == status, fetched.output
    assert output.read_bytes().count(b"\n") == 7


async def test_an_export_is_for_those_who_may_read_the_log(
    make_replica: MakeReplica, pki: Mapping[str, Identity], tmp_path: Path
) -> None:
    replica = make_replica()
    with pytest.raises(RemoteError) as denied:
        await export_to(
            tmp_path / "log.ndjson", addresses=[replica.address], tls=TlsFiles(pki["vault"].folder), end=None
        )
    assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert not (tmp_path / "log.ndjson").exists()
