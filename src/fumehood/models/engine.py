"""Answers many requests with one model: a thread that reads prompts, steps the batch, and tells each request what came.

Promised: a request that is cancelled, or whose caller hangs up, costs at most one more step; an answer never has more tokens
than the context holds; what goes wrong is told to the request that it concerns, or to all where the model itself broke off.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from ..errors import ChatRequestInvalid, EngineBusy, FumehoodError, ModelFailed
from .answering import Ended, Reader
from .batch import Batch, Reading
from .choosing import Chooser
from .prompt import encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .answering import Event
    from .asking import Ask
    from .loading import Model
    from .prompt import Prompt

    # Told each event, the last of them `Ended` or an error; by the engine's thread.
    Hear = Callable[[Event | FumehoodError], None]

#: Answers at one time.
AT_ONCE = 8
_MOST_WAITING = 256
# What each answer at one time has of the cache unless told otherwise, and what one is to have room for when it begins.
_SHARE_TOKENS, _AHEAD_TOKENS = 8192, 1024
_CLOSED = "the engine was closed"


class Answer:
    """One request on its way."""

    def __init__(self, model: Model, ask: Ask, prompt: Prompt, hear: Hear) -> None:
        self.prompt, self.hear = prompt, hear
        self.reader = Reader(model.tokens, ask.sampling.stop)
        self.chooser = Chooser(model.tokens, ask.sampling, model.grammars.matcher(ask))
        left = model.context - len(prompt.tokens)
        self.limit = left if ask.sampling.max_tokens is None else min(ask.sampling.max_tokens, left)
        self.made: list[int] = []
        self.is_cancelled = False
        #: Whether its last event was told, or nobody wants it.
        self.is_over = False

    @property
    def width(self) -> int:
        """How many tokens its keys and values take after the next step."""
        return len(self.prompt.tokens) + len(self.made)

    @property
    def soon(self) -> int:
        """How many they will soon take."""
        return self.width + min(self.limit - len(self.made), _AHEAD_TOKENS)

    def cancel(self) -> None:
        """Stop caring. Any thread may."""
        self.is_cancelled = True

    def take(self, logits: object) -> bool:
        """Choose the next token and tell what it says; return whether the answer goes on."""
        token = self.chooser.choose(logits)
        self.made.append(token)
        for event in self.reader.take(token):
            self.hear(event)
        if not self.reader.ended and len(self.made) < self.limit:
            return True
        if not self.reader.ended:
            for piece in self.reader.rest():
                self.hear(piece)
        self.hear(self.reader.end(prompt_tokens=len(self.prompt.tokens), completion_tokens=len(self.made)))
        return False


class Engine:
    """Answers while its `with` lasts; then what is on its way is told that it ended.

    `cache_tokens` bounds the keys and values of all rows together, each as wide as the widest; a single row always fits. Where
    they grow beyond it, the youngest row waits, and is read again later. It is the model's context, or 8,192 for each answer
    at one time where that is more, unless given.
    """

    def __init__(self, model: Model, *, at_once: int = AT_ONCE, cache_tokens: int | None = None) -> None:
        self.model = model
        self._at_once = at_once
        self._cache_tokens = cache_tokens or max(model.context, at_once * _SHARE_TOKENS)
        self._arrivals: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._waiting: deque[Answer] = deque()
        self._reading: tuple[Answer, Reading] | None = None
        self._rows: list[Answer] = []
        self._batch = Batch(model)
        self._count = 0
        self._lock = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._closing = True
        self._arrivals.put(None)
        self._thread.join()

    def submit(self, ask: Ask, hear: Hear) -> Answer:
        """Have the request answered. Raises `ChatRequestInvalid`, and `EngineBusy` where too many wait."""
        # Counted before it is read: who is one too many must not cost anything.
        with self._lock:
            if self._closing:
                raise ModelFailed(_CLOSED)
            if self._count >= self._at_once + _MOST_WAITING:
                raise EngineBusy(f"{self._count} requests are being answered or wait: try again later")
            self._count += 1
        try:
            answer = self._prepared(ask, hear)
            # What is put before `_closing` is set is told of it.
            with self._lock:
                if self._closing:
                    raise ModelFailed(_CLOSED)
                self._arrivals.put(answer)
        except BaseException:
            with self._lock:
                self._count -= 1
            raise
        return answer

    def _prepared(self, ask: Ask, hear: Hear) -> Answer:
        prompt = encoded(self.model.tokenizer, ask, most_bytes=self.model.context * self.model.tokens.longest)
        length = len(prompt.tokens)
        if length >= self.model.context:
            raise ChatRequestInvalid(
                f"this model's context holds {self.model.context} tokens, and the prompt has {length}: leave messages out, or "
                "shorten them",
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        return Answer(self.model, ask, prompt, hear)

    def answer(self, ask: Ask, *, timeout_seconds: float | None = None) -> Iterator[Event]:
        """Answer the request here and now, event by event; closing the iterator cancels it.

        Raises `TimeoutError` where for `timeout_seconds` nothing new comes.
        """
        events: queue.SimpleQueue[Event | FumehoodError] = queue.SimpleQueue()
        answer = self.submit(ask, events.put)
        try:
            while True:
                try:
                    event = events.get(timeout=timeout_seconds)
                except queue.Empty:
                    raise TimeoutError from None
                if isinstance(event, FumehoodError):
                    raise event
                yield event
                if isinstance(event, Ended):
                    return
        finally:
            answer.cancel()

    def _work(self) -> None:
        while True:
            self._arrive()
            if self._closing:
                # Some may have come since.
                self._arrive()
                self._fail(_CLOSED)
                return
            try:
                self._read()
                self._step()
            # The outermost loop: torch raises what it likes, and one request's memory must not end the others' server.
            except Exception as error:  # noqa: BLE001
                self._fail(f"the model broke off: {_words(error)}")

    def _arrive(self) -> None:
        """Take in what was submitted; wait for it where there is nothing else to do."""
        idle = not (self._rows or self._reading or self._waiting or self._closing)
        while True:
            try:
                answer = self._arrivals.get(block=idle)
            except queue.Empty:
                return
            if answer is None:
                idle = False
                continue
            self._waiting.append(answer)
            idle = False

    def _read(self) -> None:
        """Read a piece of the next prompt, where a row is free."""
        # Those who no longer wait must not keep others from waiting.
        for answer in [answer for answer in self._waiting if answer.is_cancelled]:
            self._waiting.remove(answer)
            self._gone(answer)
        if self._reading is None and self._waiting and self._fits(self._waiting[0]):
            answer = self._waiting.popleft()
            with self._own(answer):
                self._reading = answer, Reading(self.model, answer.prompt, answer.made)
        if self._reading is None:
            return
        answer, reading = self._reading
        if answer.is_cancelled:
            self._reading = None
            self._gone(answer)
            return
        logits = None
        with self._own(answer):
            logits = reading.read_more()
        if logits is None and not answer.is_over:
            return
        goes_on = not answer.is_over and self._goes_on(answer, _floats(logits))
        self._reading = None
        if goes_on:
            self._rows.append(answer)
            self._batch.join(reading)

    @contextlib.contextmanager
    def _own(self, answer: Answer) -> Iterator[None]:
        """Let what goes wrong with one prompt end its own answer and no other."""
        try:
            yield
        # Torch raises what it likes, for want of memory, too.
        except Exception as error:  # noqa: BLE001
            self._gone(answer)
            answer.hear(ModelFailed(f"the prompt could not be read: {_words(error)}"))

    def _fits(self, answer: Answer) -> bool:
        """Whether there is room for one more row. In order of arrival, so that a long one is not kept waiting by short ones."""
        rows = [*self._rows, answer]
        widest = max(row.soon for row in rows)
        return len(rows) == 1 or (len(rows) <= self._at_once and len(rows) * widest <= self._cache_tokens)

    def _step(self) -> None:
        """Drop the rows that nobody waits for, and advance the others by one token."""
        for answer in self._rows:
            if answer.is_cancelled:
                self._gone(answer)
        self._keep()
        self._make_room()
        if self._rows:
            logits = _floats(self._batch.step([answer.made[-1] for answer in self._rows]))
            for answer, row in zip(self._rows, logits, strict=True):
                self._goes_on(answer, row)
            self._keep()

    def _make_room(self) -> None:
        """Send the youngest back where the next step would go beyond the cache: it is read again when there is room."""
        while True:
            going = [*self._rows, *([self._reading[0]] if self._reading else [])]
            if len(going) < 2 or len(going) * max(row.width for row in going) <= self._cache_tokens:
                return
            self._waiting.appendleft(going[-1])
            if self._reading:
                self._reading = None
            else:
                del self._rows[-1]
                self._batch.keep(range(len(self._rows)))

    def _keep(self) -> None:
        """Let the rows go that are over."""
        rows = [place for place, answer in enumerate(self._rows) if not answer.is_over]
        self._batch.keep(rows)
        self._rows = [self._rows[place] for place in rows]

    def _goes_on(self, answer: Answer, logits: object) -> bool:
        """Advance one answer; an error in it is its own."""
        try:
            goes_on = answer.take(logits)
        except (ChatRequestInvalid, ModelFailed) as error:
            answer.hear(error)
            goes_on = False
        if not goes_on:
            self._gone(answer)
        return goes_on

    def _gone(self, answer: Answer) -> None:
        answer.is_over = True
        with self._lock:
            self._count -= 1

    def _fail(self, why: str) -> None:
        """Tell all on their way that it has ended."""
        going = [*self._rows, *self._waiting, *([self._reading[0]] if self._reading else [])]
        self._rows, self._reading, self._batch = [], None, Batch(self.model)
        self._waiting.clear()
        for answer in going:
            if not answer.is_over:
                self._gone(answer)
                answer.hear(ModelFailed(why))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _floats(logits: Any) -> Any:
    """Return a copy that may be changed: what the network gives may not, outside of torch's inference mode."""
    import torch  # noqa: PLC0415 - an extra, loaded with the model

    return logits.to("cpu", torch.float32, copy=True)
