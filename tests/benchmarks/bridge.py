"""What the bridge of words costs or gains beside a shared space; prints JSON.

    python -m tests.benchmarks.bridge tune --flickr8k DIR --esc50 DIR
    python -m tests.benchmarks.bridge pairs --media DIR

The bundled model has pictures, sounds and texts in one space, so it can be treated as two models
that share nothing but words: pictures and texts, sounds and texts. The bridge goes over the
vocabulary from the one to the other, and the cosine in the shared space is what it is held against.

``tune``: photographs of Flickr8k's split ``dev`` and clips of two folds of ESC-50 about fifteen
everyday things (``EVERYDAY`` in ``cross_modal.py``), up to twenty queries of each thing and each
way; mean average precision over all 1,000 photographs and all clips, for numbers of words,
temperatures and shares of the mean. The bundled model was trained on those clips, which is no
matter between bridges, but flatters both beside other sounds.

``pairs``: what ``cross_modal.py pairs`` measures, on pairs that nothing was trained or tuned on.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import bridge
from retrieval.learn.data import read_captions
from retrieval.models import model
from retrieval.towers import bundled
from retrieval.types import Modality, Vectors
from retrieval.vocabulary import vocabulary
from tests.benchmarks.cross_modal import EVERYDAY, clips_of, embedded, said, table

EACH = 20
TOPS = (1, 3, 5, 10, 50)
TEMPERATURES = (0.1, 0.4, 1.6)
SHARES = (0.0, 1.0)
FOLDS = (1, 2)


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("tune", "pairs"))
    parser.add_argument("--media", type=Path)
    parser.add_argument("--esc50", type=Path)
    parser.add_argument("--flickr8k", type=Path)
    options = parser.parse_args()
    print(json.dumps({"tune": tune, "pairs": pairs}[options.what](options), indent=2))


def tune(options: argparse.Namespace) -> dict[str, Any]:
    """Tries numbers of words, temperatures and shares of the mean."""
    encoder = model().load()
    dev = sorted(read_captions(options.flickr8k / "captions.tsv")["dev"], key=lambda one: one.image)
    clips = [one for fold in FOLDS for one in clips_of(options.esc50, fold)]
    pictures = embedded(encoder, [options.flickr8k / "images" / one.image for one in dev])
    heard = embedded(encoder, [options.esc50 / "audio" / name for name, _ in clips])
    shown = np.array([[said(one, about) >= 2 for one in dev] for about, _ in EVERYDAY.values()])
    told = np.array([[kind in kinds for _, kind in clips] for _, kinds in EVERYDAY.values()])

    asked = {Modality.IMAGE: first(shown), Modality.AUDIO: first(told)}

    def both_ways(**settings: Any) -> dict[str, float]:
        seen, sounds = pictures[asked[Modality.IMAGE]], heard[asked[Modality.AUDIO]]
        if settings:
            seen = carried(seen, Modality.IMAGE, **settings)
            sounds = carried(sounds, Modality.AUDIO, **settings)
        to_sound = precision(shown[:, asked[Modality.IMAGE]], told, seen @ heard.T)
        to_picture = precision(told[:, asked[Modality.AUDIO]], shown, sounds @ pictures.T)
        return {
            "picture to sound": round(100 * to_sound, 1),
            "sound to picture": round(100 * to_picture, 1),
        }

    return {
        "photographs": len(dev),
        "clips": len(clips),
        "things": len(EVERYDAY),
        "shared space": both_ways(),
        "bridge": {
            f"{top} words, temperature {temperature}, {share} of the mean": both_ways(
                top=top, temperature=temperature, share=share
            )
            for top, temperature, share in itertools.product(TOPS, TEMPERATURES, SHARES)
            if top > 1 or temperature == TEMPERATURES[0]
        },
    }


def pairs(options: argparse.Namespace) -> dict[str, Any]:
    """Measures both directions between pictures and sounds of the same things."""
    encoder = model().load()
    rows = table(options.media / "pairs.tsv")
    pictures = embedded(encoder, [options.media / row["picture"] for row in rows])
    heard = embedded(encoder, [options.media / row["sound"] for row in rows])
    figures: dict[str, Any] = {
        "pairs": len(rows),
        "words": bridge.TOP,
        "temperature": bridge.TEMPERATURE,
        "shared space": {
            "picture to sound": recalls(pictures @ heard.T),
            "sound to picture": recalls(heard @ pictures.T),
        },
    }
    for name, share in (("bridge", bridge.HELD_BACK), ("bridge, nothing held back", 0.0)):
        seen = carried(pictures, Modality.IMAGE, share=share)
        told = carried(heard, Modality.AUDIO, share=share)
        figures[name] = {
            "picture to sound": recalls(seen @ heard.T),
            "sound to picture": recalls(told @ pictures.T),
        }
    return figures


def carried(
    vectors: Vectors,
    kind: Modality,
    *,
    top: int = bridge.TOP,
    temperature: float = bridge.TEMPERATURE,
    share: float = bridge.HELD_BACK,
) -> Vectors:
    """Carries vectors over the words, which lie at the same place on both sides here."""
    spec = model()
    _, words = vocabulary(spec.space, spec.load().towers[Modality.TEXT])
    with (bundled.WEIGHTS / "means.npz").open("rb") as file, np.load(file) as archive:
        mean = share / bridge.HELD_BACK * archive[kind.value]
    return np.stack(
        [
            bridge.bridge(row, words, words, mean=mean, top=top, temperature=temperature)
            for row in vectors
        ]
    )


def recalls(scores: NDArray[np.float32]) -> dict[str, float]:
    """Gives R@1, 5 and 10 in %, where the partner of row ``i`` is column ``i``."""
    place = (scores > np.diag(scores)[:, None]).sum(1)
    return {f"r{k}": round(100 * float((place < k).mean()), 1) for k in (1, 5, 10)}


def first(about: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Gives the columns of the first items of each thing, each column once."""
    return np.unique(np.concatenate([np.flatnonzero(row)[:EACH] for row in about]))


def precision(
    asks: NDArray[np.bool_], answers: NDArray[np.bool_], scores: NDArray[np.float32]
) -> float:
    """Gives mean average precision over things, each the mean over its queries.

    Args:
        asks: ``(things, queries)``, which queries are about which thing.
        answers: ``(things, items)``, which items.
        scores: ``(queries, items)``.
    """
    means = []
    for asked, answering in zip(asks, answers, strict=True):
        own = [average(answering, scores[row]) for row in np.flatnonzero(asked)]
        means.append(float(np.mean(own)))
    return float(np.mean(means))


def average(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Gives the average precision of one ranking."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precisions[hits].mean())


if __name__ == "__main__":
    main()
