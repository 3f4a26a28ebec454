r"""What tells queries that an index answers from others: ideas side by side, and their limits.

    python -m tests.benchmarks.answerable --captions flickr8k/captions.tsv \
        --images flickr8k/images --work WORK > tests/benchmarks/results/answerable.json

prints JSON. Needs ``[train]``, ``[test]``, and what ``python -m retrieval.learn.rivals`` leaves in
``--work``. Indexes of several sizes are drawn of one half of the pictures of Flickr8k's split
``dev``; captions of what is in them are answerable, captions of the half's other pictures are not.
Every figure is the AUROC of the one against the other: the mean over 10 draws of the half that
nothing was fitted on, its standard deviation, and the gain over the plain cosine of the first hit
with its own. What takes several numbers is a logistic regression, fitted on 10 draws of the first
half.

``ideas``
    ``before``          the relevance that was here before: cosine, and standing over the index
    ``standing``        by how many standard deviations the first stands above the mean
    ``gap``             the first less the mean of the next nine
    ``tail``            extreme value theory: the first in units of a Gumbel law fitted to the
                        next twenty (as Scheirer et al. 2011 do with Weibull's, "Meta-recognition")
    ``shape``           first, second, tenth, mean, spread and ninth decile of the cosines
    ``inverted``        inverted softmax with the vocabulary's words: a picture that many words come
                        near to counts less
    ``round trip``      how many of the vocabulary's words come nearer to the first picture
    ``agreement``       cosine of the first, and how near the first ten are to each other
    ``query``           cosine of the first, and how near the query is to the vocabulary: its
                        nearest word, its ten nearest, mean and spread, and to the mean picture
    ``rivals``          the cosine less half of ``retrieval.rivals``
    ``relevance``       the model's own
    ``everything``      all of these together
``limits``
    ``everything, fitted on these queries``  the same, fitted where it is measured
    ``all pictures of train``   ``rivals`` of 5,999 pictures instead of 128 typical ones
    ``five captions``           the query is the mean of all captions of its picture
    ``first is right``          ``p + (1 - p) / 2``, where ``p`` of the answerable have the right
                                picture first: the most there is if a first hit that is wrong looks
                                the same whether the right one comes later or not at all
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import vocabulary
from retrieval.calibrate import Background, Calibration
from retrieval.learn import relevance
from retrieval.learn.data import read_captions
from retrieval.learn.relevance import Captions
from retrieval.learn.rivals import embed_pictures, nearness
from retrieval.models import model
from retrieval.types import Modality, Vectors
from tests.benchmarks.relevance import auroc

SIZES = (60, 100, 250)
DRAWS = 10
ASKED = 400
EULER = 0.5772
BEFORE = Calibration(a=6.78, b=-5.61, z=1.264, n=-0.396, mean=0.082, spread=0.125)
SEVERAL = {
    "shape": ("cosine", "second", "tenth", "mean", "spread", "ninth decile"),
    "agreement": ("cosine", "agree"),
    "query": ("cosine", "nearest word", "ten words", "words", "words' spread", "mean picture"),
}

Doubles = NDArray[np.float64]
Features = dict[str, Doubles]


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    spec = model()
    encoder = spec.load()
    both = relevance.halves(
        relevance.embed_captions(
            encoder, options.captions, options.images, split="dev", work=options.work
        )
    )
    said = read_captions(options.captions)["train"]
    pictures = embed_pictures(encoder, said, options.images, options.work)
    _, words = vocabulary.vocabulary(encoder.space, encoder.towers[Modality.TEXT])
    figures = {
        f"{size} pictures": compared(
            [
                [
                    measured(half, size, words, pictures, seed=100 * draw + size + at)
                    for draw in range(DRAWS)
                ]
                for at, half in enumerate(both)
            ]
        )
        for size in SIZES
    }
    print(json.dumps({"space": encoder.space, "draws": DRAWS, **figures}, indent=2))


def measured(half: Captions, size: int, words: Vectors, train: Vectors, *, seed: int) -> Features:
    """Asks one index: what is known of each query, and whether it is ``answered``."""
    generator = np.random.default_rng(seed)
    kept, out = relevance.draw(half, size, generator)
    chosen = [np.divmod(generator.permutation(5 * len(one.said))[:ASKED], 5) for one in (kept, out)]
    queries = np.concatenate(
        [one.captions[at] for one, at in zip((kept, out), chosen, strict=True)]
    )
    cosines = queries @ kept.pictures.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :21]
    high = np.take_along_axis(cosines, order, axis=1)
    first = order[:, 0]
    near_words = kept.pictures @ words.T
    asked_words = queries @ words.T
    ten_words = np.partition(asked_words, -10, axis=1)[:, -10:]
    likeness = kept.pictures @ kept.pictures.T
    ten = likeness[order[:, :10, None], order[:, None, :10]]
    next_ = high[:, 1:21]
    scale = next_.std(axis=1) * np.sqrt(6) / np.pi
    spec = model()
    rivals = spec.rivals()
    assert rivals is not None
    nearer = rivals.above(queries)
    backgrounds = [
        Background(float(row.mean()), float(row.std()), size, float(one))
        for row, one in zip(cosines, nearer, strict=True)
    ]
    calibration = spec.calibrations[Modality.TEXT, Modality.IMAGE]
    whole = np.concatenate(
        [
            one.captions[rows].mean(axis=1)
            for one, (rows, _) in zip((kept, out), chosen, strict=True)
        ]
    )
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    right = np.full(len(queries), -1)
    right[: len(chosen[0][0])] = chosen[0][0]
    found: dict[str, Any] = {
        "answered": right >= 0,
        "first right": first == right,
        "cosine": high[:, 0],
        "second": high[:, 1],
        "tenth": high[:, 9],
        "mean": cosines.mean(axis=1),
        "spread": cosines.std(axis=1),
        "ninth decile": np.quantile(cosines, 0.9, axis=1),
        "standing": (high[:, 0] - cosines.mean(axis=1)) / cosines.std(axis=1),
        "gap": high[:, 0] - high[:, 1:10].mean(axis=1),
        "tail": (high[:, 0] - next_.mean(axis=1) + EULER * scale) / scale,
        "inverted": (cosines - np.log(np.exp(20 * near_words).mean(axis=1)) / 20).max(axis=1),
        "round trip": -np.log1p((near_words[first] > high[:, :1]).sum(axis=1)),
        "agree": (ten.sum(axis=(1, 2)) - 10) / 90,
        "nearest word": ten_words.max(axis=1),
        "ten words": ten_words.mean(axis=1),
        "words": asked_words.mean(axis=1),
        "words' spread": asked_words.std(axis=1),
        "mean picture": queries @ train.mean(axis=0),
        "near": nearer,
        "rivals": high[:, 0] - nearer / 2,
        "all pictures of train": high[:, 0] - nearness(queries, train) / 2,
        "five captions": (whole @ kept.pictures.T).max(axis=1),
        "before": _logits(BEFORE, backgrounds, high),
        "relevance": _logits(calibration, backgrounds, high),
    }
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def _logits(map_: Calibration, backgrounds: list[Background], high: Vectors) -> list[float]:
    return [
        float(map_.against(one).logit(row[:1])[0])
        for one, row in zip(backgrounds, high, strict=True)
    ]


def compared(draws: list[list[Features]]) -> dict[str, Any]:
    """Compares the ideas on the draws of the second half; regressions are fitted on the first."""
    fitted_on, tested = draws
    base = [_auroc(one, one["cosine"]) for one in tested]
    single = ("before", "standing", "gap", "tail", "inverted", "round trip", "rivals", "relevance")
    names = [*single, *sorted({name for several in SEVERAL.values() for name in several}), "near"]

    def row(scores: list[Doubles]) -> dict[str, float]:
        found = [_auroc(one, score) for one, score in zip(tested, scores, strict=True)]
        gain = np.subtract(found, base)
        return {
            "auroc": round(float(np.mean(found)), 3),
            "sd": round(float(np.std(found)), 3),
            "gain": round(float(gain.mean()), 3),
            "gain sd": round(float(gain.std()), 3),
        }

    right = np.mean([one["first right"][one["answered"] > 0].mean() for one in tested])
    return {
        "ideas": {
            "cosine": row([one["cosine"] for one in tested]),
            **{name: row([one[name] for one in tested]) for name in single},
            **{name: row(_regressed(fitted_on, tested, keys)) for name, keys in SEVERAL.items()},
            "everything": row(_regressed(fitted_on, tested, names)),
        },
        "limits": {
            "everything, fitted on these queries": row(_regressed(tested, tested, names)),
            "all pictures of train": row([one["all pictures of train"] for one in tested]),
            "five captions": row([one["five captions"] for one in tested]),
            "first is right": round(float(right + (1 - right) / 2), 3),
        },
    }


def _auroc(one: Features, scores: Doubles) -> float:
    return auroc(scores[one["answered"] > 0], scores[one["answered"] == 0])


def _regressed(
    fitted_on: list[Features], tested: list[Features], names: tuple[str, ...] | list[str]
) -> list[Doubles]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def table(one: Features) -> Doubles:
        return np.stack([one[name] for name in names], axis=1)

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    regression.fit(
        np.concatenate([table(one) for one in fitted_on]),
        np.concatenate([one["answered"] > 0 for one in fitted_on]),
    )
    return [regression.decision_function(table(one)) for one in tested]


if __name__ == "__main__":
    main()
