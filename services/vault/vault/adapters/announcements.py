"""What vault announces: facts for the audit log, and events for the shop. Each has a natural id and is told once."""

from collections.abc import Collection, Mapping
from datetime import datetime

from chassis.events import Event, derived_event_id
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.vault_events_pb2 import (
    ACCESS_NEWS_COUNTRY,
    ACCESS_NEWS_DEVICE,
    ACCESS_NEWS_NETWORK,
    VaultKeyCorrupted,
    VaultKeyExpired,
    VaultKeyOpened,
    VaultKeyShredded,
    VaultKeyUnusualAccess,
)
from keyferry.type.v1 import actor_pb2

from vault.domain.familiarity import Kind
from vault.domain.key import KeyRecord
from vault.ports import Authorization, Release, RewrapReport, Viewer, Wish

SOURCE = "vault"
_NEWS = {
    Kind.COUNTRY: ACCESS_NEWS_COUNTRY,
    Kind.NETWORK: ACCESS_NEWS_NETWORK,
    Kind.DEVICE: ACCESS_NEWS_DEVICE,
}
_VAULT = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SOURCE)


def sealed(record: KeyRecord, *, same_as: str | None, now: datetime) -> Event:
    """Tell audit of a sealed or held key."""
    action = "key.held" if same_as else "key.sealed"
    details = {"content_type": record.content_type} | ({"same_as": same_as} if same_as else {})
    return _audited(action, _VAULT, record.order_id, record.key_id, details=details, now=now, identity=[record.key_id])


def taken_back(action: str, record: KeyRecord, wish: Wish, *, now: datetime) -> Event:
    """Tell audit of a revoked or shredded key."""
    return _audited(
        action,
        actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=wish.caller),
        record.order_id,
        record.key_id,
        request_id=wish.request_id,
        details={"reason": wish.reason, "state": record.state.value},
        now=now,
        identity=[record.key_id],
    )


def rewrap(action: str, report: RewrapReport, *, now: datetime) -> Event:
    """Tell audit that a rewrap begins, or what it came to."""
    wish = report.wish
    counts = {name: str(count) for name, count in report.counts.items()}
    return _audited(
        action,
        actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=wish.caller),
        "",
        "",
        request_id=wish.request_id,
        details={"active_version": report.active_version, "reason": wish.reason, **counts},
        now=now,
        identity=[wish.request_id],
    )


def retention_over(record: KeyRecord, *, now: datetime) -> Event:
    """Tell audit of a key whose retention was over."""
    details = {"opened": str(record.is_opened).lower(), "state": record.state.value}
    return _audited(
        "key.expired", _VAULT, record.order_id, record.key_id, details=details, now=now, identity=[record.key_id]
    )


def erased(wish: Wish, counts: Mapping[str, int], *, now: datetime) -> Event:
    """Tell audit that a customer was forgotten, and not who."""
    return _audited(
        "customer.keys_erased",
        actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=wish.caller),
        "",
        "",
        request_id=wish.request_id,
        details={"reason": wish.reason, **{name: str(count) for name, count in counts.items()}},
        now=now,
        identity=[wish.request_id],
    )


def limited(record: KeyRecord, viewer: Viewer, *, request_id: str, now: datetime) -> Event:
    """Tell audit of a key that was asked for too often, once per hour: nobody fills the log by asking on."""
    hour = now.strftime("%Y-%m-%dT%H")
    return _audited(
        "key.release_limited",
        _customer(viewer),
        record.order_id,
        record.key_id,
        request_id=request_id,
        now=now,
        identity=[record.key_id, hour],
    )


def denied(key_id: str, order_id: str, viewer: Viewer, *, request_id: str, now: datetime) -> Event:
    """Tell audit of a denied access."""
    identity = [request_id, key_id, viewer.customer_id]
    return _audited(
        "key.access_denied", _customer(viewer), order_id, key_id, request_id=request_id, now=now, identity=identity
    )


def outcome(authorization: Authorization, record: KeyRecord, viewer: Viewer, *, failure: str, now: datetime) -> Event:
    """Tell audit what became of a release."""
    return _audited(
        f"{authorization.release.value}_{'failed' if failure else 'released'}",
        _customer(viewer),
        record.order_id,
        record.key_id,
        request_id=authorization.request_id,
        details=_outcome_details(authorization, failure),
        now=now,
        identity=[authorization.request_id],
    )


def opened(authorization: Authorization, record: KeyRecord, *, now: datetime) -> Event:
    """Tell the shop of an opened key."""
    subject = "vault.key.opened"
    message = VaultKeyOpened(key_id=record.key_id, order_id=record.order_id, open_time=_timestamp(now))
    event_id = derived_event_id(SOURCE, subject, authorization.request_id)
    return Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=record.key_id, time=now)


def corrupted(authorization: Authorization, record: KeyRecord, *, now: datetime) -> Event:
    """Tell the shop's side of a key that did not open: a person has to look. Each request that failed tells it anew."""
    subject = "vault.key.corrupted"
    message = VaultKeyCorrupted(key_id=record.key_id, order_id=record.order_id, find_time=_timestamp(now))
    event_id = derived_event_id(SOURCE, subject, authorization.request_id)
    return Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=record.key_id, time=now)


def shredded(record: KeyRecord, *, now: datetime) -> Event:
    """Tell the shop of a destroyed key."""
    subject = "vault.key.shredded"
    message = VaultKeyShredded(key_id=record.key_id, order_id=record.order_id, shred_time=_timestamp(now))
    event_id = derived_event_id(SOURCE, subject, record.key_id)
    return Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=record.key_id, time=now)


def expired(record: KeyRecord, *, now: datetime) -> Event:
    """Tell the shop of a key whose retention was over."""
    subject = "vault.key.expired"
    message = VaultKeyExpired(
        key_id=record.key_id, order_id=record.order_id, expire_time=_timestamp(now), opened=record.is_opened
    )
    event_id = derived_event_id(SOURCE, subject, record.key_id)
    return Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=record.key_id, time=now)


def unusual(authorization: Authorization, record: KeyRecord, news: Collection[Kind], *, now: datetime) -> Event:
    """Tell fulfillment of an access of which something was new."""
    subject = "vault.key.unusual_access"
    message = VaultKeyUnusualAccess(
        key_id=record.key_id,
        order_id=record.order_id,
        access_time=_timestamp(now),
        news=sorted(_NEWS[kind] for kind in news),
    )
    event_id = derived_event_id(SOURCE, subject, authorization.request_id)
    return Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=record.key_id, time=now)


def _audited(
    action: str,
    actor: actor_pb2.Actor,
    order_id: str,
    key_id: str,
    *,
    now: datetime,
    identity: list[str],
    request_id: str = "",
    details: Mapping[str, str] | None = None,
) -> Event:
    message = AuditRecorded(
        actor=actor,
        action=action,
        order_id=order_id,
        key_id=key_id,
        request_id=request_id,
        details=details,
        occur_time=_timestamp(now),
    )
    event_id = derived_event_id(SOURCE, action, *identity)
    about = key_id or request_id
    return Event.of(message, event_id=event_id, subject="audit.recorded", source=SOURCE, about=about, time=now)


def _customer(viewer: Viewer) -> actor_pb2.Actor:
    return actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id=viewer.customer_id)


def _outcome_details(authorization: Authorization, failure: str) -> dict[str, str]:
    details = {"authorized_at": str(authorization.audit_sequence)}
    if failure:
        return {**details, "reason": failure}
    if authorization.release is Release.LINK:
        return {**details, "expire_time": authorization.expire_time.isoformat()}
    return details


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
