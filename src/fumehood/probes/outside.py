"""What lies outside, as an attack wants it: a name server that says what it is told to, and an HTTP server that remembers."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class NameServer:
    """Answers on loopback until it is closed.

    `addresses`: name to what its look-ups are answered with, one after another, the last for ever. `asked`: the names.
    """

    def __init__(self, addresses: dict[str, list[list[str]]] | None = None) -> None:
        self.addresses = addresses or {}
        self.asked: list[str] = []
        self._answers: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        #: As `Engine(nameserver=…)` takes it.
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="fumehood-probes-names", daemon=True)
        self._thread.start()

    def say(self, addresses: dict[str, list[list[str]]]) -> None:
        """Forget what was, and answer so from now on."""
        self.addresses = addresses
        self.asked.clear()
        self._answers.clear()

    def close(self) -> None:
        """Answer no more."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._answer(data), client)

    def _answer(self, question: bytes) -> bytes:
        import dns.message  # noqa: PLC0415 - few ways of running probes need it
        import dns.rcode  # noqa: PLC0415 - likewise
        import dns.rdatatype  # noqa: PLC0415 - likewise
        import dns.rrset  # noqa: PLC0415 - likewise

        asked = dns.message.from_wire(question)
        answer = dns.message.make_response(asked, recursion_available=True)
        (wanted,) = asked.question
        name, kind = wanted.name.to_text().rstrip("."), dns.rdatatype.to_text(wanted.rdtype)
        if kind == "A":
            self.asked.append(name)
        answers = self.addresses.get(name)
        if answers is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer.to_wire()
        fitting = [each for each in answers[0] if (":" in each) == (kind == "AAAA")]
        # Apart: of one set dnspython shuffles the records, and which comes first is what an attack is about.
        answer.answer += [dns.rrset.from_text(wanted.name, 0, "IN", kind, each) for each in fitting]
        # A look-up is a question for each kind of address: the second turns the page.
        self._answers[name] = self._answers.get(name, 0) + 1
        if self._answers[name] % 2 == 0 and len(answers) > 1:
            answers.pop(0)
        return answer.to_wire()


class Web:
    """An HTTP server on a free port of loopback; use it in a `with`.

    `heard` is all that came, `asked` the targets of its requests; `moves_to` redirects.
    """

    def __init__(self, moves_to: str = "") -> None:
        self.heard = b""
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            # A connection stays: what follows a request on it is another.
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                web.asked.append(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                web.heard += f"{self.requestline}\n{self.headers}\n".encode() + body
                self.send_response(302 if moves_to else 200)
                if moves_to:
                    self.send_header("location", moves_to)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET  # noqa: N815 - as the library has it

        class Listener(ThreadingHTTPServer):
            def handle_error(self, *_arguments: object) -> None:
                """Say nothing: attacks break off as they like."""

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
