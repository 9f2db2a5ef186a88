import itertools
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from sandbox.given import Given
from sandbox.layout import Layout
from sandbox.ports import OwnPorts
from sandbox.setup import Options, Setup

MakeSetup = Callable[..., Setup]


@pytest.fixture(autouse=True)
def blocks_without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    firsts = itertools.cycle(range(18_000, 31_950, 50))
    monkeypatch.setattr("sandbox.ports.hold_block", lambda: (next(firsts), Mock()))
    monkeypatch.setattr("sandbox.ports._own_ports", OwnPorts())


@pytest.fixture
def all_ports_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.ports.is_free", lambda _port: True)


@pytest.fixture
def make_setup(tmp_path: Path, all_ports_free: None) -> MakeSetup:  # noqa: ARG001 # asked for its effect
    def make(options: Options | None = None, **given: str) -> Setup:
        return Setup(Layout(tmp_path), options or Options(), Given(given))

    return make
