"""`keyferry-sandbox` as a person uses it: started, killed, started again, stopped; and the demo."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # ships no types
import pytest
from sandbox.ports import free_port
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer

START_SECONDS = 40.0
SERVICES = {"edge", "fulfillment", "kinguin-gateway", "vault", "audit"}
ALL = SERVICES | {"kinguin", "issuer", "mailbox", "postgres", "nats", "s3", "supervisor"}

Endpoints = dict[str, Any]


class Run:
    """One `keyferry-sandbox run` in a folder."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self._endpoints = folder / "endpoints.json"
        self.output = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.out")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "run", "--folder", str(folder), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def endpoints(self) -> Endpoints:
        return dict(json.loads(self._endpoints.read_text()))

    def wait_until_up(self) -> Endpoints:
        self.wait_until(lambda: "Ctrl-C" in self.output.read_text())
        return self.endpoints()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(START_SECONDS)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "sandbox"
    yield path
    for run in psutil.process_iter(["cmdline"]):
        command = run.info["cmdline"] or []
        if str(path) in command and "run" in command:
            run.send_signal(signal.SIGINT)
            run.wait(START_SECONDS)
    cli("clean", path)


def cli(command: str, folder: Path, *options: str, seconds: float = 90) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sandbox", command, "--folder", str(folder), *options],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def alive(endpoints: Endpoints) -> set[str]:
    names = set()
    for name, pid in endpoints["pids"].items():
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                names.add(name)
        except psutil.NoSuchProcess:
            continue
    return names


def test_it_starts_heals_survives_a_kill_and_stops(folder: Path) -> None:
    first = Run(folder, "--no-sample")
    endpoints = first.wait_until_up()
    assert alive(endpoints) == set(endpoints["pids"]) == ALL
    assert set(endpoints["logs"]) == ALL - {"supervisor"}

    second = cli("run", folder)
    assert (second.returncode, "is running" in second.stderr) == (1, True)
    assert cli("clean", folder).returncode == 1

    os.kill(endpoints["pids"]["vault"], signal.SIGKILL)
    first.wait_until(lambda: first.endpoints()["pids"]["vault"] != endpoints["pids"]["vault"])
    healed = first.endpoints()
    assert {name: value for name, value in healed.items() if name != "pids"} == {
        name: value for name, value in endpoints.items() if name != "pids"
    }

    first.process.kill()
    first.process.wait()
    assert alive(healed) == ALL - {"supervisor"}

    third = Run(folder)
    again = third.wait_until_up()
    assert re.search(r"A sample order of alice's: http://localhost:\d+/orders/S", third.output.read_text())
    assert alive(healed) == set()
    assert again["edge"] == endpoints["edge"]
    assert again["grpc"] == endpoints["grpc"]

    assert third.interrupt() == 0
    assert alive(again) == set()
    assert not (folder / "endpoints.json").exists()


def test_the_demo_shows_every_step_and_each_has_held(folder: Path) -> None:
    shown = cli("demo", folder)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    steps = (
        "order paid",
        "bought at Kinguin",
        "key sealed",
        "e-mail sent",
        "opened by its owner",
        "refused to somebody else",
        "audit entries listed",
    )
    positions = [shown.stdout.index(step) for step in steps]
    assert positions == sorted(positions)
    assert not (folder / "endpoints.json").exists()


def test_given_servers_are_used_and_left_running(folder: Path, tmp_path: Path) -> None:
    postgres = PostgresServer(tmp_path / "given-postgres", password="given")
    nats = NatsServer(tmp_path / "given-nats")
    try:
        postgres.start()
        nats.start()
        run = Run(folder, DATABASE_URL=postgres.url, NATS_URL=nats.url)
        endpoints = run.wait_until_up()
        assert set(endpoints["pids"]) == ALL - {"postgres", "nats"}
        assert (endpoints["database"], endpoints["nats"]) == (postgres.url, nats.url)
        assert "A sample order of alice's" in run.output.read_text()
        assert run.interrupt() == 0
        assert postgres.is_running
        assert nats.is_running
    finally:
        nats.stop()
        postgres.stop()


def refused(folder: Path, **environment: str) -> str:
    """Return what is said by a run that cannot start in these surroundings."""
    run = subprocess.run(
        [sys.executable, "-m", "sandbox", "run", "--folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert run.returncode == 1
    return run.stderr


def test_a_part_that_is_given_by_half_is_refused_by_name(folder: Path) -> None:
    said = refused(folder, KINGUIN_BASE="https://kinguin.example/api")
    assert said == "KINGUIN_BASE is set, so KINGUIN_API_KEY has to be set as well\n"


def test_a_given_server_that_does_not_answer_is_named(folder: Path) -> None:
    said = refused(folder, DATABASE_URL=f"postgresql://nobody:nothing@127.0.0.1:{free_port()}/postgres")
    assert "what DATABASE_URL names cannot be used" in said
    assert "Traceback" not in said


def test_only_a_folder_of_the_sandbox_is_removed(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    answer = cli("clean", tmp_path)
    assert answer.returncode == 1
    assert "nothing was removed" in answer.stderr
    assert mine.exists()
