import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from sandbox.running import _interruption


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_it_ends_when_it_is_told_to_or_its_terminal_is_closed(number: signal.Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupted = _interruption()
    os.kill(os.getpid(), number)
    async with asyncio.timeout(5):
        await interrupted.wait()


async def test_under_nohup_it_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _interruption()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
