import uuid
from typing import TYPE_CHECKING, Any, cast

import pytest
from chassis.errors import InvalidRequest
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from vault.errors import ObjectStoreUnavailable
from vault.sealing import Sealer, SealRequest
from vault.service import SERVICE_NAME, VaultServicer

from tests.unit.vault.fakes import GAME_KEY, World

if TYPE_CHECKING:
    import grpc

# The servicer leaves identity, deadline and trace to the chassis and asks nothing of its context.
CONTEXT = cast("grpc.aio.ServicerContext[Any, Any]", None)
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


@pytest.fixture
def servicer(world: World) -> VaultServicer:
    return VaultServicer(world.sealer, world.releaser)


async def test_a_key_goes_in_and_comes_out_to_its_owner_only(world: World, servicer: VaultServicer) -> None:
    sealed = (await servicer.SealKey(seal_message(), CONTEXT)).key
    assert sealed.state == pb.STATE_SEALED
    asked: dict[str, Any] = {
        "order_id": "order-1",
        "key_id": sealed.key_id,
        "actor": ALICE,
        "recipient_jwk": world.recipient.jwk,
    }
    link = await servicer.CreateDownloadLink(
        pb.CreateDownloadLinkRequest(request_id=str(uuid.uuid4()), **asked), CONTEXT
    )
    assert link.object_sha256 == sealed.object_sha256
    assert len(world.recipient.open(link.content_key_jwe)) == 32
    revealed = await servicer.RevealKey(pb.RevealKeyRequest(request_id=str(uuid.uuid4()), **asked), CONTEXT)
    assert world.recipient.open(revealed.key_jwe) == GAME_KEY


async def test_a_faulty_request_reaches_no_use_case(world: World, servicer: VaultServicer) -> None:
    with pytest.raises(InvalidRequest):
        await servicer.SealKey(pb.SealKeyRequest(), CONTEXT)
    with pytest.raises(InvalidRequest):
        await servicer.CreateDownloadLink(pb.CreateDownloadLinkRequest(), CONTEXT)
    with pytest.raises(InvalidRequest):
        await servicer.RevealKey(pb.RevealKeyRequest(), CONTEXT)
    assert world.keys.rows.keys == {}
    assert world.audit.entries == []


@pytest.mark.parametrize("fails", [False, True])
async def test_the_key_is_forgotten_once_it_was_sealed_or_not(world: World, *, fails: bool) -> None:
    seen: list[SealRequest] = []

    class Watched(Sealer):
        async def seal(self, request: SealRequest) -> Any:
            seen.append(request)
            return await super().seal(request)

    world.objects.away = fails
    sealer = Watched(world.keys, world.objects, world.kek, world.digests, world.clock)
    message = seal_message()
    if fails:
        with pytest.raises(ObjectStoreUnavailable):
            await VaultServicer(sealer, world.releaser).SealKey(message, CONTEXT)
    else:
        await VaultServicer(sealer, world.releaser).SealKey(message, CONTEXT)
    assert message.plaintext_key == b""
    with pytest.raises(ValueError, match="dropped"):
        seen[0].plaintext.expose()


def test_it_serves_under_the_contracts_name() -> None:
    assert SERVICE_NAME == "keyferry.vault.v1.VaultService"
