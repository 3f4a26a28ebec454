"""Pictures find sounds, and one ranking holds both: what the shared space gives; prints JSON.

    python tests/benchmarks/cross_modal.py pairs --media DIR [--classes FILE] [--model DIR]
    python tests/benchmarks/cross_modal.py mixed --esc50 DIR --flickr8k DIR --fold N [--model DIR]
    python tests/benchmarks/cross_modal.py drawn --media DIR --esc50 DIR --fold N [--model DIR]

``--media`` is what ``tests/benchmarks/tri_modal.py`` wrote. ``--model`` is a folder with a model,
the bundled one by default; for ``mixed`` and ``drawn`` it must be one trained without the fold.

``pairs``: every sound is looked for with the picture of its thing, and every picture with its
sound, among all of them. R@5 is the share of queries whose partner is among the first five; chance
is 5/n. Also for those things alone that AudioSet's ontology names, if ``--classes`` (its list of
class names) is given: a person could tell them by ear.

``mixed``: 40 queries in words (``EVERYDAY``) over one list of 200 photographs of Flickr8k's split
``dev`` and 200 clips of the fold. A photograph is relevant if two of its five captions hold a word
of the query's pattern, a clip if its class is one of the query's. Of every pattern the first five
photographs by name are taken, and others without a word of any pattern fill up the 200.

``drawn``: 40 class names of ESC-50 over up to five drawings or photographs of each out of clip art,
and five clips of each.

nDCG@10 has gains 0 and 1, discounts log2(rank + 1), and the ideal ranking of the query's own
relevant items as its norm.
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

from retrieval import media, sounds
from retrieval.calibrate import Background, Calibration, unfitted
from retrieval.learn.data import Captioned, read_captions
from retrieval.models import model
from retrieval.phrasing import phrase
from retrieval.prompts import choose
from retrieval.towers.bundled_audio import RATE_HZ
from retrieval.types import Encoder, Modality, Vectors

Floats = NDArray[np.float32]
EACH = 200
RRF_K = 60


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pairs", "mixed", "drawn"))
    parser.add_argument("--media", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--classes", type=Path)
    parser.add_argument("--esc50", type=Path)
    parser.add_argument("--flickr8k", type=Path)
    parser.add_argument("--fold", type=int)
    options = parser.parse_args()
    measures = {"pairs": pairs, "mixed": mixed, "drawn": drawn}
    print(json.dumps(measures[options.what](options), indent=2))


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


EVERYDAY: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    ("dog", "a dog barking", "a puppy"): (r"\bdogs?\b", ("dog",)),
    ("sea waves", "the ocean", "surf breaking on a beach"): (
        r"\b(waves?|surf\w*|ocean|sea)\b",
        ("sea_waves",),
    ),
    ("baby", "a crying baby", "an infant"): (r"\b(baby|infant|toddler)\b", ("crying_baby",)),
    ("footsteps", "someone walking", "hikers on a path"): (r"\b(walk|hik)\w*", ("footsteps",)),
    ("engine", "a motorcycle engine", "a race car"): (
        r"\b(motorcycl\w*|motorbikes?|dirt ?bikes?|atv|race ?cars?)\b",
        ("engine",),
    ),
    ("car", "a car honking in traffic"): (r"\b(cars?|traffic|taxi)\b", ("car_horn",)),
    ("birds", "chirping birds", "a flock of birds"): (
        r"\b(birds?|seagulls?|ducks?|geese|pigeons?)\b",
        ("chirping_birds", "crow"),
    ),
    ("train", "a train passing by"): (r"\b(trains?|subway|railroad)\b", ("train",)),
    ("drinking", "someone sipping a drink"): (
        r"\b(drink\w*|beers?|sip\w*)\b",
        ("drinking_sipping",),
    ),
    ("splashing water", "water pouring", "a fountain"): (
        r"\b(splash\w*|fountain|sprinklers?|hose|waterfall)\b",
        ("pouring_water", "water_drops"),
    ),
    ("a crowd cheering", "clapping", "an audience applauding"): (
        r"\b(crowd|audience|clap\w*|cheer\w*|fans)\b",
        ("clapping",),
    ),
    ("fire", "a crackling campfire", "flames"): (
        r"\b(fire|campfire|flames?|bonfire)\b",
        ("crackling_fire",),
    ),
    ("sleeping", "someone snoring"): (r"\b(sleep\w*|asleep|nap\w*)\b", ("snoring",)),
    ("cat", "a cat meowing", "a kitten"): (r"\b(cats?|kittens?)\b", ("cat",)),
    ("rain", "rain falling"): (r"\b(rain\w*|umbrellas?)\b", ("rain",)),
}
"""Queries, what a caption of a fitting photograph says, and the classes of fitting sounds.

These are the things that ESC-50 lets hear and at least four photographs of ``dev`` show.
"""


def mixed(options: argparse.Namespace) -> dict[str, Any]:
    """Compares ways to merge photographs and sounds into one ranking."""
    photographs = everyday_photographs(options.flickr8k)
    patterns = list(EVERYDAY.values())
    clips = clips_of(options.esc50, options.fold)
    heard = {kind for _, kinds in patterns for kind in kinds}
    first = [one for kind in sorted(heard) for one in clips if one[1] == kind]
    chosen = [one for kind in sorted(heard) for one in [c for c in first if c[1] == kind][:5]]
    chosen += [one for one in clips if one[1] not in heard][: EACH - len(chosen)]
    queries = [query for group in EVERYDAY for query in group]
    wanted = [about for group, about in EVERYDAY.items() for _ in group]
    return merged(
        options,
        queries,
        [options.flickr8k / "images" / one.image for one in photographs],
        [options.esc50 / "audio" / name for name, _ in chosen],
        np.array([[said(one, pattern) >= 2 for one in photographs] for pattern, _ in wanted]),
        np.array([[kind in kinds for _, kind in chosen] for _, kinds in wanted]),
    )


def everyday_photographs(flickr8k: Path) -> list[Captioned]:
    """Takes five photographs of each thing and fills up with others."""
    dev = sorted(read_captions(flickr8k / "captions.tsv")["dev"], key=lambda one: one.image)
    chosen: list[Captioned] = []
    for pattern, _ in EVERYDAY.values():
        fitting = [one for one in dev if said(one, pattern) >= 2][:5]
        chosen += [one for one in fitting if one not in chosen]
    for one in dev:
        if len(chosen) < EACH and not any(said(one, pattern) for pattern, _ in EVERYDAY.values()):
            chosen.append(one)
    return chosen


def said(one: Captioned, pattern: str) -> int:
    """Counts the captions that hold a word."""
    return sum(bool(re.search(pattern, caption.lower())) for caption in one.captions)


def clips_of(esc50: Path, fold: int) -> list[tuple[str, str]]:
    """Lists a fold's clips that are not silent, with their class, by name."""
    rows = [row for row in table(esc50 / "esc50.csv") if row["fold"] == str(fold)]
    named = sorted((row["filename"], row["category"]) for row in rows)
    return [one for one in named if audible(esc50 / "audio" / one[0])]


def audible(path: Path) -> bool:
    """Tells whether a clip has a vector at all."""
    return any(part.content is not None for part in sounds.windows(path, RATE_HZ))


def drawn(options: argparse.Namespace) -> dict[str, Any]:
    """Compares the same ways on clip art and the names of classes."""
    rows = table(options.media / "mixed.tsv")
    queries = sorted({row["query"] for row in rows})
    pictures = [(row["path"], row["query"]) for row in rows if row["modality"] == "image"]
    clips: list[tuple[str, str]] = []
    for query in queries:
        own = {row["path"] for row in rows if row["query"] == query and row["fold"]}
        names = sorted(own & {row["path"] for row in rows if row["fold"] == str(options.fold)})
        clips += [(name, query) for name in names[:5]]
    return merged(
        options,
        queries,
        [options.media / path for path, _ in pictures],
        [options.esc50 / path for path, _ in clips],
        np.array([[about == query for _, about in pictures] for query in queries]),
        np.array([[about == query for _, about in clips] for query in queries]),
    )


def merged(
    options: argparse.Namespace,
    queries: Sequence[str],
    pictures: Sequence[Path],
    recordings: Sequence[Path],
    seen: NDArray[np.bool_],
    heard: NDArray[np.bool_],
) -> dict[str, Any]:
    """Embeds everything, and measures each way to merge.

    Args:
        options: ``model`` and ``fold`` are read.
        queries: In words.
        pictures: Files.
        recordings: Files.
        seen: ``(queries, pictures)``, which are relevant.
        heard: ``(queries, recordings)``, likewise.
    """
    spec = model(options.model)
    encoder = spec.load()
    vectors = {
        Modality.IMAGE: embedded(encoder, pictures),
        Modality.AUDIO: embedded(encoder, recordings),
    }
    asked = {
        kind: np.concatenate([in_words(query, kind, encoder) for query in queries])
        for kind in vectors
    }
    relevant = np.concatenate([seen, heard], axis=1)
    ways = fusions(asked, vectors, spec.calibrations)
    alone = {Modality.IMAGE: seen, Modality.AUDIO: heard}
    return {
        "queries": len(queries),
        "pictures": len(pictures),
        "sounds": len(recordings),
        "fold": options.fold,
        "ndcg10": {name: round(100 * ndcg(scores, relevant), 1) for name, scores in ways.items()},
        "ndcg10_alone": {
            kind.value: round(100 * ndcg(asked[kind] @ vectors[kind].T, truth), 1)
            for kind, truth in alone.items()
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
        "standard scores": np.concatenate(
            [standard(scores) for scores in cosines.values()], axis=1
        ),
        "reciprocal ranks": np.concatenate(
            [1 / (RRF_K + ranks(scores)) for scores in cosines.values()], axis=1
        ),
        "relevance": np.concatenate(
            [
                relevances(
                    scores, calibrations.get((Modality.TEXT, kind)) or unfitted(Modality.TEXT, kind)
                )
                for kind, scores in cosines.items()
            ],
            axis=1,
        ),
    }


def relevances(scores: Floats, calibration: Calibration) -> Floats:
    """Gives what a search shows: each row against its own background."""
    rows = []
    for row in scores:
        background = Background(float(row.mean()), float(row.std()), len(row))
        rows.append(calibration.against(background).relevance(row))
    return np.stack(rows)


def ranks(scores: Floats) -> Floats:
    """Gives each item's place in each row, the best at 1."""
    return np.asarray((-scores).argsort(1).argsort(1) + 1, np.float32)


def standard(scores: Floats) -> Floats:
    """Gives by how many deviations a score lies above the mean of its row."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    return np.asarray(centred / scores.std(axis=1, keepdims=True), np.float32)


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
    return phrase(query, choose(query, target), encoder.towers[Modality.TEXT]).vector


def table(path: Path) -> list[dict[str, str]]:
    """Reads a tab-separated table with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


if __name__ == "__main__":
    main()
