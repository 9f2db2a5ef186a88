import json
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from chassis.errors import InvalidRequest, MethodNotAllowed
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from vault.crypto import Kek
from vault.errors import KeyNotFound, KeyRevoked, ObjectStoreUnavailable
from vault.listing import KeyReader
from vault.sealing import Sealer, SealRequest
from vault.service import SERVICE_NAME, VaultServicer

from tests.unit.vault.callers import caller
from tests.unit.vault.fakes import GAME_KEY, World, a_keyring
from tests.unit.vault.jose_by_hand import write_agreed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

GATEWAY, FULFILLMENT = caller("kinguin-gateway"), caller("fulfillment")
ALICE = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="alice")


def seal_message() -> pb.SealKeyRequest:
    return pb.SealKeyRequest(
        request_id=str(uuid.uuid4()),
        source_ref="kinguin:1:1",
        order_id="order-1",
        item_id="item-1",
        customer_id="alice",
        content_type="text/plain",
        plaintext_key=GAME_KEY,
    )


def seal_message_from(source_ref: str) -> pb.SealKeyRequest:
    message = seal_message()
    message.source_ref = source_ref
    return message


@pytest.fixture
def servicer(world: World) -> VaultServicer:
    return world.servicer


def upload_message(world: World) -> pb.SealKeyRequest:
    message = seal_message()
    message.ClearField("plaintext_key")
    header = {"order_id": message.order_id, "item_id": message.item_id, "request_id": message.request_id}
    message.key_jwe = write_agreed({"kid": "v1", **header}, GAME_KEY, json.loads(world.upload_keys.public_jwk()))
    return message


async def test_a_key_goes_in_and_comes_out_to_its_owner_only(world: World, servicer: VaultServicer) -> None:
    sealed = (await servicer.SealKey(seal_message(), GATEWAY)).key
    assert sealed.state == pb.STATE_SEALED
    asked: dict[str, Any] = {
        "order_id": "order-1",
        "key_id": sealed.key_id,
        "actor": ALICE,
        "recipient_jwk": world.recipient.jwk,
    }
    link = await servicer.CreateDownloadLink(
        pb.CreateDownloadLinkRequest(request_id=str(uuid.uuid4()), **asked), FULFILLMENT
    )
    assert link.object_sha256 == sealed.object_sha256
    assert len(world.recipient.open(link.content_key_jwe)) == 32
    revealed = await servicer.RevealKey(pb.RevealKeyRequest(request_id=str(uuid.uuid4()), **asked), FULFILLMENT)
    assert world.recipient.open(revealed.key_jwe) == GAME_KEY


async def test_a_faulty_request_reaches_no_use_case(world: World, servicer: VaultServicer) -> None:
    with pytest.raises(InvalidRequest):
        await servicer.SealKey(pb.SealKeyRequest(), GATEWAY)
    with pytest.raises(InvalidRequest):
        await servicer.CreateDownloadLink(pb.CreateDownloadLinkRequest(), FULFILLMENT)
    with pytest.raises(InvalidRequest):
        await servicer.RevealKey(pb.RevealKeyRequest(), FULFILLMENT)
    with pytest.raises(InvalidRequest):
        await servicer.RevokeKeys(pb.RevokeKeysRequest(), FULFILLMENT)
    with pytest.raises(InvalidRequest):
        await servicer.ShredKey(pb.ShredKeyRequest(), FULFILLMENT)
    assert world.keys.rows.keys == {}
    assert world.audit.entries == []


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("uploaded", [False, True])
async def test_the_key_is_forgotten_once_it_was_sealed_or_not(world: World, *, fails: bool, uploaded: bool) -> None:
    seen: list[SealRequest] = []

    class Watched(Sealer):
        async def seal(self, request: SealRequest) -> Any:
            seen.append(request)
            return await super().seal(request)

    world.objects.away = fails
    servicer = VaultServicer(
        sealer=Watched(world.keys, world.objects, world.keks, world.digests, world.clock),
        releaser=world.releaser,
        taker=world.taker,
        reader=KeyReader(world.keys),
        upload_keys=world.upload_keys,
        rewrapper=world.rewrapper,
        sweeper=world.sweeper,
        eraser=world.eraser,
    )
    message, context = (upload_message(world), FULFILLMENT) if uploaded else (seal_message(), GATEWAY)
    if fails:
        with pytest.raises(ObjectStoreUnavailable):
            await servicer.SealKey(message, context)
    else:
        await servicer.SealKey(message, context)
    assert (message.plaintext_key, message.key_jwe) == (b"", "")
    with pytest.raises(ValueError, match="dropped"):
        seen[0].plaintext.expose()


@pytest.mark.parametrize("identity", ["fulfillment", "kinguin-gateway", "edge", "vault"])
async def test_each_seals_in_the_field_of_its_own_only(world: World, servicer: VaultServicer, identity: str) -> None:
    plain, uploaded = seal_message(), upload_message(world)
    both = upload_message(world)
    both.plaintext_key = GAME_KEY
    allowed = {"kinguin-gateway": plain, "fulfillment": uploaded}.get(identity)
    for message in (plain, uploaded, both):
        if message is allowed:
            continue
        with pytest.raises(MethodNotAllowed) as raised:
            await servicer.SealKey(message, caller(identity))
        assert raised.value.metadata["identity"] == identity
        assert (message.plaintext_key, message.key_jwe) == (b"", "")
    assert world.keys.rows.keys == {}
    if allowed is not None:
        assert (await servicer.SealKey(allowed, caller(identity))).key.state == pb.STATE_SEALED


async def test_an_upload_goes_in_under_the_upload_key_and_is_opened_by_its_owner(
    world: World, servicer: VaultServicer
) -> None:
    given = json.loads((await servicer.GetUploadKey(pb.GetUploadKeyRequest(), FULFILLMENT)).upload_jwk)
    message = seal_message()
    message.ClearField("plaintext_key")
    header = {"order_id": "order-1", "item_id": "item-1", "request_id": message.request_id}
    message.key_jwe = write_agreed({"kid": given["kid"], **header}, GAME_KEY, given)
    sealed = (await servicer.SealKey(message, FULFILLMENT)).key
    revealed = await servicer.RevealKey(
        pb.RevealKeyRequest(
            request_id=str(uuid.uuid4()),
            order_id="order-1",
            key_id=sealed.key_id,
            actor=ALICE,
            recipient_jwk=world.recipient.jwk,
        ),
        FULFILLMENT,
    )
    assert world.recipient.open(revealed.key_jwe) == GAME_KEY


async def test_keys_are_taken_back_and_read_over_the_contract(world: World, servicer: VaultServicer) -> None:
    sealed = (await servicer.SealKey(seal_message(), GATEWAY)).key
    wish = {"order_id": "order-1", "reason": "refunded"}
    revoked = await servicer.RevokeKeys(
        pb.RevokeKeysRequest(request_id=str(uuid.uuid4()), key_ids=[sealed.key_id], **wish), FULFILLMENT
    )
    assert [(key.key_id, key.state) for key in revoked.keys] == [(sealed.key_id, pb.STATE_REVOKED)]
    shredded = await servicer.ShredKey(
        pb.ShredKeyRequest(request_id=str(uuid.uuid4()), key_id=sealed.key_id, **wish), FULFILLMENT
    )
    assert shredded.key.state == pb.STATE_SHREDDED
    assert {fact.actor for fact in world.keys.rows.outbox.values()} == {"vault", "fulfillment"}
    assert (await servicer.GetKey(pb.GetKeyRequest(key_id=sealed.key_id), FULFILLMENT)).key == shredded.key
    listed = await servicer.ListKeys(pb.ListKeysRequest(order_id="order-1"), FULFILLMENT)
    assert (list(listed.keys), listed.next_page_token) == ([shredded.key], "")
    assert (await servicer.SealKey(seal_message(), GATEWAY)).key == shredded.key
    with pytest.raises(KeyNotFound):
        await servicer.GetKey(pb.GetKeyRequest(key_id="none"), FULFILLMENT)


async def test_deks_are_moved_over_the_contract(world: World) -> None:
    await world.sealed()
    world.kek = Kek(a_keyring("v2", "v1"))
    request = pb.RewrapKeysRequest(request_id=str(uuid.uuid4()), reason="a rotation", active_version="v2")
    told = [progress async for progress in world.servicer.RewrapKeys(request, caller("operator"))]
    assert [(progress.done_count, progress.remaining_count) for progress in told] == [(0, 1), (1, 0), (1, 0)]
    assert list(told[-1].kek_versions) == [
        pb.KekVersion(version="v2", key_count=1, active=True),
        pb.KekVersion(version="v1", retirable=True),
    ]
    assert {report.wish.caller for _, report in world.deks.told} == {"operator"}
    with pytest.raises(InvalidRequest):
        async for _ in world.servicer.RewrapKeys(pb.RewrapKeysRequest(), caller("operator")):
            pass


async def test_a_call_that_is_hung_up_on_leaves_the_replica_free(world: World) -> None:
    await world.sealed()
    world.kek = Kek(a_keyring("v2", "v1"))
    servicer = world.servicer
    for _ in range(2):
        request = pb.RewrapKeysRequest(request_id=str(uuid.uuid4()), reason="a rotation")
        call = cast("AsyncGenerator[pb.RewrapKeysResponse]", servicer.RewrapKeys(request, caller("operator")))
        await anext(call)
        await call.aclose()


async def test_a_held_key_names_the_one_that_it_repeats(world: World, servicer: VaultServicer) -> None:
    first = await world.sealed()
    held = (await servicer.SealKey(seal_message_from("kinguin:2:2"), GATEWAY)).key
    assert (held.state, held.same_key_id) == (pb.STATE_HELD, first.key_id)
    assert (await servicer.GetKey(pb.GetKeyRequest(key_id=first.key_id), FULFILLMENT)).key.same_key_id == ""


async def test_a_destroyed_key_has_nothing_to_unwrap(world: World) -> None:
    record = replace(await world.sealed(), dek=None)
    world.keys.rows.keys[record.key_id] = record
    with pytest.raises(KeyRevoked):
        await world.releaser.reveal(world.ask(record))


def test_it_serves_under_the_contracts_name() -> None:
    assert SERVICE_NAME == "keyferry.vault.v1.VaultService"
