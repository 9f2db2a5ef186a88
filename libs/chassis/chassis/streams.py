"""Declare streams and consumers from a file: `python -m chassis.streams deploy/nats/streams.yaml`. Twice is once."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import yaml
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from chassis.jetstream import connect_nats
from chassis.settings import NatsSettings, load_or_exit

APPLY_SECONDS = 30.0


def _stream(declaration: dict[str, Any], replicas: int) -> StreamConfig:
    return StreamConfig(
        name=declaration["name"],
        subjects=declaration["subjects"],
        description=declaration["description"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_age=declaration["max_age_days"] * 86_400,
        max_bytes=declaration["max_bytes"],
        max_msg_size=declaration["max_message_bytes"],
        duplicate_window=declaration["duplicate_window_seconds"],
        allow_direct=True,
    )


def _consumer(declaration: dict[str, Any]) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=declaration["name"],
        description=declaration["description"],
        filter_subjects=declaration["subjects"],
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=declaration["ack_wait_seconds"],
        max_deliver=-1,
        max_ack_pending=declaration["max_ack_pending"],
    )


async def _apply(context: JetStreamContext, declaration: dict[str, Any], replicas: int) -> None:
    config = _stream(declaration, replicas)
    try:
        await context.stream_info(declaration["name"])
        await context.update_stream(config)
    except NotFoundError:
        await context.add_stream(config)
    for consumer in declaration.get("consumers", ()):
        await context.add_consumer(declaration["name"], _consumer(consumer))


async def apply_streams(url: str, declared: dict[str, Any]) -> None:
    """Make or update everything that is declared; what is not named is left alone."""
    async with asyncio.timeout(APPLY_SECONDS), connect_nats(url, name="keyferry-streams") as client:
        for stream in declared["streams"]:
            await _apply(client.jetstream(), stream, declared["replicas"])


def main() -> None:
    """Read NATS_URL and apply the file, the only argument."""
    if len(sys.argv) != 2:  # noqa: PLR2004 # program and file
        sys.exit("usage: python -m chassis.streams FILE")
    declared = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    asyncio.run(apply_streams(load_or_exit(NatsSettings).nats_url, declared))


if __name__ == "__main__":
    main()
