"""Somebody changes what is stored of a key: nobody gets it, a human is told, and the customer gets a key in the end."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentDelivered, FulfillmentNeedsAttention
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as admin_pb
from keyferry.fulfillment.v1 import fulfillment_pb2
from sandbox.customer import Refused
from sandbox.setup import BUCKET
from sandbox.shop import Purchase

from tests.e2e.staff import ADMIN, Story, request_id
from tests.e2e.system import System

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PRODUCT = "65a0c1d2e3f4051627380001"


@pytest.fixture
async def story(system: System) -> AsyncIterator[Story]:
    async with Story.opened(system) as story:
        yield story


@pytest.fixture
def s3(system: System) -> "S3Client":
    secrets = json.loads(system.layout.secrets.read_text())
    return boto3.client(
        "s3",
        endpoint_url=system.endpoints["s3"],
        aws_access_key_id=secrets["R2_ACCESS_KEY_ID"],
        aws_secret_access_key=secrets["R2_SECRET_ACCESS_KEY"],
        region_name="auto",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


async def a_lost_key(story: Story, s3: "S3Client") -> tuple[str, str, bytes]:
    """Let alice buy a key, flip a bit of its object and let her try; give the order, the key and the whole object."""
    order_id = await story.system.pay("alice", Purchase(PRODUCT))
    await story.until(order_id, "READY")
    (key_id,) = await story.key_ids(order_id)
    name = f"keys/{key_id}"
    whole = s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=name, Body=whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(Refused, match="KEY_CORRUPTED"):
        await story.open_key(order_id, key_id)
    await story.until(order_id, "NEEDS_ATTENTION")
    (told,) = await story.shop.hear(FulfillmentNeedsAttention, order_id)
    assert told.reason == "KEY_CORRUPTED"
    (purchase,) = await story.bought(order_id)
    assert set(purchase.actions) == {fulfillment_pb2.ACTION_RETRY, fulfillment_pb2.ACTION_REPLACE_KEY}
    return order_id, key_id, whole


async def test_a_key_that_is_restored_is_opened_after_all(story: Story, s3: "S3Client") -> None:
    order_id, key_id, whole = await a_lost_key(story, s3)
    s3.put_object(Bucket=BUCKET, Key=f"keys/{key_id}", Body=whole)
    await story.staff.RetryFulfillment(
        admin_pb.RetryFulfillmentRequest(
            request_id=request_id(), order_id=order_id, actor=ADMIN, reason="restored from the other bucket"
        )
    )
    await story.until(order_id, "READY")
    assert [await story.open_key(order_id, key_id)] == await story.system.serials(story.http, order_id)
    await story.shop.hear(FulfillmentDelivered, order_id)


async def test_a_key_that_is_gone_is_replaced_by_another(story: Story, s3: "S3Client") -> None:
    order_id, lost, _ = await a_lost_key(story, s3)
    await story.staff.ReplaceKey(
        admin_pb.ReplaceKeyRequest(
            request_id=request_id(), order_id=order_id, key_id=lost, actor=ADMIN, reason="its object was changed"
        )
    )

    async def is_there() -> bool:
        return bool({*await story.key_ids(order_id)} - {lost})

    await story.system.until_true(is_there)
    (fresh,) = {*await story.key_ids(order_id)} - {lost}
    assert await story.open_key(order_id, fresh) in await story.system.serials(story.http, order_id)
    await story.shop.hear(FulfillmentDelivered, order_id)
