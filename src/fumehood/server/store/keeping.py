"""What the service keeps and finds again, in parts; nothing of another project's can be named through any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .executions import Executions
from .keys import Keys
from .runtimes import Runtimes
from .secrets import Secrets
from .tools import Tools

if TYPE_CHECKING:
    from ..vault import Vault
    from .database import Database


class Store:
    """All of it. Any thread may call."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database, self.vault = database, vault
        self.keys = Keys(database, vault)
        self.executions = Executions(database)
        self.tools = Tools(database)
        self.secrets = Secrets(database, vault)
        self.runtimes = Runtimes(database)
