from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber
from moto import mock_aws
from vault.adapters.r2_bucket import LIFECYCLE, REGION, _provision, provision_bucket
from vault.errors import ObjectStoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ENDPOINT = "https://account.r2.example"
ORIGIN = "https://keys.example"
STEPS = ("create_bucket", "put_bucket_cors", "put_bucket_lifecycle_configuration")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator["S3Client"]:
    monkeypatch.setenv("MOTO_S3_CUSTOM_ENDPOINTS", ENDPOINT)
    with mock_aws():
        yield boto3.client(
            "s3", endpoint_url=ENDPOINT, aws_access_key_id="id", aws_secret_access_key="secret", region_name=REGION
        )


def provision(origin: str = ORIGIN) -> None:
    provision_bucket(
        endpoint=ENDPOINT, bucket="sealed-keys", access_key_id="id", secret_access_key="secret", origin=origin
    )


def test_the_bucket_is_there_for_the_pages_origin_alone(client: "S3Client") -> None:
    provision()
    (rule,) = client.get_bucket_cors(Bucket="sealed-keys")["CORSRules"]
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == ([ORIGIN], ["GET"])
    grants = client.get_bucket_acl(Bucket="sealed-keys")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_no_rule_of_the_lifecycle_expires_anything(client: "S3Client") -> None:
    provision()
    client.put_bucket_lifecycle_configuration(
        Bucket="sealed-keys",
        LifecycleConfiguration={
            "Rules": [{"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        },
    )
    provision()
    rules = client.get_bucket_lifecycle_configuration(Bucket="sealed-keys")["Rules"]
    assert [rule["ID"] for rule in rules] == ["abort-unfinished-uploads"]
    for rule in rules:
        assert not rule.keys() & {"Expiration", "NoncurrentVersionExpiration", "Transitions"}


def test_doing_it_again_changes_nothing_but_the_origin(client: "S3Client", logs: list[Any]) -> None:
    provision()
    client.put_object(Bucket="sealed-keys", Key="keys/1", Body=b"sealed")
    provision("https://other.example")
    assert client.get_object(Bucket="sealed-keys", Key="keys/1")["Body"].read() == b"sealed"
    assert client.get_bucket_cors(Bucket="sealed-keys")["CORSRules"][0]["AllowedOrigins"] == ["https://other.example"]
    assert logs == []


def stubbed(code: str, status: int) -> "S3Client":
    client = boto3.client("s3", aws_access_key_id="id", aws_secret_access_key="secret", region_name=REGION)
    stubber = Stubber(client)
    for step in STEPS:
        stubber.add_client_error(step, service_error_code=code, http_status_code=status)
    stubber.activate()
    return client


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("NotImplemented", 501)])
def test_a_store_that_does_not_let_us_administer_it_is_told_and_used(
    code: str, status: int, logs: list[MutableMapping[str, Any]]
) -> None:
    _provision(stubbed(code, status), "sealed-keys", ORIGIN)
    assert [(log["log_level"], log["what"], log["code"]) for log in logs] == [
        ("warning", "bucket", code),
        ("warning", "cors", code),
        ("warning", "lifecycle", code),
    ]


def test_a_store_that_is_down_stops_the_start() -> None:
    with pytest.raises(ObjectStoreUnavailable):
        _provision(stubbed("ServiceUnavailable", 503), "sealed-keys", ORIGIN)


def test_a_store_that_cannot_be_reached_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url=ENDPOINT)

    monkeypatch.setattr("vault.adapters.r2_bucket._provision", unreachable)
    with pytest.raises(ObjectStoreUnavailable):
        provision()


def test_the_lifecycle_names_one_rule_and_it_is_harmless() -> None:
    assert [rule.keys() & {"Expiration"} for rule in LIFECYCLE["Rules"]] == [set()]
