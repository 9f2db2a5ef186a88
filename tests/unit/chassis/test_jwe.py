import os

import pytest
from chassis.jwe import jwe_registry
from joserfc import jwe
from joserfc.errors import (
    ExceededSizeError,
    InvalidHeaderValueError,
    MissingHeaderError,
    UnsupportedAlgorithmError,
    UnsupportedHeaderError,
)
from joserfc.jwk import OctKey

KEY = OctKey.import_key(bytes(range(32)))
HEADER = {"alg": "dir", "enc": "A256GCM"}
ANY = jwe_registry("dir", "A256GCM", most_plaintext_bytes=1024 * 1024)


@pytest.mark.parametrize("size", [0, 1, 65536, 99_998, 99_999, 100_000])
def test_it_takes_what_is_not_above_its_bound(size: int) -> None:
    registry, plaintext = jwe_registry("dir", "A256GCM", most_plaintext_bytes=100_000), os.urandom(size)
    token = jwe.encrypt_compact(HEADER, plaintext, KEY, registry=registry)
    assert jwe.decrypt_compact(token, KEY, registry=registry).plaintext == plaintext


def test_it_refuses_what_is_above_its_bound() -> None:
    token = jwe.encrypt_compact(HEADER, bytes(100_100), KEY, registry=ANY)
    with pytest.raises(ExceededSizeError):
        jwe.decrypt_compact(token, KEY, registry=jwe_registry("dir", "A256GCM", most_plaintext_bytes=100_000))


def test_it_refuses_what_it_does_not_name() -> None:
    token = jwe.encrypt_compact(HEADER, b"x", KEY, registry=ANY)
    with pytest.raises(UnsupportedAlgorithmError):
        jwe.decrypt_compact(token, KEY, registry=jwe_registry("ECDH-ES+A256KW", "A256GCM", most_plaintext_bytes=10))


def test_it_takes_the_private_headers_that_it_names_and_demands_them_as_text() -> None:
    bound = jwe_registry("dir", "A256GCM", most_plaintext_bytes=10, private_headers=["place"])
    token = jwe.encrypt_compact({**HEADER, "place": "here"}, b"x", KEY, registry=bound)
    assert jwe.decrypt_compact(token, KEY, registry=bound).protected["place"] == "here"
    with pytest.raises(UnsupportedHeaderError):
        jwe.decrypt_compact(token, KEY, registry=ANY)
    with pytest.raises(MissingHeaderError):
        jwe.decrypt_compact(jwe.encrypt_compact(HEADER, b"x", KEY, registry=ANY), KEY, registry=bound)
    with pytest.raises(InvalidHeaderValueError):
        jwe.encrypt_compact({**HEADER, "place": 1}, b"x", KEY, registry=bound)
