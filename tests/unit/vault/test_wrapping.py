"""Several holders of KEKs as one. What each holder promises is in tests/integration/test_vault_kek_port.py."""

import os
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from chassis.secret import SecretBytes
from vault.adapters.kek_keyring import KeyringKeks
from vault.crypto import DoesNotOpen, Kek
from vault.domain.key import WrappedDek
from vault.errors import SecretVersionMissing
from vault.wrapping import KeyEncryption

from tests.unit.vault.fakes import a_keyring

DEK = SecretBytes(bytes(range(32)))


def holder(*versions: str) -> KeyringKeks:
    return KeyringKeks(Kek(a_keyring(*versions)))


async def test_the_active_holder_wraps_and_each_unwraps_its_own() -> None:
    old, new = holder("v1"), holder("v8", "v7")
    by_old = await KeyEncryption(old).wrap(DEK, "key")
    both = KeyEncryption(new, old)
    by_new = await both.wrap(DEK, "key")
    assert (by_old.kek_version, by_new.kek_version) == ("v1", "v8")
    assert await both.unwrap(by_old, "key") == await both.unwrap(by_new, "key") == DEK
    versions = await both.versions()
    assert (versions.active, versions.retained) == ("v8", frozenset({"v8", "v7", "v1"}))


async def test_what_is_anothers_does_not_unwrap_and_a_version_that_nobody_has_is_missing() -> None:
    keks = KeyEncryption(holder("v1"))
    wrapped = await keks.wrap(DEK, "key")
    with pytest.raises(DoesNotOpen):
        await keks.unwrap(wrapped, "other")
    with pytest.raises(SecretVersionMissing) as raised:
        await KeyEncryption(holder("v2"), holder("v3")).unwrap(wrapped, "key")
    assert raised.value.metadata == {"version": "v1"}


async def test_rewrapping_moves_deks_of_any_holder_to_the_active_version() -> None:
    old = holder("v1")
    wrapped = [(name, await KeyEncryption(old).wrap(SecretBytes(os.urandom(32)), name)) for name in ("a", "b", "c")]
    both = KeyEncryption(holder("v2"), old)
    wrapped.insert(1, ("d", await both.wrap(DEK, "d")))
    wrapped.append(("bad", WrappedDek(bytes(60), "v1")))
    fresh = await both.rewrap(wrapped)
    assert [None if each is None else each.kek_version for each in fresh] == ["v2", "v2", "v2", "v2", None]
    for (name, before), after in zip(wrapped[:-1], fresh, strict=False):
        assert after is not None
        assert after.data != before.data
        assert await both.unwrap(after, name) == await both.unwrap(before, name)
    with pytest.raises(SecretVersionMissing):
        await KeyEncryption(holder("v2")).rewrap(wrapped)
    assert list(await both.rewrap([])) == []


class Forgetful(KeyringKeks):
    """Wraps something else than what it was given, for one key."""

    async def wrap(self, deks: Sequence[tuple[str, SecretBytes]]) -> Sequence[WrappedDek]:
        return await super().wrap([(name, SecretBytes(bytes(32)) if name == "b" else dek) for name, dek in deks])


async def test_a_dek_takes_the_place_of_the_only_one_only_after_it_was_unwrapped_again(
    logs: list[MutableMapping[str, Any]],
) -> None:
    old = KeyEncryption(holder("v1"))
    wrapped = [(name, await old.wrap(DEK, name)) for name in ("a", "b", "c")]
    fresh = await KeyEncryption(Forgetful(Kek(a_keyring("v2", "v1")))).rewrap(wrapped)
    assert [each is None for each in fresh] == [False, True, False]
    assert [entry["key_id"] for entry in logs if entry["log_level"] == "error"] == ["b"]
