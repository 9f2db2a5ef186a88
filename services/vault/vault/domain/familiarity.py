"""Whether an access is one that its owner is known for: pure rules over coarse traits.

A trait is coarse on purpose. It must survive an update of the browser and a new address from the same provider, and
it must say as little about a person as it can; a library that knows every device would say more, and make every device
a new one with each of its releases.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from enum import Enum

# A customer's provider, roughly.
_PREFIX_BITS = {4: 16, 6: 32}
# The first that is found counts: most name those behind them too.
_SYSTEMS = {
    "Windows": "Windows",
    "Android": "Android",
    "iPhone": "iOS",
    "iPad": "iOS",
    "CrOS": "ChromeOS",
    "Mac OS X": "macOS",
    "Macintosh": "macOS",
    "Linux": "Linux",
}
_BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "FxiOS/": "Firefox",
    "Firefox/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
_PRODUCT = re.compile(r"[A-Za-z][A-Za-z0-9.-]{0,31}")


class Kind(Enum):
    """The kinds of traits."""

    COUNTRY = "country"
    NETWORK = "network"
    DEVICE = "device"


def device_of(user_agent: str) -> str:
    """Return the family of a browser and its system, such as `Firefox on Windows`; nothing for no user agent."""
    browser = next((name for mark, name in _BROWSERS.items() if mark in user_agent), "")
    if not browser:
        product = _PRODUCT.match(user_agent)
        browser = product.group() if product else ""
    system = next((name for mark, name in _SYSTEMS.items() if mark in user_agent), "")
    return " on ".join(filter(None, (browser, system)))


def network_of(ip_address: str) -> str:
    """Return the coarse network of an address, such as `192.0.0.0/16`; nothing for what is none."""
    try:
        address = ipaddress.ip_address(ip_address)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network(f"{address}/{_PREFIX_BITS[address.version]}", strict=False))


def traits_of(*, country_code: str, network: str, device: str) -> Mapping[Kind, str]:
    """Return by what an access is known: its country, or its network where no country is known; and its device."""
    place = {Kind.COUNTRY: country_code} if country_code else {Kind.NETWORK: network}
    return {kind: trait for kind, trait in {**place, Kind.DEVICE: device}.items() if trait}


def news_in(present: Mapping[Kind, Collection[str]], known: Mapping[Kind, Collection[str]]) -> frozenset[Kind]:
    """Return which traits of an access are new. Any spelling of a trait that is known makes it known.

    The first access of somebody, and the first of which a kind is known at all, is nothing to be told of.
    """
    return frozenset(
        kind for kind, spellings in present.items() if known.get(kind) and not {*spellings} & {*known[kind]}
    )
