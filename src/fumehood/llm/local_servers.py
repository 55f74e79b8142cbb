"""Servers of models on this machine: where they usually are, and what they say they have.

Promised: whatever listens there is given a second in all and a megabyte, and is sent no key.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading

#: Servers that people run on their own machine, with their usual ports, in the order in which they are looked for.
LOCAL_SERVERS = {"ollama": 11434, "lmstudio": 1234, "llama.cpp": 8080, "vllm": 8000, "sglang": 30000}
_LOOK_SECONDS = 0.5
_WHOLE_SECONDS = 1.0
_MOST_BYTES = 1 << 20


def listed(port: int, host: str = "127.0.0.1") -> list[str]:
    """Ask a port of this machine for its models, in its order; none where nothing there speaks this language."""
    connection = http.client.HTTPConnection(host, port, timeout=_LOOK_SECONDS)
    try:
        connection.connect()
        # Each byte begins http.client's own time anew.
        whole = threading.Timer(_WHOLE_SECONDS, _hang_up, (connection.sock,))
        whole.start()
        try:
            connection.request("GET", "/v1/models")
            answer = json.loads(connection.getresponse().read(_MOST_BYTES))
        finally:
            whole.cancel()
            whole.join()
        return [str(each["id"]) for each in answer["data"] if "id" in each]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return []
    finally:
        connection.close()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether anything does, whatever it speaks."""
    try:
        with socket.create_connection((host, port), timeout=_LOOK_SECONDS):
            return True
    except OSError:
        return False


def here(host: str) -> str:
    """Return the address at which this machine itself reaches a server that listens at `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where it listens, and not us


def url(host: str, port: int) -> str:
    """Return its base URL."""
    address = here(host)
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/v1"


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has just been closed: the answer is there.
        pass
