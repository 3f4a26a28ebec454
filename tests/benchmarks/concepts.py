"""Concepts and feedback: what a few examples and a few opinions are worth; prints JSON.

    python tests/benchmarks/concepts.py --flickr8k DIR --esc50 DIR --vectors DIR

``--vectors`` is a folder in which vectors of the bundled model are kept between runs.

``concepts``: a concept is learned from n pictures of Flickr8k's split ``train`` whose captions (at
least three of the five) hold a noun; pictures of ``dev`` whose captions do are to be found. Nouns
are those of ``NOUNS`` that ten pictures of ``dev`` have. The background is ``dev`` itself, as an
index would be. Mean average precision in %, over nouns and draws.

``sounds``: the same with classes of ESC-50, from clips of fold 1 in folds 2 to 4. The bundled model
heard all of these in training, so these figures flatter.

``look-alikes``: pictures with two nouns from examples of such, against counter-examples with the
first noun but not a word of the second; ``all`` over all of ``dev``, ``within`` over the pictures
with the first noun.

``crossing``: concepts of pictures looked for in captions, of captions in pictures, and of half and
half in pictures.

``composed``: a concept of one noun from pictures and another noun in words; pictures with both are
to be found. ``sum`` adds the unit vectors; ``balanced`` first divides each by the standard
deviation of its cosines with the index.

``feedback``: a query is a noun, or a caption of a picture; a picture answers a caption if it has
three of the caption's majority words among ``NOUNS`` and ``MORE`` (or both, of two), and at least
five do. Of the first ten hits, the first n right ones are liked and the first n wrong ones not;
nDCG@10 of all that was not judged, before and after.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from retrieval import concepts, sounds
from retrieval.concepts import centred, learn
from retrieval.feedback import adjusted
from retrieval.learn.data import read_captions, read_pictures
from retrieval.models import model
from retrieval.phrasing import phrase
from retrieval.prompts import choose
from retrieval.towers.bundled_audio import RATE_HZ
from retrieval.types import Encoder, Modality, Vectors

Flags = NDArray[np.bool_]

NOUNS = """dog man woman girl boy child beach water snow grass bike ball street rock mountain car
crowd pool tree horse skateboard bicycle soccer camera swing hat player sand wave football surfer
basketball motorcycle tennis bird guitar helmet stick fence toy bench ramp rope lake fire boat
climber skateboarder snowboarder skier racer sunset face shirt baby cat kayak swimmer slide bridge
cliff forest field couple group""".split()
MORE = """running jumping playing riding standing sitting walking climbing swimming red blue black
white brown yellow green two three""".split()
DRAWS = 2


def main() -> None:
    """Measures everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--esc50", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    options = parser.parse_args()
    encoder = model().load()
    dev = split(encoder, options.flickr8k, options.vectors, "dev")
    train = split(encoder, options.flickr8k, options.vectors, "train")
    nouns = [noun for noun in NOUNS if dev.holding(noun).sum() >= 10]
    words = {noun: name_of(encoder, noun) for noun in nouns}
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "feedback": lambda: feedback(dev, nouns, words),
        "concepts": lambda: few_shots(train, dev, nouns),
        "look-alikes": lambda: look_alikes(train, dev, nouns),
        "composed": lambda: composed(train, dev, nouns, words),
        "crossing": lambda: crossing(train, dev, nouns),
        "sounds": lambda: few_clips(*clips(encoder, options.esc50, options.vectors)),
    }
    figures: dict[str, Any] = {"space": encoder.space, "nouns": nouns}
    for name, task in tasks.items():
        figures[name] = task()
        print(name, json.dumps(figures[name]), file=sys.stderr, flush=True)
    print(json.dumps(figures, indent=2))


@dataclass(frozen=True)
class Split:
    """Pictures with captions: five to a picture, flat, in order."""

    captions: list[list[str]]
    pictures: Vectors
    texts: Vectors

    @cached_property
    def words(self) -> list[set[str]]:
        """The words of every caption, flat."""
        return [words_of(one) for five in self.captions for one in five]

    @cached_property
    def counts(self) -> list[Counter[str]]:
        """In how many captions of each picture each word is."""
        starts = range(0, len(self.words), 5)
        return [Counter(itertools.chain(*self.words[start : start + 5])) for start in starts]

    def holding(self, word: str, *, captions: int = 3) -> Flags:
        """Tells the pictures of which so many captions hold a word."""
        return np.array([count[word] >= captions for count in self.counts])


def words_of(caption: str) -> set[str]:
    """Gives the words of a caption, without the s of a plural."""
    return {
        word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
        for word in re.findall("[a-z]+", caption.lower())
    }


# ---- vectors -----------------------------------------------------------------------------------


def split(encoder: Encoder, flickr8k: Path, kept: Path, name: str) -> Split:
    """Embeds a split of Flickr8k, or reads what was embedded before."""
    rows = read_captions(flickr8k / "captions.tsv")[name]
    captions = [list(row.captions) for row in rows]

    def pictures() -> Iterator[Vectors]:
        tower = encoder.towers[Modality.IMAGE]
        for start in range(0, len(rows), 4):
            some = [row.image for row in rows[start : start + 4]]
            yield tower.embed(list(read_pictures(flickr8k / "images", some)))

    def texts() -> Iterator[Vectors]:
        tower = encoder.towers[Modality.TEXT]
        flat = list(itertools.chain(*captions))
        for start in range(0, len(flat), 200):
            yield tower.embed([tower.prepare(text) for text in flat[start : start + 200]])

    return Split(
        captions,
        once(kept / f"{name}_images.npy", pictures),
        once(kept / f"{name}_captions.npy", texts),
    )


def clips(encoder: Encoder, esc50: Path, kept: Path) -> tuple[Vectors, list[str], NDArray[Any]]:
    """Embeds ESC-50's clips that are not silent: vectors, classes, folds."""
    from retrieval.learn.sound.clips import read_esc50

    tower = encoder.towers[Modality.AUDIO]
    rows = []
    for clip in read_esc50(esc50):
        heard = [part.content for part in sounds.windows(clip.path, RATE_HZ)]
        if heard[0] is not None:
            rows.append((heard[0], clip.kind, clip.fold))
    vectors = once(
        kept / "esc50.npy",
        lambda: (tower.embed([tower.prepare(content)]) for content, _, _ in rows),
    )
    return vectors, [kind for _, kind, _ in rows], np.array([fold for _, _, fold in rows])


def once(path: Path, make: Callable[[], Iterator[Vectors]]) -> Vectors:
    """Reads vectors from a file, or makes them and writes it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(list(make())))
    return np.asarray(np.load(path), np.float32)


def name_of(encoder: Encoder, noun: str) -> Vectors:
    """Embeds a noun as a search for pictures does: ``(dim,)``."""
    chosen = choose(noun, Modality.IMAGE)
    return np.asarray(phrase(noun, chosen, encoder.towers[Modality.TEXT]).vector[0])


# ---- measures ----------------------------------------------------------------------------------


def precision(relevant: Flags, scores: NDArray[Any]) -> float:
    """Average precision in %."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    return 100 * float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def gain(relevant: Flags, scores: NDArray[Any]) -> float:
    """nDCG@10 in %, with gains of 0 and 1."""
    discounts = 1 / np.log2(np.arange(2, 12))
    hits = relevant[np.argsort(-scores, kind="stable")[:10]]
    ideal = discounts[: min(10, int(relevant.sum()))].sum()
    return 100 * float((hits * discounts[: len(hits)]).sum() / ideal)


class Table:
    """Averages of what was measured, by name."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        self._values[name].append(value)

    def means(self) -> dict[str, float]:
        return {name: round(float(np.mean(values)), 1) for name, values in self._values.items()}


def shrunk(value: float, positives: Vectors, background: Vectors) -> Vectors:
    """Learns with another amount of smoothing."""
    with mock.patch.object(concepts, "SHRINKAGE", value):
        return learn(positives, None, background)


def condensed(background: Vectors) -> Vectors:
    """Gives as many rows as dimensions that have the covariance of many: learning is faster."""
    values, axes = np.linalg.eigh(background.T.astype(np.float64) @ background / len(background))
    return np.asarray(np.sqrt(len(axes) * np.maximum(values, 0))[:, None] * axes.T, np.float32)


def drawn(rng: np.random.Generator, pool: Flags, count: int) -> NDArray[np.int64]:
    """Draws examples."""
    return rng.choice(np.flatnonzero(pool), count, replace=False)


def plain(positives: Vectors, background: Vectors) -> Vectors:
    """Takes the mean of the examples."""
    return learn(positives)


def discriminant(positives: Vectors, background: Vectors) -> Vectors:
    """Learns as the command does."""
    return learn(positives, None, background)


LEARNERS: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "mean": plain,
    **{f"discriminant, {value:.0f}/n": partial(shrunk, value) for value in (40.0, 160.0, 640.0)},
}

# ---- tasks -------------------------------------------------------------------------------------


def few_shots(train: Split, dev: Split, nouns: Sequence[str]) -> dict[str, Any]:
    """Nouns from one to sixteen pictures."""
    mean = dev.pictures.mean(0)
    background, examples = condensed(centred(dev.pictures, mean)), centred(train.pictures, mean)
    pools, relevant = ({noun: one.holding(noun) for noun in nouns} for one in (train, dev))
    figures = {}
    for count in (1, 2, 4, 8, 16):
        table = Table()
        for draw, noun in itertools.product(range(DRAWS), nouns):
            some = drawn(np.random.default_rng((draw, nouns.index(noun))), pools[noun], count)
            raw = train.pictures[some].mean(0)
            table.add("mean, not centred", precision(relevant[noun], dev.pictures @ raw))
            for name, learner in LEARNERS.items():
                direction = learner(examples[some], background)
                table.add(name, precision(relevant[noun], dev.pictures @ direction))
        figures[str(count)] = table.means()
    return figures


def few_clips(vectors: Vectors, kinds: Sequence[str], folds: NDArray[Any]) -> dict[str, Any]:
    """Classes of sounds from one to eight clips."""
    indexed = vectors[folds > 1]
    mean = indexed.mean(0)
    background, examples = condensed(centred(indexed, mean)), centred(vectors, mean)
    figures = {}
    for count in (1, 2, 4, 8):
        table = Table()
        for number, kind in enumerate(sorted(set(kinds))):
            own = np.array([one == kind for one in kinds])
            pool = own & (folds == 1)
            if pool.sum() < count:
                continue
            some = drawn(np.random.default_rng((count, number)), pool, count)
            for name, learner in (("mean", plain), ("discriminant", discriminant)):
                direction = learner(examples[some], background)
                table.add(name, precision(own[folds > 1], indexed @ direction))
        figures[str(count)] = table.means()
    return figures


def look_alikes(train: Split, dev: Split, nouns: Sequence[str]) -> dict[str, Any]:
    """Pictures with two nouns against those with the first alone, four and four."""
    mean = dev.pictures.mean(0)
    background, examples = condensed(centred(dev.pictures, mean)), centred(train.pictures, mean)
    table, pairs = Table(), 0
    for first, second in itertools.permutations(nouns, 2):
        own, within = dev.holding(first) & dev.holding(second), dev.holding(first)
        some = train.holding(first) & train.holding(second)
        others = train.holding(first) & ~train.holding(second, captions=1)
        if own.sum() < 10 or min(some.sum(), others.sum()) < 20:
            continue
        pairs += 1
        for draw in range(DRAWS):
            rng = np.random.default_rng((draw, pairs))
            positives, negatives = examples[drawn(rng, some, 4)], examples[drawn(rng, others, 4)]
            for weight in (0.0, 0.125, 0.25, 0.5, 1.0):
                with mock.patch.object(concepts, "AWAY", weight):
                    scores = dev.pictures @ learn(positives, negatives, background)
                table.add(f"weight {weight}, all", precision(own, scores))
                table.add(f"weight {weight}, within", precision(own[within], scores[within]))
    return {"pairs": pairs, **table.means()}


def crossing(train: Split, dev: Split, nouns: Sequence[str]) -> dict[str, Any]:
    """Four examples of one modality, found in the other."""
    means = dev.pictures.mean(0), dev.texts.mean(0)
    background = condensed(
        np.concatenate([centred(dev.pictures, means[0]), centred(dev.texts, means[1])])
    )
    table = Table()
    for noun in nouns:
        pool, shown = train.holding(noun), dev.holding(noun)
        said = np.array([noun in words for words in train.words])
        told = np.array([noun in words for words in dev.words])
        for draw in range(DRAWS):
            rng = np.random.default_rng((draw, nouns.index(noun)))
            raw = train.pictures[drawn(rng, pool, 4)], train.texts[drawn(rng, said, 4)]
            own = centred(raw[0], means[0]), centred(raw[1], means[1])
            for name, learner in (("mean", plain), ("discriminant", discriminant)):
                one, other = learner(own[0], background), learner(own[1], background)
                both = learner(np.concatenate([own[0][:2], own[1][:2]]), background)
                table.add(f"pictures to captions, {name}", precision(told, dev.texts @ one))
                table.add(f"captions to pictures, {name}", precision(shown, dev.pictures @ other))
                table.add(f"both to pictures, {name}", precision(shown, dev.pictures @ both))
            mixed = np.concatenate([raw[0][:2], raw[1][:2]]).mean(0)
            name = "mean, not centred"
            table.add(f"pictures to captions, {name}", precision(told, dev.texts @ raw[0].mean(0)))
            table.add(
                f"captions to pictures, {name}", precision(shown, dev.pictures @ raw[1].mean(0))
            )
            table.add(f"both to pictures, {name}", precision(shown, dev.pictures @ mixed))
    return table.means()


def composed(
    train: Split, dev: Split, nouns: Sequence[str], words: dict[str, Vectors]
) -> dict[str, Any]:
    """A concept of one noun, and another noun in words: nDCG@10."""
    mean = dev.pictures.mean(0)
    background, examples = condensed(centred(dev.pictures, mean)), centred(train.pictures, mean)
    figures: dict[str, Any] = {}
    for count in (1, 4, 8):
        table, pairs = Table(), 0
        for first, second in itertools.permutations(nouns, 2):
            own = dev.holding(first) & dev.holding(second)
            if own.sum() < 8:
                continue
            pairs += 1
            for draw in range(DRAWS):
                rng = np.random.default_rng((draw, pairs))
                some = drawn(rng, train.holding(first), count)
                concept = learn(examples[some], None, background)
                one, other = dev.pictures @ concept, dev.pictures @ words[second]
                for name, scores in {
                    "concept alone": one,
                    "words alone": other,
                    "sum": one + other,
                    "balanced": one / one.std() + other / other.std(),
                    "both in words": dev.pictures @ (words[first] + words[second]),
                }.items():
                    table.add(name, gain(own, scores))
        figures[str(count)] = table.means()
        figures["pairs"] = pairs
    return figures


def feedback(dev: Split, nouns: Sequence[str], words: dict[str, Vectors]) -> dict[str, Any]:
    """Sessions of a person who likes what is right and not what is wrong."""
    sessions = [("nouns", words[noun], dev.holding(noun)) for noun in nouns]
    telling = set(NOUNS) | set(MORE)
    held = [
        {word for word in count if word in telling and count[word] >= 3} for count in dev.counts
    ]
    for number, own in enumerate(held):
        relevant = np.array([len(own & other) >= min(3, len(own)) for other in held])
        if len(own) >= 2 and relevant.sum() >= 5:
            sessions.append(("captions", dev.texts[5 * number + 2], relevant))
    likeness = dev.pictures @ dev.pictures.T
    figures: dict[str, Any] = {"sessions": dict(Counter(kind for kind, _, _ in sessions))}
    for judged in (1, 3):
        table = Table()
        for kind, query, relevant in sessions:
            scores = dev.pictures @ query
            top = np.argsort(-scores, kind="stable")[:10]
            liked, unliked = top[relevant[top]][:judged], top[~relevant[top]][:judged]
            left = np.ones(len(scores), bool)
            left[liked] = left[unliked] = False
            if not relevant[left].any():
                continue
            table.add(f"{kind}, before", gain(relevant[left], scores[left]))
            for alpha, beta in itertools.product((0.1, 0.2, 0.4, 0.8), (2.0, 4.0, 8.0)):
                after = adjusted(
                    scores, likeness[:, liked], likeness[:, unliked], alpha=alpha, beta=beta
                )
                table.add(f"{kind}, alpha {alpha}, beta {beta}", gain(relevant[left], after[left]))
        figures[f"up to {judged} of each"] = table.means()
    return figures


if __name__ == "__main__":
    main()
