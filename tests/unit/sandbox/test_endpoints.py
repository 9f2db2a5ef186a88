import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox.endpoints import Endpoints, NotRunning
from sandbox.layout import Layout
from sandbox.setup import Options, Setup

MakeSetup = Callable[..., Setup]


def test_the_file_has_every_name_that_other_programs_read(make_setup: MakeSetup) -> None:
    setup = make_setup()
    endpoints = Endpoints.of(setup, pids={"vault": 7}, logs={"vault": setup.layout.log("vault")})
    endpoints.write(setup.layout)
    read = json.loads(setup.layout.endpoints.read_text())
    assert set(read) == {
        "edge",
        "grpc",
        "nats",
        "database",
        "s3",
        "kinguin",
        "kinguin_control",
        "mailbox",
        "issuer",
        "ca",
        "identities",
        "pids",
        "logs",
    }
    assert set(read["grpc"]) == {"fulfillment", "kinguin", "vault", "audit"}
    assert all(address.startswith("127.0.0.1:") for address in read["grpc"].values())
    assert read["pids"] == {"vault": 7}
    assert read["edge"].startswith("http://localhost:")
    assert Path(read["ca"]).exists()
    assert Path(read["identities"]["shop"]["cert"]).exists()
    assert Path(read["identities"]["shop"]["key"]).exists()
    assert Endpoints.read(setup.layout).values == read


def test_the_file_holds_a_password_and_is_its_owners_only(make_setup: MakeSetup) -> None:
    setup = make_setup()
    Endpoints.of(setup, pids={}, logs={}).write(setup.layout)
    assert stat.S_IMODE(setup.layout.endpoints.stat().st_mode) == 0o600


def test_with_replicas_an_address_is_still_one_address(make_setup: MakeSetup) -> None:
    endpoints = Endpoints.of(make_setup(Options(replicas=2)), pids={}, logs={})
    assert "," not in endpoints["grpc"]["vault"]


def test_given_parts_are_named_and_have_no_page(make_setup: MakeSetup) -> None:
    given = {"SMTP_URL": "smtp://mail.example:25", "NATS_URL": "nats://nats.example:4222"}
    endpoints = Endpoints.of(make_setup(**given), pids={}, logs={})
    assert endpoints["mailbox"] == ""
    assert endpoints["nats"] == "nats://nats.example:4222"


def test_a_given_database_server_is_used_with_roles_of_our_own(make_setup: MakeSetup) -> None:
    setup = make_setup(DATABASE_URL="postgresql://root:secret@db.example:5432/postgres?sslmode=require")
    url = setup.database("vault", "service")
    assert url.startswith("postgresql://vault_service:")
    assert url.endswith("@db.example:5432/vault?sslmode=require")


def test_no_file_means_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="make run"):
        Endpoints.read(Layout(tmp_path))
