"""The next token of one answer: what its grammar allows, then the likeliest, or one drawn by the request's seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ModelFailed

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from .answering import Tokens
    from .asking import Sampling

# Below it the likeliest token has all the weight that a float can tell.
_COLD = 1e-5


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
        self._bar(logits)
        token = int(logits.argmax()) if self._sampling.temperature < _COLD else self._drawn(logits)
        if not self._matcher.consume_token(token):
            raise ModelFailed(f"the grammar of the answer broke: {self._matcher.get_error()[:300]}")
        return token

    def _bar(self, logits: Any) -> None:
        """Take out what may not come: what the grammar forbids, and tokens that the tokenizer does not have."""
        import numpy as np  # noqa: PLC0415 - see above
        import torch  # noqa: PLC0415 - see above

        logits[self._tokens.count :] = float("-inf")
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        if not bits.any():
            raise ModelFailed(f"the grammar of the answer broke: {self._matcher.get_error()[:300]}")
        barred = torch.from_numpy(bits[: self._tokens.count] == 0)
        logits[: self._tokens.count].masked_fill_(barred, float("-inf"))

    def _drawn(self, logits: Any) -> int:
        import torch  # noqa: PLC0415 - see above

        shares = torch.softmax(logits / self._sampling.temperature, dim=-1)
        if not bool(shares.isfinite().all()):
            raise ModelFailed("the network's numbers are none: its weights are damaged, or too large for their type")
        if self._sampling.top_p < 1:
            sorted_shares, order = shares.sort(descending=True)
            # The first one over the line is kept, so there is always one.
            beyond = sorted_shares.cumsum(0) - sorted_shares >= self._sampling.top_p
            shares[order[beyond]] = 0
        return int(torch.multinomial(shares, 1, generator=self._generator))
