import json
from typing import Any

import pytest
from chassis.errors import FieldViolation
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import ECKey
from vault.crypto import read_recipient
from vault.domain.key import MOST_KEY_BYTES
from vault.errors import UploadMismatch, UploadUnreadable
from vault.uploading import _ORDER, UploadKeys

from tests.unit.vault.fakes import GAME_KEY, a_keyring
from tests.unit.vault.jose_by_hand import decode, encode, write_agreed

BOUND = {"order_id": "order-1", "item_id": "item-1", "request_id": "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"}
KEYS = UploadKeys(a_keyring("v1"))


def public(keys: UploadKeys = KEYS) -> dict[str, str]:
    return dict(json.loads(keys.public_jwk()))


def uploaded(plaintext: bytes = GAME_KEY, keys: UploadKeys = KEYS, **changes: Any) -> str:
    return write_agreed({"kid": public(keys)["kid"], **BOUND}, plaintext, public(keys), **changes)


def unreadable(token: str) -> UploadUnreadable:
    with pytest.raises(UploadUnreadable) as raised:
        KEYS.open(token, BOUND)
    return raised.value


# The key pair


def test_the_upload_key_is_a_public_jwk_and_nothing_more() -> None:
    jwk = public()
    assert jwk.keys() == {"kty", "crv", "x", "y", "kid"}
    assert (jwk["kty"], jwk["crv"], jwk["kid"]) == ("EC", "P-256", "v1")


@pytest.mark.parametrize("version", ["v1", "v2", "v7"])
def test_it_is_derived_as_the_page_says_so_that_every_replica_has_the_same(version: str) -> None:
    secret = a_keyring(version).versions[version].expose()
    seed = HKDF(algorithm=SHA256(), length=48, salt=None, info=b"keyferry vault upload key v1").derive(secret)
    order = 115792089210356248762697446949407573529996955224135760342422259061068512044369
    numbers = ec.derive_private_key(int.from_bytes(seed) % (order - 1) + 1, ec.SECP256R1()).public_key()
    point = numbers.public_numbers()
    jwk = public(UploadKeys(a_keyring(version)))
    assert (decode(jwk["x"]), decode(jwk["y"])) == (point.x.to_bytes(32), point.y.to_bytes(32))
    assert order == _ORDER
    assert jwk == public(UploadKeys(a_keyring(version)))


def test_the_active_version_is_the_one_that_is_given_out() -> None:
    both = UploadKeys(a_keyring("v2", "v1"))
    assert public(both) == public(UploadKeys(a_keyring("v2")))
    assert public(both) != public()


def test_what_was_encrypted_to_a_retained_version_opens_and_to_a_removed_one_does_not() -> None:
    token = uploaded()
    assert UploadKeys(a_keyring("v2", "v1")).open(token, BOUND).expose() == GAME_KEY
    with pytest.raises(UploadUnreadable):
        UploadKeys(a_keyring("v2")).open(token, BOUND)


def test_nothing_private_shows_itself_when_printed() -> None:
    private = {str(pair.as_dict(private=True)["d"]) for pair in KEYS._keys.values()}
    assert not any(d in repr(KEYS) + repr(vars(KEYS)) for d in private)


# What opens


@pytest.mark.parametrize("size", [0, 1, 17, 100_000, MOST_KEY_BYTES])
def test_what_a_page_encrypts_by_the_standards_alone_is_opened(size: int) -> None:
    plaintext = b"x" * size
    assert KEYS.open(uploaded(plaintext), BOUND).expose() == plaintext


def test_a_request_id_is_the_same_however_it_is_spelled() -> None:
    spelled = BOUND["request_id"].upper()
    assert KEYS.open(uploaded(request_id=spelled), BOUND).expose() == GAME_KEY


# What does not


@pytest.mark.parametrize("field", sorted(BOUND))
@pytest.mark.parametrize("value", ["", "other", 7, ["order-1"], {"a": 1}])
def test_what_was_made_for_another_order_line_or_request_is_named(field: str, value: Any) -> None:
    token = uploaded(**{field: value})
    if not isinstance(value, str):
        unreadable(token)
        return
    with pytest.raises(UploadMismatch) as raised:
        KEYS.open(token, BOUND)
    assert raised.value.field_violations == (FieldViolation(field, "is not what the uploaded key was made for"),)


def test_every_mismatch_is_named_at_once() -> None:
    with pytest.raises(UploadMismatch) as raised:
        KEYS.open(uploaded(), dict.fromkeys(BOUND, "other"))
    assert [fault.field for fault in raised.value.field_violations] == list(BOUND)


@pytest.mark.parametrize(
    "changes",
    [
        {"order_id": None},
        {"item_id": None},
        {"request_id": None},
        {"kid": None},
        {"kid": "v9"},
        {"kid": 1},
        {"kid": ["v1"]},
        {"alg": None},
        {"alg": "ECDH-ES"},
        {"alg": "dir"},
        {"alg": "none"},
        {"alg": "A256KW"},
        {"alg": "PBES2-HS256+A128KW", "p2s": "AAAAAAAA", "p2c": 1000},
        {"alg": ["ECDH-ES+A256KW"]},
        {"enc": "A128CBC-HS256"},
        {"enc": None},
        {"enc": {}},
        {"zip": "DEF"},
        {"cty": "text/plain"},
        {"typ": "JWE"},
        {"crit": ["order_id"]},
        {"crit": ["exp"], "exp": 1},
        {"jku": "https://evil.example"},
        {"apu": "QWxpY2U"},
        {"unknown": "x"},
        {"epk": None},
        {"epk": {}},
        {"epk": "x"},
        {"epk": {"kty": "OKP", "crv": "X25519", "x": "AA"}},
        {"epk": {"kty": "EC", "crv": "P-256", "x": encode(bytes(32)), "y": encode(bytes(32))}},
        {"epk": {"kty": "EC", "crv": "P-256", "x": encode(b"\xff" * 32), "y": encode(b"\xff" * 32)}},
        {"epk": {"kty": "EC", "crv": "P-256", "x": 5, "y": None}},
        {"epk": ECKey.generate_key("P-384").as_dict(private=False)},
        {"order_id": "x" * 2000},
    ],
)
def test_any_other_header_is_unreadable_and_all_say_the_same(changes: dict[str, Any]) -> None:
    assert unreadable(uploaded(**changes)).message == unreadable("").message


def test_what_was_encrypted_to_somebody_else_is_unreadable() -> None:
    stranger = UploadKeys(a_keyring("v2"))
    unreadable(write_agreed({"kid": "v1", **BOUND}, GAME_KEY, public(stranger)))


def test_the_error_tells_nothing_of_what_was_sent() -> None:
    token = uploaded(alg="dir-secret")
    error = unreadable(token)
    assert "secret" not in str(error) + repr(error.field_violations) + repr(error.metadata)
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_any_byte_that_is_another_closes_it() -> None:
    token = uploaded()
    for position, kept in enumerate(token):
        changed = token[:position] + ("B" if kept == "A" else "A") + token[position + 1 :]
        parts = [part and decode_leniently(part) for part in changed.split(".")]
        if parts != [part and decode_leniently(part) for part in token.split(".")]:
            unreadable(changed)


def decode_leniently(part: str) -> bytes | None:
    try:
        return decode(part)
    except ValueError:
        return None


@given(st.one_of(st.text(max_size=200), st.lists(st.text("AQB-_=.é\n{[", max_size=30), max_size=7).map(".".join)))
def test_nothing_that_is_sent_is_anything_but_unreadable(token: str) -> None:
    unreadable(token)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_no_json_for_a_header_is_anything_but_unreadable(header: Any) -> None:
    part = encode(json.dumps(header).encode())
    unreadable(f"{part}.AAAA.AAAA.AAAA.AAAA")


@pytest.mark.parametrize("token", ["[" * 700, '{"alg":' * 90, "." * 4, "." * 100_000, "A" * 5_000_000])
def test_a_hostile_shape_is_unreadable(token: str) -> None:
    unreadable(token)
    unreadable(f"{encode(token.encode())[:1000]}.AAAA.AAAA.AAAA.AAAA")


def test_a_bomb_is_not_unpacked() -> None:
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "zip": "DEF", "kid": "v1"}
    recipient = read_recipient(json.dumps(public()).encode())
    token = jwe.encrypt_compact(header, b"x" * 100_000, recipient, algorithms=[*header.values()][:3])
    unreadable(token)
