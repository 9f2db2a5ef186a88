"""Vault over gRPC: the one way that a game key takes out of this process."""

import grpc
from chassis.errors import KeyferryError
from chassis.failpoints import repeatable
from keyferry.vault.v1 import vault_service_pb2 as pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from kinguin_gateway.ports.vault import KeyToSeal, Sealed, Unsealable


class VaultGrpc:
    """Implements `kinguin_gateway.ports.vault.Vault`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = VaultServiceStub(channel)

    async def seal(self, key: KeyToSeal) -> Sealed:
        """See the port. The channel gives the call its deadline."""
        request = pb.SealKeyRequest(
            request_id=key.request_id,
            source_ref=key.source_ref,
            order_id=key.order_id,
            item_id=key.item_id,
            customer_id=key.customer_id,
            content_type=key.content_type,
            plaintext_key=key.value.expose(),
        )
        try:
            response = await repeatable("kinguin_gateway.seal", lambda: self._stub.SealKey(request))
        except KeyferryError as error:
            if error.reason == "SOURCE_REF_CONFLICT" or error.code is grpc.StatusCode.INVALID_ARGUMENT:
                raise Unsealable("supplier delivered something that vault does not take") from error
            if error.reason == "KEY_CORRUPTED":
                # Its row was begun and does not open any more: never sealed anew, and no repeat mends it.
                raise Unsealable("what vault has begun for a delivered key does not open") from error
            raise
        finally:
            request.ClearField("plaintext_key")
        return Sealed(response.key.key_id, held=response.key.state == pb.STATE_HELD)
