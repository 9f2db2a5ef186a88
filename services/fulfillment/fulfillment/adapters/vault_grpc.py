"""Vault over gRPC. What it answers to a customer or a person passes through unread."""

import uuid
from collections.abc import Sequence
from datetime import UTC

import grpc
import structlog
from chassis.errors import KeyferryError
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceStub

from fulfillment.domain.model import ItemId, KeyId, OrderId
from fulfillment.errors import KeyNotNeeded
from fulfillment.ports.keeping import Delivery, DeliveryAct, DeliveryLog, ErasedKeys, VaultErasure
from fulfillment.ports.vault import (
    DownloadLink,
    FoundKey,
    KeyWish,
    NoWord,
    RevokeAnswer,
    Revoked,
    SomeOpened,
    Upload,
    Uploaded,
    Viewer,
)

logger = structlog.get_logger(__name__)

# A page of rows by an index.
LIST_SECONDS = 10.0
PAGE_SIZE = 1000
# An order has some thousand keys at most, with all that was replaced; more pages than this are a mistake.
MOST_PAGES = 20
# One transaction over as many as a thousand keys.
REVOKE_SECONDS = 30.0
# A row, then an object of the store.
SHRED_SECONDS = 30.0
# Batches of a hundred keys, each with its objects of the store.
ERASE_SECONDS = 120.0
_NAMESPACE = uuid.UUID("c0a0b4a2-6f0e-4c9a-9d0c-6a8d0a3f5e17")

_ACTS = {
    pb.DELIVERY_ACT_STORED: DeliveryAct.STORED,
    pb.DELIVERY_ACT_LINK_ISSUED: DeliveryAct.LINK_ISSUED,
    pb.DELIVERY_ACT_REVEALED: DeliveryAct.REVEALED,
    pb.DELIVERY_ACT_REVOKED: DeliveryAct.REVOKED,
    pb.DELIVERY_ACT_EXPIRED: DeliveryAct.EXPIRED,
    pb.DELIVERY_ACT_SHREDDED: DeliveryAct.SHREDDED,
}


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

    async def keys_of(self, order_id: OrderId) -> Sequence[FoundKey] | NoWord:
        """Return every key that vault has of an order."""
        request = pb.ListKeysRequest(order_id=order_id, page_size=PAGE_SIZE)
        found: list[FoundKey] = []
        try:
            for _ in range(MOST_PAGES):
                page = await self._stub.ListKeys(request, timeout=LIST_SECONDS)
                found += [_found(key) for key in page.keys]
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token
        except KeyferryError as error:
            logger.warning("the keys of an order were not listed", order_id=order_id, reason=error.reason)
            return NoWord()
        logger.error("vault has too many keys of an order", order_id=order_id, keys=len(found))
        return NoWord()

    async def revoke_keys(self, order_id: OrderId, key_ids: Sequence[KeyId], *, why: str) -> RevokeAnswer:
        """Revoke all of these keys, or none where any was opened."""
        if not key_ids:
            return Revoked()
        names = sorted(key_ids)
        request = pb.RevokeKeysRequest(
            request_id=_request_id("revoke", order_id, why, *names), order_id=order_id, key_ids=names, reason=why
        )
        try:
            await self._stub.RevokeKeys(request, timeout=REVOKE_SECONDS)
        except KeyferryError as error:
            opened = error.metadata.get("opened_key_ids", "") if error.reason == "KEY_OPENED" else ""
            if opened:
                return SomeOpened([KeyId(key_id) for key_id in opened.split(",")])
            logger.warning("keys were not revoked", order_id=order_id, reason=error.reason)
            return NoWord()
        return Revoked()

    async def shred_key(self, order_id: OrderId, key_id: KeyId, *, why: str) -> bool:
        """Destroy a revoked key."""
        request = pb.ShredKeyRequest(
            request_id=_request_id("shred", order_id, why, key_id), order_id=order_id, key_id=key_id, reason=why
        )
        try:
            await self._stub.ShredKey(request, timeout=SHRED_SECONDS)
        except KeyferryError as error:
            logger.warning("a key was not destroyed", key_id=key_id, reason=error.reason)
            return False
        return True

    async def upload_jwk(self) -> bytes:
        """Return the public key to which a person encrypts an uploaded key."""
        return (await self._stub.GetUploadKey(pb.GetUploadKeyRequest())).upload_jwk

    async def seal_upload(self, upload: Upload) -> Uploaded:
        """Have an uploaded key sealed."""
        request = pb.SealKeyRequest(
            request_id=upload.request_id,
            source_ref=upload.source_ref,
            order_id=upload.order_id,
            item_id=upload.item_id,
            customer_id=upload.customer_id,
            content_type=upload.content_type,
            key_jwe=upload.key_jwe,
        )
        sealed = (await self._stub.SealKey(request)).key
        if sealed.state not in {pb.STATE_SEALED, pb.STATE_HELD}:
            # A repeat of an upload that was not needed before, and destroyed.
            raise KeyNotNeeded("the upload was destroyed, because nobody needed it; upload it with a new request_id")
        return Uploaded(KeyId(sealed.key_id), held=sealed.state == pb.STATE_HELD)

    async def erase_customer(self, erasure: VaultErasure) -> ErasedKeys:
        """Have a customer forgotten."""
        request = pb.EraseCustomerRequest(
            request_id=erasure.request_id,
            customer_id=erasure.customer_id,
            forfeit_unopened=erasure.forfeit_unopened,
            reason=erasure.reason,
        )
        erased = await self._stub.EraseCustomer(request, timeout=ERASE_SECONDS)
        return ErasedKeys(erased.shredded_count, erased.kept_count)

    async def delivery_log(self, key_id: KeyId) -> DeliveryLog:
        """Return what was done with a key."""
        log = await self._stub.GetDeliveryLog(pb.GetDeliveryLogRequest(key_id=key_id))
        return DeliveryLog(
            order_id=OrderId(log.key.order_id),
            deliveries=[_delivery(each) for each in log.deliveries],
            link_count=log.key.link_count,
            reveal_count=log.key.reveal_count,
        )


def _delivery(delivery: pb.Delivery) -> Delivery:
    return Delivery(
        act=_ACTS.get(delivery.act, DeliveryAct.UNSPECIFIED),
        time=delivery.time.ToDatetime(UTC),
        caller=delivery.caller,
        request_id=delivery.request_id,
        network=delivery.network,
        device=delivery.device,
        reason=delivery.reason,
    )


def _found(key: pb.SealedKey) -> FoundKey:
    # As kinguin-gateway names its keys: by the supplier's order, and the key in it.
    kind, _, rest = key.source_ref.partition(":")
    return FoundKey(
        key_id=KeyId(key.key_id),
        item_id=ItemId(key.item_id),
        supplier_order_id=rest.partition(":")[0] if kind == "kinguin" else "",
        content_type=key.content_type,
        held=key.state == pb.STATE_HELD,
        sealed=key.state != pb.STATE_SEALING,
        taken_back=key.state in {pb.STATE_REVOKED, pb.STATE_SHREDDED},
        open_time=key.open_time.ToDatetime(UTC) if key.HasField("open_time") else None,
    )


def _actor(viewer: Viewer) -> actor_pb2.Actor:
    return actor_pb2.Actor(
        type=actor_pb2.ACTOR_TYPE_CUSTOMER,
        id=viewer.customer_id,
        email=viewer.email,
        ip_address=viewer.ip_address,
        user_agent=viewer.user_agent,
        country_code=viewer.country_code,
    )


def _request_id(what: str, *parts: str) -> str:
    # All that the request says: vault refuses another body under a known request id.
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join((what, *parts))))
