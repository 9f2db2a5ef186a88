import pytest
from hypothesis import given
from hypothesis import strategies as st
from vault.domain.familiarity import Kind, device_of, network_of, news_in, traits_of

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (f"{WINDOWS} Chrome/140.0.0.0 Safari/537.36", "Chrome on Windows"),
        (f"{WINDOWS} Chrome/141.0.0.0 Safari/537.36", "Chrome on Windows"),
        (f"{WINDOWS} Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0", "Edge on Windows"),
        (f"{WINDOWS} Chrome/140.0.0.0 Safari/537.36 OPR/120.0.0.0", "Opera on Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Linux; Android 15; K) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        (f"{MAC} Version/18.6 Safari/605.1.15", "Safari on macOS"),
        (f"{IPHONE} Version/19.0 Mobile/15E148 Safari/604.1", "Safari on iOS"),
        (f"{IPHONE} CriOS/140.0 Mobile/15E148 Safari/604.1", "Chrome on iOS"),
        ("curl/8.9.1", "curl"),
        ("Browser/1.0", "Browser"),
        ("", ""),
        ("/", ""),
    ],
)
def test_a_device_is_a_family_and_a_system(user_agent: str, device: str) -> None:
    assert device_of(user_agent) == device


@given(st.text(max_size=512))
def test_whatever_a_user_agent_says_its_device_is_short(user_agent: str) -> None:
    assert len(device_of(user_agent)) < 50


@pytest.mark.parametrize(
    ("ip_address", "network"),
    [
        ("192.0.2.7", "192.0.0.0/16"),
        ("192.0.99.1", "192.0.0.0/16"),
        ("::ffff:192.0.2.7", "192.0.0.0/16"),
        ("2001:db8:1:2::3", "2001:db8::/32"),
        ("fe80::1%eth0", "fe80::/32"),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_a_network_is_a_provider_roughly(ip_address: str, network: str) -> None:
    assert network_of(ip_address) == network


def test_a_country_stands_in_place_of_the_network() -> None:
    both = traits_of(country_code="DE", network="192.0.0.0/16", device="Firefox on Linux")
    assert both == {Kind.COUNTRY: "DE", Kind.DEVICE: "Firefox on Linux"}
    assert traits_of(country_code="", network="192.0.0.0/16", device="") == {Kind.NETWORK: "192.0.0.0/16"}
    assert traits_of(country_code="", network="", device="") == {}


@pytest.mark.parametrize(
    ("present", "known", "news"),
    [
        ({Kind.DEVICE: ["v1.a"]}, {}, set()),
        ({Kind.DEVICE: ["v1.a"]}, {Kind.DEVICE: {"v1.a"}}, set()),
        ({Kind.DEVICE: ["v2.a", "v1.a"]}, {Kind.DEVICE: {"v1.a"}}, set()),
        ({Kind.DEVICE: ["v1.b"]}, {Kind.DEVICE: {"v1.a"}}, {Kind.DEVICE}),
        ({Kind.COUNTRY: ["v1.b"]}, {Kind.NETWORK: {"v1.n"}}, set()),
        (
            {Kind.COUNTRY: ["v1.b"], Kind.DEVICE: ["v1.b"]},
            {Kind.COUNTRY: {"v1.a"}, Kind.DEVICE: {"v1.a"}},
            {Kind.COUNTRY, Kind.DEVICE},
        ),
        ({}, {Kind.DEVICE: {"v1.a"}}, set()),
    ],
    ids=["first", "known", "older secret", "new device", "first country", "both", "nothing told"],
)
def test_news_is_what_others_of_its_kind_are_known_without(
    present: dict[Kind, list[str]], known: dict[Kind, set[str]], news: set[Kind]
) -> None:
    assert news_in(present, known) == news
