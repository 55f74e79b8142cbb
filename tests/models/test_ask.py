"""`fumehood ask` with a model in its own process: its call is made of real tokens, and the sandbox runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fumehood.errors import ModelFilesUnusable, ModelMisbehaved, ModelRefused, ModelStalled, NoModel
from fumehood.llm.choose import Surroundings, choose
from fumehood.llm.in_process import TransformersModel
from fumehood.llm.port import SystemMessage, ToolSchema, UserMessage
from tests.models.conftest import ONE_THREAD
from tests.testing.tiny_models import call

MakeParrot = Callable[..., Path]
TOOL = ToolSchema(name="exec_python", description="Run.", parameters={"type": "object"})
QUESTION = UserMessage(text="What is 6 times 7?")


def test_the_models_call_is_executed_by_the_sandbox(parrot: MakeParrot, tmp_path: Path) -> None:
    folder = parrot("I will run it.", *call("exec_python", code="print(6*7)"), then=("That is the answer",))
    environment = {**os.environ, **ONE_THREAD, "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "fumehood", "ask", "--model", f"transformers:{folder}", "--json", QUESTION.text],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    transcript = json.loads(done.stdout)
    assert transcript["answer"] == "That is the answer"
    assert [message["role"] for message in transcript["messages"]] == [
        "system", "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert transcript["messages"][3]["text"] == "42\n"
    assert transcript["executions"][0]["exit_code"] == 0
    assert transcript["usage"]["completion_tokens"] > 20


def test_the_port_streams_text_and_gives_whole_calls(parrot: MakeParrot) -> None:
    # A small context: held to JSON, a parrot has nothing of its own to say, and may say it to the context's end.
    model = TransformersModel(parrot("I will run it.", *call("exec_python", code="print(6*7)"), context=256))
    heard: list[str] = []
    completion = model.complete([SystemMessage(text="Be kind."), QUESTION], tools=[TOOL], on_text=heard.append)
    assert "".join(heard) == completion.text == "I will run it."
    assert [(each.name, each.parsed()) for each in completion.tool_calls] == [("exec_python", {"code": "print(6*7)"})]
    assert completion.finish_reason == "tool_calls"
    assert model.complete([QUESTION], json_object=True).text.lstrip().startswith("{")


def test_an_interrupted_listener_leaves_a_model_that_answers(parrot: MakeParrot) -> None:
    model = TransformersModel(parrot("One and two."))

    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.complete([QUESTION], on_text=interrupt)
    assert model.complete([QUESTION]).text == "One and two."


def test_an_answer_ends_after_so_many_tokens_and_is_not_waited_for_without_end(noise_folder: Path) -> None:
    completion = TransformersModel(noise_folder, most_tokens=20).complete([QUESTION])
    assert (completion.usage.completion_tokens, completion.finish_reason) == (20, "length")
    with pytest.raises(ModelStalled, match="in 0.001 seconds"):
        TransformersModel(noise_folder, timeout_seconds=0.001).complete([UserMessage(text="word " * 4000)])


def test_a_prompt_that_does_not_fit_is_refused_in_words(noise_folder: Path) -> None:
    with pytest.raises(ModelRefused, match="context holds 4096 tokens"):
        TransformersModel(noise_folder).complete([UserMessage(text="word " * 5000)])


def test_a_call_that_did_not_come_is_misbehaviour(parrot: MakeParrot) -> None:
    model = TransformersModel(parrot("No."))
    with pytest.raises(ModelMisbehaved, match="made to call"):
        model.complete([QUESTION], tool_choice="required")


def test_a_folder_is_chosen_by_its_path_and_checked_at_once(tmp_path: Path) -> None:
    surroundings = Surroundings(environment={}, folder=tmp_path, ports={})
    with pytest.raises(ModelFilesUnusable, match=r"config\.json"):
        choose(f"transformers:{tmp_path}", surroundings)
    with pytest.raises(NoModel, match="transformers"):
        choose("transformer:x", surroundings)
