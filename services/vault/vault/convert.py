"""Requests and answers of vault: contracts on one side, its own words on the other."""

from chassis.secret import SecretBytes
from chassis.validation import Faults
from google.protobuf.timestamp_pb2 import Timestamp
from joserfc.jwk import ECKey
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb

from vault.crypto import BadRecipient, read_recipient
from vault.domain.key import CONTENT_TYPES, MOST_KEY_BYTES, KeyRecord, KeyState
from vault.ports import Viewer
from vault.releasing import DownloadLink, ReleaseRequest, request_digest
from vault.sealing import SealRequest

_STATES = {
    KeyState.SEALING: pb.STATE_SEALING,
    KeyState.SEALED: pb.STATE_SEALED,
    KeyState.HELD: pb.STATE_HELD,
}
# As long as audit takes them.
LONGEST_IP_ADDRESS = 64
LONGEST_USER_AGENT = 512
LONGEST_EMAIL = 320


def seal_request_from_proto(request: pb.SealKeyRequest) -> SealRequest:
    """Read a request to seal. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.require("source_ref", request.source_ref)
    faults.identifier("order_id", request.order_id)
    faults.identifier("item_id", request.item_id)
    faults.require("customer_id", request.customer_id)
    if request.content_type not in CONTENT_TYPES:
        faults.add("content_type", f"must be one of {', '.join(sorted(CONTENT_TYPES))}")
    if not request.plaintext_key:
        faults.add("plaintext_key", "is required")
    elif len(request.plaintext_key) > MOST_KEY_BYTES:
        faults.add("plaintext_key", f"must have at most {MOST_KEY_BYTES} bytes")
    elif request.content_type == "text/plain" and not _is_utf8(request.plaintext_key):
        faults.add("plaintext_key", "must be UTF-8, as its content type says")
    faults.raise_if_any()
    return SealRequest(
        request_id=request_id,
        source_ref=request.source_ref,
        order_id=request.order_id,
        item_id=request.item_id,
        customer_id=request.customer_id,
        content_type=request.content_type,
        plaintext=SecretBytes(request.plaintext_key),
    )


def release_request_from_proto(request: pb.CreateDownloadLinkRequest | pb.RevealKeyRequest) -> ReleaseRequest:
    """Read a request to open a key. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.identifier("order_id", request.order_id)
    faults.identifier("key_id", request.key_id)
    actor = request.actor
    if actor.type != actor_pb2.ACTOR_TYPE_CUSTOMER:
        faults.add("actor.type", "must be ACTOR_TYPE_CUSTOMER: only its owner opens a key")
    faults.require("actor.id", actor.id)
    _check_length(faults, "actor.email", actor.email, LONGEST_EMAIL)
    _check_length(faults, "actor.ip_address", actor.ip_address, LONGEST_IP_ADDRESS)
    _check_length(faults, "actor.user_agent", actor.user_agent, LONGEST_USER_AGENT)
    recipient = _recipient(faults, request.recipient_jwk)
    faults.raise_if_any()
    way = request.DESCRIPTOR.full_name.encode()
    parts = (way, request.order_id.encode(), request.key_id.encode(), actor.id.encode(), request.recipient_jwk)
    return ReleaseRequest(
        request_id=request_id,
        digest=request_digest(*parts),
        order_id=request.order_id,
        key_id=request.key_id,
        viewer=Viewer(actor.id, actor.email, actor.ip_address, actor.user_agent),
        recipient=recipient,
    )


def _recipient(faults: Faults, jwk: bytes) -> ECKey:
    try:
        return read_recipient(jwk)
    except BadRecipient as fault:
        faults.add("recipient_jwk", str(fault))
        faults.raise_if_any()
        raise


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_length(faults: Faults, field: str, value: str, longest: int) -> None:
    if len(value) > longest:
        faults.add(field, f"must have at most {longest} characters")


def sealed_key_to_proto(record: KeyRecord) -> pb.SealedKey:
    """Render a key as its keeper may know it."""
    message = pb.SealedKey(
        key_id=record.key_id,
        state=_STATES[record.state],
        content_type=record.content_type,
        object_name=record.object_name,
        object_sha256=record.object_sha256 or b"",
    )
    if record.seal_time is not None:
        message.seal_time.FromDatetime(record.seal_time)
    return message


def link_to_proto(link: DownloadLink) -> pb.CreateDownloadLinkResponse:
    """Render a link."""
    expire_time = Timestamp()
    expire_time.FromDatetime(link.expire_time)
    return pb.CreateDownloadLinkResponse(
        url=link.url,
        expire_time=expire_time,
        content_key_jwe=link.content_key_jwe,
        object_sha256=link.object_sha256,
    )
