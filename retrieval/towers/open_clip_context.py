"""Learned vectors before the words of a text, in the text towers of open_clip.

Context optimisation (CoOp, Zhou et al. 2022, arXiv 2109.01134): where "a photo of a" would stand,
there are vectors as long as those of the table of tokens, which no word spells. A tower then reads
``[begin] v1 .. vM words [end]``, all of it at most as long as its longest text.

Nothing of a tower is written anew. Placeholders keep the vectors' room among the tokens, so that
the tower finds the end of a text where it is, and what its table gives for them is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers.open_clip_files import Checkpoint
from retrieval.towers.open_clip_network import TEXTS, ends, texts, tokenizer, write_texts

Context = NDArray[np.float32]
"""``(vectors, width)`` float32: what stands before the words, in order."""

WORDS = "a photo of a"
"""What a context starts from, as in the paper's experiments with four vectors."""


def check(checkpoint: Checkpoint, count: int) -> None:
    """Tells whether a model's text tower can have a context.

    Args:
        checkpoint: Of the model.
        count: Vectors of the context.

    Raises:
        ModelError: If it is a tower of transformers, or there is no room.
    """
    text = checkpoint.config["text_cfg"]
    if text.get("hf_model_name"):
        raise ModelError(
            f"the text tower of {checkpoint.source} is one of transformers, which takes no learned "
            "context: use --method linear, mlp or cache"
        )
    most = int(text.get("context_length", 77)) // 2
    if not 1 <= count <= most:
        raise ModelError(
            f"{count} vectors leave no room for words in the text tower of {checkpoint.source}: "
            f"give --context from 1 to {most}"
        )


class Steering:
    """A frozen text tower in torch that reads a context before each text."""

    def __init__(self, network: Any, checkpoint: Checkpoint, count: int) -> None:
        """Takes a network, see ``open_clip_network.build``; its weights stay as they are.

        Args:
            network: Of the model; used by nobody else meanwhile.
            checkpoint: Of the model.
            count: Vectors of the context.

        Raises:
            ModelError: As of ``check``.
        """
        check(checkpoint, count)
        self.network, self.checkpoint, self.count = network, checkpoint, count
        self.tokenizer = tokenizer(checkpoint, without=count)
        self._texts = texts(network)
        self._table = getattr(network, "text", network).token_embedding
        self._trims = bool(ends(network))
        first = self.tokenizer(list(TEXTS))[:, 0]
        self.begin = int(bool((first == first[0]).all()))  # whether a mark begins each text
        own = getattr(network, "text", network)
        special = {0, getattr(own, "pad_id", 0), getattr(own, "text_eos_id", 0)}
        special.add(getattr(own, "eos_id", 0))
        self._placeholder = min({1, 2, 3, 4} - special)  # no padding, and no text ends there

    @property
    def width(self) -> int:
        """Length of a vector of the context."""
        return int(self._table.embedding_dim)

    @property
    def scale(self) -> float:
        """What the model multiplies cosines with, its inverse temperature."""
        return float(self.network.logit_scale.exp().mean())

    def start(self, seed: int) -> Context:
        """Gives a context to start from: the last vectors are ``WORDS``, the others random.

        Those have the spread that the table has.
        """
        import torch

        weight = self._table.weight
        generator = torch.Generator().manual_seed(seed)
        made = torch.randn((self.count, self.width), generator=generator) * weight.std()
        # a text with one more word: what both have in common, and no mark of an end, is the words
        row, other = self.tokenizer([WORDS, f"{WORDS} dog"])
        same = int((row != other).int().argmax())
        words = weight[row[self.begin : same]][-self.count :]
        made[self.count - len(words) :] = words
        return np.asarray(made.numpy(), np.float32)

    def ids(self, said: Sequence[str]) -> Any:
        """Tokenizes texts: ``(n, length)`` int64, with room left for the context."""
        return self.tokenizer(list(said))

    def embed(self, ids: Any, context: Any) -> Any:
        """Embeds tokens behind a context: ``(n, dim)`` float32, unit rows.

        Gradients reach the context alone.

        Args:
            ids: As ``ids`` gives them.
            context: ``(vectors, width)`` tensor.
        """
        if self._trims:
            ids = ids[:, : int(ids.argmax(dim=1).max()) + 1]
        return self._behind(ids, context)

    def whole(self, ids: Any) -> Any:
        """Puts placeholders where the context will be."""
        import torch

        room = ids.new_full((ids.shape[0], self.count), self._placeholder)
        return torch.cat([ids[:, : self.begin], room, ids[:, self.begin :]], dim=1)

    @contextmanager
    def placed(self, context: Any) -> Iterator[None]:
        """Has the table give a context for what comes where it will be."""
        import torch

        after = self.begin + self.count

        def put(_table: Any, _ids: Any, rows: Any) -> Any:
            own = context.expand(rows.shape[0], -1, -1)
            return torch.cat([rows[:, : self.begin], own, rows[:, after:]], dim=1)

        handle = self._table.register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()

    def module(self, context: Context) -> Any:
        """Gives a module from tokens ``(n, length)`` to ``(n, dim)`` float32, unit rows."""
        import torch
        from torch import nn

        steering = self

        class Steered(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.texts = steering._texts
                self.context = nn.Parameter(torch.from_numpy(context), requires_grad=False)

            def forward(self, ids: Any) -> Any:
                return steering._behind(ids, self.context)

        return Steered().eval()

    def _behind(self, ids: Any, context: Any) -> Any:
        with self.placed(context):
            return self._texts(self.whole(ids))


def export(network: Any, checkpoint: Checkpoint, context: Context, folder: Path) -> None:
    """Writes ``text.onnx`` with a context in it, and what its tokens need.

    Raises:
        ModelError: If the context does not fit, or the export gives other vectors than torch.
    """
    import torch

    steering = Steering(network, checkpoint, len(context))
    if context.shape != (steering.count, steering.width):
        raise ModelError(
            f"a context of vectors of {context.shape[1]} numbers does not fit the text tower of "
            f"{checkpoint.source}, whose have {steering.width}: learn the adapter again"
        )
    ids = steering.ids(TEXTS)
    with torch.inference_mode(), steering.placed(torch.from_numpy(context)):
        made = network.encode_text(steering.whole(ids))  # open_clip's own way, all tokens of it
        expected = torch.nn.functional.normalize(made.float(), dim=-1).numpy()
    write_texts(
        steering.module(context),
        network,
        checkpoint,
        folder,
        theirs=steering.tokenizer,
        expected=expected,
    )
