from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox.given import Given
from sandbox.layout import Layout
from sandbox.setup import Options, Setup

MakeSetup = Callable[..., Setup]


@pytest.fixture
def all_ports_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.ports.is_free", lambda _port: True)


@pytest.fixture
def make_setup(tmp_path: Path, all_ports_free: None) -> MakeSetup:  # noqa: ARG001 # asked for its effect
    def make(options: Options | None = None, **given: str) -> Setup:
        return Setup(Layout(tmp_path), options or Options(), Given(given))

    return make
