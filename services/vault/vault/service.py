"""The gRPC face of vault: parse, call, render."""

from typing import Any

import grpc
from keyferry.vault.v1 import vault_service_pb2 as pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceServicer

from vault.convert import link_to_proto, release_request_from_proto, seal_request_from_proto, sealed_key_to_proto
from vault.releasing import Releaser
from vault.sealing import Sealer

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["VaultService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class VaultServicer(VaultServiceServicer):
    """Serves `keyferry.vault.v1.VaultService`."""

    def __init__(self, sealer: Sealer, releaser: Releaser) -> None:
        self._sealer = sealer
        self._releaser = releaser

    async def SealKey(self, request: pb.SealKeyRequest, context: Context) -> pb.SealKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Seal one game key."""
        wish = seal_request_from_proto(request)
        try:
            return pb.SealKeyResponse(key=sealed_key_to_proto(await self._sealer.seal(wish)))
        finally:
            wish.plaintext.drop()
            request.ClearField("plaintext_key")

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
