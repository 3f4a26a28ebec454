"""What files are, out of given labels: zero-shot classification with probabilities.

A label's vector is the mean of its wordings put through the templates of a prompt set (Radford et
al. 2021, arXiv 2103.00020). The probabilities of the labels are a softmax of the cosines over a
temperature (Guo et al. 2017, arXiv 1706.04599), which was fitted for each modality, so that of
the files said to be a dog with 0.8, about 80 % are. They say which of the labels it is, if it is
one. Whether it is one at all is asked apart: how much of the softmax over the labels and 2,789
plain words falls to the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.labels import LabelSet
from retrieval.phrasing import phrase
from retrieval.prompts import PromptSet, bundled, fitting
from retrieval.types import Encoder, Modality, Vectors
from retrieval.vocabulary import vocabulary

TEMPERATURES: Mapping[Modality, float] = {
    Modality.IMAGE: 0.044,
    Modality.AUDIO: 0.07,
    Modality.TEXT: 0.045,
}
"""Of the bundled model, with the least negative log likelihood in ``tests/benchmarks/classify.py``.

Sounds that it was trained on would have 0.022, others 0.102; what people have lies between.
"""
USUAL_TEMPERATURE = 0.01  # of other models: the logit scale of 100 at which CLIP's training ends
UNKNOWN_BELOW: Mapping[Modality, float] = {
    Modality.IMAGE: -5.4,
    Modality.AUDIO: -4.4,
    Modality.TEXT: -5.6,
}
"""Logarithm of the odds of labels against words below which no label fits.

A tenth of the files that do have a label lie below it; of sounds it lies between -2.6, for those
that the bundled model was trained on, and -4.6, for others (the same benchmark).
"""
TEMPLATES: Mapping[Modality, str] = {Modality.IMAGE: "photo", Modality.TEXT: "plain"}
"""Prompt sets for labels; sounds take what a search would. Telling which of several names a file
has is another thing than finding files by a name, and there templates help."""
ROWS = 8_192  # compared at once: 90 MB with the words


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file is.

    Attributes:
        labels: The likeliest first, each with its probability, 0..1.
        fit: Logarithm of the odds of the labels against plain words; higher is better.
        known: Whether any label fits.
    """

    labels: tuple[tuple[str, float], ...]
    fit: float
    known: bool


class Classifier:
    """Tells vectors of one space apart by labels."""

    def __init__(
        self, encoder: Encoder, labels: LabelSet, *, prompt: PromptSet | None = None
    ) -> None:
        """Takes the labels; they are embedded when a modality is first asked about.

        Args:
            encoder: Its texts are used.
            labels: What there is.
            prompt: Templates for the wordings, where they are for the modality.
        """
        self._encoder = encoder
        self._labels = labels
        self._prompt = prompt
        self._vectors: dict[Modality, Vectors] = {}
        self.measured = _is_bundled(encoder.space)

    def judge(self, vectors: Vectors, modality: Modality, *, k: int = 1) -> list[Verdict]:
        """Tells what files are.

        Args:
            vectors: ``(n, dim)`` float32, unit rows, one for each file.
            modality: Of the files.
            k: How many labels of each.

        Raises:
            QueryError: If ``k`` is below 1.
        """
        if k < 1:
            raise QueryError(f"the number of labels must be at least 1, not {k}")
        names = [label.name for label in self._labels.labels]
        verdicts = []
        for start in range(0, len(vectors), ROWS):
            some = vectors[start : start + ROWS]
            for row, fit in zip(
                self.probabilities(some, modality), self.fits(some, modality), strict=True
            ):
                best = np.argsort(-row, kind="stable")[:k].tolist()
                verdicts.append(
                    Verdict(
                        tuple((names[at], float(row[at])) for at in best),
                        float(fit),
                        bool(fit >= UNKNOWN_BELOW[modality]),
                    )
                )
        return verdicts

    def probabilities(self, vectors: Vectors, modality: Modality) -> NDArray[np.float32]:
        """Gives ``(n, labels)`` float32: rows that add up to 1, in the order of the labels."""
        scaled = vectors @ self.label_vectors(modality).T / self._temperature(modality)
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    def fits(self, vectors: Vectors, modality: Modality) -> NDArray[np.float32]:
        """Gives ``(n,)`` float32: logarithms of the odds of the labels against plain words."""
        temperature = self._temperature(modality)
        _, words = vocabulary(self._encoder.space, self._encoder.towers[Modality.TEXT])
        ours = vectors @ self.label_vectors(modality).T / temperature
        theirs = vectors @ words.T / temperature
        return np.asarray(_log_sum(ours) - _log_sum(theirs), np.float32)

    def label_vectors(self, modality: Modality) -> Vectors:
        """Gives the vectors of the labels as they are put to a modality: ``(labels, dim)``."""
        if modality not in self._vectors:
            tower = self._encoder.towers[Modality.TEXT]
            rows = []
            for label in self._labels.labels:
                phrased = [
                    phrase(wording, self.prompt_for(wording, modality), tower).vector
                    for wording in label.wordings
                ]
                rows.append(np.concatenate(phrased).mean(axis=0))
            matrix = np.stack(rows)
            lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
            self._vectors[modality] = np.asarray(matrix / np.maximum(lengths, 1e-12), np.float32)
        return self._vectors[modality]

    def prompt_for(self, wording: str, modality: Modality) -> PromptSet:
        """Gives the templates that a wording is put through."""
        own = bundled()[self._labels.prompt] if self._labels.prompt else None
        for given in (self._prompt, own):
            if given is not None and modality in given.modalities:
                return given
        if self._encoder.plain:
            return bundled()["plain"]
        usual = TEMPLATES.get(modality)
        return fitting(wording, modality, bundled()[usual] if usual else None)

    def _temperature(self, modality: Modality) -> float:
        return TEMPERATURES[modality] if self.measured else USUAL_TEMPERATURE


def _log_sum(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    top = rows.max(axis=1)
    return np.asarray(top + np.log(np.exp(rows - top[:, None]).sum(axis=1)), np.float32)


def _is_bundled(space: str) -> bool:
    from retrieval.errors import ModelError
    from retrieval.towers import bundled as towers

    try:
        return towers.card().space == space
    except ModelError:
        return False
