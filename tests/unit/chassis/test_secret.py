import copy
import pickle

import pytest
from chassis.secret import SecretBytes


def test_only_expose_gives_the_bytes() -> None:
    secret = SecretBytes(b"hunter2")
    assert secret.expose() == b"hunter2"
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret, repr([secret])):  # noqa: UP031 # every way of formatting
        assert "hunter2" not in text
    assert len(secret) == 7


def test_it_is_neither_pickled_nor_hashed() -> None:
    secret = SecretBytes(b"hunter2")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert not hasattr(secret, "__dict__")


def test_a_copy_is_the_same_secret_so_that_dropping_drops_both() -> None:
    secret = SecretBytes(b"hunter2")
    shallow, deep = copy.copy(secret), copy.deepcopy(secret)
    secret.drop()
    for copied in (secret, shallow, deep):
        with pytest.raises(ValueError, match="dropped"):
            copied.expose()


def test_at_the_end_of_its_block_it_is_dropped_also_when_that_raises() -> None:
    with SecretBytes(b"hunter2") as secret:
        assert secret.expose() == b"hunter2"
    with pytest.raises(ValueError, match="dropped"):
        secret.expose()
    failing = SecretBytes(b"hunter2")
    with pytest.raises(LookupError), failing:
        raise LookupError
    with pytest.raises(ValueError, match="dropped"):
        failing.expose()


def test_it_equals_the_same_bytes_and_nothing_else() -> None:
    assert SecretBytes(b"a") == SecretBytes(bytearray(b"a"))
    assert SecretBytes(b"a") != SecretBytes(b"b")
    assert SecretBytes(b"a") != b"a"
