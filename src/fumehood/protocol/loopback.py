"""Which names mean this machine alone: what goes there goes past every proxy, and no other name is one."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or an address of this machine's loopback; `127.evil.com` is neither."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def leads_here(url: str) -> bool:
    """Whether a URL's host is one."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
