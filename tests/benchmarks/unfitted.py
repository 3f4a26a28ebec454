r"""How far the relevances of a model can be trusted that nobody measured.

    python -m tests.benchmarks.unfitted --captions flickr8k/captions.tsv \
        --images flickr8k/images --work WORK > tests/benchmarks/results/unfitted.json

prints JSON. Needs ``[train]``, for the sentence encoder that judges. The map of
``retrieval.calibrate.unfitted`` looks at standing and size alone. It is fitted here anew, on the
half of Flickr8k's split ``dev`` that ``retrieval.learn.relevance`` fits on, and measured on the
other, in the bundled model's space; and once more with all cosines times 0.3, as in a model whose
matches have low ones, where a map of the cosine itself says something else.

Measures:
``ece``      expected calibration error (Guo et al. 2017, arXiv 1706.04599) of the first hit's
             relevance, 15 bins of equal width; ``squeezed`` with the cosines times 0.3; ``cosine``
             the same for the map of the cosine that was here before, 0.5 at 0.3
``shown``    mean relevance of the first hit, and ``right`` how many of them answer
``flagged``  share of queries whose first hit is below ``CONFIDENT``: captions of the index's
             pictures, nouns that they show, captions of pictures that were taken out
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.calibrate import CONFIDENT, Calibration, unfitted
from retrieval.learn import relevance
from retrieval.learn.relevance import NOUNS, Captions, Shown
from retrieval.models import model
from retrieval.types import Modality, Vectors
from tests.benchmarks.relevance import calibration_error

SIZES = (60, 100, 250)
DRAWS = 4
SQUEEZED = 0.3
BEFORE = Calibration(a=10.0, b=-3.0)
NOTHING = Calibration(a=1.0, b=0.0, spread=0.0)  # is usual: the index alone tells
KINDS = tuple((one, other) for one in ("text", "image") for other in ("image", "text"))


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    encoder = model().load()
    captions = relevance.embed_captions(
        encoder, options.captions, options.images, split="dev", work=options.work
    )
    fitted_half, other = relevance.halves(captions)
    tower = encoder.towers[Modality.TEXT]
    nouns = {
        target: relevance.as_asked(NOUNS, target, tower)
        for target in (Modality.IMAGE, Modality.TEXT)
    }
    figures: dict[str, Any] = {}
    for one, another in KINDS:
        source, target = Modality(one), Modality(another)
        own = _evidence(fitted_half, source, target, nouns[target], seed=0)
        unseen = _evidence(other, source, target, nouns[target], seed=1)
        fitted = relevance.fit([_without_cosine(shown) for shown in own], NOTHING)
        figures[f"{one} to {another}"] = {
            "fitted": {name: getattr(fitted, name) for name in ("b", "z", "n")},
            **measured(unseen, unfitted(source, target)),
        }
    print(
        json.dumps(
            {
                "space": encoder.space,
                "confident_from": CONFIDENT,
                "kinds": figures,
                "flagged": {
                    f"{size} pictures": flagged(other, nouns[Modality.IMAGE], size)
                    for size in SIZES
                },
            },
            indent=2,
        )
    )


def measured(evidence: Sequence[Shown], calibration: Calibration) -> dict[str, float]:
    """Measures a map, and the one of the cosine that was here before."""
    right = np.concatenate([one.right[:, 0] for one in evidence])
    shown = first(evidence, calibration)
    narrow = [replace(one, cosine=np.float32(SQUEEZED) * one.cosine) for one in evidence]
    return {
        "ece": _error(shown, right),
        "ece squeezed": _error(first(narrow, calibration), right),
        "ece cosine": _error(first(evidence, BEFORE), right),
        "ece cosine squeezed": _error(first(narrow, BEFORE), right),
        "shown": round(float(shown.mean()), 3),
        "right": round(float(right.mean()), 3),
    }


def first(evidence: Sequence[Shown], calibration: Calibration) -> NDArray[np.float64]:
    """Gives the relevance of every query's first hit."""
    logits = [
        calibration.a * one.cosine[:, 0].astype(np.float64)
        + calibration.z * one.standing[:, 0]
        + calibration.n * one.crowd[:, 0]
        + calibration.b
        for one in evidence
    ]
    return np.asarray(1 / (1 + np.exp(-np.concatenate(logits))))


def flagged(half: Captions, nouns: Vectors, size: int) -> dict[str, float]:
    """Counts the queries whose first hit is no good match; means over draws."""
    calibration = unfitted(Modality.TEXT, Modality.IMAGE)
    shares: dict[str, list[float]] = {}
    for draw in range(DRAWS):
        kept, out = relevance.draw(half, size, np.random.default_rng(1_000 * draw + size))
        queries = {
            "answerable": kept.captions.reshape(-1, kept.captions.shape[-1]),
            "nouns": nouns[kept.holds(NOUNS).any(axis=1)],
            "taken out": out.captions.reshape(-1, out.captions.shape[-1]),
        }
        for name, rows in queries.items():
            nobody = np.zeros((len(rows), size), np.bool_)
            shown = relevance.shown(rows, kept.pictures, nobody, NOTHING)
            below = first([shown], calibration) < CONFIDENT
            shares.setdefault(name, []).append(float(below.mean()))
    return {name: round(float(np.mean(found)), 3) for name, found in shares.items()}


def _evidence(
    half: Captions, source: Modality, target: Modality, nouns: Vectors, *, seed: int
) -> list[Shown]:
    generator = np.random.default_rng(seed)
    if source is Modality.TEXT:
        return relevance.worded(half, nouns, target, generator, base=NOTHING)
    return relevance.pictured(half, target, generator, base=NOTHING)


def _without_cosine(shown: Shown) -> Shown:
    return replace(shown, cosine=np.zeros_like(shown.cosine))


def _error(relevances: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    return round(calibration_error(relevances, right), 3)


if __name__ == "__main__":
    main()
