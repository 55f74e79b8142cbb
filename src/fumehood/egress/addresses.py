"""Which addresses an allowed name may lead to: the Internet's, and no others.

Promised: an address passes only where IANA's registries of special addresses do not name it and this machine does not have it,
whatever the spelling; of IPv6 nothing passes that carries an IPv4 address in it. The registries:
iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry, …/ipv6-address-space.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4 = (
    ("0.0.0.0/8", "this network"), ("10.0.0.0/8", "private"), ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
    ("172.16.0.0/12", "private"), ("192.0.0.0/24", "reserved for protocols"), ("192.0.2.0/24", "for documentation"),
    ("192.31.196.0/24", "AS112"), ("192.52.193.0/24", "AMT"), ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", "private"), ("192.175.48.0/24", "AS112"), ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"), ("203.0.113.0/24", "for documentation"), ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"), ("168.63.129.16/32", "a cloud's own services"),
)  # fmt: skip
_V6 = (
    ("::ffff:0:0/96", "an IPv4 address in IPv6"), ("::1/128", "loopback"), ("::/96", "an IPv4 address in IPv6, or none"),
    ("64:ff9b::/96", "NAT64"), ("64:ff9b:1::/48", "NAT64"), ("100::/64", "discarded"), ("2001::/32", "Teredo"),
    ("2001:db8::/32", "for documentation"), ("2001::/23", "reserved for protocols"), ("2002::/16", "6to4"),
    ("2620:4f:8000::/48", "AS112"), ("3fff::/20", "for documentation"), ("fc00::/7", "private"),
    ("fe80::/10", "link-local"), ("ff00::/8", "multicast"),
)  # fmt: skip
_SPECIAL = {
    4: tuple((ipaddress.ip_network(network), what) for network, what in _V4),
    6: tuple((ipaddress.ip_network(network), what) for network, what in _V6),
}
# All that is given out of IPv6 lies in here.
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")


def why_refused(address: str, exempt: Iterable[Network] = ()) -> str:
    """Return why a connection to an address may not be made, "" where it may. `exempt` are networks that a rule allows."""
    try:
        value = ipaddress.ip_address("" if "%" in address else address)
    except ValueError:
        return "no address"  # as with a zone, `fe80::1%eth0`
    if any(value.version == network.version and value in network for network in exempt):
        return ""
    for network, what in _SPECIAL[value.version]:
        if value in network:
            return what
    if value.version == 6 and value not in _GLOBAL_V6:
        return "not given out to anybody"
    return "this machine's own" if _is_own(value) else ""


def _is_own(value: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # The kernel lets nobody take an address that is not there.
    family = socket.AF_INET if value.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.bind((str(value), 0))
    except OSError as error:
        # Whatever else went wrong, it was not found to be another's.
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True
