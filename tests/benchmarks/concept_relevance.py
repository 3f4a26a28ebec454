"""By which map a concept's cosines should become relevances; prints JSON.

    python -m tests.benchmarks.concept_relevance --flickr8k DIR --esc50 DIR

Photographs of Flickr8k's split ``dev`` and clips of two folds of ESC-50 about the fifteen everyday
things of ``cross_modal.py`` lie in one index. Concepts are learned from one or four of either kind,
``REPEATS`` times each, and looked for among both. ``words`` judges them by the map from words to
the kind that is searched, ``examples`` by that from their examples' kind. The bundled model was
trained on those clips, which flatters sounds among sounds.

``log loss`` is over all items (natural logarithm, lower is better), ``base rate`` that of a map
that gives every item the share of right ones. ``relevance`` is the mean of the five first hits'
relevances, and ``precision`` the share of them that are right: the two should be near each other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.asking import SAMPLE
from retrieval.calibrate import Background
from retrieval.concepts import FIRM, centred, learn
from retrieval.learn.data import read_captions
from retrieval.models import model
from retrieval.types import Modality, Vectors
from tests.benchmarks.cross_modal import EVERYDAY, clips_of, embedded, said

FOLDS = (1, 2)
EXAMPLES = (1, 4)
REPEATS = 3
FIRST = 5
KINDS = (Modality.IMAGE, Modality.AUDIO)


def main() -> None:
    """Measures both maps in all four directions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esc50", type=Path, required=True)
    parser.add_argument("--flickr8k", type=Path, required=True)
    options = parser.parse_args()
    encoder = model().load()
    dev = sorted(read_captions(options.flickr8k / "captions.tsv")["dev"], key=lambda one: one.image)
    clips = [one for fold in FOLDS for one in clips_of(options.esc50, fold)]
    rows = {
        Modality.IMAGE: embedded(encoder, [options.flickr8k / "images" / one.image for one in dev]),
        Modality.AUDIO: embedded(encoder, [options.esc50 / "audio" / name for name, _ in clips]),
    }
    right = {
        Modality.IMAGE: np.array(
            [[said(one, about) >= 2 for one in dev] for about, _ in EVERYDAY.values()]
        ),
        Modality.AUDIO: np.array(
            [[kind in kinds for _, kind in clips] for _, kinds in EVERYDAY.values()]
        ),
    }
    figures: dict[str, Any] = {
        "photographs": len(dev),
        "clips": len(clips),
        "things": len(EVERYDAY),
    }
    for source in KINDS:
        for count in EXAMPLES:
            for target, found in measured(rows, right, source, count).items():
                figures[f"{count} {source} among {target}"] = found
    print(json.dumps(figures, indent=2))


def measured(
    rows: dict[Modality, Vectors],
    right: dict[Modality, NDArray[np.bool_]],
    source: Modality,
    count: int,
) -> dict[Modality, dict[str, Any]]:
    """Learns concepts from examples of a kind, and judges both kinds by both maps."""
    rng = np.random.default_rng(0)
    means = {kind: rows[kind].sum(0) / np.float32(len(rows[kind]) + FIRM) for kind in KINDS}
    background = np.concatenate([centred(rows[kind], means[kind]) for kind in KINDS])
    samples = {kind: rng.choice(len(rows[kind]), SAMPLE, replace=False) for kind in KINDS}
    found: dict[Modality, list[list[float]]] = {kind: [] for kind in KINDS}
    for thing, shown in enumerate(right[source]):
        if shown.sum() < count + FIRST:
            continue
        for _ in range(REPEATS):
            chosen = rng.choice(np.flatnonzero(shown), count, replace=False)
            vector = learn(centred(rows[source][chosen], means[source]), None, background)
            for target in KINDS:
                kept = np.ones(len(rows[target]), bool)
                if target is source:
                    kept[chosen] = False
                cosines = rows[target] @ vector
                sample = cosines[samples[target]]
                seen = Background(float(sample.mean()), float(sample.std()), len(cosines))
                found[target].append(
                    judged(cosines[kept], right[target][thing][kept], seen, source, target)
                )
    names = ("words", "examples")
    result: dict[Modality, dict[str, Any]] = {}
    for target, values in found.items():
        base, precision, *rest = np.mean(values, axis=0)
        result[target] = {"log loss of the base rate": round(base, 4)}
        result[target]["precision"] = round(precision, 3)
        for at, name in enumerate(names):
            loss, relevance = rest[2 * at : 2 * at + 2]
            result[target][name] = {"log loss": round(loss, 4), "relevance": round(relevance, 3)}
    return result


def judged(
    cosines: NDArray[np.float32],
    right: NDArray[np.bool_],
    seen: Background,
    source: Modality,
    target: Modality,
) -> list[float]:
    """Gives the base rate's loss, the precision, and each map's loss and relevance."""
    share = float(right.mean())
    first = np.argsort(-cosines, kind="stable")[:FIRST]
    values = [
        -share * np.log(share) - (1 - share) * np.log(1 - share),
        float(right[first].mean()),
    ]
    for kind in (Modality.TEXT, source):
        plain = model().calibrations[kind, target].against(seen)
        logits = plain.logit(cosines)
        losses = np.where(right, np.logaddexp(0, -logits), np.logaddexp(0, logits))
        values += [float(losses.mean()), float(plain.relevance(cosines)[first].mean())]
    return values


if __name__ == "__main__":
    main()
