"""`fumehood serve`: the code-interpreter service, on this machine's own address unless told otherwise."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
from pathlib import Path

from ..errors import ConfigurationError
from ..protocol.loopback import is_loopback
from .arguments import Arguments, Command, Option, seconds
from .isolation import ISOLATION
from .listening import count_number, listening, port_number
from .terminal import is_terminal, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..server.logs import Format
    from ..server.service import Settings
    from ..server.store.keeping import Store

HOST, PORT = "127.0.0.1", 3003


def serve(arguments: Arguments) -> int:
    """Do the command."""
    from ..server import rotation  # noqa: PLC0415 - this command alone pays for these
    from ..server.store.database import Database  # noqa: PLC0415
    from ..server.store.keeping import Store  # noqa: PLC0415
    from ..server.vault import Vault  # noqa: PLC0415

    gc.enable()  # commands do without, but this one lives
    folder = _folder()
    with rotation.in_use(folder, alone=arguments.rotate_server_key):
        database = Database(arguments.database or f"sqlite:///{folder / 'server.db'}")
        try:
            if arguments.rotate_server_key:
                count = rotation.rotate(folder, database)
                note(f"fumehood: the service has a new key, and {count} stored secrets are encrypted with it")
            else:
                _serve(arguments, Store(database, Vault.open(folder)))
        finally:
            database.close()
    return 0


def _serve(arguments: Arguments, store: Store) -> None:
    from ..engine import Engine  # noqa: PLC0415 - as above
    from ..server import logs, stopping, tracing  # noqa: PLC0415
    from ..server.app import make  # noqa: PLC0415
    from ..server.retention import Retention  # noqa: PLC0415
    from ..server.service import Service  # noqa: PLC0415
    from ..server.watching import Watched  # noqa: PLC0415

    key = _first_key(store, arguments.key, arguments.host)
    form: Format = arguments.log_format or ("text" if is_terminal(2) else "json")
    with (
        listening(arguments.host, arguments.port) as listener,
        Engine(without=arguments.without, isolation=arguments.isolation) as engine,
    ):
        # It takes connections from here on, and answers as soon as the application is up.
        _announce(listener, key)
        with logs.to(2, form) as log:
            service = Service(engine, store, _settings(arguments))
            service.watch.tracing = tracing.set_up()
            with Retention(store, arguments.keep_executions):
                stopping.serve(Watched(make(service), service.watch, log), service, listener, arguments.grace)
            service.watch.tracing.close()


def _settings(arguments: Arguments) -> Settings:
    from ..server.service import Settings  # noqa: PLC0415 - as above

    return Settings(
        aliases=dict(arguments.alias), networks=tuple(arguments.allow_network), at_once=arguments.at_once,
        sessions=arguments.sessions,
        metrics="open" if arguments.metrics_open else "local" if is_loopback(arguments.host) else "key",
    )  # fmt: skip


def _folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    folder = Path(base, "fumehood", "server")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be made ({error.strerror}): set XDG_DATA_HOME to a folder you may write"
        ) from error
    return folder


def _first_key(store: Store, given: str | None, host: str) -> str | None:
    """Keep the key that was given; make one where there is none at all, and return it."""
    from ..server.store.keys import new_key  # noqa: PLC0415 - as above

    given = given or os.environ.get("FUMEHOOD_API_KEY")
    if given:
        store.keys.first(given, "given at the start")
        return None
    if store.keys.exist():
        return None
    if not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from elsewhere, and nobody has a key yet: start once without --host, or give one by "
            "--key or FUMEHOOD_API_KEY"
        )
    made = new_key()
    store.keys.first(made, "made at the first start")
    return made


def _announce(listener: socket.socket, key: str | None) -> None:
    host, port = listener.getsockname()[:2]
    note(f"fumehood: serving at http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it")
    if key is not None:
        note("fumehood: the first key, which is shown this once:")
        print(key, flush=True)


def _grace(text: str) -> float:
    grace = seconds(text)
    if not 0 <= grace <= 3600:
        raise ValueError("write a number of seconds from 0 to 3600")
    return grace


def _days(text: str) -> float | None:
    if text == "all":
        return None
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise ValueError("write a number of days from 0, or `all`")
    return days


def _log_format(text: str) -> str:
    if text not in ("json", "text", "none"):
        raise ValueError("write json, text or none")
    return text


def _alias(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise ValueError("write OLD=NEW")
    return old, new


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}: write a network like 10.0.0.0/8") from error


COMMAND = Command(
    name="serve",
    summary="Serve the code interpreter over HTTP.",
    description=(
        "Serve programs written for Riza's Code Interpreter API: they need RIZA_BASE_URL and RIZA_API_KEY and no other "
        "change. Without a key it makes one at the first start and prints it once. What it keeps lies below "
        "XDG_DATA_HOME, or in the database that --database names."
    ),
    run=serve,
    options=(
        Option(name="host", metavar="ADDRESS", default=HOST, help=f"Where to listen ({HOST})."),
        Option(name="port", metavar="N", default=PORT, convert=port_number, help=f"The port ({PORT}); 0 for any free one."),
        Option(name="key", metavar="KEY", help="A key to take, of any form; better in FUMEHOOD_API_KEY."),
        Option(name="database", metavar="URL", help="SQLAlchemy's URL of a database, like postgresql+psycopg://user@host/name."),
        Option(name="alias", metavar="OLD=NEW", many=True, convert=_alias,
               help="An id that programs carry, and the runtime, tool or secret that it stands for here."),
        Option(name="allow-network", metavar="NETWORK", many=True, convert=_network,
               help="Let programs reach hosts in this network, like 10.0.0.0/8, where their rules name it."),
        Option(name="at-once", metavar="N", default=64, convert=count_number, help="Executions at one time (64); others wait."),
        Option(name="sessions", metavar="N", default=256, convert=count_number, help="Sessions at one time (256)."),
        Option(name="keep-executions", metavar="DAYS", default=30.0, convert=_days,
               help="For how many days executions are kept (30): 0 forgets them within a minute, `all` never."),
        Option(name="grace", metavar="SECONDS", default=30.0, convert=_grace,
               help="For how long what runs is waited for after SIGTERM or Ctrl-C (30); a second one ends all at once."),
        Option(name="log-format", metavar="FORMAT", convert=_log_format,
               help="How requests are logged on standard error: json, text or none (text on a terminal, else json)."),
        Option(name="metrics-open", help="Show /metrics without a key to others than this machine itself."),
        Option(name="rotate-server-key",
               help="Do not serve: make a new key for stored secrets, encrypt them anew, and exit. API keys go on."),
        ISOLATION,
        Option(name="without", metavar="WALL", many=True, help="Give up a wall that this host cannot put up."),
    ),
    examples=(
        "fumehood serve",
        "FUMEHOOD_API_KEY='My API Key' fumehood serve --port 8080",
        "fumehood serve --alias 01JM3WYP0000000000000000AA=python-data",
    ),
)  # fmt: skip
