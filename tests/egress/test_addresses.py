"""Which addresses an allowed name may lead to: none that a registry names as special, none of this machine, in no spelling."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fumehood.egress.addresses import why_refused

# iana.org/assignments/iana-ipv4-special-registry and …/multicast-addresses: the first, one inside, the last.
SPECIAL_V4 = {
    "0.0.0.0/8": ("0.0.0.0", "0.1.2.3", "0.255.255.255"),
    "10.0.0.0/8": ("10.0.0.0", "10.1.2.3", "10.255.255.255"),
    "100.64.0.0/10": ("100.64.0.0", "100.100.100.200", "100.127.255.255"),
    "127.0.0.0/8": ("127.0.0.0", "127.0.0.1", "127.255.255.255"),
    "169.254.0.0/16": ("169.254.0.0", "169.254.169.254", "169.254.255.255"),
    "172.16.0.0/12": ("172.16.0.0", "172.17.0.1", "172.31.255.255"),
    "192.0.0.0/24": ("192.0.0.0", "192.0.0.170", "192.0.0.255"),
    "192.0.2.0/24": ("192.0.2.0", "192.0.2.1", "192.0.2.255"),
    "192.31.196.0/24": ("192.31.196.0", "192.31.196.1", "192.31.196.255"),
    "192.52.193.0/24": ("192.52.193.0", "192.52.193.1", "192.52.193.255"),
    "192.88.99.0/24": ("192.88.99.0", "192.88.99.1", "192.88.99.255"),
    "192.168.0.0/16": ("192.168.0.0", "192.168.1.1", "192.168.255.255"),
    "192.175.48.0/24": ("192.175.48.0", "192.175.48.1", "192.175.48.255"),
    "198.18.0.0/15": ("198.18.0.0", "198.18.0.1", "198.19.255.255"),
    "198.51.100.0/24": ("198.51.100.0", "198.51.100.1", "198.51.100.255"),
    "203.0.113.0/24": ("203.0.113.0", "203.0.113.1", "203.0.113.255"),
    "224.0.0.0/4": ("224.0.0.0", "239.255.255.250", "239.255.255.255"),
    "240.0.0.0/4": ("240.0.0.0", "250.1.2.3", "255.255.255.255"),
    "168.63.129.16/32": ("168.63.129.16",),  # Azure's, in nobody's registry
}
# iana.org/assignments/iana-ipv6-special-registry, …/ipv6-multicast-addresses, and …/ipv6-address-space for what is not given out.
SPECIAL_V6 = {
    "::/128": ("::",),
    "::1/128": ("::1",),
    "::/96": ("::2", "::127.0.0.1", "::8.8.8.8", "::ffff:ffff"),
    "::ffff:0:0/96": ("::ffff:0.0.0.0", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:255.255.255.255"),
    "::ffff:0:0:0/96": ("::ffff:0:0:0", "::ffff:0:127.0.0.1", "::ffff:0:ffff:ffff"),
    "64:ff9b::/96": ("64:ff9b::", "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b::ffff:ffff"),
    "64:ff9b:1::/48": ("64:ff9b:1::", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
    "100::/64": ("100::", "100::1", "100::ffff:ffff:ffff:ffff"),
    "100:0:0:1::/64": ("100:0:0:1::", "100:0:0:1::1", "100:0:0:1:ffff:ffff:ffff:ffff"),
    "2001::/32": ("2001::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2001::/23": ("2001:1::1", "2001:1::2", "2001:1::3", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2001:2::/48": ("2001:2::", "2001:2::1", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
    "2001:3::/32": ("2001:3::", "2001:3::1", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2001:4:112::/48": ("2001:4:112::", "2001:4:112::1", "2001:4:112:ffff:ffff:ffff:ffff:ffff"),
    "2001:10::/28": ("2001:10::", "2001:11::1", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2001:20::/28": ("2001:20::", "2001:21::1", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2001:30::/28": ("2001:30::", "2001:31::1", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2001:db8::/32": ("2001:db8::", "2001:db8::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2002::/16": ("2002::", "2002:7f00:1::1", "2002:808:808::1", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "2620:4f:8000::/48": ("2620:4f:8000::", "2620:4f:8000::1", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
    "3fff::/20": ("3fff::", "3fff:0:1::1", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "4000::/3": ("4000::", "5000::1", "5fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "5f00::/16": ("5f00::", "5f00::1", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "6000::-fbff::": ("6000::", "8000::1", "a000::1", "c000::1", "e000::1", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "fc00::/7": ("fc00::", "fd00:ec2::254", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "fe00::/9": ("fe00::", "fe00::1", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "fe80::/10": ("fe80::", "fe80::1", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "fec0::/10": ("fec0::", "fec0::1", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "ff00::/8": ("ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "200::/7": ("200::", "200::1", "3ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "1000::/4": ("1000::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}


@pytest.mark.parametrize("addresses", [*SPECIAL_V4.values(), *SPECIAL_V6.values()], ids=[*SPECIAL_V4, *SPECIAL_V6])
def test_no_address_of_a_special_range_may_be_reached(addresses: tuple[str, ...]) -> None:
    for address in addresses:
        assert why_refused(address) not in ("", "no address", "this machine's own"), address


GLOBAL = {
    "resolvers": ("8.8.8.8", "1.1.1.1", "9.9.9.9", "2606:4700::1111", "2001:4860:4860::8888"),
    "beside_0": ("1.0.0.0",),
    "beside_10": ("9.255.255.255", "11.0.0.0"),
    "beside_100.64": ("100.63.255.255", "100.128.0.0"),
    "beside_127": ("126.255.255.255", "128.0.0.0"),
    "beside_168.63.129.16": ("168.63.129.15", "168.63.129.17"),
    "beside_169.254": ("169.253.255.255", "169.255.0.0"),
    "beside_172.16": ("172.15.255.255", "172.32.0.0"),
    "beside_192.0.0": ("191.255.255.255", "192.0.1.0"),
    "beside_192.0.2": ("192.0.1.255", "192.0.3.0"),
    "beside_192.31.196": ("192.31.195.255", "192.31.197.0"),
    "beside_192.52.193": ("192.52.192.255", "192.52.194.0"),
    "beside_192.88.99": ("192.88.98.255", "192.88.100.0"),
    "beside_192.168": ("192.167.255.255", "192.169.0.0"),
    "beside_192.175.48": ("192.175.47.255", "192.175.49.0"),
    "beside_198.18": ("198.17.255.255", "198.20.0.0"),
    "beside_198.51.100": ("198.51.99.255", "198.51.101.0"),
    "beside_203.0.113": ("203.0.112.255", "203.0.114.0"),
    "beside_224": ("223.255.255.255",),
    "beside_2000::/3": ("2000::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "beside_2001::/23": ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
    "beside_2001:db8": ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
    "beside_2002": ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    "beside_2620:4f:8000": ("2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"),
    "beside_3fff": ("3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}


@pytest.mark.parametrize("addresses", GLOBAL.values(), ids=GLOBAL.keys())
def test_the_internets_addresses_may_be_reached(addresses: tuple[str, ...]) -> None:
    assert {address: why_refused(address) for address in addresses} == dict.fromkeys(addresses, "")


SPELLINGS = {
    "short": "127.1",
    "three_parts": "127.0.1",
    "decimal": "2130706433",
    "hex": "0x7f000001",
    "hex_parts": "0x7f.0x0.0x0.0x1",
    "octal": "0177.0.0.1",
    "zeros_in_front": "127.000.000.001",
    "of_the_internet_with_a_zero_in_front": "8.8.8.08",
    "of_the_internet_decimal": "134744072",
    "five_parts": "1.2.3.4.5",
    "part_of_256": "8.8.8.256",
    "negative": "8.8.8.-8",
    "plus": "8.8.8.+8",
    "space_in_front": " 8.8.8.8",
    "space_at_the_end": "8.8.8.8 ",
    "line_feed": "8.8.8.8\n",
    "nul": "8.8.8.8\0",
    "dot_at_the_end": "8.8.8.8.",
    "port": "8.8.8.8:80",
    "network": "8.8.8.8/32",
    "fullwidth_digits": "\uff18.8.8.8",
    "arabic_digits": "\u0668.8.8.8",
    "fullwidth_dots": "8\uff0e8\uff0e8\uff0e8",
    "ipv4_with_a_zone": "8.8.8.8%lo",
    "brackets": "[2606:4700::1111]",
    "zone_blank": "2606:4700::1111%",
    "two_runs_of_zeros": "2606::4700::1111",
    "nine_groups": "2606:4700:0:0:0:0:0:0:1111",
    "five_digits": "2606:04700::1111",
    "empty": "",
    "name": "localhost",
}


@pytest.mark.parametrize("address", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_what_is_spelled_otherwise_is_no_address(address: str) -> None:
    assert why_refused(address) == "no address"


@pytest.mark.parametrize("zone", ["lo", "1", "99", "none"])
def test_a_zone_helps_no_special_address(zone: str) -> None:
    for address in ("::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "ff02::1"):
        assert why_refused(f"{address}%{zone}")


def test_an_address_with_a_zone_is_refused() -> None:
    assert why_refused("2606:4700::1111%99")


@pytest.mark.parametrize(
    "address",
    ["::ffff:7f00:1", "0:0:0:0:0:ffff:127.0.0.1", "0000:0000:0000:0000:0000:FFFF:7F00:0001", "::FFFF:127.0.0.1",
     "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "FE80::1", "2002:A00:1::", "0064:FF9B::a00:1"],
)  # fmt: skip
def test_every_spelling_of_ipv6_is_the_same_address(address: str) -> None:
    assert why_refused(address) == why_refused(str(ipaddress.ip_address(address))) != ""


def test_a_reason_says_what_an_address_is() -> None:
    addresses = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002::", "2001::")
    words = ("loopback", "link-local", "private", "IPv4 address in IPv6", "NAT64", "6to4", "Teredo")
    for address, word in zip(addresses, words, strict=True):
        assert word in why_refused(address)


def test_a_rules_network_may_be_reached_and_nothing_beside_it() -> None:
    exempt = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")]
    for address in ("10.1.0.0", "10.1.2.3", "10.1.255.255", "fd00:1::", "fd00:1:ffff::1"):
        assert why_refused(address)
        assert why_refused(address, exempt) == ""
    for address in ("10.0.255.255", "10.2.0.0", "127.0.0.1", "fd00:2::", "fd00::1", "::1", "::ffff:10.1.2.3",
                    "64:ff9b::10.1.2.3", "2002:a01:203::1", "10.1.2.3 ", "10.1.2"):  # fmt: skip
        assert why_refused(address, exempt)


def test_all_of_ipv4_does_not_stand_for_all_of_ipv6() -> None:
    assert why_refused("127.0.0.1", [ipaddress.ip_network("0.0.0.0/0")]) == ""
    assert why_refused("::ffff:127.0.0.1", [ipaddress.ip_network("0.0.0.0/0")])
    assert why_refused("127.0.0.1", [ipaddress.ip_network("::/0")])


def own_addresses() -> Iterator[str]:
    """Give the addresses from which this machine would speak to the Internet; no packet is sent."""
    for family, other in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2606:4700::1111")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((other, 53))
                yield str(sock.getsockname()[0])
        except OSError:
            continue  # it has no way there


def test_this_machines_own_addresses_are_refused() -> None:
    addresses = list(own_addresses())
    if not addresses:
        pytest.skip("this machine has no address but loopback's")
    assert all(map(why_refused, addresses))


# Gives the loopback device of a namespace of its own two addresses of the Internet: netdevice(7), ipv6(7).
OWNER = """
import fcntl, json, socket, struct, time
from fumehood.egress.addresses import why_refused
V4, V6 = "8.8.8.8", "2606:4700::1111"
v4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(v4, 0x8914, struct.pack("16sh14x", b"lo", 1))
told = {"before": [why_refused(V4), why_refused(V6)]}
fcntl.ioctl(v4, 0x8916, struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(V4)))
told["v4"] = why_refused(V4)
try:
    v6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    packed = struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, V6), 128, socket.if_nametoindex("lo"))
    fcntl.ioctl(v6, 0x8916, packed)
except OSError:
    told["v6"] = "none"
else:
    # The kernel takes a moment to make sure that nobody else has it.
    until = time.monotonic() + 10
    while not why_refused(V6) and time.monotonic() < until:
        time.sleep(0.01)
    told["v6"] = why_refused(V6)
print(json.dumps(told))
"""


def test_an_address_of_the_internet_is_refused_where_it_is_the_machines_own() -> None:
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine gives no network namespaces")
    told = subprocess.run([*inside, sys.executable, "-c", OWNER], check=True, capture_output=True, text=True).stdout
    found = json.loads(told)
    assert found["before"] == ["", ""]
    assert found["v4"] == "this machine's own"
    assert found["v6"] in ("this machine's own", "none")
