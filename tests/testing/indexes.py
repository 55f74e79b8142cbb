"""Package indexes over real HTTP, on a port of their own: what PyPI and npm's registry answer for packages made on the fly."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

#: Answers a path with a content type and a body, None where nothing is there.
Answer = Callable[[str], tuple[str, bytes] | None]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """Give a web server's URL and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = answer(self.path)
            kind, body = found or ("text/plain", b"")
            try:
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)
            except ConnectionError:
                pass  # whoever asked is gone

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def make_wheel(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write version 1.0 of a Python package into a folder."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for inside, data in files.items():
            wheel.writestr(inside, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def python_index(wheel: Path, files_at: str = "", watch: Callable[[], None] = lambda: None) -> Answer:
    """Answer as an index that has one package, `colours`; its file is at another URL if given."""

    def answer(path: str) -> tuple[str, bytes] | None:
        watch()
        if path == "/simple/colours/":
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            link = f'<!DOCTYPE html><a href="{files_at}/files/{wheel.name}#sha256={digest}">{wheel.name}</a>'
            return "text/html", link.encode()
        return ("application/zip", wheel.read_bytes()) if path == f"/files/{wheel.name}" else None

    return answer


#: Package to its versions, to each one's `package.json` beyond name and version, and its files' texts.
NpmPackages = Mapping[str, Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]]]


def npm_registry(packages: NpmPackages, files_at: str = "", watch: Callable[[], None] = lambda: None) -> Answer:
    """Answer as npm's registry that has these; their files are at another URL if given."""
    tarballs = {
        f"/{name}/-/{version}.tgz": _tarball({"name": name, "version": version, **about}, files)
        for name, versions in packages.items()
        for version, (about, files) in versions.items()
    }

    def described(name: str, version: str) -> dict[str, Any]:
        path = f"/{name}/-/{version}.tgz"
        digest = base64.b64encode(hashlib.sha512(tarballs[path]).digest()).decode()
        # npm asks the registry that it was told of for what is said to be at its usual one.
        tarball = f"{files_at or 'https://registry.npmjs.org'}{path}"
        about = {"name": name, "version": version, **packages[name][version][0]}
        return {**about, "dist": {"tarball": tarball, "integrity": f"sha512-{digest}"}}

    def answer(path: str) -> tuple[str, bytes] | None:
        watch()
        name = unquote(path)
        if name in tarballs:
            return "application/octet-stream", tarballs[name]
        name = name.removeprefix("/")
        if name not in packages:
            return None
        versions = {version: described(name, version) for version in packages[name]}
        document = {"name": name, "dist-tags": {"latest": list(versions)[-1]}, "versions": versions}
        return "application/json", json.dumps(document).encode()

    return answer


def _tarball(about: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    data = io.BytesIO()
    # Gzip's head has the time in it unless it is told one.
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in {"package.json": json.dumps(about), **files}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(data.getvalue(), mtime=0)
