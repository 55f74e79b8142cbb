"""Messages and tools into the model's tokens, by mistral-common: text of a user's never becomes a control token.

Pictures are taken from `data:` URLs alone: a prompt must not have this machine fetch from its network, nor read its files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import ChatRequestInvalid
from ..protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Never

    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    from .asking import Ask

# A small file can claim a picture that fills the memory: these are all of a request's together. Pillow itself warns a little above.
_MOST_POINTS = 80_000_000
_MOST_PICTURES = 64
# One token: the network cannot read a picture of a single one.
_LEAST_SIDE = 28
# Pillow knows some fifty formats, one of which (EPS) is a program that it has another program run.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


class Prompt(Record):
    """What the model is given. A picture is an array of three colours, height and width."""

    tokens: Sequence[int]
    pictures: Sequence[Any] = ()


def encoded(tokenizer: MistralTokenizer, ask: Ask, *, most_bytes: int | None = None) -> Prompt:
    """Return the prompt of a request. Raises `ChatRequestInvalid`, with the place of the message that is wrong.

    A prompt whose texts have more than `most_bytes` is refused before it is read.
    """
    from mistral_common.exceptions import MistralCommonException  # noqa: PLC0415 - an extra, loaded with the model
    from mistral_common.protocol.instruct.request import ChatCompletionRequest  # noqa: PLC0415
    from mistral_common.protocol.instruct.tool_calls import Function, Tool  # noqa: PLC0415

    if most_bytes is not None and (size := _size(ask)) > most_bytes:
        raise ChatRequestInvalid(
            f"messages and tools have {size} bytes of text, and this model's context holds {most_bytes} at the very most: leave "
            "messages out, or shorten them",
            param="messages", code="context_length_exceeded",
        )  # fmt: skip
    pictures = _Pictures()
    messages = [
        _message(place, message, pictures, last=place == len(ask.messages) - 1)
        for place, message in enumerate(ask.messages)
    ]
    try:
        request: Any = ChatCompletionRequest(
            messages=[message for message in messages if message is not None],
            tools=[
                Tool(function=Function(**{key: tool[key] for key in ("name", "description", "parameters")}))
                for tool in ask.tools
            ]
            or None,
        )
        done = tokenizer.encode_chat_completion(request)
    except (MistralCommonException, ValueError, RecursionError) as error:
        raise ChatRequestInvalid(
            f"the messages or tools make no prompt: {_line(error)}", param="messages", code="invalid_messages"
        ) from error
    return Prompt(tokens=done.tokens, pictures=done.images or ())


def _size(ask: Ask) -> int:
    tools = sum(len(tool["description"].encode("utf-8", "replace")) for tool in ask.tools)
    return tools + sum(map(_bytes, ask.messages))


def _bytes(message: Mapping[str, Any]) -> int:
    """Return how many bytes of text a message has at least."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return sum(len(text.strip().encode("utf-8", "replace")) for text in texts if isinstance(text, str))


def _message(place: int, message: Mapping[str, Any], pictures: _Pictures, *, last: bool) -> Any:
    from mistral_common.protocol.instruct import messages as kinds  # noqa: PLC0415 - see above

    role, content = message.get("role"), message.get("content")
    where = f"messages[{place}]"
    try:
        if role in ("system", "developer"):
            # A prompt that says nothing is none; mistral-common would refuse it.
            return kinds.SystemMessage(content=text) if (text := _text(where, content)) else None
        if role == "user":
            return kinds.UserMessage(content=_user(where, content, pictures))
        if role == "tool":
            return kinds.ToolMessage(
                content=_text(where, content), tool_call_id=_id(f"{where}.tool_call_id", message.get("tool_call_id"))
            )
        if role == "assistant":
            calls = _calls(where, message.get("tool_calls"))
            goes_on = last and message.get("prefix") is True
            return kinds.AssistantMessage(
                content=_text(where, content) or None, tool_calls=calls or None, prefix=goes_on
            )
    except ValueError as error:
        if isinstance(error, ChatRequestInvalid):
            raise
        raise ChatRequestInvalid(f"{where} is not sound: {_line(error)}", param=where) from error
    raise ChatRequestInvalid(
        f"{where}.role {_line(role)!r} is none of system, developer, user, assistant, tool", param=f"{where}.role"
    )


def _text(where: str, content: Any) -> str:
    """Return a content's text: parts of text are read as one, thoughts are left out, nothing is the empty text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        _refuse(f"{where}.content", "is to be a text or a list of parts")
    pieces = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "thinking":
            continue
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            _refuse(f"{where}.content[{number}]", "is no text")
        pieces.append(part[kind])
    return "".join(pieces)


def _user(where: str, content: Any, pictures: _Pictures) -> Any:
    from mistral_common.protocol.instruct.chunk import ImageChunk, TextChunk  # noqa: PLC0415 - see above

    if not isinstance(content, list) or all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in content
    ):
        return _text(where, content)
    chunks: list[Any] = []
    for number, part in enumerate(content):
        place = f"{where}.content[{number}]"
        if isinstance(part, Mapping) and part.get("type") == "image_url":
            chunks.append(ImageChunk(image=pictures.read(place, part.get("image_url"))))
        else:
            chunks.append(TextChunk(text=_text(where, [part])))
    return chunks


class _Pictures:
    """Opens a request's pictures, and counts them."""

    def __init__(self) -> None:
        self._count = self._points = 0

    def read(self, where: str, value: Any) -> Any:
        from PIL import Image  # noqa: PLC0415 - see above

        self._count += 1
        if self._count > _MOST_PICTURES:
            _refuse(where, f"is one more than {_MOST_PICTURES} pictures")
        url = value.get("url") if isinstance(value, Mapping) else value
        if not isinstance(url, str) or not url.startswith("data:image/") or ";base64," not in url[:100]:
            _refuse(where, "is to hold its picture as data:image/png;base64,…: nothing is fetched for a prompt")
        try:
            picture = Image.open(BytesIO(base64.b64decode(url.partition(",")[2], validate=True)), formats=_FORMATS)
            self._points += picture.width * picture.height
            if self._points > _MOST_POINTS:
                _refuse(
                    where, f"has {picture.width} by {picture.height} points: send at most 80 million in all pictures"
                )
            if max(picture.width, picture.height) <= _LEAST_SIDE:
                _refuse(
                    where,
                    f"has {picture.width} by {picture.height} points: send more than {_LEAST_SIDE} in one direction",
                )
            picture.load()
        except ChatRequestInvalid:
            raise
        # Decoders of pictures raise what they like for hostile bytes.
        except Exception as error:
            raise ChatRequestInvalid(
                f"{where} is no picture that can be read: send {', '.join(_FORMATS)}", param=where
            ) from error
        return picture


def _calls(where: str, value: Any) -> list[Any]:
    from mistral_common.protocol.instruct.tool_calls import FunctionCall, ToolCall  # noqa: PLC0415 - see above

    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(f"{where}.tool_calls", "is to be a list")
    calls = []
    for number, call in enumerate(value):
        place = f"{where}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            _refuse(place, "has no function with a name")
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)
        calls.append(
            ToolCall(
                id=_id(f"{place}.id", call.get("id")),
                function=FunctionCall(name=function["name"], arguments=arguments),
            )
        )
    return calls


def _id(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        _refuse(where, "is to be the call's id")
    return value


def _line(words: object) -> str:
    # Errors of mistral-common and pydantic quote the request, over many lines.
    return " ".join(str(words).split())[:300]


def _refuse(field: str, why: str) -> Never:
    raise ChatRequestInvalid(f"{field} {why}", param=field)
