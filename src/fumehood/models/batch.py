"""Several answers advanced together: one step of the network for all, whoever came when.

A prompt is read alone, in pieces, so that others go on meanwhile; then its keys and values are laid beside theirs, filled up
on the left, where a mask hides the filling. Positions are each row's own, so a row's numbers do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loading import Model
    from .prompt import Prompt

# Long enough for the processor's arithmetic, short enough to let others go on and to keep the memory small.
_PIECE = 2048


class Reading:
    """A prompt that is being read."""

    def __init__(self, model: Model, prompt: Prompt, made: Sequence[int] = ()) -> None:
        """Begin; `made` is what was answered already, where the row is read again."""
        from transformers import DynamicCache  # noqa: PLC0415 - an extra, loaded with the model

        self._model = model
        self._tokens = [*prompt.tokens, *made]
        self._pictures = _places(model, prompt)
        self._cache: Any = DynamicCache()
        self._read = 0

    def read_more(self) -> Any | None:
        """Read the next piece; return the logits at the prompt's end once it is read, else None."""
        import torch  # noqa: PLC0415 - see above

        tokens = self._tokens
        begin, stop, picture = self._pictures[0] if self._pictures else (len(tokens), 0, None)
        # A picture is read with its tokens, whole and alone: the network lets all that are given at once see one another's
        # points, behind a mask as wide and as high as the points of all.
        is_picture = begin == self._read
        end = stop if is_picture else min(self._read + _PIECE, begin)
        if is_picture:
            del self._pictures[0]
        with torch.inference_mode():
            device = self._model.device
            logits = self._model.network(
                input_ids=torch.tensor([tokens[self._read : end]], device=device),
                position_ids=torch.arange(self._read, end, device=device)[None],
                use_cache=True, logits_to_keep=1, **{self._model.cache_field: self._cache},
                **(self._seen(picture) if is_picture else {}),
            ).logits  # fmt: skip
        self._read = end
        return logits[0, -1] if end == len(tokens) else None

    @property
    def cache(self) -> Any:
        """The keys and values of what was read."""
        return self._cache

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return self._read

    def _seen(self, picture: Any) -> dict[str, Any]:
        """Return a picture as the network takes it."""
        import torch  # noqa: PLC0415 - see above

        network, device = self._model.network, self._model.device
        return {
            "pixel_values": torch.from_numpy(picture)[None].to(device, network.dtype),
            "image_sizes": torch.tensor([picture.shape[1:]], device=device),
        }


def _places(model: Model, prompt: Prompt) -> list[tuple[int, int, Any]]:
    """Return each picture with the places of its first token and of what follows its last."""
    if not prompt.pictures:
        return []
    config = model.network.config
    side = config.vision_config.patch_size * config.spatial_merge_size
    marks = [place for place, token in enumerate(prompt.tokens) if token == config.image_token_id]
    places = []
    for picture in prompt.pictures:
        count = (picture.shape[1] // side) * (picture.shape[2] // side)
        places.append((marks[0], marks[count - 1] + 1, picture))
        marks = marks[count:]
    return places


class Batch:
    """The rows that are being answered, in the order in which they joined."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._cache: Any = None
        # By row: how many columns on its left are filling, and its next position.
        self._filling: list[int] = []
        self._positions: list[int] = []

    def join(self, reading: Reading) -> None:
        """Add a row whose prompt was read."""
        import torch  # noqa: PLC0415 - see above

        columns = self._cache.get_seq_length() if self._cache is not None else 0
        width = max(columns, reading.length)
        if self._cache is None:
            self._cache = reading.cache
        else:
            with torch.inference_mode():
                for ours, theirs in zip(self._cache.layers, reading.cache.layers, strict=True):
                    ours.keys = torch.cat([_widened(ours.keys, width), _widened(theirs.keys, width)])
                    ours.values = torch.cat([_widened(ours.values, width), _widened(theirs.values, width)])
        self._filling = [filling + width - columns for filling in self._filling] + [width - reading.length]
        self._positions.append(reading.length)

    def step(self, last: Sequence[int]) -> Any:
        """Advance every row by its last token; return their logits, one row each."""
        import torch  # noqa: PLC0415 - see above

        device = self._model.device
        with torch.inference_mode():
            logits = self._model.network(
                input_ids=torch.tensor(last, device=device)[:, None],
                position_ids=torch.tensor(self._positions, device=device)[:, None],
                attention_mask=self._mask(), use_cache=True, logits_to_keep=1, **{self._model.cache_field: self._cache},
            ).logits  # fmt: skip
        self._positions = [position + 1 for position in self._positions]
        return logits[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows go."""
        import torch  # noqa: PLC0415 - see above

        if len(rows) == len(self._filling):
            return
        self._filling = [self._filling[row] for row in rows]
        self._positions = [self._positions[row] for row in rows]
        if not rows:
            self._cache = None
            return
        cut = min(self._filling)
        self._filling = [filling - cut for filling in self._filling]
        with torch.inference_mode():
            chosen = torch.tensor(rows, device=self._model.device)
            for layer in self._cache.layers:
                layer.keys = layer.keys[chosen][:, :, cut:]
                layer.values = layer.values[chosen][:, :, cut:]

    def _mask(self) -> Any:
        """Return which columns each row sees, the new one among them; None where all see all."""
        import torch  # noqa: PLC0415 - see above

        if not any(self._filling):
            return None
        columns = torch.arange(self._cache.get_seq_length() + 1, device=self._model.device)
        return (columns[None] >= torch.tensor(self._filling, device=self._model.device)[:, None]).long()


def _widened(tensor: Any, width: int) -> Any:
    from torch.nn.functional import pad  # noqa: PLC0415 - see above

    return pad(tensor, (0, 0, width - tensor.shape[-2], 0))
