"""An outside for egress tests: a name server that says what a test wants, and HTTPS and HTTP servers with certificates of its own.

All of them are real, on this machine's loopback; who may reach that is what the tests are about.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fumehood.probes.outside import NameServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: Answers a request: status, headers, body.
    Answer = Callable[["Request"], tuple[int, dict[str, str], bytes]]

__all__ = ["LOOPBACK", "Authority", "NameServer", "Request", "Server"]

LOOPBACK = ("127.0.0.0/8",)


class Request:
    """What a server heard."""

    def __init__(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def header(self, name: str) -> str | None:
        """Return the header's only value; None where there is none."""
        values = [value for each, value in self.headers if each.lower() == name]
        assert len(values) <= 1, values
        return values[0] if values else None


def _echo(request: Request) -> tuple[int, dict[str, str], bytes]:
    heard = {
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
    }
    return 200, {"content-type": "application/json"}, json.dumps(heard).encode()


class Server:
    """An HTTP/1.1 server, over TLS where it has a context. `requests` are those that came."""

    def __init__(self, answer: Answer = _echo, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.answer = answer
        self._server = _Listener(self, context)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 600

    def __init__(self, owner: Server, context: ssl.SSLContext | None) -> None:
        self.owner, self._context = owner, context
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_arguments: object) -> None:
        """Clients of these tests break off as they like."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._context is None:
            super().finish_request(request, client_address)
            return
        with self._context.wrap_socket(request, server_side=True) as opened:
            super().finish_request(opened, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listener

    def log_message(self, *_arguments: object) -> None:
        """Keep the tests' output clean."""

    def __getattr__(self, name: str) -> object:
        # Every method there is.
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        request = Request(self.command, self.path, list(self.headers.items()), self._body())
        self.server.owner.requests.append(request)
        status, headers, body = self.server.owner.answer(request)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "transfer-encoding" not in headers:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class Authority:
    """Vouches for test servers. While its `with` lasts, this process and what it starts trust it and nobody else."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
        self._certificate = self._build(name, name, self._key, x509.BasicConstraints(ca=True, path_length=0), ())
        #: Where it lies while it is trusted.
        self.path = ""
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, *names: str) -> ssl.SSLContext:
        """Return what a server with these names needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.identity(*names))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def identity(self, *names: str) -> bytes:
        """Return the key and certificate of a server with these names, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        certificate = self._build(subject, self._certificate.subject, key, constraints, names)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return private + certificate.public_bytes(serialization.Encoding.PEM)

    def _build(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey,
        constraints: x509.BasicConstraints, names: tuple[str, ...],
    ) -> x509.Certificate:  # fmt: skip
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    @contextlib.contextmanager
    def trusted(self) -> Iterator[Self]:
        """Have it trusted."""
        before = os.environ.get("SSL_CERT_FILE")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "authority.pem"
            path.write_bytes(self.pem)
            Path(folder).chmod(0o755)
            os.environ["SSL_CERT_FILE"] = self.path = str(path)
            try:
                yield self
            finally:
                del os.environ["SSL_CERT_FILE"]
                if before is not None:
                    os.environ["SSL_CERT_FILE"] = before
