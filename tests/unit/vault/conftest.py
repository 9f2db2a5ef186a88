import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from chassis.failpoints import configure_failpoints
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.vault.fakes import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as logs:
        yield logs


@pytest.fixture(autouse=True)
def no_failpoints() -> Iterator[None]:
    yield
    configure_failpoints("")
