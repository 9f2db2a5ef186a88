"""The supervisor over parts that do nothing but remember: order, restarts, failures, one at a time."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox.child import StartFailed
from sandbox.given import Given
from sandbox.layout import Layout
from sandbox.parts import Node
from sandbox.setup import Options, Setup
from sandbox.supervisor import AlreadyRunning, Supervisor, is_running, locked

PATIENCE_SECONDS = 10.0


class Book:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        with self._lock:
            self.lines.append(line)

    def before(self, first: str, second: str) -> bool:
        return self.lines.index(first) < self.lines.index(second)


class FakePart:
    """A part whose process is a number."""

    def __init__(self, name: str, book: Book, folder: Path, *, fails: int = 0) -> None:
        self.log = folder / f"{name}.log"
        self.pid = 0
        self.is_running = False
        self.starts = 0
        self._name = name
        self._book = book
        self._fails = fails

    def start(self) -> None:
        self.starts += 1
        self.pid += 1000
        if self._fails:
            self._fails -= 1
            raise StartFailed(f"{self._name} does not want to")
        self.is_running = True
        self._book.write(f"{self._name} up")

    def stop(self) -> None:
        if self.is_running:
            self.is_running = False
            self._book.write(f"{self._name} down")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "sandbox")


def make(layout: Layout, nodes: list[Node], said: list[str] | None = None) -> Supervisor:
    setup = Setup(layout, Options(), Given({}))
    return Supervisor(setup, nodes, tell=(said if said is not None else []).append)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 # the parts live in threads and set no event
            await asyncio.sleep(0.01)


async def test_what_is_needed_comes_first_and_goes_last(layout: Layout, tmp_path: Path) -> None:
    book = Book()
    nodes = [
        Node("edge", FakePart("edge", book, tmp_path), ("vault",)),
        Node("vault", FakePart("vault", book, tmp_path), ("postgres", "given")),
        Node("postgres", FakePart("postgres", book, tmp_path)),
    ]
    supervisor = make(layout, nodes)
    await supervisor.start()
    await supervisor.stop()
    assert book.lines == ["postgres up", "vault up", "edge up", "edge down", "vault down", "postgres down"]


async def test_what_dies_is_started_again_under_its_new_id(layout: Layout, tmp_path: Path) -> None:
    part = FakePart("vault", Book(), tmp_path)
    said: list[str] = []
    supervisor = make(layout, [Node("vault", part)], said)
    await supervisor.start()
    try:
        assert json.loads(layout.endpoints.read_text())["pids"]["vault"] == 1000
        part.is_running = False
        await until(lambda: part.is_running)
        await until(lambda: json.loads(layout.endpoints.read_text())["pids"]["vault"] == 2000)
        assert any("started again" in sentence for sentence in said)
    finally:
        await supervisor.stop()


async def test_what_fails_to_come_back_is_tried_again(layout: Layout, tmp_path: Path) -> None:
    part = FakePart("vault", Book(), tmp_path)
    supervisor = make(layout, [Node("vault", part)])
    await supervisor.start()
    try:
        part._fails = 2
        part.is_running = False
        await until(lambda: part.is_running)
        assert part.starts == 4
    finally:
        await supervisor.stop()


async def test_a_failed_start_ends_everything(layout: Layout, tmp_path: Path) -> None:
    book = Book()
    good = FakePart("postgres", book, tmp_path)
    nodes = [
        Node("postgres", good),
        Node("schema", FakePart("schema", book, tmp_path, fails=1), ("postgres",)),
        Node("vault", FakePart("vault", book, tmp_path), ("schema",)),
    ]
    supervisor = make(layout, nodes)
    with pytest.raises(StartFailed, match="schema does not want to"):
        await supervisor.start()
    await supervisor.stop()
    assert book.lines == ["postgres up", "postgres down"]
    assert not layout.endpoints.exists()


async def test_a_stop_while_starting_waits_for_what_has_begun(layout: Layout, tmp_path: Path) -> None:
    book, begun, go = Book(), threading.Event(), threading.Event()

    class Slow(FakePart):
        def start(self) -> None:
            self.pid = 5
            begun.set()
            go.wait(PATIENCE_SECONDS)
            super().start()

        def stop(self) -> None:
            go.set()
            super().stop()

    nodes = [
        Node("postgres", Slow("postgres", book, tmp_path)),
        Node("vault", FakePart("vault", book, tmp_path), ("postgres",)),
    ]
    supervisor = make(layout, nodes)
    starting = asyncio.create_task(supervisor.start())
    await until(begun.is_set)
    starting.cancel()
    await supervisor.stop()
    assert book.lines == ["postgres up", "postgres down"]


async def test_no_endpoints_are_told_once_it_is_stopped(layout: Layout, tmp_path: Path) -> None:
    supervisor = make(layout, [Node("vault", FakePart("vault", Book(), tmp_path))])
    await supervisor.start()
    assert layout.endpoints.exists()
    await supervisor.stop()
    assert not layout.endpoints.exists()


def test_one_sandbox_at_a_time_runs_in_a_folder(layout: Layout) -> None:
    assert not is_running(layout)
    with locked(layout):
        assert is_running(layout)
        with pytest.raises(AlreadyRunning, match="is running"), locked(layout):
            pass
    assert not is_running(layout)


def test_a_second_run_says_so_and_does_nothing(layout: Layout) -> None:
    with locked(layout):
        second = subprocess.run(
            [sys.executable, "-m", "sandbox", "run", "--folder", str(layout.folder)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert second.returncode == 1
    assert "a sandbox is running" in second.stderr
    assert [path.name for path in layout.folder.iterdir()] == ["lock"]
