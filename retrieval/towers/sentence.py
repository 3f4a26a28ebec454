"""Models of sentence-transformers: texts, and pictures beside them where a model has both.

Texts go through an export, see ``frozen_text``; pictures through the library on torch. Many models
were trained with other words before a question than before what answers it ("query: ",
"passage: "). The text tower of the encoder is the one for what is indexed; ``asking`` gives the
encoder whose text tower is the one for questions. Both lie in the same space.

A text tower that was trained to give another model's vectors, such as a multilingual student of
CLIP (Reimers and Gurevych 2020, arXiv 2004.09813), may stand in for that model's own: see ``over``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.errors import ModelError
from retrieval.towers import checkpoint, frozen_text, hub, sentence_card
from retrieval.towers.described import Described, Progress
from retrieval.towers.device import Batches, choose
from retrieval.towers.sentence_card import Card
from retrieval.types import Encoder, Modality, Tower, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

FAMILY = "st"
PATTERNS = (
    "*.json",
    "*.txt",
    "*.safetensors",
    "*.bin",
    "*.model",
    "README.md",
    "*/*.json",
    "*/*.txt",
    "*/*.safetensors",
    "*/*.bin",
)
BATCH = 16  # pictures at once

ALIGNED: Mapping[str, tuple[str, ...]] = {
    "sentence-transformers/clip-ViT-B-32-multilingual-v1": (
        "st:sentence-transformers/clip-ViT-B-32",
        "open_clip:ViT-B-32-quickgelu/openai",
        "open_clip:ViT-B-32/openai",
    ),
}
"""Text towers, and the models whose space each was trained into, by the names of ``--model``."""


def describe(source: str) -> Described:
    """Tells what a model is, from its files alone.

    Args:
        source: A folder, or ``ORG/NAME`` on the hub.

    Raises:
        ModelMissingError: If it was never pulled.
        ModelError: If it is another model, or its files are not whole, or it asks for code of its
            own.
    """
    return _described(sentence_card.read(hub.find(source, FAMILY)))


def _described(card: Card) -> Described:
    named = [f"{file.relative_to(card.folder).as_posix()}" for file in card.settings]
    identity = checkpoint.identity([*card.weights, *card.settings], named)
    return Described(
        space=f"st-{identity}",
        dim=card.dim,
        modalities=card.modalities,
        size_bytes=sum(file.stat().st_size for file in card.weights),
        licence=checkpoint.licence(card.folder / "README.md"),
    )


def load(source: str, device: str | None = None, *, cache: Path | None = None) -> Encoder:
    """Makes the encoder; weights are read when a tower is first used.

    Args:
        source: As for ``describe``.
        device: Where pictures are embedded; see ``retrieval.towers.device``.
        cache: Holds the export of the text tower; the platform's cache folder by default.

    Raises:
        ModelError: As ``describe``.
    """
    card = sentence_card.read(hub.find(source, FAMILY))
    told = _described(card)
    towers: dict[Modality, Tower] = {Modality.TEXT: SentenceTower(card, told.space, cache=cache)}
    if Modality.IMAGE in card.modalities:
        towers[Modality.IMAGE] = ImageTower(card, device)
    return Encoder(f"{FAMILY}:{source}", told.space, told.dim, towers)


def pull(source: str, progress: Progress) -> None:
    """Fetches a model from the hub; see ``hub.pull``."""
    hub.pull(source, PATTERNS, progress)


def asking(encoder: Encoder) -> Encoder:
    """Gives the encoder for questions: its text tower puts a question's prompt before each text.

    An encoder that makes no difference is given back as it is. Searching takes this one, indexing
    the plain one.
    """
    text = encoder.towers.get(Modality.TEXT)
    asked = getattr(text, "asked", None)
    if asked is None:
        return encoder
    return replace(encoder, towers={**encoder.towers, Modality.TEXT: asked})


def over(
    encoder: Encoder,
    text_source: str,
    *,
    aligned: Mapping[str, Sequence[str]] = ALIGNED,
    cache: Path | None = None,
) -> Encoder:
    """Gives an encoder another text tower, one that was trained to give vectors of its space.

    The space stays the encoder's, so that an index of its pictures is searched as it is. What
    caches keep of texts goes by the tower's ``identity``.

    Args:
        encoder: With a space of its own.
        text_source: As for ``describe``.
        aligned: Which text towers belong to which models.
        cache: As for ``load``.

    Raises:
        ModelError: If the text tower was not trained into that space, or has another length of
            vectors.
    """
    known = aligned.get(text_source, ())
    if encoder.model not in known:
        told = ", ".join(known) or "no model that anyseek knows"
        raise ModelError(
            f"{FAMILY}:{text_source} gives vectors of the space of {told}, not of {encoder.model}: "
            "what it read would be compared with strangers"
        )
    other = load(text_source, cache=cache)
    if other.dim != encoder.dim:
        raise ModelError(
            f"{FAMILY}:{text_source} gives {other.dim} numbers, {encoder.model} {encoder.dim}: "
            "they share no space"
        )
    return replace(encoder, towers={**encoder.towers, Modality.TEXT: other.towers[Modality.TEXT]})


class SentenceTower(frozen_text.TextTower):
    """Texts into the space, as passages; ``asked`` reads them as questions."""

    def __init__(
        self, card: Card, space: str, *, asked: bool = False, cache: Path | None = None
    ) -> None:
        """Names the model; it is exported at the first ``embed``."""
        prompt = card.query if asked else card.passage
        # where the prompt's own tokens are left out of the mean, the network depends on it
        apart = bool(prompt) and not card.prompt_counts
        super().__init__(
            f"{space}-{'asked' if asked else 'found'}" if apart else f"{space}-text",
            functools.partial(_freeze, card, prompt if apart else ""),
            prompt=prompt,
            cache=cache,
        )
        self._asked = None if asked else SentenceTower(card, space, asked=True, cache=cache)

    @property
    def asked(self) -> SentenceTower | None:
        """The tower for questions; ``None`` if this is it."""
        return self._asked


class ImageTower:
    """Pictures into the space."""

    rate_hz = None

    def __init__(self, card: Card, device: str | None = None) -> None:
        """Names the model; it is read at the first ``embed``."""
        self._card = card
        self._device = device
        self._model: Any = None
        self._batches = Batches(BATCH)
        self._lock = threading.Lock()

    @property
    def side_px(self) -> int:
        """Shorter side that the model's own preparation needs."""
        return self._card.side_px

    def prepare(self, content: Image) -> Image:
        """Keeps the picture: the model's own processor prepares it, with the weights beside it."""
        return content

    def embed(self, batch: Sequence[Image]) -> Vectors:
        """Embeds pictures: ``(n, dim)`` float32, unit rows, in order."""
        with self._lock:
            if self._model is None:
                device = choose(self._device)
                self._model = _model(self._card).to(device.name, device.dtype())
            return self._batches.run(batch, self._encode)

    def _encode(self, batch: Sequence[Image]) -> Vectors:
        vectors = self._model.encode(
            list(batch), normalize_embeddings=False, show_progress_bar=False, prompt=""
        )
        rows = np.asarray(vectors, np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def _model(card: Card) -> Any:
    """Reads the model, on the CPU in float32, from its folder alone; runs no code of its own."""
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError:
        raise ModelError(
            "models of sentence-transformers need more libraries: pip install 'anyseek[text]'"
        ) from None
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    settings = {
        "use_safetensors": not checkpoint.pickles_allowed() or None,
        "dtype": torch.float32,
    }
    try:
        model = SentenceTransformer(
            str(card.folder),
            device="cpu",
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs=dict(settings),
        )
        first: Any = model[0].model
        _, info = type(first).from_pretrained(
            card.first,
            config=first.config,
            local_files_only=True,
            output_loading_info=True,
            **settings,
        )
    except Exception as error:  # the libraries' errors have no common base class
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"the model in {card.folder} cannot be loaded ({said})") from error
    # a transformer's own pooling is read only where its output is the vector
    checkpoint.complete(card.folder, info, unused=() if card.pooled else ("pooler",))
    return model.eval()


def _freeze(card: Card, prompt: str, into: Path) -> None:
    """Exports the way that texts take through the modules."""
    model = _model(card)
    import inspect

    import torch

    first = model[0]
    tokenizer = first.tokenizer
    called = getattr(first.model, first.modality_config["text"]["method"])
    takes = inspect.signature(called).parameters
    inputs = tuple(
        name
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in takes and name in tokenizer.model_input_names
    )
    counted = first._get_prompt_length(prompt) if prompt else None
    shorter = model.truncate_dim

    class Network(torch.nn.Module):
        """Tokens to unit rows."""

        def __init__(self) -> None:
            super().__init__()
            self.modules_ = model

        def forward(self, *tokens: Any) -> Any:
            """Gives ``(n, dim)``."""
            features: dict[str, Any] = dict(zip(inputs, tokens, strict=True), modality="text")
            if counted is not None:
                features["prompt_length"] = counted
            for module in self.modules_:
                features = module(features)
            vectors = features["sentence_embedding"][:, :shorter]
            return torch.nn.functional.normalize(vectors, dim=-1)

    network = Network().eval()
    longest = first.max_seq_length or tokenizer.model_max_length
    frozen_text.freeze(
        into,
        network,
        tokenizer,
        inputs=inputs,
        max_tokens=int(min(longest, 1 << 20)),
        prompt=prompt,
    )
