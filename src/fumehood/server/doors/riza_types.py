"""What programs written for Riza's API send, read as leniently as that API did.

Any optional field may be null, lists stand for empty maps where they are empty (PHP has one empty array for both), languages are of
any case, and unknown fields are left alone. Lengths are in bytes, as they were documented.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ..bounds import weight

CODE_BYTES, STDIN_BYTES, ARGUMENT_BYTES, NAME_BYTES, VALUE_BYTES = 1 << 20, 10 << 20, 100 << 10, 4 << 10, 100 << 10
#: Of what is stored besides: descriptions, lists of imports, schemas.
WORDS_BYTES, SCHEMA_CHARACTERS = 64 << 10, 256 << 10


def _map(value: Any) -> Any:
    return {} if value is None or value == [] else value


def _list(value: Any) -> Any:
    return [] if value is None or value == {} else value


def _absent(value: Any) -> Any:
    return None if value == [] else value


def _text(value: Any) -> Any:
    return "" if value is None else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _within(most: int) -> AfterValidator:
    def check(value: str) -> str:
        if len(value) > most or len(_utf8(value)) > most:
            raise PydanticCustomError("too_long", "holds more than {most} bytes", {"most": most})
        return value

    return AfterValidator(check)


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("no_text", "holds half a character, which has no UTF-8") from error


def _variables(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if len(_utf8(name)) > NAME_BYTES or len(_utf8(value)) > VALUE_BYTES:
            # Not by its place: the name may be what is too long.
            raise PydanticCustomError("too_long", "{name} or its value is too long", {"name": repr(name[:40])})
    return given


def _bounded_schema(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if weight(value) > SCHEMA_CHARACTERS:
        raise PydanticCustomError("too_long", "holds more than {most} characters", {"most": SCHEMA_CHARACTERS})
    return value


def _storable(value: str) -> str:
    if b"\0" in _utf8(value):
        raise PydanticCustomError("no_text", "holds NUL, which not every database keeps")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, _within(NAME_BYTES)]
Value = Annotated[str, BeforeValidator(_text), _within(VALUE_BYTES)]
Stored = Annotated[str, AfterValidator(_storable)]
StoredName = Annotated[str, _within(NAME_BYTES), AfterValidator(_storable)]
StoredWords = Annotated[str, _within(WORDS_BYTES), AfterValidator(_storable)]
StoredText = Annotated[str, BeforeValidator(_text), _within(WORDS_BYTES), AfterValidator(_storable)]
Language = Annotated[Literal["python", "javascript", "typescript", "ruby", "php"], BeforeValidator(_lower)]
FunctionLanguage = Annotated[Literal["python", "javascript", "typescript"], BeforeValidator(_lower)]
Code = Annotated[str, _within(CODE_BYTES)]
StoredCode = Annotated[str, _within(CODE_BYTES), AfterValidator(_storable)]


class Lenient(BaseModel):
    """Takes what it knows."""

    model_config = ConfigDict(extra="ignore")


class Secretive(Lenient):
    """One way to show a credential. The docs call the secret `token` everywhere, the SDKs have a name for each."""

    user_id: Text = ""
    name: Text = ""
    key: Text = ""
    token: Text = ""
    value: Text = ""
    password: Text = ""
    secret_id: Text = ""

    @property
    def secret(self) -> str:
        """The secret, under whatever name it came."""
        return self.token or self.value or self.password


_Secretive = Annotated[Secretive | None, BeforeValidator(_absent)]


class Auth(Lenient):
    """At most one of them is given."""

    basic: _Secretive = None
    bearer: _Secretive = None
    header: _Secretive = None
    query: _Secretive = None


class AllowedHost(Lenient):
    """A host that may be reached."""

    host: Text = ""
    auth: Annotated[Auth | None, BeforeValidator(_absent)] = None


class Http(Lenient):
    """All of them."""

    allow: Annotated[list[AllowedHost], BeforeValidator(_list)] = []


_Http = Annotated[Http | None, BeforeValidator(_absent)]


class File(Lenient):
    """A file, text alone."""

    path: Text = ""
    contents: Text = ""


class RequestedLimits(Lenient):
    """Seconds and MiB; 0 stands for the usual."""

    execution_timeout: int | None = None
    memory_size: int | None = None


class _Exec(Lenient):
    env: Annotated[dict[str, Text], BeforeValidator(_map), Field(max_length=100), AfterValidator(_variables)] = {}
    files: Annotated[list[File], BeforeValidator(_list)] = []
    http: _Http = None
    limits: Annotated[RequestedLimits | None, BeforeValidator(_absent)] = None
    runtime_revision_id: str | None = None
    allow_http_hosts: Annotated[list[str], BeforeValidator(_list)] = []


class ExecRequest(_Exec):
    """POST /v1/execute."""

    code: Code
    language: Language = "python"
    args: Annotated[list[Annotated[str, _within(ARGUMENT_BYTES)]], BeforeValidator(_list), Field(max_length=100)] = []
    stdin: Annotated[str, BeforeValidator(_text), _within(STDIN_BYTES)] = ""


class ExecFuncRequest(_Exec):
    """POST /v1/execute-function."""

    code: Code
    language: FunctionLanguage = "python"
    input: Any = None


class ToolCreate(Lenient):
    """POST /v1/tools."""

    code: StoredCode
    language: FunctionLanguage
    name: StoredName
    description: StoredText = ""
    input_schema: Annotated[dict[str, Any], BeforeValidator(_map), AfterValidator(_bounded_schema)] = {}
    runtime_revision_id: StoredName | None = None


class ToolUpdate(Lenient):
    """POST /v1/tools/{id}: what is null stays."""

    code: StoredCode | None = None
    language: FunctionLanguage | None = None
    name: StoredName | None = None
    description: StoredWords | None = None
    input_schema: Annotated[
        dict[str, Any] | None,
        BeforeValidator(lambda value: {} if value == [] else value),
        AfterValidator(_bounded_schema),
    ] = None
    runtime_revision_id: StoredName | None = None


class ToolVariable(Lenient):
    """A variable of a tool's environment, by value or by a stored secret."""

    name: Name
    value: Value = ""
    secret_id: Text = ""


class ToolExec(Lenient):
    """POST /v1/tools/{id}/execute."""

    input: Any = None
    revision_id: str | None = None
    env: Annotated[list[ToolVariable], BeforeValidator(_list), Field(max_length=100)] = []
    http: _Http = None


class SecretCreate(Lenient):
    """POST /v1/secrets."""

    name: StoredName
    value: Annotated[Stored, _within(VALUE_BYTES)]


class ManifestFile(Lenient):
    """What a runtime is made from."""

    name: Literal["requirements.txt", "package.json"]
    contents: Stored


class RuntimeCreate(Lenient):
    """POST /v1/runtimes. `engine` is a label that is given back."""

    name: StoredName
    language: Annotated[Literal["python", "javascript"], BeforeValidator(_lower)]
    manifest_file: ManifestFile
    additional_python_imports: StoredText = ""
    engine: Annotated[Literal["wasi", "microvm", "v8"], BeforeValidator(lambda value: value or "v8")] = "v8"


class RevisionCreate(Lenient):
    """POST /v1/runtimes/{id}/revisions."""

    manifest_file: ManifestFile
    additional_python_imports: StoredText = ""
