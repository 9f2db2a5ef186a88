import base64

import pytest
from chassis.keyring import Keyring
from hypothesis import given
from hypothesis import strategies as st

ONE = base64.urlsafe_b64encode(bytes(range(32))).decode()
TWO = base64.urlsafe_b64encode(bytes(range(128, 160))).decode().rstrip("=")


def test_the_first_entry_is_active_and_the_rest_is_retained() -> None:
    keyring = Keyring.parse(f" v2:{TWO} , v1:{ONE},")
    assert keyring.active == "v2"
    assert {version: secret.expose() for version, secret in keyring.versions.items()} == {
        "v2": bytes(range(128, 160)),
        "v1": bytes(range(32)),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "at least one"),
        (ONE, "entry 1"),
        (f"1:{ONE}", "entry 1"),
        (f"v0:{ONE}", "entry 1"),
        (f"v1:{ONE},v1:{TWO}", "twice"),
        ("v1:$$$", "not base64url"),
        (f"v1:{ONE[:40]}", "30 bytes"),
        ("v1:" + base64.urlsafe_b64encode(b"password" * 4).decode(), "too regular"),
        ("v1:" + base64.urlsafe_b64encode(bytes(32)).decode(), "too regular"),
        ("v1:" + base64.urlsafe_b64encode(b"abcd" * 8).decode(), "too regular"),
        ("v1:" + base64.urlsafe_b64encode(b"correct horse battery staple 123").decode(), "a text"),
        (f"v1:{ONE},v2:{ONE}", "v1 and v2 hold the same secret"),
    ],
)
def test_a_bad_keyring_is_refused_without_repeating_it(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        Keyring.parse(text)
    assert ONE[:8] not in str(raised.value)
    assert "cGFzc3dv" not in str(raised.value)
    assert "Y29ycmVjd" not in str(raised.value)


def test_purposes_give_keys_that_have_nothing_in_common() -> None:
    keyring = Keyring.parse(f"v2:{TWO},v1:{ONE}")
    derived = [keyring.derive(purpose) for purpose in ("one", "two")]
    keys = {secret.expose() for ring in (keyring, *derived) for secret in ring.versions.values()}
    assert len(keys) == 6
    assert derived[0] == keyring.derive("one")
    assert derived[0].active == "v2"


def test_a_derived_key_never_changes() -> None:
    # RFC 5869 with SHA-256, no salt: computed once with `openssl kdf`, kept for ever, since data is stored under it.
    derived = Keyring.parse(f"v1:{ONE}").derive("example purpose").versions["v1"].expose()
    assert derived.hex() == "93a6ef99713b0ae5bd4fda7b48fbe7b90fb487ee021381327bc650ca23e4892b"


def test_it_does_not_print() -> None:
    assert ONE not in repr(Keyring.parse(f"v1:{ONE}"))
    assert "<redacted>" in repr(Keyring.parse(f"v1:{ONE}"))


@given(st.text())
def test_any_text_is_a_keyring_or_a_sentence(text: str) -> None:
    try:
        keyring = Keyring.parse(text)
    except ValueError:
        return
    assert keyring.versions
