"""Package indexes for tests: what PyPI and npm answer for one small package each, made on the fly."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .outside import Request

#: The package of both indexes: the Python module has `NAME`, the one of Node exports it.
PACKAGE, NAME = "colours", "ultramarine"
WHEEL = f"{PACKAGE}-1.0-py3-none-any.whl"
TARBALL = f"{PACKAGE}-1.0.0.tgz"


def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
    """Answer as an index of Python's under `/simple` (PEP 503) and one of npm's under `/npm`."""
    path, wheel, tarball = request.path.partition("?")[0], _wheel(), _tarball()
    if path == f"/simple/{PACKAGE}/":
        link = f'<!DOCTYPE html><a href="../../files/{WHEEL}#sha256={hashlib.sha256(wheel).hexdigest()}">{WHEEL}</a>'
        return 200, {"content-type": "text/html"}, link.encode()
    if path == f"/npm/{PACKAGE}":
        version = {
            "name": PACKAGE, "version": "1.0.0",
            "dist": {
                "tarball": f"https://{request.header('host')}/files/{TARBALL}",
                "integrity": f"sha512-{base64.b64encode(hashlib.sha512(tarball).digest()).decode()}",
            },
        }  # fmt: skip
        document = {"name": PACKAGE, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        return 200, {"content-type": "application/json"}, json.dumps(document).encode()
    files = {f"/files/{WHEEL}": wheel, f"/files/{TARBALL}": tarball}
    if path in files:
        return 200, {"content-type": "application/octet-stream"}, files[path]
    return 404, {"content-type": "text/plain"}, b"no such file\n"


def _wheel() -> bytes:
    """Return a wheel, the same bytes each time."""
    info = f"{PACKAGE}-1.0.dist-info"
    files = {
        f"{PACKAGE}.py": f"NAME = {NAME!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"{PACKAGE}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


def _tarball() -> bytes:
    """Return an npm package, the same bytes each time."""
    files = {
        "package/package.json": json.dumps({"name": PACKAGE, "version": "1.0.0", "main": "index.js"}),
        "package/index.js": f"module.exports = {json.dumps(NAME)};\n",
    }
    data = io.BytesIO()
    # Gzip's head has the time in it unless it is told one.
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(data.getvalue(), mtime=0)
