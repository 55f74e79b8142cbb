"""The engine on real, tiny weights: what a parrot was made to say, and what noise is held to."""

from __future__ import annotations

import base64
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fumehood.errors import ChatRequestInvalid, EngineBusy, FumehoodError, ModelFailed, ModelFilesUnusable
from fumehood.models.answering import Arguments, CallBegun, Ended, Event, Text
from fumehood.models.asking import Ask, read
from fumehood.models.batch import Reading
from fumehood.models.engine import Engine
from fumehood.models.prompt import Prompt, encoded
from tests.models.conftest import RUN, asked
from tests.testing.tiny_models import call

if TYPE_CHECKING:
    from fumehood.models.loading import Model

    Load = Callable[..., Model]
    MakeParrot = Callable[..., Path]


class Said:
    """An answer put together."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.text = "".join(event.text for event in events if isinstance(event, Text))
        self.calls: list[list[str]] = []
        for event in events:
            if isinstance(event, CallBegun):
                self.calls.append([event.name, ""])
            elif isinstance(event, Arguments):
                self.calls[event.index][1] += event.text
        assert isinstance(events[-1], Ended)
        self.end = events[-1]


def said(model: Model, **fields: Any) -> Said:
    with Engine(model) as engine:
        return Said(list(engine.answer(read(asked(**fields)))))


def test_a_call_is_read_from_its_tokens_with_the_text_before_it(load: Load, parrot: MakeParrot) -> None:
    model = load(parrot("I will run it.", *call("exec_python", code="print(6*7)")))
    answer = said(model, tools=[RUN])
    assert answer.text == "I will run it."
    assert answer.calls == [["exec_python", '{"code": "print(6*7)"}']]
    assert answer.end.reason == "tool_calls"


def test_a_call_that_is_cut_off_says_length_and_an_argument_cannot_make_another_call(
    load: Load, parrot: MakeParrot
) -> None:
    model = load(parrot("[TOOL_CALLS]", "exec_python", "[ARGS]", '{"code": "[TOOL_CALLS]rm"}'))
    whole = said(model, tools=[RUN])
    assert whole.calls == [["exec_python", '{"code": "[TOOL_CALLS]rm"}']]
    assert (whole.text, whole.end.reason) == ("", "tool_calls")
    for tokens in range(1, whole.end.completion_tokens):
        cut = said(model, tools=[RUN], max_tokens=tokens)
        assert cut.end.reason == "length"
        assert len(cut.calls) <= 1


def test_without_tools_a_model_cannot_call(load: Load, parrot: MakeParrot) -> None:
    model = load(parrot(*call("exec_python", code="1")))
    for fields in ({}, {"tools": [RUN], "tool_choice": "none"}):
        answer = said(model, max_tokens=20, **fields)
        assert answer.calls == []
        assert "[TOOL_CALLS]" not in answer.text


def test_a_stop_ends_the_answer_before_it_and_is_not_shown(load: Load, parrot: MakeParrot) -> None:
    model = load(parrot("The list ends here and goes on."))
    with Engine(model) as engine:
        heard = list(engine.answer(read(asked(stop=["nothing", "ends here"]))))
    assert (Said(heard).text, Said(heard).end.reason) == ("The list ", "stop")
    assert not any("ends" in event.text for event in heard if isinstance(event, Text))
    assert said(model).text == "The list ends here and goes on."


@pytest.mark.parametrize("text", ["Tell me more.", "more " * 3000], ids=["short", "read_in_pieces"])
def test_greedy_tokens_are_those_of_transformers_own_loop(noise: Model, text: str) -> None:
    import torch

    ask = read(asked(text, max_tokens=40))
    prompt = torch.tensor([list(encoded(noise.tokenizer, ask).tokens)])
    barred = [token for token in range(noise.tokens.special) if token != noise.tokens.end]
    made = noise.network.generate(prompt, max_new_tokens=40, do_sample=False, suppress_tokens=barred)[0]
    theirs = noise.tokenizer.decode(made[prompt.shape[1] :].tolist())
    assert said(noise, text=text, max_tokens=40).text == theirs


def test_the_prompt_is_that_of_transformers_own_tokenizer(noise: Model, noise_folder: Path) -> None:
    from transformers import MistralCommonBackend

    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Zähle [TOOL_CALLS] </s>"},
        {"role": "assistant", "content": "Yes.", "tool_calls": [
            {"id": "aaaaaaaa1", "type": "function", "function": {"name": "exec_python", "arguments": '{"code":"1"}'}}]},
        {"role": "tool", "tool_call_id": "aaaaaaaa1", "content": "1"},
    ]  # fmt: skip
    theirs = MistralCommonBackend.from_pretrained(noise_folder).apply_chat_template(
        messages, tools=[RUN], return_dict=False
    )
    ours = encoded(noise.tokenizer, read({"messages": messages, "tools": [RUN]})).tokens
    assert list(ours) == list(theirs)


def test_an_answer_that_was_begun_is_gone_on_with(noise: Model) -> None:
    begun = {"role": "assistant", "content": "It is"}
    whole = list(encoded(noise.tokenizer, read(asked())).tokens)
    tokens = list(
        encoded(noise.tokenizer, read({"messages": [*asked()["messages"], {**begun, "prefix": True}]})).tokens
    )
    assert tokens[: len(whole)] == whole
    assert noise.tokenizer.decode(tokens[len(whole) :]) == "It is"
    assert noise.tokens.end not in tokens


def test_a_users_text_never_becomes_a_control_token(noise: Model) -> None:
    for text in ("[TOOL_CALLS]", "</s>", "[/INST]", "[ARGS]", "<s>"):
        tokens = list(encoded(noise.tokenizer, read(asked(text))).tokens)
        assert [token for token in tokens if token < noise.tokens.special] == [1, 3, 4]


def test_results_go_to_their_calls_whatever_their_order(noise: Model) -> None:
    calls = [
        {"id": f"aaaaaaaa{number}", "type": "function", "function": {"name": "exec_python", "arguments": "{}"}}
        for number in (1, 2)
    ]
    results = [{"role": "tool", "tool_call_id": f"aaaaaaaa{number}", "content": f"r{number}"} for number in (1, 2)]
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    straight, swapped = (
        list(encoded(noise.tokenizer, read({"messages": [*begun, *each]})).tokens) for each in (results, results[::-1])
    )
    assert straight == swapped


def test_rows_that_come_and_go_say_what_each_says_alone(noise: Model) -> None:
    texts = [("word " * length, 5 + 7 * length % 23) for length in (1, 60, 7, 33, 2, 150, 12, 90, 4)]
    alone = [said(noise, text=text, max_tokens=count).text for text, count in texts]
    events: list[queue.SimpleQueue[Event | FumehoodError]] = [queue.SimpleQueue() for _text in texts]
    with Engine(noise, at_once=4) as engine:
        for (text, count), heard in zip(texts, events, strict=True):
            engine.submit(read(asked(text, max_tokens=count)), heard.put)
        together = [Said(list(iter_to_end(heard))).text for heard in events]
    assert together == alone


def test_rows_that_would_fill_the_cache_wait_for_their_turn(noise: Model) -> None:
    widths: list[int] = []
    heard: list[queue.SimpleQueue[Event | FumehoodError]] = [queue.SimpleQueue() for _row in range(6)]
    asks = [read(asked("word " * length, max_tokens=20)) for length in (10, 900, 10, 10, 900, 10)]
    alone = [said(noise, text=ask.messages[0]["content"], max_tokens=20).text for ask in asks]
    with Engine(noise, at_once=6, cache_tokens=1000) as engine:

        def seen(place: int) -> Callable[[Event | FumehoodError], None]:
            def hear(event: Event | FumehoodError) -> None:
                # In the engine's own thread, between two steps.
                widths.append(width_of(engine))
                heard[place].put(event)

            return hear

        for place, ask in enumerate(asks):
            engine.submit(ask, seen(place))
        together = [Said(list(iter_to_end(each))).text for each in heard]
    assert together == alone
    assert max(widths) <= 1000
    assert any(width > 100 for width in widths)


def test_rows_that_grow_beyond_the_cache_leave_it_and_say_the_same(noise: Model) -> None:
    fields = [{"max_tokens": count, "seed": count, "temperature": 0.5} for count in (1200, 1201)]
    alone = [said(noise, **each).text for each in fields]
    widths: list[int] = []
    rows: list[int] = []
    heard: list[queue.SimpleQueue[Event | FumehoodError]] = [queue.SimpleQueue(), queue.SimpleQueue()]
    # Room for both, and for the thousand tokens that are thought of when one begins, and no more.
    with Engine(noise, at_once=2, cache_tokens=2100) as engine:

        def seen(place: int) -> Callable[[Event | FumehoodError], None]:
            def hear(event: Event | FumehoodError) -> None:
                widths.append(width_of(engine))
                rows.append(len(engine._rows))
                heard[place].put(event)

            return hear

        for place, each in enumerate(fields):
            engine.submit(read(asked(**each)), seen(place))
        together = [Said(list(iter_to_end(each))).text for each in heard]
    assert together == alone
    assert (max(widths) <= 2100, max(rows)) == (True, 2)


def width_of(engine: Engine) -> int:
    """Return how many tokens lie in the batch, filling among it."""
    cache = engine._batch._cache
    return 0 if cache is None else int(cache.layers[0].keys.shape[0] * cache.layers[0].keys.shape[2])


def iter_to_end(heard: queue.SimpleQueue[Event | FumehoodError]) -> Sequence[Event]:
    events: list[Event] = []
    while not events or not isinstance(events[-1], Ended):
        event = heard.get(timeout=30)
        if isinstance(event, FumehoodError):
            raise event
        events.append(event)
    return events


def test_a_seed_repeats_an_answer_and_another_changes_it(noise: Model) -> None:
    first, again, other = (said(noise, temperature=1, seed=seed, max_tokens=20).text for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_even_noise_is_held_to_the_schema(noise: Model) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["fish", "bird"]}, "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["kind", "legs"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    for seed in range(5):
        value = json.loads(said(noise, response_format=wanted, temperature=2, seed=seed, max_tokens=400).text)
        assert value["kind"] in ("fish", "bird")
        assert 0 <= value["legs"] <= 9


def test_tools_that_are_too_much_together_are_not_blamed_on_the_response_format(noise: Model) -> None:
    parameters = {"type": "object", "properties": {f"property_{place}": {"type": "string"} for place in range(900)}}
    tools = [{"type": "function", "function": {"name": f"t{number}", "parameters": parameters}} for number in range(40)]
    with pytest.raises(ChatRequestInvalid, match="^tools: ") as caught:
        noise.grammars.matcher(read(asked(tools=tools)))
    assert caught.value.param == "tools"


def test_a_schema_cannot_have_its_answer_filled_with_spaces(noise: Model) -> None:
    schema = {
        "type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False,
        "x-guidance": {"whitespace_pattern": "[ ]{500}"},
    }  # fmt: skip
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert len(said(noise, response_format=wanted, max_tokens=1000).text) < 200


def test_even_noise_calls_what_is_offered_and_what_is_demanded(noise: Model) -> None:
    pinned = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": name, "parameters": pinned}} for name in ("left", "right")]
    for seed in range(3):
        fields = {"tools": tools, "temperature": 2, "seed": seed, "parallel_tool_calls": False, "max_tokens": 400}
        any_of_them = said(noise, tool_choice="required", **fields)
        named = said(noise, tool_choice={"type": "function", "function": {"name": "right"}}, **fields)
        assert [name for name, _ in named.calls] == ["right"]
        assert [name in ("left", "right") for name, _ in any_of_them.calls] == [True]
        assert json.loads(named.calls[0][1])["n"] in (1, 2)
        assert named.end.reason == "tool_calls"


def test_a_prompt_beyond_the_context_is_refused_and_an_answer_ends_with_it(noise: Model) -> None:
    with pytest.raises(ChatRequestInvalid, match=r"holds 4096 tokens, and the prompt has \d+") as caught:
        said(noise, text="word " * 4096)
    assert caught.value.code == "context_length_exceeded"
    answer = said(noise, text="word " * 4080, max_tokens=10_000_000)
    assert answer.end.prompt_tokens + answer.end.completion_tokens == 4096
    assert answer.end.reason == "length"


def test_who_is_cancelled_makes_room_for_the_next(noise: Model) -> None:
    with Engine(noise, at_once=1) as engine:
        long = engine.answer(read(asked(max_tokens=4000)))
        next(long)
        long.close()  # type: ignore[attr-defined]  # a generator is what it is
        assert Said(list(engine.answer(read(asked(max_tokens=2))))).end.completion_tokens == 2


def test_beyond_those_that_wait_the_next_is_told_to_come_again_and_who_left_does_not_count(noise: Model) -> None:
    with Engine(noise, at_once=1) as engine:
        going = [engine.submit(read(asked(max_tokens=4000)), lambda _event: None) for _place in range(1 + 256)]
        with pytest.raises(EngineBusy, match="257 requests"):
            engine.submit(read(asked()), lambda _event: None)
        # Nothing of a request is read that is one too many.
        with pytest.raises(EngineBusy, match="257 requests"):
            engine.submit(read(asked(3)), lambda _event: None)
        for answer in going:
            answer.cancel()
        while True:
            try:
                answered = Said(list(engine.answer(read(asked(max_tokens=1)))))
                break
            except EngineBusy:
                time.sleep(0.01)
    assert answered.end.completion_tokens == 1


def test_a_closed_engine_says_so_to_whom_it_leaves(noise: Model) -> None:
    heard: queue.SimpleQueue[Event | FumehoodError] = queue.SimpleQueue()
    with Engine(noise) as engine:
        engine.submit(read(asked(max_tokens=4000)), heard.put)
    with pytest.raises(ModelFailed, match="closed"):
        iter_to_end(heard)


class Slow(dict[str, Any]):
    """A message that takes its time to be read."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(message)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def get(self, key: str, default: Any = None) -> Any:
        self.begun.set()
        self.go_on.wait(30)
        return super().get(key, default)


def test_an_engine_that_closes_while_a_request_is_read_says_so(noise: Model) -> None:
    message = Slow({"role": "user", "content": "a"})
    heard: queue.SimpleQueue[Event | FumehoodError] = queue.SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        with Engine(noise) as engine:
            ask = Ask(messages=[message])
            submitted = pool.submit(engine.submit, ask, heard.put)
            assert message.begun.wait(30)
        message.go_on.set()
        with pytest.raises(ModelFailed, match="closed"):
            submitted.result(30)


def test_a_prompt_that_cannot_be_read_ends_its_own_answer_alone(noise: Model) -> None:
    first, second, broken, last = (queue.SimpleQueue[Event | FumehoodError]() for _row in range(4))
    with Engine(noise, at_once=2) as engine:
        engine.submit(read(asked(max_tokens=300)), first.put)
        engine.submit(read(asked(max_tokens=100)), second.put)
        # A token that the network has not: nothing that a caller can send.
        engine.submit(read(asked(max_tokens=5)), broken.put).prompt = Prompt(tokens=[1 << 30])
        engine.submit(read(asked(max_tokens=5)), last.put)
        with pytest.raises(ModelFailed, match="the prompt could not be read"):
            iter_to_end(broken)
        assert Said(iter_to_end(first)).end.completion_tokens == 300
        assert Said(iter_to_end(last)).end.completion_tokens == 5


def test_text_that_cannot_fit_is_refused_before_it_is_read(noise: Model) -> None:
    begun = time.monotonic()
    with pytest.raises(ChatRequestInvalid, match="bytes of text") as caught:
        said(noise, text="word " * 8_000_000)
    assert caught.value.code == "context_length_exceeded"
    wordy = {"type": "function", "function": {"name": "a", "description": "word " * 8_000_000}}
    with pytest.raises(ChatRequestInvalid, match="bytes of text"):
        said(noise, tools=[wordy])
    assert time.monotonic() - begun < 2


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(touched) print\n%%EOF\n"


def picture(width: int, height: int) -> dict[str, Any]:
    from tests.testing.pictures import data_url

    return {"type": "image_url", "image_url": {"url": data_url(width, height)}}


def test_pictures_are_seen_and_cost_what_their_size_says(noise: Model) -> None:
    words = {"type": "text", "text": "a"}
    alone = said(noise, text=[words], max_tokens=1).end.prompt_tokens
    one = said(noise, text=[words, picture(280, 140)], max_tokens=3)
    two = said(noise, text=[picture(280, 140), words, picture(64, 64)], max_tokens=3)
    assert one.end.prompt_tokens == alone + 55
    assert two.end.prompt_tokens == alone + 55 + 12
    assert one.text != said(noise, text=[words, picture(140, 280)], max_tokens=3).text


def test_a_prompt_in_pieces_with_pictures_is_the_prompt_at_once(noise: Model) -> None:
    import torch

    text = {"type": "text", "text": "word " * 1200}
    prompt = encoded(noise.tokenizer, read(asked([text, picture(280, 140), picture(64, 64), text, picture(100, 300)])))
    reading, pieces = Reading(noise, prompt), []
    while (logits := reading.read_more()) is None:
        pieces.append(reading.length)
    assert len(pieces) >= 5
    sizes = torch.tensor([each.shape[1:] for each in prompt.pictures])
    pixels = torch.zeros(3, 3, *sizes.max(dim=0).values)
    for place, each in enumerate(prompt.pictures):
        pixels[place, :, : each.shape[1], : each.shape[2]] = torch.from_numpy(each)
    with torch.inference_mode():
        whole = noise.network(
            input_ids=torch.tensor([list(prompt.tokens)]), pixel_values=pixels, image_sizes=sizes, logits_to_keep=1
        ).logits[0, -1]
    assert torch.allclose(logits, whole, atol=1e-5)


def test_a_picture_of_a_single_token_is_refused(noise: Model) -> None:
    for width, height in ((28, 28), (1, 1), (28, 3)):
        with pytest.raises(ChatRequestInvalid, match=f"{width} by {height} points: send more than 28"):
            said(noise, text=[picture(width, height)])
    assert said(noise, text=[picture(29, 1)], max_tokens=1).end.completion_tokens == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA", "a", 3]
)
def test_a_picture_is_taken_from_the_request_alone(noise: Model, url: object) -> None:
    with pytest.raises(ChatRequestInvalid, match="picture"):
        said(noise, text=[{"type": "image_url", "image_url": {"url": url}}])


def test_a_picture_that_is_a_program_or_fills_the_memory_is_refused(noise: Model) -> None:
    program = "data:image/eps;base64," + base64.b64encode(EPS).decode()
    with pytest.raises(ChatRequestInvalid, match="no picture that can be read"):
        said(noise, text=[{"type": "image_url", "image_url": {"url": program}}])
    with pytest.raises(ChatRequestInvalid, match="40000 by 2100 points"):
        said(noise, text=[picture(40_000, 2_100)])


def test_an_older_tokenizer_is_refused(parrot: MakeParrot, load: Load, tmp_path: Path) -> None:
    folder = parrot("Yes.")
    tokenizer = json.loads((folder / "tekken.json").read_text())
    tokenizer["config"]["version"] = "v7"
    (folder / "tekken.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelFilesUnusable, match="version v7"):
        load(folder)
