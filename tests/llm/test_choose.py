"""Which model is taken: named, configured, found; and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fumehood.errors import ConfigurationError, ModelMisbehaved, NoModel
from fumehood.llm.choose import Surroundings, choose
from fumehood.llm.port import Message, ToolMessage, UserMessage
from fumehood.llm.scripted import DEMO, ScriptedModel
from tests.testing.chat_servers import ChatServer


def around(folder: Path, ports: dict[str, int] | None = None, **environment: str) -> Surroundings:
    return Surroundings(environment=environment, folder=folder, ports=ports or {})


NAMES = {
    "mistral:x": "x at Mistral",
    "openai:a/b@http://h:1/v1": "a/b at http://h:1/v1",
    "ollama:x": "x at http://127.0.0.1:7/v1",
    "ollama:x@https://h/v1": "x at https://h/v1",
    "scripted:demo": "a replay of demo.json, not a model",
}


@pytest.mark.parametrize(("spec", "name"), NAMES.items(), ids=NAMES)
def test_a_model_is_taken_by_its_name(tmp_path: Path, spec: str, name: str) -> None:
    assert choose(spec, around(tmp_path, {"ollama": 7}, MISTRAL_API_KEY="k")).name == name


@pytest.mark.parametrize("spec", ["", "gpt", "openai:", "openai:x", "zork:x", "mistral:x", "ollama:x@ftp://h"])
def test_a_name_that_says_too_little_is_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(NoModel):
        choose(spec, around(tmp_path, {"ollama": 7}))


def test_with_nothing_there_the_three_ways_and_the_demo_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoModel, match=r"(?s)1\..*MISTRAL_API_KEY.*2\..*Ollama.*3\..*openai:.*scripted:demo"):
        choose(None, around(tmp_path, {"ollama": 1}))


def test_a_key_for_mistral_comes_before_servers_that_are_found(tmp_path: Path) -> None:
    with ChatServer() as server:
        ports = {"ollama": 1, "vllm": server.port}
        assert "Mistral" in choose(None, around(tmp_path, ports, MISTRAL_API_KEY="k")).name
        assert choose(None, around(tmp_path, ports)).name == f"first-model at {server.url}/v1"


def test_a_key_is_not_sent_to_a_server_that_was_merely_found(tmp_path: Path) -> None:
    with ChatServer({"text": "hi"}) as server:
        choose(None, around(tmp_path, {"vllm": server.port}, OPENAI_API_KEY="k")).complete([UserMessage(text="q")])
    assert server.keys == ["Bearer none"]


def test_configuration_names_the_model_and_keys_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('model = "mistral:from-config"\ntimeout_seconds = 5\n')
    keys = tmp_path / ".env"
    keys.write_text("# keys\nexport MISTRAL_API_KEY='k'\n")
    keys.chmod(0o600)
    assert choose(None, around(tmp_path)).name == "from-config at Mistral"


BROKEN = {
    "unknown_setting": ("config.toml", "modell = 'x'", 0o600, "unknown setting 'modell'.*timeout_seconds"),
    "wrong_type": ("config.toml", "timeout_seconds = 'x'", 0o600, "wrong type"),
    "not_toml": ("config.toml", "=", 0o600, "cannot be used"),
    "readable_by_others": (".env", "A=b", 0o644, "chmod 600"),
    "not_name_value": (".env", "A", 0o600, "line 1"),
}


@pytest.mark.parametrize(("name", "text", "mode", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_configuration_that_cannot_be_used_is_said(tmp_path: Path, name: str, text: str, mode: int, words: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(mode)
    with pytest.raises(ConfigurationError, match=words):
        choose("scripted:demo", around(tmp_path))


def test_a_replay_can_only_repeat_what_it_was_sent() -> None:
    model = ScriptedModel(DEMO)
    question = UserMessage(text="what is TODAY's date?")
    first = model.complete([question])
    assert "date.today" in first.tool_calls[0].parsed()["code"]
    from fumehood.llm.port import AssistantMessage

    history: list[Message] = [
        question,
        AssistantMessage(tool_calls=first.tool_calls),
        ToolMessage(call_id="a", name="exec_python", text="1999-12-31\n"),
    ]
    assert "**1999-12-31**" in model.complete(history).text
    with pytest.raises(ModelMisbehaved, match="only 2 turns"):
        model.complete([*history, AssistantMessage(text="x")])


def test_an_unknown_question_lists_those_that_are_known() -> None:
    with pytest.raises(NoModel, match=r"(?s)'why\?'.*Fibonacci"):
        ScriptedModel(DEMO).complete([UserMessage(text="why?")])


@pytest.mark.parametrize("text", ["", "[]", '{"dialogues": [{"question": 1}]}', '{"dialogues": [{"question": "q"}]}'])
def test_a_dialogue_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        choose(f"scripted:{path}", around(tmp_path))


def test_a_missing_dialogue_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        choose("scripted:/nowhere.json", around(tmp_path))


def test_the_demo_is_json_with_both_methods() -> None:
    dialogues = json.loads(DEMO.read_text())["dialogues"]
    assert sum("turns" in d for d in dialogues) >= 4
    assert sum("json_mode" in d for d in dialogues) >= 2
