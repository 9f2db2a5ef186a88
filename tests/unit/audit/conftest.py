import pytest
from audit.adapters.jose import JosePersonKeys
from chassis.keyring import Keyring

from tests.unit.audit.memory_log import MemoryLog


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def keys() -> JosePersonKeys:
    return JosePersonKeys(Keyring.parse("v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"))
