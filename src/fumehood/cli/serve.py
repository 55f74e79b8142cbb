"""`fumehood serve`: the code-interpreter service, on this machine's own address unless told otherwise."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from pathlib import Path

from ..errors import ConfigurationError
from .arguments import Arguments, Command, Option
from .terminal import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..server.store.keeping import Store

HOST, PORT = "127.0.0.1", 3003
_BACKLOG = 2048


def serve(arguments: Arguments) -> int:
    """Do the command."""
    import uvicorn  # noqa: PLC0415 - this command alone pays for these

    from ..engine import Engine  # noqa: PLC0415
    from ..server.app import make  # noqa: PLC0415
    from ..server.service import Service  # noqa: PLC0415
    from ..server.store.database import Database  # noqa: PLC0415
    from ..server.store.keeping import Store  # noqa: PLC0415
    from ..server.vault import Vault  # noqa: PLC0415

    folder = _folder()
    database = Database(arguments.database or f"sqlite:///{folder / 'server.db'}")
    try:
        store = Store(database, Vault.open(folder))
        key = _first_key(store, arguments.key, arguments.host)
        with _listening(arguments.host, arguments.port) as listener, Engine(without=arguments.without) as engine:
            # It takes connections from here on, and answers as soon as the application is up.
            _announce(listener, key)
            config = uvicorn.Config(
                make(Service(engine, store, dict(arguments.alias))), log_level="warning", access_log=False
            )
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        database.close()
    return 0


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
    given = given or os.environ.get("FUMEHOOD_API_KEY")
    if given:
        store.add_key(given, "given at the start")
        return None
    if store.has_keys():
        return None
    if not _is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from elsewhere, and nobody has a key yet: start once without --host, or give one by "
            "--key or FUMEHOOD_API_KEY"
        )
    made = f"fh_{secrets.token_urlsafe(32)}"
    store.add_key(made, "made at the first start")
    return made


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    # By its protocol's number: only then asyncio sends small answers at once, which otherwise wait 40 ms for an acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"{host} port {port} cannot be had: {error.strerror}; choose another by --port"
        ) from error
    return listener


def _announce(listener: socket.socket, key: str | None) -> None:
    host, port = listener.getsockname()[:2]
    note(f"fumehood: serving at http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it")
    if key is not None:
        note("fumehood: the first key, which is shown this once:")
        print(key, flush=True)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise ValueError("write a number from 0, for any free one, to 65535")
    return int(text)


def _alias(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise ValueError("write OLD=NEW")
    return old, new


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
        Option(name="port", metavar="N", default=PORT, convert=_port, help=f"The port ({PORT}); 0 for any free one."),
        Option(name="key", metavar="KEY", help="A key to take, of any form; better in FUMEHOOD_API_KEY."),
        Option(name="database", metavar="URL", help="SQLAlchemy's URL of a database, like postgresql+psycopg://user@host/name."),
        Option(name="alias", metavar="OLD=NEW", many=True, convert=_alias,
               help="An id that programs carry, and the runtime, tool or secret that it stands for here."),
        Option(name="without", metavar="WALL", many=True, help="Give up a wall that this host cannot put up."),
    ),
    examples=(
        "fumehood serve",
        "FUMEHOOD_API_KEY='My API Key' fumehood serve --port 8080",
        "fumehood serve --alias 01JM3WYP0000000000000000AA=python-data",
    ),
)  # fmt: skip
