import json
from pathlib import Path

import pytest
from sandbox.ports import NoFreePort, PortKeeper, free_port


@pytest.mark.usefixtures("all_ports_free")
def test_a_name_keeps_its_port_across_starts(tmp_path: Path) -> None:
    keeper = PortKeeper(tmp_path / "ports.json")
    port = keeper.port("edge")
    assert keeper.port("edge") == port
    keeper.save()
    assert PortKeeper(tmp_path / "ports.json").port("edge") == port


@pytest.mark.usefixtures("all_ports_free")
def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    keeper = PortKeeper(tmp_path / "ports.json")
    assert len({keeper.port(str(number)) for number in range(200)}) == 200


def test_a_taken_port_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ports.json").write_text(json.dumps({"edge": 20_000, "nats": 20_001}))
    monkeypatch.setattr("sandbox.ports.is_free", lambda port: port != 20_000)
    keeper = PortKeeper(tmp_path / "ports.json")
    assert keeper.port("edge") not in {20_000, 20_001}
    assert keeper.port("nats") == 20_001


@pytest.mark.usefixtures("all_ports_free")
def test_names_that_were_not_asked_for_keep_theirs(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(json.dumps({"vault-2.grpc": 20_000}))
    keeper = PortKeeper(tmp_path / "ports.json")
    keeper.port("edge")
    keeper.save()
    assert json.loads((tmp_path / "ports.json").read_text())["vault-2.grpc"] == 20_000


@pytest.mark.usefixtures("all_ports_free")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"edge": "x"}'])
def test_a_damaged_file_is_no_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert PortKeeper(tmp_path / "ports.json").port("edge") > 0


@pytest.mark.usefixtures("all_ports_free")
def test_ports_lie_below_those_of_outgoing_connections() -> None:
    assert all(18_000 <= free_port() < 32_768 for _ in range(100))


def test_no_free_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.ports.is_free", lambda _port: False)
    with pytest.raises(NoFreePort):
        free_port()
