"""Keys that are taken back and keys that are uploaded, over mutual TLS, with real PostgreSQL, NATS, S3 and audit.

KEYFERRY_PROOF=full lets 1,000 keys be opened and revoked at the same time.
"""

import asyncio
import json
import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.errors import RemoteError
from keyferry.vault.v1 import vault_service_pb2 as pb

from tests.integration.real_servers import eventually, fetch
from tests.integration.vault_replicas import (
    GAME_KEY,
    Bench,
    a_seal,
    a_wish,
    dump,
    fetch_and_open,
    make_bench,
    run_audit,
)
from tests.unit.vault.fakes import Recipient
from tests.unit.vault.jose_by_hand import write_agreed

if TYPE_CHECKING:
    from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceAsyncStub

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
KEYS = 1000 if FULL else 100
# Calls at the same time to each replica: as many as it has connections to its database, and some that wait.
AT_ONCE = 12

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)


def revocation(*key_ids: str, request_id: str = "") -> pb.RevokeKeysRequest:
    return pb.RevokeKeysRequest(
        request_id=request_id or str(uuid.uuid4()), order_id="order-1", key_ids=key_ids, reason="refunded"
    )


def shredding(key_id: str, request_id: str = "") -> pb.ShredKeyRequest:
    return pb.ShredKeyRequest(
        request_id=request_id or str(uuid.uuid4()), order_id="order-1", key_id=key_id, reason="given back"
    )


async def refused(call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        await call
    return raised.value


# Uploads


async def upload(fulfillment: "VaultServiceAsyncStub", plaintext: bytes = GAME_KEY, **changes: Any) -> pb.SealedKey:
    """Do what the admin's page does, and then what fulfillment does."""
    public = json.loads((await fulfillment.GetUploadKey(pb.GetUploadKeyRequest())).upload_jwk)
    request = a_seal("manual:1", b"")
    bound = {"order_id": request.order_id, "item_id": request.item_id, "request_id": request.request_id}
    request.key_jwe = write_agreed({"kid": public["kid"], **bound, **changes}, plaintext, public)
    return (await fulfillment.SealKey(request)).key


async def test_an_uploaded_key_is_opened_by_its_owner_on_any_replica(bench: Bench) -> None:
    one, two, recipient = await bench.here(), await bench.here(), Recipient()
    fulfillment = await bench.call("fulfillment", one)
    sealed = await upload(fulfillment)
    assert sealed.state == pb.STATE_SEALED
    assert await upload(await bench.call("fulfillment", two)) == sealed, "every replica has the same upload key"
    link = await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(sealed.key_id, recipient)))
    assert await fetch_and_open(link, recipient) == GAME_KEY
    assert GAME_KEY not in await dump(bench.database)


async def test_an_upload_for_another_line_or_that_does_not_open_is_refused_and_nothing_is_stored(bench: Bench) -> None:
    fulfillment = await bench.call("fulfillment", await bench.here())
    mismatch = await refused(upload(fulfillment, item_id="item-2"))
    assert (mismatch.code, mismatch.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_MISMATCH")
    assert [fault.field for fault in mismatch.field_violations] == ["item_id"]
    unreadable = await refused(upload(fulfillment, kid="v9"))
    assert (unreadable.code, unreadable.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_UNREADABLE")
    assert await fetch(bench.database.superuser_url, "TABLE sealed_key") == []


# Taking back


async def test_a_key_is_revoked_shredded_and_gone_and_audit_knows(bench: Bench) -> None:
    here = await bench.here()
    sealed = (await (await bench.call("kinguin-gateway", here)).SealKey(a_seal())).key
    fulfillment = await bench.call("fulfillment", here)
    assert (await refused(fulfillment.ShredKey(shredding(sealed.key_id)))).reason == "KEY_NOT_REVOKED"
    request = revocation(sealed.key_id)
    first = await fulfillment.RevokeKeys(request)
    assert await fulfillment.RevokeKeys(request) == first
    reused = await refused(fulfillment.ShredKey(shredding(sealed.key_id, request.request_id)))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    wish = a_wish(sealed.key_id, Recipient())
    error = await refused(fulfillment.RevealKey(pb.RevealKeyRequest(**wish)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_REVOKED")
    for _ in range(2):
        shredded = (await fulfillment.ShredKey(shredding(sealed.key_id))).key
        assert shredded.state == pb.STATE_SHREDDED
        assert bench.objects() == {}
    (row,) = await fetch(bench.database.superuser_url, "SELECT wrapped_dek, kek_version FROM sealed_key")
    assert (row["wrapped_dek"], row["kek_version"]) == (None, None)
    assert (await fulfillment.GetKey(pb.GetKeyRequest(key_id=sealed.key_id))).key == shredded
    listed = await fulfillment.ListKeys(pb.ListKeysRequest(order_id="order-1"))
    assert list(listed.keys) == [shredded]
    actions = await bench.audit_actions(sealed.key_id, at_least=3)
    assert sorted(actions) == ["key.revoked", "key.sealed", "key.shredded"]
    events = await fetch(bench.database.superuser_url, "SELECT 1 FROM outbox WHERE subject = 'vault.key.shredded'")
    assert len(events) == 1


async def test_an_opened_key_keeps_all_from_being_revoked_and_cannot_be_shredded(bench: Bench) -> None:
    here = await bench.here()
    gateway, fulfillment = await bench.call("kinguin-gateway", here), await bench.call("fulfillment", here)
    opened, other = [
        (await gateway.SealKey(a_seal(f"kinguin:1:{number}", GAME_KEY + bytes([65 + number])))).key.key_id
        for number in range(2)
    ]
    await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(opened, Recipient())))
    error = await refused(fulfillment.RevokeKeys(revocation(opened, other)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_OPENED")
    assert error.metadata == {"opened_key_ids": opened, "opened_count": "1"}
    assert (await refused(fulfillment.ShredKey(shredding(opened)))).reason == "KEY_OPENED"
    assert (await fulfillment.GetKey(pb.GetKeyRequest(key_id=opened))).key.HasField("open_time")
    assert (await fulfillment.GetKey(pb.GetKeyRequest(key_id=other))).key.state == pb.STATE_SEALED


@pytest.mark.parametrize("step", ["before_commit", "before_delete", "after_delete"])
async def test_a_killed_shredding_is_finished_by_the_repeat(bench: Bench, step: str) -> None:
    dying, address = bench.start(failpoints=f"vault.shred.{step}=crash")
    sealed = (await (await bench.call("kinguin-gateway", address)).SealKey(a_seal())).key
    fulfillment = await bench.call("fulfillment", address)
    await fulfillment.RevokeKeys(revocation(sealed.key_id))
    request = shredding(sealed.key_id)
    assert (await refused(fulfillment.ShredKey(request))).code is grpc.StatusCode.UNAVAILABLE
    await eventually(dying.has_ended)
    here = await bench.call("fulfillment", await bench.here())
    assert (await here.ShredKey(request)).key.state == pb.STATE_SHREDDED
    assert bench.objects() == {}


async def test_a_killed_release_is_either_opened_or_can_be_revoked(bench: Bench) -> None:
    _, address = bench.start(failpoints="vault.release.before_commit=crash")
    sealed = (await (await bench.call("kinguin-gateway", address)).SealKey(a_seal())).key
    wish = pb.RevealKeyRequest(**a_wish(sealed.key_id, Recipient()))
    assert (await refused((await bench.call("fulfillment", address)).RevealKey(wish))).code.name == "UNAVAILABLE"
    here = await bench.call("fulfillment", await bench.here())
    await here.RevokeKeys(revocation(sealed.key_id))
    assert (await refused(here.RevealKey(wish))).reason == "KEY_REVOKED"


async def test_a_thousand_keys_are_revoked_at_once_and_named_in_part_where_they_cannot_be(bench: Bench) -> None:
    fulfillment = await bench.call("fulfillment", await bench.here())
    rows = (
        "INSERT INTO sealed_key (key_id, source_ref, seal_request_id, order_id, item_id, order_digest, owner_digest,"
        " content_type, fingerprint, wrapped_dek, kek_version, state, object_sha256, seal_time)"
        " SELECT md5(n::text), n, n, 'order-1', 'i', 'v1.o', 'v1.c', 'text/plain', n, repeat('x', 60)::bytea, 'v1',"
        " 'SEALED', repeat('x', 32)::bytea, now() FROM generate_series(1, 1000) AS n"
    )
    await fetch(bench.database.superuser_url, rows)
    key_ids = [row["key_id"] for row in await fetch(bench.database.superuser_url, "SELECT key_id FROM sealed_key")]
    await fetch(bench.database.superuser_url, "UPDATE sealed_key SET open_time = now()")
    error = await refused(fulfillment.RevokeKeys(revocation(*key_ids)))
    assert (error.reason, error.metadata["opened_count"]) == ("KEY_OPENED", "1000")
    missing = await refused(fulfillment.RevokeKeys(revocation(*(f"x{key_id}" for key_id in key_ids))))
    assert missing.reason == "KEY_NOT_FOUND"
    await fetch(bench.database.superuser_url, "UPDATE sealed_key SET open_time = NULL")
    revoked = await fulfillment.RevokeKeys(revocation(*key_ids))
    assert {key.state for key in revoked.keys} == {pb.STATE_REVOKED}
    listed = await fulfillment.ListKeys(pb.ListKeysRequest(page_size=1000))
    assert ({key.key_id for key in listed.keys}, listed.next_page_token) == (set(key_ids), "")


async def wins(call: Any, *, loses_by: str) -> bool:
    try:
        await call
    except RemoteError as error:
        if error.reason != loses_by:
            raise
        return False
    return True


class Race:
    """Opens each key over one replica, revokes it over another, and tells of each whether it was opened and revoked."""

    def __init__(self, one: "VaultServiceAsyncStub", two: "VaultServiceAsyncStub", key_ids: Sequence[str]) -> None:
        self._one = one
        self._two = two
        self._key_ids = key_ids
        self._recipient = Recipient()
        # A release has more to do than a revocation, which would always come first. So each key is revoked when the
        # release of its neighbour, which began just before its own, is over.
        self._over = [asyncio.Event() for _ in key_ids]

    async def run(self, places: asyncio.Semaphore) -> list[tuple[bool, bool]]:
        async def one_key(number: int) -> tuple[bool, bool]:
            async with places:
                opened, revoked = await asyncio.gather(self._open(number), self._revoke(number))
                return opened, revoked

        return await asyncio.gather(*(one_key(number) for number in range(len(self._key_ids))))

    async def _open(self, number: int) -> bool:
        wish = a_wish(self._key_ids[number], self._recipient)
        if number % 2:
            call: Any = self._one.RevealKey(pb.RevealKeyRequest(**wish))
        else:
            call = self._one.CreateDownloadLink(pb.CreateDownloadLinkRequest(**wish))
        try:
            return await wins(call, loses_by="KEY_REVOKED")
        finally:
            self._over[number].set()

    async def _revoke(self, number: int) -> bool:
        if number:
            await self._over[number - 1].wait()
        return await wins(self._two.RevokeKeys(revocation(self._key_ids[number])), loses_by="KEY_OPENED")


async def test_of_opening_and_revoking_at_once_on_two_replicas_one_wins_for_every_key(bench: Bench) -> None:
    addresses = [await bench.here(), await bench.here()]
    gateway = await bench.call("kinguin-gateway", addresses[0])
    one, two = [await bench.call("fulfillment", address) for address in addresses]
    places = asyncio.Semaphore(AT_ONCE)

    async def seal(number: int) -> str:
        async with places:
            request = a_seal(f"kinguin:1:{number}", f"KEY-{number:05}".encode())
            return (await gateway.SealKey(request)).key.key_id

    key_ids = await asyncio.gather(*(seal(number) for number in range(KEYS)))
    results = await Race(one, two, key_ids).run(places)
    assert [opened + revoked for opened, revoked in results] == [1] * KEYS
    rows = await fetch(bench.database.superuser_url, "SELECT key_id, state, open_time FROM sealed_key")
    stored = {row["key_id"]: (row["open_time"] is not None, row["state"] == "REVOKED") for row in rows}
    assert [stored[key_id] for key_id in key_ids] == results
    told = await fetch(
        bench.database.superuser_url, "SELECT headers ->> 'ce-subject' AS key FROM outbox WHERE subject LIKE 'vault.%'"
    )
    assert sorted(row["key"] for row in told) == sorted(
        key_id for key_id, (opened, _) in zip(key_ids, results, strict=True) if opened
    )
    print(f"{KEYS} keys: {sum(opened for opened, _ in results)} opened, the others revoked")  # noqa: T201 # for `make proof`
