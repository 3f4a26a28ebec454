"""What adapters gain: a transfer from photographs to illustrations, and few examples; prints JSON.

    python -m tests.benchmarks.adapters transfer --art DIR --png DIR --flickr8k DIR --work DIR
        [--method linear|mlp] [--rate 0.001]
    python -m tests.benchmarks.adapters few --art DIR --png DIR --esc50 DIR --work DIR

``--art`` is what ``tests/benchmarks/clip_art.py`` wrote, ``--png`` the folder
``usr/share/openclipart/png`` of the unpacked package. Vectors and checkpoints are kept in
``--work``.

``transfer``: ``anyseek learn adapter --captions`` on the drawings' ``train``, everything chosen on
their ``dev``; to be kept are photographs: Flickr8k's split ``train``, on which the bundled model
was trained too, is trained on again, and by every other picture of its ``dev`` the share of the
learning is chosen. (Pictures of ``train`` would not do: the model knows them by heart.) Measured
are the drawings of ``test``, by every caption, among themselves, the ``other half`` of Flickr8k's
``dev`` among itself, and all of ``dev`` (``photographs``). An answer is a drawing that has the
caption too. ``whole`` takes all of the learning, ``alone`` has nothing to keep, at the rate 0.001.
Intervals hold 95 % of the gains of 1,000 bootstraps over pictures. The rate of the figures that are
kept had been chosen among three with a tenth of ``train`` held out in place of half of ``dev``; and
that a share must lose less than the margin by a standard error was decided after a run without it,
which lost 2.3 points on the other half at a margin of 2.

``few``: 20 classes, 1 to 16 examples of each, and accuracy on what was not learned, for several
draws of the examples: their mean and the standard error over draws. Sounds: the first twenty of
ESC-50's classes by the digest of their name, examples of folds 1 to 3, measured on fold 4; the
bundled audio tower has heard all of these clips in its training, which flatters its names.
Drawings: the twenty folders of clip art with most titles, 16 of which are drawn from, and measured
on others; the name of a class is that of its folder. ``names`` is zero-shot. ``cache`` is
Tip-Adapter's classifier and ``fold`` what of it a search can use. All numbers of the methods are
those without a validation split (``retrieval.learn.adapter``). The cache's was chosen on the half
of the drawings that is learned from; nothing was chosen on what is measured.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.learn.adapter import heads, keys, measures
from retrieval.learn.adapter.adapter import learn
from retrieval.learn.adapter.data import Data
from retrieval.learn.adapter.kept import Kept, digest
from retrieval.learn.adapter.material import Material, Thing, groups_of, read_captioned
from retrieval.learn.adapter.measures import Pairs
from retrieval.learn.adapter.methods import Heads, class_cache, embedded, learn_heads
from retrieval.learn.adapter.request import Request
from retrieval.models import model
from retrieval.phrasing import phrase
from retrieval.prompts import choose
from retrieval.towers import adapted
from retrieval.types import Modality, Vectors

SHOTS = (1, 2, 4, 8, 16)
CLASSES = 20
DRAWS = 5
BOOTSTRAPS = 1_000


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("transfer", "few"))
    for name in ("art", "png", "flickr8k", "esc50", "work"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--method", choices=("linear", "mlp"), action="append")
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    measure = {"transfer": transfer, "few": few}[options.what]
    print(json.dumps(measure(options), indent=2))


def quiet(stage: str, done: int, total: int) -> None:
    """Says nothing."""


# ---- from photographs to illustrations -----------------------------------------------------------


def transfer(options: argparse.Namespace) -> dict[str, Any]:
    """Learns illustrations with every method, and measures them and photographs."""
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    keep = work / "keep.tsv"
    keep.write_text(to_keep(options.flickr8k / "captions.tsv"), encoding="utf-8")
    kept = Kept(work, model().load())
    drawings = test_pairs(kept, options.art / "captions.tsv", options.png, "test")
    photographs = test_pairs(
        kept, options.flickr8k / "captions.tsv", options.flickr8k / "images", "dev"
    )
    figures: dict[str, Any] = {
        "drawings": len(drawings.items),
        "captions": len(drawings.texts),
        "base": measured({}, drawings, photographs),
    }
    for method in options.method or ("linear", "mlp"):
        request = Request(
            out=work / f"art-{method}",
            work=work,
            captions=options.art / "captions.tsv",
            files=options.png,
            keep=keep,
            keep_files=options.flickr8k / "images",
            method=method,
            rate=options.rate,
        )
        card = learn(request, quiet)
        of = adapted.read_heads(request.out, adapted.card(request.out.resolve()))
        figures[method] = {
            "share": card["share"],
            "training": card["training"],
            "dev": card["dev"],
            "keep": card["keep"],
            **measured(of, drawings, photographs),
            "gains": {
                "drawings": gain(of, drawings),
                "photographs": gain(of, photographs),
                "other half": gain(of, other_half(photographs)),
            },
        }
        if card["share"]:
            whole = heads.mixed(of, 1 / card["share"])
            figures[method]["whole"] = measured(whole, drawings, photographs)
        alone = replace(request, out=work / f"alone-{method}", keep=None, rate=1e-3)
        learn(alone, quiet)
        of = adapted.read_heads(alone.out, adapted.card(alone.out.resolve()))
        figures[method]["alone"] = measured(of, drawings, photographs)
    return figures


def to_keep(captions: Path) -> str:
    """Gives the captions of split ``train``, and of every other picture of ``dev`` as ``dev``."""
    lines = ["image\tsplit\tcaption"]
    number: dict[str, int] = {}
    with captions.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            kept = row["split"] == "train"
            if row["split"] == "dev":
                kept = number.setdefault(row["image"], len(number)) % 2 == 0
            if kept:
                lines.append(f"{row['image']}\t{row['split']}\t{row['caption']}")
    return "\n".join(lines) + "\n"


def other_half(pairs: Pairs) -> Pairs:
    """Gives every other item, from the second."""
    rows = np.arange(1, len(pairs.items), 2)
    texts = np.isin(pairs.owner, rows)
    return replace(
        pairs,
        items=pairs.items[rows],
        texts=pairs.texts[texts],
        owner=pairs.owner[texts] // 2,
        groups=pairs.groups[rows],
        kinds=pairs.kinds[texts],
    )


def test_pairs(kept: Kept, captions: Path, folder: Path, split: str) -> Pairs:
    """Embeds one split of captioned pictures with the base."""
    material = read_captioned(captions, folder)
    some = Material(
        tuple(one for one in material.things if one.split == split), (), captions, divided=True
    )
    digests = {one.path: digest(one.path) for one in some.things}
    vectors, _ = kept.files([(one.path, one.modality) for one in some.things], digests, quiet)
    texts = [text for one in some.things for text in one.texts]
    kinds: dict[str, int] = {}
    return Pairs(
        modality=Modality.IMAGE,
        items=np.stack([vectors[one.path] for one in some.things]),
        texts=kept.texts(texts, report=quiet),
        owner=np.repeat(np.arange(len(some.things)), [len(one.texts) for one in some.things]),
        groups=np.array(groups_of(some, digests), np.int64),
        kinds=np.array([kinds.setdefault(text, len(kinds)) for text in texts], np.int64),
    )


def measured(of: Heads, drawings: Pairs, photographs: Pairs) -> dict[str, dict[str, float]]:
    """Gives recalls of everything that is measured."""
    sets = {"drawings": drawings, "photographs": photographs}
    sets["other half"] = other_half(photographs)
    return {name: found(of, pairs) for name, pairs in sets.items()}


def found(of: Heads, pairs: Pairs) -> dict[str, float]:
    """Gives R@1, 5 and 10 of texts."""
    places = measures.places(*embedded(of, pairs), pairs)
    return {f"r{k}": round(measures.recall(places, k), 1) for k in (1, 5, 10)}


def gain(of: Heads, pairs: Pairs) -> list[float]:
    """Gives the gain in R@10 with its 95 % interval: mean, low, high."""
    after = measures.places(*embedded(of, pairs), pairs) < 10
    before = measures.places(pairs.texts, pairs.items, pairs) < 10
    difference = 100.0 * (after.astype(np.float64) - before)
    sums = np.bincount(pairs.owner, difference, len(pairs.items))
    counts = np.bincount(pairs.owner, minlength=len(pairs.items))
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(sums), (BOOTSTRAPS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return [round(float(one), 1) for one in (difference.mean(), low, high)]


# ---- few examples --------------------------------------------------------------------------------


def few(options: argparse.Namespace) -> dict[str, Any]:
    """Measures every method on both sets of classes."""
    kept = Kept(options.work, model().load())
    return {
        "sounds": drawn(kept, *sounds(options.esc50)),
        "drawings": drawn(kept, *drawings(options.art / "captions.tsv", options.png)),
    }


Classes = Mapping[str, Sequence[Path]]


def sounds(esc50: Path) -> tuple[Classes, Classes, Modality]:
    """Gives clips to learn from and to measure on."""
    train: dict[str, list[Path]] = defaultdict(list)
    test: dict[str, list[Path]] = defaultdict(list)
    with (esc50 / "esc50.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            name = row["category"].replace("_", " ")
            (test if row["fold"] == "4" else train)[name].append(esc50 / "audio" / row["filename"])
    names = sorted(train, key=lambda name: hashlib.sha256(name.encode()).digest())[:CLASSES]
    return {n: train[n] for n in names}, {n: test[n] for n in names}, Modality.AUDIO


def drawings(captions: Path, png: Path) -> tuple[Classes, Classes, Modality]:
    """Gives one drawing of every title of the twenty folders that have most, half to each side."""
    titles: dict[str, dict[str, str]] = defaultdict(dict)
    with captions.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            folder = os.path.dirname(row["image"])  # noqa: PTH120 (a name in a table)
            name = folder.rpartition("/")[2].replace("_", " ")
            titles[name].setdefault(row["caption"].partition(",")[0], row["image"])
    most = sorted(titles, key=lambda name: (-len(titles[name]), name))[:CLASSES]
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name in most:
        paths = sorted(
            (png / path for path in titles[name].values()),
            key=lambda path: hashlib.sha256(path.name.encode()).digest(),
        )
        train[name], test[name] = paths[::2], paths[1::2]
    return train, test, Modality.IMAGE


def drawn(kept: Kept, train: Classes, test: Classes, modality: Modality) -> dict[str, Any]:
    """Draws examples and measures accuracies, in percent."""
    measured = class_pairs(kept, test, modality)
    generator = np.random.default_rng(0)
    runs: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(DRAWS):
        order = {name: generator.permutation(len(paths)) for name, paths in train.items()}
        for shots in SHOTS:
            some = {
                name: [paths[one] for one in order[name][:shots]] for name, paths in train.items()
            }
            for method, value in accuracies(class_pairs(kept, some, modality), measured).items():
                runs[method][shots].append(value)
    figures: dict[str, Any] = {
        "classes": list(train),
        "fewest": min(len(paths) for paths in train.values()),
        "measured on": len(measured.items),
        "names": round(accuracy({}, measured), 1),
    }
    for method, by_shots in runs.items():
        figures[method] = {
            str(shots): [
                round(float(np.mean(values)), 1),
                round(float(np.std(values, ddof=1) / np.sqrt(len(values))), 1),
            ]
            for shots, values in by_shots.items()
        }
    return figures


def class_pairs(kept: Kept, classes: Classes, modality: Modality) -> Pairs:
    """Embeds classes as ``anyseek learn adapter --classes`` does."""
    things = [
        Thing(path, modality, (name,), "train") for name, paths in classes.items() for path in paths
    ]
    digests = {one.path: digest(one.path) for one in things}
    vectors, _ = kept.files([(one.path, one.modality) for one in things], digests, quiet)
    things = [one for one in things if one.path in vectors]  # without silent ones
    tower = kept.encoder.towers[Modality.TEXT]
    names: dict[str, Vectors] = {
        name: phrase(name, choose(name, modality), tower).vector[0] for name in classes
    }
    numbers = [list(classes).index(one.texts[0]) for one in things]
    groups: NDArray[np.int64] = np.array(numbers, np.int64)
    return Pairs(
        modality=modality,
        items=np.stack([vectors[one.path] for one in things]),
        texts=np.stack([names[one.texts[0]] for one in things]),
        owner=np.arange(len(things)),
        groups=groups,
        kinds=groups,
    )


def accuracies(train: Pairs, test: Pairs) -> dict[str, float]:
    """Learns with every method and measures."""
    made: dict[str, float] = {}
    for method in ("linear", "mlp"):
        request = Request(out=Path("unused"), work=Path("unused"), method=method)
        learned = learn_heads(Data([train], [], True), request, "few", report=quiet)
        made[method] = accuracy(learned.heads, test)
    cache, _ = class_cache([train])
    made["cache"] = keys.accuracy(cache.logits(test.items, *keys.USUAL), test.groups)
    made["fold"] = accuracy({Modality.TEXT: cache.folded(*keys.FOLD_USUAL)}, test)
    return made


def accuracy(of: Heads, pairs: Pairs) -> float:
    """Gives the share of items that are told by the name of their class."""
    return measures.recall(measures.named(*embedded(of, pairs), pairs), 1)


if __name__ == "__main__":
    main()
