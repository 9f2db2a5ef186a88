from datetime import timedelta

import pytest
from vault.domain.delivery import Usage, wait_of
from vault.domain.key import Binding, KeyRecord, KeyState
from vault.domain.retention import Erasing, Retention, erasing_of

from tests.unit.vault.fakes import NOON

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("minutes_ago", "is_counted", "wait"),
    [
        ([], False, 0),
        ([59, 1], False, 0),
        ([59, 30, 1], False, 1),
        ([59, 58, 30, 1], False, 2),
        ([59, 30, 1], True, 0),
    ],
    ids=["never", "below", "at the limit", "above it", "counted"],
)
def test_the_wait_ends_when_the_oldest_that_counts_is_an_hour_old(
    minutes_ago: list[int], *, is_counted: bool, wait: int
) -> None:
    usage = Usage([NOON - minutes * MINUTE for minutes in minutes_ago], is_counted)
    assert wait_of(usage, limit=3, now=NOON) == wait * MINUTE


def test_a_wait_is_never_so_short_that_it_reads_as_none() -> None:
    assert wait_of(Usage([NOON - 60 * MINUTE], is_counted=False), limit=1, now=NOON) == timedelta(seconds=1)


def a_key(state: KeyState, *, opened: int | None = None, revoked: int | None = None) -> KeyRecord:
    return KeyRecord(
        key_id="k",
        source_ref="s",
        seal_request_id="r",
        order_id="o",
        item_id="i",
        binding=Binding("v1.o", "v1.c"),
        content_type="text/plain",
        fingerprint="v1.f",
        dek=None,
        state=state,
        generation=0,
        object_sha256=None,
        create_time=NOON,
        open_time=None if opened is None else NOON + opened * DAY,
        revoke_time=None if revoked is None else NOON + revoked * DAY,
    )


@pytest.mark.parametrize(
    ("record", "last_day"),
    [
        (a_key(KeyState.SEALED, opened=0), 30),
        (a_key(KeyState.SEALED, opened=80), 110),
        (a_key(KeyState.SEALED, opened=400), 430),
        (a_key(KeyState.SEALED), 90),
        (a_key(KeyState.SEALING), 90),
        (a_key(KeyState.HELD), 90),
        (a_key(KeyState.REVOKED, revoked=50), 140),
    ],
    ids=["opened", "opened late", "opened very late", "unopened", "sealing", "held", "revoked"],
)
def test_retention_counts_from_delivery_and_without_one_is_longer(record: KeyRecord, last_day: int) -> None:
    retention = Retention(opened=30 * DAY, unopened=90 * DAY)
    assert not retention.is_over(record, NOON + last_day * DAY - timedelta(seconds=1))
    assert retention.is_over(record, NOON + last_day * DAY)


def test_what_is_destroyed_is_not_destroyed_again() -> None:
    assert not Retention(DAY, DAY).is_over(a_key(KeyState.SHREDDED), NOON + 999 * DAY)


@pytest.mark.parametrize("state", list(KeyState))
@pytest.mark.parametrize("opened", [None, 1], ids=["unopened", "opened"])
@pytest.mark.parametrize("forfeit", [False, True], ids=["kept", "forfeited"])
def test_only_what_was_paid_for_and_never_opened_is_owed(state: KeyState, opened: int | None, *, forfeit: bool) -> None:
    erasing = erasing_of(a_key(state, opened=opened), forfeit_unopened=forfeit)
    if state not in (KeyState.SEALING, KeyState.SEALED):
        assert erasing is Erasing.UNLINK
    elif opened is None and not forfeit:
        assert erasing is Erasing.OWED
    else:
        assert erasing is Erasing.SHRED
