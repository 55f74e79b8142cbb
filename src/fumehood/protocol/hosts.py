"""Names of hosts, read in one way and no other: what is not plainly a name is refused, never repaired.

Promised: what `host_name` returns is lower-case letters, digits and hyphens between dots, at most 253 characters, and no
spelling of an address. Whoever compares hosts compares what it returned.
"""

from __future__ import annotations

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_AMBIGUOUS = ("//", "/./", "/../", "\\", "%2e", "%2f", "%5c", "%25", "%00", ";", "#", "?")
_DIGITS, _HEX_DIGITS = frozenset("0123456789"), frozenset("0123456789abcdef")


def host_name(text: str) -> str:
    """Return the name in its one spelling: lower case, no dot at the end. Raises ValueError saying what is wrong.

    By RFC 952 and 1123, which DNS names of hosts follow; international names in their ASCII form (`xn--`, RFC 5890).
    """
    if not text.isascii():
        raise ValueError("it has a character beyond ASCII: write an international name in its xn-- form")
    name = text.lower().removesuffix(".")
    if not name or len(name) > 253:
        raise ValueError("it is empty" if not name else "it is longer than 253 characters")
    labels = name.split(".")
    for label in labels:
        if not label or len(label) > 63:
            raise ValueError("a part between its dots is " + ("longer than 63 characters" if label else "empty"))
        if not _LETTERS.issuperset(label):
            strange = next(each for each in label if each not in _LETTERS)
            raise ValueError(f"it has the character {strange!r}: a name has letters, digits and hyphens")
        if label[0] == "-" or label[-1] == "-":
            raise ValueError("a part between its dots begins or ends with a hyphen")
    if _reads_as_number(labels[-1]):
        # As inet_aton and the URL standard do: `127.1`, `0x7f.1` and `2130706433` are all an address to somebody.
        raise ValueError("it reads as an address: give a name")
    return name


def authority(text: str, default_port: int) -> tuple[str, int]:
    """Return (host, port) of `HOST` or `HOST:PORT`. Raises ValueError saying what is wrong."""
    name, colon, digits = text.partition(":")
    return host_name(name), port_number(digits) if colon else default_port


def port_number(text: str) -> int:
    """Return a port. Raises ValueError."""
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise ValueError(f"port {text!r} is not a number from 1 to 65535")
    return int(text)


def is_ambiguous_path(path: str) -> bool:
    """Whether servers and proxies read the path of a URL in more than one way: where a path decides, it must not be such."""
    lower = path.lower()
    if path.endswith(("/.", "/..")) or any(each in lower for each in _AMBIGUOUS):
        return True
    # An escape must be one (RFC 3986, 2.1), and of nothing that is taken for something else: controls, overlong dots.
    escapes = [each[:2] for each in lower.split("%")[1:]]
    return any(
        len(each) < 2 or not _HEX_DIGITS.issuperset(each) or each < "20" or each in ("7f", "c0", "c1")
        for each in escapes
    )


def _reads_as_number(label: str) -> bool:
    if label.startswith("0x"):
        return _HEX_DIGITS.issuperset(label[2:])
    return _DIGITS.issuperset(label)
