"""What programs written for Riza's API send, read as leniently as that API did.

Any optional field may be null, lists stand for empty maps where they are empty, languages are of any case, and unknown fields are
left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

CODE_BYTES, STDIN_BYTES, ARGUMENT_BYTES, NAME_BYTES, VALUE_BYTES = 1 << 20, 10 << 20, 100 << 10, 4 << 10, 100 << 10


def _map(value: Any) -> Any:
    return {} if value is None or value == [] else value


def _list(value: Any) -> Any:
    return [] if value is None or value == {} else value


def _text(value: Any) -> Any:
    return "" if value is None else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_text)]
Language = Annotated[Literal["python", "javascript", "typescript", "ruby", "php"], BeforeValidator(_lower)]
FunctionLanguage = Annotated[Literal["python", "javascript", "typescript"], BeforeValidator(_lower)]
Code = Annotated[str, Field(max_length=CODE_BYTES)]


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


class Auth(Lenient):
    """At most one of them is given."""

    basic: Secretive | None = None
    bearer: Secretive | None = None
    header: Secretive | None = None
    query: Secretive | None = None


class AllowedHost(Lenient):
    """A host that may be reached."""

    host: Text = ""
    auth: Auth | None = None


class Http(Lenient):
    """All of them."""

    allow: Annotated[list[AllowedHost], BeforeValidator(_list)] = []


class File(Lenient):
    """A file, text alone."""

    path: Text = ""
    contents: Text = ""


class RequestedLimits(Lenient):
    """Seconds and MiB; 0 stands for the usual."""

    execution_timeout: int | None = None
    memory_size: int | None = None


class _Exec(Lenient):
    env: Annotated[dict[str, Text], BeforeValidator(_map), Field(max_length=100)] = {}
    files: Annotated[list[File], BeforeValidator(_list)] = []
    http: Http | None = None
    limits: RequestedLimits | None = None
    runtime_revision_id: str | None = None
    allow_http_hosts: Annotated[list[str], BeforeValidator(_list)] = []


class ExecRequest(_Exec):
    """POST /v1/execute."""

    code: Code
    language: Language = "python"
    args: Annotated[
        list[Annotated[str, Field(max_length=ARGUMENT_BYTES)]], BeforeValidator(_list), Field(max_length=100)
    ] = []
    stdin: Annotated[str, BeforeValidator(_text), Field(max_length=STDIN_BYTES)] = ""


class ExecFuncRequest(_Exec):
    """POST /v1/execute-function."""

    code: Code
    language: FunctionLanguage = "python"
    input: Any = None


class ToolCreate(Lenient):
    """POST /v1/tools."""

    code: Code
    language: FunctionLanguage
    name: str
    description: Text = ""
    input_schema: Annotated[dict[str, Any], BeforeValidator(_map)] = {}
    runtime_revision_id: str | None = None


class ToolUpdate(Lenient):
    """POST /v1/tools/{id}: what is null stays."""

    code: Annotated[str | None, Field(max_length=CODE_BYTES)] = None
    language: FunctionLanguage | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    runtime_revision_id: str | None = None


class ToolVariable(Lenient):
    """A variable of a tool's environment, by value or by a stored secret."""

    name: str
    value: Text = ""
    secret_id: Text = ""


class ToolExec(Lenient):
    """POST /v1/tools/{id}/execute."""

    input: Any = None
    revision_id: str | None = None
    env: Annotated[list[ToolVariable], BeforeValidator(_list)] = []
    http: Http | None = None


class SecretCreate(Lenient):
    """POST /v1/secrets."""

    name: str
    value: str
