"""The table of processes must say what the services want to hear, no more and no less."""

import importlib
import inspect
from collections.abc import Callable

import pytest
from chassis.settings import ServiceSettings, Settings
from sandbox.kinguin.__main__ import main as simulate
from sandbox.processes import PROGRAMS, SHORT_BOUNDS, SHORT_PATIENCE, Program
from sandbox.setup import Options, Setup

MakeSetup = Callable[..., Setup]
BY_NAME = {program.name: program for program in PROGRAMS}
REAL_KINGUIN = {
    "KINGUIN_BASE": "https://kinguin.example/api",
    "KINGUIN_API_KEY": "theirs",
    "KINGUIN_WEBHOOK_SECRET": "theirs too",
}


def settings_class(program: Program) -> type[Settings]:
    module = importlib.import_module(f"{program.package}.config")
    return next(
        known
        for known in vars(module).values()
        if isinstance(known, type) and issubclass(known, Settings) and known not in (Settings, ServiceSettings)
    )


@pytest.mark.parametrize(
    "program", [BY_NAME[name] for name in sorted(BY_NAME) if name != "kinguin"], ids=lambda program: program.name
)
def test_a_program_is_told_what_it_declares_and_starts_with_it(
    program: Program, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = program.settings(make_setup(Options(traces=True)), program.name)
    declared = settings_class(program)
    assert set(told) <= set(declared.variables())
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    declared.load()


def test_faults_are_planned_only_where_they_were_asked_for(make_setup: MakeSetup) -> None:
    for options in (Options(), Options(failpoints=True)):
        setup = make_setup(options)
        told = BY_NAME["vault"].settings(setup, "vault-2")
        assert ("KEYFERRY_FAILPOINTS_FILE" in told) is options.failpoints
    assert setup.layout.failpoints("vault-2").read_text() == ""


def test_the_simulator_knows_its_options_and_shares_the_edges_secret(make_setup: MakeSetup) -> None:
    setup, simulator = make_setup(), BY_NAME["kinguin"]
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(simulate).parameters}
    assert set(simulator.arguments(setup)[::2]) <= options
    told = simulator.settings(setup, "kinguin")
    assert told["KINGUIN_WEBHOOK_SECRET"] == BY_NAME["edge"].settings(setup, "edge")["KINGUIN_WEBHOOK_SECRET"]
    assert told["KINGUIN_API_KEY"] == BY_NAME["kinguin-gateway"].settings(setup, "kinguin-gateway")["KINGUIN_API_KEY"]


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(PROGRAMS)


def test_replicas_listen_apart_and_clients_know_them_all(make_setup: MakeSetup) -> None:
    setup = make_setup(Options(replicas=2))
    vault = BY_NAME["vault"]
    assert vault.replicas(setup) == ["vault", "vault-2"]
    listened = [vault.settings(setup, replica)["KEYFERRY_GRPC_LISTEN"] for replica in vault.replicas(setup)]
    assert len(set(listened)) == 2
    assert BY_NAME["fulfillment"].settings(setup, "fulfillment")["KEYFERRY_VAULT_ADDRESS"] == ",".join(listened)


def test_there_is_one_edge_since_pages_have_one_address(make_setup: MakeSetup) -> None:
    assert BY_NAME["edge"].replicas(make_setup(Options(replicas=3))) == ["edge"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("issuer", {"OIDC_ISSUER": "https://login.example"}),
        ("mailbox", {"SMTP_URL": "smtps://mail.example:465"}),
        ("kinguin", REAL_KINGUIN),
    ],
)
def test_what_is_given_is_not_started(make_setup: MakeSetup, name: str, given: dict[str, str]) -> None:
    assert BY_NAME[name].replicas(make_setup()) == [name]
    assert BY_NAME[name].replicas(make_setup(**given)) == []


def test_bounds_are_short_with_the_simulator_and_real_with_the_real_supplier(make_setup: MakeSetup) -> None:
    gateway = BY_NAME["kinguin-gateway"]
    assert SHORT_BOUNDS.items() <= gateway.settings(make_setup(), "kinguin-gateway").items()
    real = gateway.settings(make_setup(**REAL_KINGUIN), "kinguin-gateway")
    assert not SHORT_BOUNDS.keys() & real.keys()
    assert real["KINGUIN_API_KEY"] == "theirs"
    fulfillment = BY_NAME["fulfillment"]
    assert SHORT_PATIENCE.items() <= fulfillment.settings(make_setup(), "fulfillment").items()
    assert not SHORT_PATIENCE.keys() & fulfillment.settings(make_setup(**REAL_KINGUIN), "fulfillment").keys()


def test_chosen_bounds_hold(make_setup: MakeSetup) -> None:
    chosen = {"KINGUIN_COMMIT_BOUND": "7"}
    assert BY_NAME["kinguin-gateway"].settings(make_setup(**chosen), "kinguin-gateway")["KINGUIN_COMMIT_BOUND"] == "7"


def test_the_webhook_secret_is_the_given_one(make_setup: MakeSetup) -> None:
    assert BY_NAME["edge"].settings(make_setup(**REAL_KINGUIN), "edge")["KINGUIN_WEBHOOK_SECRET"] == "theirs too"


def test_surroundings_reach_a_program_only_where_they_are_meant_to(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("KEYFERRY_LOG_LEVEL", "debug")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody's")
    environment = BY_NAME["vault"].environment(make_setup(), "vault")
    assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert environment["KEYFERRY_LOG_LEVEL"] == "info"
    assert "AWS_SECRET_ACCESS_KEY" not in environment


def test_services_see_their_own_database_only(make_setup: MakeSetup) -> None:
    setup = make_setup()
    urls = {
        program.name: program.settings(setup, program.name).get("DATABASE_URL", "").rpartition("/")[2]
        for program in PROGRAMS
    }
    assert {name: database for name, database in urls.items() if database} == {
        "audit": "audit",
        "vault": "vault",
        "kinguin-gateway": "kinguin",
        "fulfillment": "fulfillment",
    }
