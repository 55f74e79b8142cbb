"""What our own API takes, as strictly as the Python one: unknown fields, and values of another type, are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...errors import InvalidRequest
from ...protocol import wire
from ...protocol.credentials import KINDS, Credential, StoredSecret
from ...protocol.execution import ExecutionRequest
from ...protocol.limits import Limits
from ...protocol.network import Allow, Network
from ..store.common import SCOPES

#: A program's text at its most, and how many programs one call may bring.
CODE_CHARACTERS, PROGRAMS, FORKS = 4 << 20, 1000, 64
_SECONDS = Annotated[float, Field(gt=0, le=30 * 86_400)]


class Strict(BaseModel):
    """Takes what it knows and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Content(Strict):
    """Bytes: as text, or in base64."""

    text: str | None = None
    base64: str | None = None

    def data(self) -> bytes:
        """Return them."""
        return wire.data_from_json({name: value for name, value in self.model_dump().items() if value is not None})


class StoredSecretName(Strict):
    """A secret that the service keeps, by its id."""

    stored_secret: str


class CredentialBody(Strict):
    """What is added to requests on the way out: fields as `fumehood.Bearer`, `Basic`, `Header` and `Query` have them."""

    kind: Literal["bearer", "basic", "header", "query"]
    placeholder: str = ""
    token: str | StoredSecretName | None = None
    user: str | None = None
    password: str | StoredSecretName | None = None
    name: str | None = None
    key: str | None = None
    value: str | StoredSecretName | None = None

    def credential(self) -> Credential:
        """Return it."""
        given: dict[str, Any] = {
            name: StoredSecret(id=value.stored_secret) if isinstance(value, StoredSecretName) else value
            for name in self.model_fields_set - {"kind"}
            if (value := getattr(self, name)) is not None
        }
        try:
            return KINDS[self.kind](**given)
        except TypeError as error:
            raise InvalidRequest(f"credential: {error}") from error


class Rule(Strict):
    """One host that may be reached: fields as `fumehood.Allow` has them."""

    host: str
    ports: list[int] = []
    scheme: Literal["", "https", "http"] = ""
    credential: CredentialBody | None = None
    methods: list[str] = []
    paths: list[str] = []
    websocket: bool = False
    addresses: list[str] = []

    def rule(self) -> Allow:
        """Return it."""
        return Allow(
            host=self.host, ports=tuple(self.ports), scheme=self.scheme, methods=tuple(self.methods),
            paths=tuple(self.paths), websocket=self.websocket, addresses=tuple(self.addresses),
            credential=None if self.credential is None else self.credential.credential(),
        )  # fmt: skip


class NetworkBody(Strict):
    """Hosts that may be reached: fields as `fumehood.Network` has them; a rule may be a text like `*.example.com`."""

    allow: list[str | Rule] = []
    connections: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    connection_seconds: float | None = None

    def network(self) -> Network:
        """Return it."""
        rules = [each if isinstance(each, str) else each.rule() for each in self.allow]
        return Network(**_given(self) | {"allow": tuple(rules)})


class LimitsBody(Strict):
    """Limits: fields as `fumehood.Limits` has them; what is left out is as usual."""

    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    disk_files: int | None = None
    output_bytes: int | None = None
    files_out_bytes: int | None = None
    files_out: int | None = None

    def limits(self, usual: Limits) -> Limits:
        """Return them."""
        return usual.replace(**_given(self))


def _no_map(value: Any) -> Any:
    return {} if value is None else value


Files = Annotated[dict[str, str | Content], BeforeValidator(_no_map)]
Variables = Annotated[dict[str, str], BeforeValidator(_no_map)]


class ExecutionBody(Strict):
    """A program to run: fields as `fumehood.ExecutionRequest` has them."""

    code: Annotated[str, Field(max_length=CODE_CHARACTERS)]
    language: str = "python"
    name: str | None = None
    args: list[str] = []
    env: Variables = {}
    files: Files = {}
    stdin: str | Content = ""
    limits: LimitsBody | None = None
    network: NetworkBody | None = None
    explain: bool = False

    def request(self, language: str) -> ExecutionRequest:
        """Return the request, for the engine's name of its language."""
        return ExecutionRequest(
            code=self.code, language=language, name=self.name, args=self.args, env=self.env, files=laid(self.files),
            stdin=self.stdin if isinstance(self.stdin, str) else self.stdin.data(),
            limits=(self.limits or LimitsBody()).limits(Limits()), network=(self.network or NetworkBody()).network(),
            explain=self.explain,
        )  # fmt: skip

    def kept(self) -> dict[str, Any]:
        """Return what is kept of it: what was said, without credentials, and of the environment the names alone."""
        said = self.model_dump(exclude_defaults=True, exclude={"network", "env"}) | {"code": self.code}
        return said | kept_secretly(self.network, self.env)


class BatchBody(Strict):
    """Programs to run beside one another."""

    programs: Annotated[list[ExecutionBody], Field(max_length=PROGRAMS)]


class SessionBody(Strict):
    """A session to begin: parameters as those of `fumehood.session`."""

    language: str = "python"
    limits: LimitsBody | None = None
    env: Variables = {}
    files: Files = {}
    network: NetworkBody | None = None
    idle_seconds: _SECONDS = 1800.0
    lifetime_seconds: _SECONDS = 86_400.0


class CellBody(Strict):
    """A cell to run; `timeout` in seconds."""

    code: Annotated[str, Field(max_length=CODE_CHARACTERS)]
    timeout: Annotated[float, Field(gt=0, le=86_400)] | None = None


class ForkBody(Strict):
    """How many copies to make."""

    count: Annotated[int, Field(ge=1, le=FORKS)] = 1


class RestoreBody(Strict):
    """Which checkpoint to go back to."""

    checkpoint_id: str


class KeyBody(Strict):
    """A key to make; without `key` one is made up. Without `project_id` it is of the caller's project."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    scopes: list[Literal["execute", "read", "manage", "keys", "admin"]] = [each for each in SCOPES if each != "admin"]  # type: ignore[misc]
    key: str | None = None
    project_id: str | None = None


class QuotasBody(Strict):
    """What a project may use; null is no bound."""

    requests_per_minute: Annotated[int, Field(ge=0)] | None = None
    concurrency: Annotated[int, Field(ge=0)] | None = None
    cpu_seconds_per_day: Annotated[int, Field(ge=0)] | None = None
    stored_bytes: Annotated[int, Field(ge=0)] | None = None


class ProjectBody(Strict):
    """A project to make."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    quotas: QuotasBody = QuotasBody()


def laid(files: dict[str, str | Content]) -> dict[str, str | bytes]:
    """Return files to lay into a sandbox."""
    return {path: each if isinstance(each, str) else each.data() for path, each in files.items()}


def kept_secretly(network: NetworkBody | None, env: dict[str, str]) -> dict[str, Any]:
    """Return what is kept of what may hold secrets."""
    kept: dict[str, Any] = {"env": dict.fromkeys(env, "***")} if env else {}
    if network is not None:
        kept["network"] = wire.network_as_json(network.network(), secrets=False)
    return kept


def _given(body: BaseModel) -> dict[str, Any]:
    return {name: value for name, value in dict(body).items() if value is not None}
