"""What one sandbox's connections are led out by: its policy, which may change while they last, and what the proxy has for all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from .certificates import Authority
    from .connecting import Connector
    from .policy import Policy

_LOOKUPS = 4


class Means:
    """`authority` opens TLS, `trusted` is what the servers outside are checked by."""

    def __init__(self, policy: Policy, *, authority: Authority, trusted: ssl.SSLContext, connector: Connector) -> None:
        self.policy = policy
        #: So many look-ups at one time: a name server that does not answer keeps no other sandbox waiting.
        self.lookups = asyncio.Semaphore(_LOOKUPS)
        self.authority, self.trusted, self.connector = authority, trusted, connector
