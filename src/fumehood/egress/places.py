"""Where a sandbox that may reach hosts finds the way out, on its own loopback device."""

from __future__ import annotations

#: Names lead to addresses of this network (RFC 2544: for benchmarks, never on the Internet): its first two numbers.
NETWORK, PREFIX_BITS = (198, 18), 15
#: Who answers for names: UDP, port 53. `/etc/resolv.conf` of every sandbox says so; where there is no egress, no route leads there.
NAMESERVER = "198.18.0.1"
#: An HTTP proxy, for programs that ask for one.
PROXY = ("127.0.0.1", 3128)
#: How many names a sandbox may have looked up.
MOST_NAMES = 4096


def address_of(number: int) -> str:
    """Return the address of a name, by its number from 0."""
    return f"{NETWORK[0]}.{NETWORK[1]}.{(number + 256) >> 8}.{(number + 256) & 255}"
