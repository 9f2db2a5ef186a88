"""The gRPC face of vault: parse, call, render."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from chassis.errors import MethodNotAllowed
from chassis.identity import caller_identity
from keyferry.vault.v1 import vault_service_pb2 as pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceServicer

from vault.access import KEY_FIELDS
from vault.convert import (
    key_filter_from_proto,
    key_id_from_proto,
    key_page_to_proto,
    link_to_proto,
    progress_to_proto,
    release_request_from_proto,
    revoke_request_from_proto,
    rewrap_request_from_proto,
    seal_request_from_proto,
    sealed_key_to_proto,
    shred_request_from_proto,
)
from vault.convert_keeping import (
    delivery_log_to_proto,
    erase_request_from_proto,
    erased_to_proto,
    sweep_request_from_proto,
    swept_to_proto,
)
from vault.erasing import Eraser
from vault.listing import KeyReader
from vault.releasing import Releaser
from vault.rewrapping import Rewrapper
from vault.sealing import Sealer
from vault.sweeping import Sweeper
from vault.taking_back import KeyTaker
from vault.uploading import UploadKeys

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["VaultService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class VaultServicer(VaultServiceServicer):
    """Serves `keyferry.vault.v1.VaultService`."""

    def __init__(
        self,
        *,
        sealer: Sealer,
        releaser: Releaser,
        taker: KeyTaker,
        reader: KeyReader,
        upload_keys: UploadKeys,
        rewrapper: Rewrapper,
        sweeper: Sweeper,
        eraser: Eraser,
    ) -> None:
        self._sealer = sealer
        self._releaser = releaser
        self._taker = taker
        self._reader = reader
        self._upload_keys = upload_keys
        self._rewrapper = rewrapper
        self._sweeper = sweeper
        self._eraser = eraser

    async def SealKey(self, request: pb.SealKeyRequest, context: Context) -> pb.SealKeyResponse:  # noqa: N802 # named by gRPC
        """Seal one game key."""
        try:
            _check_key_field(request, caller_identity(context))
            wish = seal_request_from_proto(request, self._upload_keys)
        finally:
            request.ClearField("plaintext_key")
            request.ClearField("key_jwe")
        try:
            return pb.SealKeyResponse(key=sealed_key_to_proto(await self._sealer.seal(wish)))
        finally:
            wish.plaintext.drop()

    async def CreateDownloadLink(  # noqa: N802 # named by gRPC
        self,
        request: pb.CreateDownloadLinkRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.CreateDownloadLinkResponse:
        """Give the owner a link."""
        return link_to_proto(await self._releaser.create_link(release_request_from_proto(request)))

    async def RevealKey(self, request: pb.RevealKeyRequest, context: Context) -> pb.RevealKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Give the owner the key."""
        return pb.RevealKeyResponse(key_jwe=await self._releaser.reveal(release_request_from_proto(request)))

    async def GetUploadKey(self, request: pb.GetUploadKeyRequest, context: Context) -> pb.GetUploadKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Give the present upload key."""
        return pb.GetUploadKeyResponse(upload_jwk=self._upload_keys.public_jwk())

    async def RevokeKeys(self, request: pb.RevokeKeysRequest, context: Context) -> pb.RevokeKeysResponse:  # noqa: N802 # named by gRPC
        """Take back keys, all or none."""
        records = await self._taker.revoke(revoke_request_from_proto(request, caller_identity(context)))
        return pb.RevokeKeysResponse(keys=map(sealed_key_to_proto, records))

    async def ShredKey(self, request: pb.ShredKeyRequest, context: Context) -> pb.ShredKeyResponse:  # noqa: N802 # named by gRPC
        """Destroy a key."""
        record = await self._taker.shred(shred_request_from_proto(request, caller_identity(context)))
        return pb.ShredKeyResponse(key=sealed_key_to_proto(record))

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Show a key."""
        return pb.GetKeyResponse(key=sealed_key_to_proto(await self._reader.get(key_id_from_proto(request))))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Show a page of keys."""
        wanted = key_filter_from_proto(request)
        page = await self._reader.page(wanted, size=request.page_size, token=request.page_token)
        return key_page_to_proto(page)

    async def RewrapKeys(  # noqa: N802 # named by gRPC
        self, request: pb.RewrapKeysRequest, context: Context
    ) -> AsyncIterator[pb.RewrapKeysResponse]:
        """Move every DEK to the active KEK."""
        wish = rewrap_request_from_proto(request, caller_identity(context))
        # Closed with the call: whoever hangs up leaves the replica free for the next one.
        async with aclosing(self._rewrapper.run(wish)) as told:
            async for progress in told:
                yield progress_to_proto(progress)

    async def GetDeliveryLog(  # noqa: N802 # named by gRPC
        self,
        request: pb.GetDeliveryLogRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.GetDeliveryLogResponse:
        """Show what was done with a key."""
        return delivery_log_to_proto(await self._reader.log(key_id_from_proto(request)))

    async def SweepExpired(self, request: pb.SweepExpiredRequest, context: Context) -> pb.SweepExpiredResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Do one round of what every replica does by itself."""
        return swept_to_proto(await self._sweeper.answer(*sweep_request_from_proto(request)))

    async def EraseCustomer(self, request: pb.EraseCustomerRequest, context: Context) -> pb.EraseCustomerResponse:  # noqa: N802 # named by gRPC
        """Forget a customer."""
        return erased_to_proto(await self._eraser.erase(erase_request_from_proto(request, caller_identity(context))))


def _check_key_field(request: pb.SealKeyRequest, identity: str) -> None:
    """Refuse a key in a field that is not its caller's, before anything reads it."""
    for field in KEY_FIELDS.values():
        if getattr(request, field) and KEY_FIELDS.get(identity) != field:
            raise MethodNotAllowed(
                f"{identity} may not call SealKey with {field}",
                metadata={"identity": identity, "method": "SealKey", "field": field},
            )
