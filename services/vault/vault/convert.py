"""Requests and answers of vault: contracts on one side, its own words on the other."""

import re
from datetime import datetime

from chassis.request_log import request_digest as digest_of
from chassis.secret import SecretBytes
from chassis.validation import Faults
from google.protobuf.timestamp_pb2 import Timestamp
from joserfc.jwk import ECKey
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb

from vault.crypto import BadRecipient, read_recipient
from vault.domain.key import CONTENT_TYPES, MOST_KEY_BYTES, KeyRecord, KeyState
from vault.listing import KeyPage
from vault.ports import KeyFilter, Viewer, Wish
from vault.releasing import DownloadLink, ReleaseRequest, request_digest
from vault.rewrapping import Progress, RewrapRequest
from vault.sealing import SealRequest
from vault.taking_back import RevokeRequest, ShredRequest
from vault.uploading import BOUND, UploadKeys

_STATES = {
    KeyState.SEALING: pb.STATE_SEALING,
    KeyState.SEALED: pb.STATE_SEALED,
    KeyState.HELD: pb.STATE_HELD,
    KeyState.REVOKED: pb.STATE_REVOKED,
    KeyState.SHREDDED: pb.STATE_SHREDDED,
}
# How a file of each type begins.
_BEGINNINGS = {
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}
MOST_KEYS = 1000
COUNTRY = re.compile(r"[A-Z]{2}")
# As long as audit takes them.
LONGEST_IP_ADDRESS = 64
LONGEST_USER_AGENT = 512
LONGEST_EMAIL = 320


def seal_request_from_proto(request: pb.SealKeyRequest, upload_keys: UploadKeys) -> SealRequest:
    """Read a request to seal. Raises InvalidRequest with every fault, UploadUnreadable and UploadMismatch."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.require("source_ref", request.source_ref)
    faults.identifier("order_id", request.order_id)
    faults.identifier("item_id", request.item_id)
    faults.require("customer_id", request.customer_id)
    if request.content_type not in CONTENT_TYPES:
        faults.add("content_type", f"must be one of {', '.join(sorted(CONTENT_TYPES))}")
    if request.key_jwe and request.plaintext_key:
        faults.add("key_jwe", "must not stand beside plaintext_key")
    elif not request.key_jwe:
        _check_content(faults, "plaintext_key", request.plaintext_key, request.content_type)
    faults.raise_if_any()
    return SealRequest(
        request_id=request_id,
        source_ref=request.source_ref,
        order_id=request.order_id,
        item_id=request.item_id,
        customer_id=request.customer_id,
        content_type=request.content_type,
        plaintext=_uploaded(request, request_id, upload_keys)
        if request.key_jwe
        else SecretBytes(request.plaintext_key),
    )


def _uploaded(request: pb.SealKeyRequest, request_id: str, upload_keys: UploadKeys) -> SecretBytes:
    bound = dict(zip(BOUND, (request.order_id, request.item_id, request_id), strict=True))
    plaintext = upload_keys.open(request.key_jwe, bound)
    faults = Faults()
    _check_content(faults, "key_jwe", plaintext.expose(), request.content_type)
    # A person took the wrong file and can take another. What a supplier sent is sealed as it came: it was paid for.
    beginnings = _BEGINNINGS.get(request.content_type)
    if beginnings is not None and not plaintext.expose().startswith(beginnings):
        faults.add("key_jwe", "must begin as files of its content type do")
    faults.raise_if_any()
    return plaintext


def _check_content(faults: Faults, field: str, content: bytes, content_type: str) -> None:
    if not content:
        faults.add(field, "is required")
    elif len(content) > MOST_KEY_BYTES:
        faults.add(field, f"must have at most {MOST_KEY_BYTES} bytes")
    elif content_type == "text/plain" and not _is_utf8(content):
        faults.add(field, "must be UTF-8, as its content type says")


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
    if actor.country_code and not COUNTRY.fullmatch(actor.country_code):
        faults.add("actor.country_code", "must be two capital letters (ISO 3166-1), or nothing")
    recipient = _recipient(faults, request.recipient_jwk)
    faults.raise_if_any()
    way = request.DESCRIPTOR.full_name.encode()
    parts = (way, request.order_id.encode(), request.key_id.encode(), actor.id.encode(), request.recipient_jwk)
    return ReleaseRequest(
        request_id=request_id,
        digest=request_digest(*parts),
        order_id=request.order_id,
        key_id=request.key_id,
        viewer=Viewer(actor.id, actor.email, actor.ip_address, actor.user_agent, actor.country_code),
        recipient=recipient,
    )


def revoke_request_from_proto(request: pb.RevokeKeysRequest, caller: str) -> RevokeRequest:
    """Read a request to take keys back, each of them once. Raises InvalidRequest with every fault."""
    faults = Faults()
    wish = _wish(faults, request, caller)
    faults.identifier("order_id", request.order_id)
    if not 1 <= len(request.key_ids) <= MOST_KEYS:
        faults.add("key_ids", f"must be 1 to {MOST_KEYS} keys")
    else:
        for index, key_id in enumerate(request.key_ids):
            faults.identifier(f"key_ids[{index}]", key_id)
    faults.raise_if_any()
    return RevokeRequest(wish, digest_of(request), request.order_id, tuple(dict.fromkeys(request.key_ids)))


def shred_request_from_proto(request: pb.ShredKeyRequest, caller: str) -> ShredRequest:
    """Read a request to destroy a key. Raises InvalidRequest with every fault."""
    faults = Faults()
    wish = _wish(faults, request, caller)
    faults.identifier("order_id", request.order_id)
    faults.identifier("key_id", request.key_id)
    faults.raise_if_any()
    return ShredRequest(wish, digest_of(request), request.order_id, request.key_id)


def rewrap_request_from_proto(request: pb.RewrapKeysRequest, caller: str) -> RewrapRequest:
    """Read a request to move DEKs to the active KEK. Raises InvalidRequest with every fault."""
    faults = Faults()
    wish = _wish(faults, request, caller)
    faults.raise_if_any()
    return RewrapRequest(wish, digest_of(request), request.active_version)


def progress_to_proto(progress: Progress) -> pb.RewrapKeysResponse:
    """Render how far a rewrap is."""
    return pb.RewrapKeysResponse(
        active_version=progress.active_version,
        done_count=progress.done,
        remaining_count=progress.remaining,
        failed_count=progress.failed,
        failed_key_ids=progress.failed_key_ids,
        kek_versions=[
            pb.KekVersion(version=use.version, key_count=use.keys, active=use.is_active, retirable=use.may_be_retired)
            for use in progress.uses
        ],
    )


def _wish(
    faults: Faults, request: pb.RevokeKeysRequest | pb.ShredKeyRequest | pb.RewrapKeysRequest, caller: str
) -> Wish:
    return Wish(faults.request_id(request.request_id), caller, faults.require("reason", request.reason))


def key_id_from_proto(request: pb.GetKeyRequest | pb.GetDeliveryLogRequest) -> str:
    """Read which key is wanted. Raises InvalidRequest."""
    faults = Faults()
    key_id = faults.identifier("key_id", request.key_id)
    faults.raise_if_any()
    return key_id


def key_filter_from_proto(request: pb.ListKeysRequest) -> KeyFilter:
    """Read which keys are wanted. Raises InvalidRequest with every fault."""
    faults = Faults()
    if request.order_id:
        faults.identifier("order_id", request.order_id)
    start_time = faults.moment("start_time", request.start_time if request.HasField("start_time") else None)
    end_time = faults.moment("end_time", request.end_time if request.HasField("end_time") else None)
    if start_time is not None and end_time is not None and end_time <= start_time:
        faults.add("end_time", "must be later than start_time")
    faults.raise_if_any()
    return KeyFilter(request.order_id, start_time, end_time)


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
    return pb.SealedKey(
        key_id=record.key_id,
        state=_STATES[record.state],
        content_type=record.content_type,
        object_name=record.object_name,
        object_sha256=record.object_sha256 or b"",
        seal_time=timestamp(record.seal_time),
        order_id=record.order_id,
        item_id=record.item_id,
        source_ref=record.source_ref,
        open_time=timestamp(record.open_time),
        create_time=timestamp(record.create_time),
        revoke_time=timestamp(record.revoke_time),
        shred_time=timestamp(record.shred_time),
        same_key_id=record.same_key_id or "",
        expire_time=timestamp(record.expire_time),
        object_delete_time=timestamp(record.object_delete_time),
        link_count=record.link_count,
        reveal_count=record.reveal_count,
    )


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Render a moment, or that there was none."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def key_page_to_proto(page: KeyPage) -> pb.ListKeysResponse:
    """Render a page of keys."""
    return pb.ListKeysResponse(keys=map(sealed_key_to_proto, page.records), next_page_token=page.next_page_token)


def link_to_proto(link: DownloadLink) -> pb.CreateDownloadLinkResponse:
    """Render a link."""
    return pb.CreateDownloadLinkResponse(
        url=link.url,
        expire_time=timestamp(link.expire_time),
        content_key_jwe=link.content_key_jwe,
        object_sha256=link.object_sha256,
    )
