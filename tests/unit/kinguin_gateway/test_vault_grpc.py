"""What vault says of a key: it is safe, it never will be, or another time may be better."""

from typing import cast

import grpc
import pytest
from chassis.errors import KeyferryError, RemoteError
from chassis.secret import SecretBytes
from google.protobuf.message import Message
from keyferry.vault.v1 import vault_service_pb2 as pb
from kinguin_gateway.adapters.vault_grpc import VaultGrpc
from kinguin_gateway.ports.vault import KeyToSeal, Sealed, Unsealable

from tests.unit.fulfillment.grpc_peer import Peer


def sealing(answer: Message | Exception) -> VaultGrpc:
    return VaultGrpc(cast("grpc.aio.Channel", Peer(answer)))


def a_key() -> KeyToSeal:
    return KeyToSeal("r", "kinguin:PHS1:k1", "order-1", "item-1", "alice", "text/plain", SecretBytes(b"GAME-KEY-0001"))


def failing(reason: str, code: grpc.StatusCode) -> RemoteError:
    return RemoteError("on purpose", code=code, reason=reason)


@pytest.mark.parametrize(("state", "held"), [(pb.STATE_SEALED, False), (pb.STATE_HELD, True)])
async def test_a_sealed_key_is_safe_and_may_be_held(state: pb.State.ValueType, *, held: bool) -> None:
    answer = pb.SealKeyResponse(key=pb.SealedKey(key_id="key-1", state=state))
    assert await sealing(answer).seal(a_key()) == Sealed("key-1", held=held)


@pytest.mark.parametrize(
    "answer",
    [
        failing("SOURCE_REF_CONFLICT", grpc.StatusCode.ALREADY_EXISTS),
        failing("INVALID_REQUEST", grpc.StatusCode.INVALID_ARGUMENT),
        failing("KEY_CORRUPTED", grpc.StatusCode.DATA_LOSS),
    ],
    ids=["another key", "no key", "a row that does not open"],
)
async def test_what_asking_again_does_not_mend_is_told_apart(answer: RemoteError) -> None:
    with pytest.raises(Unsealable):
        await sealing(answer).seal(a_key())


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED], ids=lambda code: code.name
)
async def test_whatever_may_pass_is_vaults_own_error(code: grpc.StatusCode) -> None:
    with pytest.raises(KeyferryError):
        await sealing(failing("SERVICE_UNAVAILABLE", code)).seal(a_key())
