"""What Fumehood knows of each language: how to start its interpreter behind the walls. One small module each.

To add a language see CONTRIBUTING.md. The dict below is all the registration there is.
"""

from __future__ import annotations

from ..errors import UnknownLanguage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Runtime

#: Language to the module that provides it. Loaded when used: all but one are not needed in an execution.
_MODULES = {
    "python": "python",
    "python-data": "python_data",
    "bash": "bash",
    "javascript": "javascript",
    "typescript": "typescript",
    "ruby": "ruby",
    "php": "php",
}
_LOADED: dict[str, Runtime] = {}


def languages() -> tuple[str, ...]:
    """Return the names of all languages, whether or not their interpreters are installed here."""
    return tuple(_MODULES)


def get(language: str) -> Runtime:
    """Return the runtime of a language, named in any case, or of the user's own name. Raises `UnknownLanguage`."""
    name = language.lower()
    if name in _LOADED:
        return _LOADED[name]
    module = _MODULES.get(name)
    if module is None:
        from . import packages  # noqa: PLC0415 - for names that are not ours

        match packages.own_language(language):
            case "python":
                from .python import Python  # noqa: PLC0415 - likewise

                return Python(language)
            case "javascript":
                from .javascript import JavaScript  # noqa: PLC0415 - likewise

                return JavaScript(language)
        raise unknown(language)
    _LOADED[name] = __import__(f"{__name__}.{module}", fromlist=["RUNTIME"]).RUNTIME
    return _LOADED[name]


def unknown(language: str) -> UnknownLanguage:
    """Return the error that says that a language is none, and which there are."""
    return UnknownLanguage(
        f"language {language!r} is unknown: choose one of {', '.join(_MODULES)}, or build a runtime of that name with "
        "`fumehood runtime build --requirements FILE --name NAME`, or --package-json for JavaScript"
    )


def language_of(file_name: str) -> str | None:
    """Return the language that a file's suffix stands for, None where there is none."""
    suffixes = {
        ".py": "python", ".sh": "bash", ".bash": "bash", ".js": "javascript", ".mjs": "javascript",
        ".cjs": "javascript", ".ts": "typescript", ".mts": "typescript", ".rb": "ruby", ".php": "php",
    }  # fmt: skip
    dot = file_name.rfind(".")
    return suffixes.get(file_name[dot:].lower()) if dot > 0 else None
