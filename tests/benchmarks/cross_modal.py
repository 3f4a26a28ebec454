"""Pictures find sounds, and one ranking holds both: what the shared space gives; prints JSON.

    python tests/benchmarks/cross_modal.py pairs --media DIR [--model DIR]
    python tests/benchmarks/cross_modal.py mixed --media DIR --esc50 DIR --flickr8k DIR
        --fold N [--model DIR]

``--media`` is what ``tests/benchmarks/tri_modal.py`` wrote. ``--model`` is a folder with a model,
the bundled one by default; for ``mixed`` it must be one that was trained without the fold.

``pairs``: every sound is looked for with the picture of its thing, and every picture with its
sound, among all of them. R@5 is the share of queries whose partner is among the first five; chance
is 5/n. Also for those things alone that AudioSet's ontology names, if ``--classes`` (its list of
class names) is given: a person could tell them by ear.

``mixed``: 40 queries in words over one list of 200 pictures and 200 sounds. The relevant ones are
the query's up to five pictures and five sounds of its class; pictures of Flickr8k's split ``dev``
whose captions hold no word of any query fill up the 200. nDCG@10 has gains 0 and 1, discounts
log2(rank + 1), and the ideal ranking of the query's own relevant items as its norm.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import media, prompts, sounds
from retrieval.calibrate import UNFITTED
from retrieval.learn.data import read_captions
from retrieval.models import model
from retrieval.types import Encoder, Modality, Vectors

Floats = NDArray[np.float32]
PICTURES = 200
SOUNDS_EACH = 5
RRF_K = 60


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pairs", "mixed"))
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--classes", type=Path)
    parser.add_argument("--esc50", type=Path)
    parser.add_argument("--flickr8k", type=Path)
    parser.add_argument("--fold", type=int)
    options = parser.parse_args()
    print(json.dumps(pairs(options) if options.what == "pairs" else mixed(options), indent=2))


# ---- pictures and their sounds -----------------------------------------------------------------


def pairs(options: argparse.Namespace) -> dict[str, Any]:
    """Measures both directions between pictures and sounds of the same things."""
    encoder = model(options.model).load()
    rows = table(options.media / "pairs.tsv")
    pictures = embedded(encoder, [options.media / row["picture"] for row in rows])
    recordings = embedded(encoder, [options.media / row["sound"] for row in rows])
    names = [row["name"] for row in rows]
    figures = {"all": directions(pictures, recordings)}
    if options.classes is not None:
        told = heard_in(options.classes.read_text("utf-8"))
        some = np.array([bool(told & forms(name)) for name in names])
        figures["named in AudioSet"] = directions(pictures[some], recordings[some])
    return figures


def directions(pictures: Vectors, recordings: Vectors) -> dict[str, Any]:
    """Gives R@1, 5 and 10 both ways, by raw cosine and with each modality's mean removed."""
    figures: dict[str, Any] = {"pairs": len(pictures), "chance_r5": round(500 / len(pictures), 1)}
    centred = removed(pictures, pictures.mean(0)), removed(recordings, recordings.mean(0))
    for way, (one, other) in {"raw": (pictures, recordings), "centred": centred}.items():
        cosines = one @ other.T
        for name, scores in {"picture to sound": cosines, "sound to picture": cosines.T}.items():
            place = (scores > np.diag(scores)[:, None]).sum(1)
            figures[f"{name}, {way}"] = {
                f"r{k}": round(100 * float((place < k).mean()), 1) for k in (1, 5, 10)
            }
    return figures


def heard_in(classes: str) -> set[str]:
    """Gives the single names in AudioSet's list, in lower case: "Bee, wasp, etc." has two."""
    names = re.findall(r'"([^"]*)"|([^,\n]+)', classes)
    return {
        part.strip().lower() for pair in names for name in pair for part in re.split(r"[,()]", name)
    }


def forms(name: str) -> set[str]:
    """Gives the ways in which a list may write a thing."""
    plain = name.lower()
    return {plain, f"{plain}s", plain.removesuffix("s")}


# ---- one ranking of both -----------------------------------------------------------------------


def mixed(options: argparse.Namespace) -> dict[str, Any]:
    """Compares ways to merge pictures and sounds into one ranking."""
    spec = model(options.model)
    encoder = spec.load()
    rows = table(options.media / "mixed.tsv")
    queries = sorted({row["query"] for row in rows})
    files: dict[Modality, list[Path]] = {Modality.IMAGE: [], Modality.AUDIO: []}
    answers: dict[Modality, list[str]] = {Modality.IMAGE: [], Modality.AUDIO: []}
    for query in queries:
        own = [row for row in rows if row["query"] == query]
        clips = sorted({row["path"] for row in own if row["fold"] == str(options.fold)})
        drawn = [row["path"] for row in own if row["modality"] == "image"]
        files[Modality.IMAGE] += [options.media / path for path in drawn]
        files[Modality.AUDIO] += [options.esc50 / path for path in clips[:SOUNDS_EACH]]
        answers[Modality.IMAGE] += [query] * len(drawn)
        answers[Modality.AUDIO] += [query] * len(clips[:SOUNDS_EACH])
    filling = others(options.flickr8k, queries, PICTURES - len(files[Modality.IMAGE]))
    files[Modality.IMAGE] += filling
    answers[Modality.IMAGE] += [""] * len(filling)

    vectors = {kind: embedded(encoder, paths) for kind, paths in files.items()}
    asked = {
        kind: np.concatenate([in_words(query, kind, encoder) for query in queries])
        for kind in files
    }
    truth = np.array(answers[Modality.IMAGE] + answers[Modality.AUDIO])
    relevant = np.array([truth == query for query in queries])
    return {
        "queries": len(queries),
        "pictures": len(vectors[Modality.IMAGE]),
        "sounds": len(vectors[Modality.AUDIO]),
        "fold": options.fold,
        "ndcg10": {
            name: round(100 * ndcg(scores, relevant), 1)
            for name, scores in fusions(asked, vectors, spec.calibrations).items()
        },
        "ndcg10_alone": {
            kind.value: round(
                100
                * ndcg(
                    asked[kind] @ vectors[kind].T,
                    np.array([np.array(answers[kind]) == query for query in queries]),
                ),
                1,
            )
            for kind in files
        },
    }


def fusions(
    asked: Mapping[Modality, Vectors], vectors: Mapping[Modality, Vectors], calibrations: Any
) -> dict[str, Floats]:
    """Scores all items for all queries, in several ways: ``(queries, items)`` each."""
    cosines = {kind: asked[kind] @ rows.T for kind, rows in vectors.items()}
    means = {kind: rows.mean(0) for kind, rows in vectors.items()}
    return {
        "raw cosine": np.concatenate(list(cosines.values()), axis=1),
        "means removed": np.concatenate(
            [
                removed(asked[kind], asked[kind].mean(0)) @ removed(rows, means[kind]).T
                for kind, rows in vectors.items()
            ],
            axis=1,
        ),
        "items' means removed": np.concatenate(
            [asked[kind] @ removed(rows, means[kind]).T for kind, rows in vectors.items()], axis=1
        ),
        "reciprocal ranks": np.concatenate(
            [1 / (RRF_K + ranks(scores)) for scores in cosines.values()], axis=1
        ),
        "relevance": np.concatenate(
            [
                calibrations.get((Modality.TEXT, kind), UNFITTED).relevance(scores)
                for kind, scores in cosines.items()
            ],
            axis=1,
        ),
    }


def ranks(scores: Floats) -> Floats:
    """Gives each item's place in each row, the best at 1."""
    return np.asarray((-scores).argsort(1).argsort(1) + 1, np.float32)


def removed(rows: Vectors, mean: Floats) -> Vectors:
    """Subtracts a mean and makes unit rows again."""
    moved = rows - mean
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def ndcg(scores: Floats, relevant: NDArray[np.bool_], k: int = 10) -> float:
    """Gives the mean nDCG@k over queries; both matrices are ``(queries, items)``."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    gains = np.take_along_axis(relevant, order, axis=1) @ discounts[: order.shape[1]]
    best = [discounts[: min(k, count)].sum() for count in relevant.sum(1)]
    return float(np.mean(gains / best))


def others(flickr8k: Path, queries: Sequence[str], count: int) -> list[Path]:
    """Gives the first pictures of the split ``dev`` that no query could mean."""
    words = {word for query in queries for word in re.findall(r"\w+", query.lower())}
    found = []
    for one in sorted(read_captions(flickr8k / "captions.tsv")["dev"], key=lambda one: one.image):
        said = " ".join(one.captions).lower()
        if not any(re.search(rf"\b{word}s?\b", said) for word in words):
            found.append(flickr8k / "images" / one.image)
    return found[:count]


# ---- files and words to vectors ----------------------------------------------------------------


def embedded(encoder: Encoder, paths: Sequence[Path]) -> Vectors:
    """Embeds files as indexing does: one unit row each, the mean of a longer sound's windows."""
    rows = []
    for path in paths:
        kind = media.modality_of(path.name)
        assert kind is not None
        tower = encoder.towers[kind]
        if tower.rate_hz is not None:
            vectors = sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors
        else:
            item = media.decode(media.read(path).data, path.name, side_px=tower.side_px)
            vectors = tower.embed([tower.prepare(part.content) for part in item.parts])
        mean = vectors.mean(0)
        rows.append(mean / np.linalg.norm(mean))
    return np.asarray(rows, np.float32)


def in_words(query: str, target: Modality, encoder: Encoder) -> Vectors:
    """Embeds a query as searching does."""
    return prompts.embed(query, prompts.choose(query, target), encoder.towers[Modality.TEXT])


def table(path: Path) -> list[dict[str, str]]:
    """Reads a tab-separated table with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


if __name__ == "__main__":
    main()
