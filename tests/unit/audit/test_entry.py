import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from audit.domain.entry import (
    Actor,
    ActorType,
    Draft,
    Place,
    canonical_entry,
    format_time,
    leaf_hash,
    next_place,
    parse_time,
    read_entry,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit_entry_v1.json").read_text(encoding="utf-8"))
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def draft_of(vector: dict[str, Any]) -> Draft:
    told = vector["draft"]
    return Draft(
        append_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        told=b"",
        actor=Actor(ActorType(told["actor_type"]), "somebody"),
        action=told["action"],
        recorder=told["recorder"],
        order_id=told["order_id"],
        key_id=told["key_id"],
        request_id=told["request_id"],
        details=told["details"],
        occur_time=parse_time(told["occur_time"]) if told["occur_time"] else None,
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_form_of_an_entry_never_changes(vector: dict[str, Any]) -> None:
    place = Place(vector["sequence"], parse_time(vector["time"]))
    canonical = canonical_entry(draft_of(vector), place, actor_id=vector["actor_id"], personal=vector["personal"])
    assert canonical == vector["canonical"]
    assert leaf_hash(canonical).hex() == vector["leaf_hash"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_an_independent_merkle_tree_hashes_the_leaf_alike(vector: dict[str, Any]) -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    tree.append_entry(vector["canonical"].encode())
    assert tree.get_leaf(1).hex() == vector["leaf_hash"]
    assert hashlib.sha256(b"\0" + vector["canonical"].encode()).hexdigest() == vector["leaf_hash"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_an_entry_reads_back_as_what_was_written(vector: dict[str, Any]) -> None:
    entry = read_entry(vector["canonical"], bytes.fromhex(vector["leaf_hash"]))
    told = vector["draft"]
    assert (entry.sequence, entry.time) == (vector["sequence"], parse_time(vector["time"]))
    assert (entry.actor_type.value, entry.actor_id) == (told["actor_type"], vector["actor_id"])
    assert (entry.action, entry.order_id, entry.key_id) == (told["action"], told["order_id"], told["key_id"])
    assert (entry.request_id, entry.details, entry.personal) == (
        told["request_id"],
        told["details"],
        vector["personal"],
    )


def test_another_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="version"):
        read_entry(VECTORS[0]["canonical"].replace('"version":1', '"version":2'), bytes(32))


def test_the_first_place_is_zero_and_the_next_has_no_gap() -> None:
    assert next_place(None, NOON) == Place(0, NOON)
    assert next_place(Place(41, NOON), NOON + timedelta(seconds=1)) == Place(42, NOON + timedelta(seconds=1))


def test_time_stands_still_while_the_clock_runs_behind() -> None:
    assert next_place(Place(0, NOON), NOON - timedelta(hours=1)) == Place(1, NOON)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOON, "2026-01-02T12:00:00.000000Z"),
        (NOON.replace(microsecond=6), "2026-01-02T12:00:00.000006Z"),
        (NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), "2026-01-02T12:00:00.000000Z"),
    ],
)
def test_times_are_utc_and_always_as_wide(moment: datetime, text: str) -> None:
    assert format_time(moment) == text
    assert parse_time(text) == moment


def test_what_is_personal_is_not_printed() -> None:
    actor = Actor(ActorType.CUSTOMER, "alice", "alice@example.com", "192.0.2.7", "Browser")
    draft = Draft("id", b"alice", actor, "key.sealed", "vault")
    assert "alice" not in repr(draft)
    assert "192.0.2.7" not in repr(draft)
