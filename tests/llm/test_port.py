"""The promises of the port, kept by every model: both clients over real HTTP, and the scripted one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fumehood.errors import ConfigurationError, ModelMisbehaved
from fumehood.llm.choose import Surroundings, choose
from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import AssistantMessage, ChatModel, Quirk, ToolMessage, ToolSchema, UserMessage
from fumehood.llm.scripted import ScriptedModel
from tests.testing.chat_servers import ChatServer

QUESTION = UserMessage(text="q")
TOOL = ToolSchema(name="exec_python", description="Run.", parameters={"type": "object"})
CALLS = [{"name": "exec_python", "arguments": '{"code": "1"}'}, {"name": "exec_python", "arguments": '{"code": "2"}'}]

Make = Callable[..., ChatModel]


def written(folder: Path, *turns: dict[str, object], json_mode: bool = False) -> ScriptedModel:
    path = folder / "dialogue.json"
    path.write_text(json.dumps({"dialogues": [{"question": "q", "json_mode" if json_mode else "turns": turns}]}))
    return ScriptedModel(path)


@pytest.fixture(params=["openai", "mistral", "scripted"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes a model of one kind, which gives the turn that it is passed."""
    with contextlib.ExitStack() as stack:

        def model(turn: dict[str, object], *, json_mode: bool = False) -> ChatModel:
            if request.param == "scripted":
                return written(tmp_path, turn, json_mode=json_mode)
            server = stack.enter_context(ChatServer(turn, mistral=request.param == "mistral"))
            if request.param == "mistral":
                return MistralModel("m", key="k", server_url=server.url, timeout_seconds=10)
            return OpenAICompatible("m", base_url=f"{server.url}/v1", timeout_seconds=10)

        yield model


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
class TestEveryModel:
    def test_says_text(self, make: Make, streamed: bool) -> None:
        heard: list[str] = []
        completion = make({"text": "Grüße,\n世界"}).complete([QUESTION], on_text=heard.append if streamed else None)
        assert (completion.text, completion.tool_calls, completion.finish_reason) == ("Grüße,\n世界", (), "stop")
        assert "".join(heard) == ("Grüße,\n世界" if streamed else "")

    def test_calls_in_order_with_ids_of_nine(self, make: Make, streamed: bool) -> None:
        completion = make({"calls": CALLS}).complete(
            [QUESTION], tools=[TOOL], on_text=(lambda _text: None) if streamed else None
        )
        assert [call.parsed()["code"] for call in completion.tool_calls] == ["1", "2"]
        assert len({call.id for call in completion.tool_calls}) == 2
        assert all(len(call.id) == 9 and call.id.isalnum() for call in completion.tool_calls)
        assert completion.finish_reason == "tool_calls"

    def test_may_not_talk_where_a_call_was_forced(self, make: Make, streamed: bool) -> None:
        with pytest.raises(ModelMisbehaved, match="made to call a tool"):
            make({"text": "no"}).complete(
                [QUESTION], tools=[TOOL], tool_choice="required", on_text=(lambda _text: None) if streamed else None
            )

    def test_answers_in_json_mode(self, make: Make, streamed: bool) -> None:
        on_text = (lambda _text: None) if streamed else None
        completion = make({"text": '{"code": "1"}'}, json_mode=True).complete(
            [QUESTION], json_object=True, on_text=on_text
        )
        assert json.loads(completion.text) == {"code": "1"}


def test_a_replay_fills_in_each_result_by_its_number(tmp_path: Path) -> None:
    model = written(tmp_path, {"calls": CALLS}, {"text": "{{result.2}} {{result.1}} {{result}}"})
    calls = model.complete([QUESTION]).tool_calls
    results = [ToolMessage(call_id=call.id, name=call.name, text=f"{call.parsed()['code']}\n") for call in calls]
    assert model.complete([QUESTION, AssistantMessage(tool_calls=calls), *results]).text == "2 1 2"


@pytest.mark.parametrize("place", ["{{result}}", "{{result.1}}", "{{result.0}}"])
def test_a_replay_makes_no_result_up(tmp_path: Path, place: str) -> None:
    with pytest.raises(ModelMisbehaved, match="was sent 0 results"):
        written(tmp_path, {"text": place}).complete([QUESTION])


def test_what_a_result_says_is_not_filled_in_again(tmp_path: Path) -> None:
    model = written(tmp_path, {"calls": CALLS[:1]}, {"text": "{{result}}"})
    calls = model.complete([QUESTION]).tool_calls
    told = ToolMessage(call_id=calls[0].id, name="exec_python", text=r"{{result.9}} \g<0>")
    assert model.complete([QUESTION, AssistantMessage(tool_calls=calls), told]).text == r"{{result.9}} \g<0>"


TURNS = {
    "empty": {},
    "not_an_object": "text",
    "misspelt": {"txt": "x"},
    "text_of_another_type": {"text": 7},
    "call_without_name": {"calls": [{"arguments": {}}]},
    "calls_of_another_type": {"calls": 7},
    "arguments_of_another_type": {"calls": [{"name": "x", "arguments": 7}]},
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
def test_a_turn_of_another_shape_is_refused_when_the_file_is_read(tmp_path: Path, turn: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"dialogue\.json"):
        written(tmp_path, turn)


def test_a_models_name_may_hold_an_at_sign(tmp_path: Path) -> None:
    around = Surroundings(environment={}, folder=tmp_path)
    assert choose("lmstudio:qwen@q4_k_m", around).name == "qwen@q4_k_m at http://127.0.0.1:1234/v1"
    assert choose("openai:qwen@q4_k_m@http://h:1/v1", around).name == "qwen@q4_k_m at http://h:1/v1"


def test_each_quirk_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "real-servers.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert named == list(Quirk)


@pytest.mark.parametrize("seconds", ["0", "-1", "1e9", "nan"])
def test_a_timeout_that_no_clock_can_keep_is_refused(tmp_path: Path, seconds: str) -> None:
    (tmp_path / "config.toml").write_text(f"timeout_seconds = {seconds}\n")
    with pytest.raises(ConfigurationError, match="timeout_seconds"):
        choose("scripted:demo", Surroundings(environment={}, folder=tmp_path))
