"""Server-sent events, as far as models' streams need them: the data of each event (WHATWG HTML, 9.2.6).

A line that is called `error` counts as data too: older llama.cpp says so what went wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each event; `chunks` may be cut anywhere. A last event needs no blank line behind it."""
    data: list[bytes] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield b"\n".join(data)
                data = []
        elif line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"error:"):
            data.append(line[6:])
    if data:
        yield b"\n".join(data)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends, which are LF, CR LF or CR."""
    # In pieces, so that a long line that comes byte by byte is not copied for each byte.
    begun: list[bytes] = []
    first = True
    for chunk in chunks:
        if b"\n" not in chunk and b"\r" not in chunk:
            begun.append(chunk)
            continue
        text = b"".join((*begun, chunk))
        if first:
            text, first = text.removeprefix(_BYTE_ORDER_MARK), False
        # A CR at the end waits for what follows: it may be half of a CR LF.
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text.removesuffix(held).splitlines(keepends=True) if held else text.splitlines(keepends=True)
        rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        begun = [rest + held] if rest or held else []
        for line in lines:
            yield line.rstrip(b"\r\n")
    if begun:
        yield from b"".join(begun).removeprefix(_BYTE_ORDER_MARK if first else b"").splitlines()
