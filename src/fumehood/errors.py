"""Every error that Fumehood raises on purpose, in one tree.

What a guest's program does wrong is a result (`ExecutionResult.reason`), never one of these. Each class says
whose fault it is, and carries the exit code with which the command line ends when it is not caught.
Exit codes of programs pass through the command unchanged; ours start where programs seldom go:
2 usage, 64 to 79 as in sysexits.h, 122 to 127 about running.
"""


class FumehoodError(Exception):
    """Root of the tree. Its text names the wrong value and the next step; it is fit to be shown as it is."""

    exit_code = 70


class InvalidRequest(FumehoodError, ValueError):
    """The caller's fault: a value outside what the request allows."""

    exit_code = 64


class UnknownLanguage(InvalidRequest):
    """The caller's fault: no runtime has this name."""

    exit_code = 65


class InvalidFilePath(InvalidRequest):
    """The caller's fault: a name for a file that must not or cannot stand in the working directory."""

    exit_code = 66


class RuntimeUnavailable(FumehoodError):
    """The host's state: the interpreter of a known language, or its packages, are not installed."""

    exit_code = 126


class SandboxUnavailable(FumehoodError):
    """The host's state: a wall cannot be put up, and nobody lowered the tier by its name."""

    exit_code = 125


class SandboxFailed(FumehoodError):
    """Our fault or the host's: a sandbox could not be set up although the host's walls were seen to hold."""

    exit_code = 125


class ZygoteDied(SandboxFailed):
    """The host's: the warm interpreter that this execution was forked from was killed. Another takes its place: try again."""


class EgressFailed(FumehoodError):
    """The host's: the egress proxy could not be started, or was killed while a program used it. No way out stays open."""

    exit_code = 71


class SessionDead(FumehoodError):
    """The session's state: it has ended; the text says why. `Session.restart` begins anew."""

    exit_code = 74


class SessionBusy(FumehoodError):
    """The caller's fault: a session runs one cell at a time."""

    exit_code = 75


class ForkRefused(FumehoodError):
    """The session's state or the host's: it cannot be forked as it is; the text says why. It goes on as it was."""

    exit_code = 73


class StoreUnavailable(FumehoodError):
    """The host's state: the service's database cannot be read or written. What was not answered for is not kept."""

    exit_code = 74


class ServerError(FumehoodError):
    """Root of what goes wrong between a program and a Fumehood on another machine."""

    exit_code = 69


class ServerUnreachable(ServerError):
    """The server's or the network's state: no connection, one that broke, or no answer in time."""

    exit_code = 69


class ServerRefused(ServerError):
    """The server answered with an HTTP error that is none of its engine's: `status`, and its own words in the text."""

    exit_code = 77

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ServerMisbehaved(ServerError):
    """The server's fault: an answer that breaks the contract of the HTTP API, or that of another program."""

    exit_code = 76


class ChatRequestInvalid(InvalidRequest):
    """The caller's fault: a chat request that the model's engine cannot answer. `param` names the field, `code` the kind."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param, self.code = param, code


class ConfigurationError(FumehoodError):
    """The user's fault: a configuration file or an environment variable that cannot be used."""

    exit_code = 78


class ModelError(FumehoodError):
    """Root of what goes wrong with a chat model."""

    exit_code = 69


class NoModel(ModelError):
    """The user's choice is missing: no model was named and none was found."""

    exit_code = 72


class ModelUnreachable(ModelError):
    """The server's or the network's state: no connection, or no answer in time."""

    exit_code = 69


class ModelStalled(ModelUnreachable):
    """The server's state: its answer began and nothing new came of it in time, though the connection was there."""

    exit_code = 69


class ModelRefused(ModelError):
    """The server answered with an HTTP error; the message carries its status and its own words."""

    exit_code = 77


class ModelBusy(ModelRefused):
    """The server refused for now, beyond what a client waits: it wants to be asked again after `retry_after_seconds`."""

    exit_code = 77

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ModelMisbehaved(ModelError):
    """The model's fault: an answer that breaks the contract it was asked to keep."""

    exit_code = 76


class ModelFilesUnusable(ModelError):
    """The user's: a model's folder lacks a file, or holds one that is cut short or of another kind. The text names it."""

    exit_code = 66


class ModelFailed(ModelError):
    """The engine's fault or the host's: the model in this process broke off, as where its memory ran out."""

    exit_code = 70


class ModelServerEnded(ModelError):
    """The other server's fault or the host's: it was started by us and ended by itself. The text has its last lines."""

    exit_code = 71


class EngineBusy(ModelError):
    """The engine's state: as many answers are asked for as it takes. Try again later."""

    exit_code = 75


class TurnLimitReached(ModelError):
    """The model asked for tools until the limit on turns was used up."""

    exit_code = 75
