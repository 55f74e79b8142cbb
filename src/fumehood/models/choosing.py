"""The next token of one answer: what its grammar allows, then the likeliest, or one drawn by the request's seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ChatRequestInvalid, ModelFailed

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from .answering import Tokens
    from .asking import Sampling

# Below it the likeliest token has all the weight that a float can tell.
_COLD = 1e-5
_TOO_MUCH = "; max is "
_NO_NUMBERS = "the network's numbers are none: its weights are damaged, or too large for their type"


class Chooser:
    """Chooses the tokens of one answer. Not for several threads."""

    def __init__(self, tokens: Tokens, sampling: Sampling, matcher: LLMatcher) -> None:
        import torch  # noqa: PLC0415 - an extra, loaded with the model

        self._tokens, self._sampling, self._matcher = tokens, sampling, matcher
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Any) -> int:
        """Choose from one row of logits, floats on the processor, which it may change."""
        logits = logits[: self._tokens.count]
        token = self._likeliest(logits) if self._sampling.temperature < _COLD else self._drawn(logits)
        if not self._matcher.consume_token(token):
            raise self._broke()
        return token

    def _likeliest(self, logits: Any) -> int:
        numbers = logits.numpy()
        token = int(numbers.argmax())
        mask = self._matcher.compute_bitmask()
        # Most often the likeliest of all is allowed, and the mask need not be spread over the others.
        if not mask[token >> 3] >> (token & 7) & 1:
            self._bar(logits, mask)
            token = int(numbers.argmax())
        if numbers[token] != numbers[token]:
            raise ModelFailed(_NO_NUMBERS)
        return token

    def _drawn(self, logits: Any) -> int:
        import torch  # noqa: PLC0415 - see above

        self._bar(logits, self._matcher.compute_bitmask())
        shares = torch.softmax(logits / self._sampling.temperature, dim=-1)
        if not bool(shares.isfinite().all()):
            raise ModelFailed(_NO_NUMBERS)
        if self._sampling.top_p < 1:
            sorted_shares, order = shares.sort(descending=True)
            # The first one over the line is kept, so there is always one.
            beyond = sorted_shares.cumsum(0) - sorted_shares >= self._sampling.top_p
            shares[order[beyond]] = 0
        return int(torch.multinomial(shares, 1, generator=self._generator))

    def _bar(self, logits: Any, mask: bytes) -> None:
        """Take out what the grammar forbids."""
        import numpy as np  # noqa: PLC0415 - see above
        import torch  # noqa: PLC0415 - see above

        bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")
        if not bits.any():
            raise self._broke()
        logits.masked_fill_(torch.from_numpy(bits[: len(logits)] == 0), float("-inf"))

    def _broke(self) -> ModelFailed | ChatRequestInvalid:
        words = " ".join(self._matcher.get_error().split())[:300]
        # A bound of llguidance's, met only where it comes to that part of the schema.
        if _TOO_MUCH in words:
            return ChatRequestInvalid(
                f"the schema of response_format or of a tool is too large: make it smaller, or its properties required: {words}"
            )
        return ModelFailed(f"the grammar of the answer broke: {words}")
