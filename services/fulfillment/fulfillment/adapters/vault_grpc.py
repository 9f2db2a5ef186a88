"""Vault over gRPC. What it answers passes through unread."""

from datetime import UTC

import grpc
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from fulfillment.ports.vault import DownloadLink, KeyWish, Viewer


class GrpcVault:
    """Vault, which alone opens keys."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = VaultServiceStub(channel)

    async def create_download_link(self, wish: KeyWish) -> DownloadLink:
        """Return a download link for the owner."""
        request = pb.CreateDownloadLinkRequest(
            request_id=wish.request_id,
            order_id=wish.order_id,
            key_id=wish.key_id,
            actor=_actor(wish.viewer),
            recipient_jwk=wish.recipient_jwk,
        )
        link = await self._stub.CreateDownloadLink(request)
        return DownloadLink(link.url, link.expire_time.ToDatetime(UTC), link.content_key_jwe, link.object_sha256)

    async def reveal_key(self, wish: KeyWish) -> str:
        """Return the key, encrypted to the owner's one-time key."""
        request = pb.RevealKeyRequest(
            request_id=wish.request_id,
            order_id=wish.order_id,
            key_id=wish.key_id,
            actor=_actor(wish.viewer),
            recipient_jwk=wish.recipient_jwk,
        )
        return (await self._stub.RevealKey(request)).key_jwe


def _actor(viewer: Viewer) -> actor_pb2.Actor:
    return actor_pb2.Actor(
        type=actor_pb2.ACTOR_TYPE_CUSTOMER,
        id=viewer.customer_id,
        email=viewer.email,
        ip_address=viewer.ip_address,
        user_agent=viewer.user_agent,
    )
