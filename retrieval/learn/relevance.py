r"""Fits how cosines become relevances, on what a search would show.

    python -m retrieval.learn.relevance --captions flickr8k/captions.tsv --images flickr8k/images \
        --esc50 esc50 --media tri-modal --model retrieval/weights --work work

changes ``[calibration]`` in the model's ``model.toml``. ``--media`` is what
``tests/benchmarks/tri_modal.py`` wrote: sounds that no training heard.

Indexes of several sizes are drawn from one half of the captioned pictures of split ``dev``; the
other half is what ``tests/benchmarks/relevance.py`` measures on. Of every query the ten nearest
items count, each with whether it answers. A picture answers a caption that was written of it, or
that says much the same as one that was: a sentence encoder that has no part in the model
(all-MiniLM-L6-v2) gives the two a cosine of at least 0.7. It answers a noun if two of its captions
hold it. Captions of pictures that were taken out count too, and nouns of nothing in the index.
"""

from __future__ import annotations

import argparse
import csv
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval import media, rivals, sounds
from retrieval.calibrate import FEWEST, MOST, Background, Calibration, settled
from retrieval.learn.data import Captioned, read_captions, read_pictures
from retrieval.learn.export import toml
from retrieval.learn.sense import embed
from retrieval.learn.sound.clips import read_esc50
from retrieval.phrasing import phrase
from retrieval.prompts import choose
from retrieval.rivals import Rivals
from retrieval.towers import bundled
from retrieval.types import Encoder, Modality, Tower, Vectors

SIZES = (60, 200, 500)
PICTURED = (60, 200, 400)  # of the half's 500, so that some are always asked for in vain
DRAWS = 3  # indexes of each size
QUERIES = 300
TOP = 10
ALIKE = 0.7
SAID = 2  # captions that must hold a noun
NOUNS = tuple(
    "dog man woman boy girl child baby beach snow horse bike bicycle ball water street grass "
    "mountain car guitar boat tree football soccer basketball crowd pool motorcycle skateboard "
    "snowboard climber swing bench fence rock river lake ocean wave sand field forest dirt road "
    "building bridge stairs window door hat helmet shirt jacket dress sunglasses umbrella camera "
    "phone stick frisbee rope kayak surfboard bird cat cow sheep toy balloon flag fire fountain "
    "sprinkler slide trampoline tent campfire market train bus truck tennis baseball hockey "
    "volleyball runner race parade concert dancer wedding ice glove racket puppy tail tongue leash "
    "collar".split()
)
FIGURES = 3  # decimals

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Captions:
    """Captioned pictures as vectors.

    Attributes:
        said: The pictures with their captions.
        pictures: ``(n, dim)`` unit rows.
        captions: ``(n, 5, dim)`` unit rows.
        judge: ``(n, 5, 384)`` unit rows of an encoder that has no part in the model.
    """

    said: Sequence[Captioned]
    pictures: Vectors
    captions: Floats
    judge: Floats

    def of(self, rows: NDArray[np.int64]) -> Captions:
        """Gives some of the pictures."""
        said = [self.said[row] for row in rows]
        return Captions(said, self.pictures[rows], self.captions[rows], self.judge[rows])

    def holds(self, nouns: Sequence[str]) -> Flags:
        """Tells which pictures answer which nouns: ``(nouns, n)``."""
        patterns = [re.compile(rf"\b{noun}s?\b", re.IGNORECASE) for noun in nouns]
        return np.array(
            [
                [sum(bool(one.search(text)) for text in row.captions) >= SAID for row in self.said]
                for one in patterns
            ]
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """The nearest items of some queries, ``(queries, at most 10)`` each.

    Attributes:
        cosine: With the query, descending.
        standing: In standard deviations above the query's mean, both mixed with what is usual.
        crowd: Logarithm of the index's size.
        right: Whether the item answers.
        rivals: By how much nearer than usual wrong items come to such a query; see
            ``retrieval.rivals``. As near as usual where it is ``None``.
    """

    cosine: Floats
    standing: Floats
    crowd: Floats
    right: Flags
    rivals: Floats | None = None


def shown(
    queries: Vectors,
    items: Vectors,
    right: Flags,
    usual: Calibration,
    *,
    rivals: Rivals | None = None,
) -> Shown:
    """Searches exactly, and keeps what a person sees first."""
    cosines = queries @ items.T
    backgrounds = [
        settled(Background(float(row.mean()), float(row.std()), len(items)), usual)
        for row in cosines
    ]
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :TOP]
    cosine = np.take_along_axis(cosines, order, axis=1)
    mean = np.array([one.mean for one in backgrounds], np.float32)[:, None]
    spread = np.array([one.spread for one in backgrounds], np.float32)[:, None]
    crowd = np.full_like(cosine, np.log(min(max(len(items), FEWEST), MOST)))
    hits = np.take_along_axis(right, order, axis=1)
    nearer = None if rivals is None else np.zeros_like(cosine) + rivals.above(queries)[:, None]
    return Shown(cosine, (cosine - mean) / spread, crowd, hits, nearer)


def fit(
    evidence: Sequence[Shown], usual: Calibration, *, standing: bool = True, steps: int = 100
) -> Calibration:
    """Fits a calibration by logistic regression (Newton's method).

    Every set of queries weighs the same, however many there are, and of the hits of a query the
    first weighs most: the reciprocal of its rank, as people look at them.

    Args:
        evidence: What searches show.
        usual: What is usual.
        standing: Whether it counts.
        steps: At most so many.
    """
    design = np.concatenate([_design(one) for one in evidence]).astype(np.float64)
    if not standing:
        design[:, 1] = 0
    truth = np.concatenate([one.right.ravel() for one in evidence]).astype(np.float64)
    weight = np.concatenate(
        [
            np.tile(1 / np.arange(1, one.cosine.shape[1] + 1) / len(one.cosine), len(one.cosine))
            for one in evidence
        ]
    )
    weight /= weight.sum()
    if np.ptp(design[:, 2]) == 0:  # indexes of one size say nothing of others
        design[:, 2] = 0
    centre, scale = weight @ design, design.std(0) + 1e-9
    x = np.concatenate([(design - centre) / scale, np.ones((len(design), 1))], axis=1)
    solution = np.zeros(5)
    for _ in range(steps):
        guess = 1 / (1 + np.exp(-np.clip(x @ solution, -60, 60)))
        gradient = x.T @ (weight * (guess - truth)) + 1e-6 * solution
        curvature = (x * (weight * guess * (1 - guess))[:, None]).T @ x + 1e-6 * np.eye(5)
        change = np.linalg.solve(curvature, gradient)
        solution -= np.clip(change, -2, 2)
        if np.abs(change).max() < 1e-9:
            break
    a, z, n, r = solution[:4] / scale
    a, z = max(a, 0.0), max(z, 0.0)  # what falls with the cosine would be no relevance
    r = min(r, 0.0)
    b = solution[4] - float(np.array([a, z, n, r]) @ centre)
    return Calibration(
        a=round(float(a), FIGURES),
        b=round(float(b), FIGURES),
        z=round(float(z), FIGURES),
        n=round(float(n), FIGURES),
        mean=usual.mean,
        spread=usual.spread,
        r=round(float(r), FIGURES),
    )


def _design(one: Shown) -> Floats:
    rivals = np.zeros_like(one.cosine) if one.rivals is None else one.rivals
    return np.stack(
        [one.cosine.ravel(), one.standing.ravel(), one.crowd.ravel(), rivals.ravel()], 1
    )


def usual(queries: Vectors, items: Vectors) -> Calibration:
    """Gives what is usual where nothing is known: mean and spread of queries' cosines."""
    cosines = queries @ items.T
    mean, spread = float(cosines.mean()), float(cosines.std(axis=1).mean())
    return Calibration(1.0, 0.0, mean=round(mean, FIGURES), spread=round(spread, FIGURES))


# ---- collections that queries are put to ---------------------------------------------------------


def alike(asked: Floats, said: Floats) -> Flags:
    """Tells which pictures say what was asked: ``(q, 384)`` against ``(n, 5, 384)``."""
    nearest = np.stack([asked @ said[:, one].T for one in range(said.shape[1])])
    return np.asarray(nearest.max(axis=0) >= ALIKE)


def draw(
    captions: Captions, count: int, generator: np.random.Generator
) -> tuple[Captions, Captions]:
    """Draws an index of some pictures; the others were taken out of it."""
    order = generator.permutation(len(captions.said))
    return captions.of(np.sort(order[:count])), captions.of(np.sort(order[count:]))


def asked_of(
    captions: Captions, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draws captions to ask with: pictures, and which caption of each."""
    count = min(QUERIES, 2 * len(captions.said))
    rows = generator.integers(0, len(captions.said), count)
    return rows, generator.integers(0, captions.captions.shape[1], count)


def worded(
    half: Captions,
    nouns: Vectors,
    target: Modality,
    generator: np.random.Generator,
    *,
    base: Calibration | None = None,
    rivals: Rivals | None = None,
    sizes: Sequence[int] = SIZES,
) -> list[Shown]:
    """Puts captions and nouns to indexes of pictures, or of one caption each.

    Args:
        half: The pictures.
        nouns: ``(98, dim)``, as they are asked.
        target: Pictures or texts.
        generator: Draws the indexes.
        base: What is usual; worked out from ``half`` by default.
        rivals: Tells how near wrong items come.
        sizes: Of the indexes.
    """
    evidence = []
    base = base or usual(half.captions[:, 0], _items(half, target))
    for size in sizes:
        for _ in range(DRAWS):
            kept, out = draw(half, min(size, len(half.said)), generator)
            items = _items(kept, target)
            rows, which = asked_of(kept, generator)
            if target is Modality.TEXT:  # not the very caption that is in the index
                which = 1 + which % (half.captions.shape[1] - 1)
            right = alike(kept.judge[rows, which], kept.judge)
            right[np.arange(len(rows)), rows] = True
            asked = kept.captions[rows, which]
            evidence.append(shown(asked, items, right, base, rivals=rivals))
            if len(out.said):
                rows, which = asked_of(out, generator)
                right = alike(out.judge[rows, which], kept.judge)
                asked = out.captions[rows, which]
                evidence.append(shown(asked, items, right, base, rivals=rivals))
            evidence.append(shown(nouns, items, kept.holds(NOUNS), base, rivals=rivals))
    return evidence


def pictured(
    half: Captions,
    target: Modality,
    generator: np.random.Generator,
    *,
    base: Calibration | None = None,
) -> list[Shown]:
    """Puts pictures to indexes of other pictures, or of one caption each; see ``worded``."""
    evidence = []
    for size in SIZES:
        for _ in range(DRAWS):
            kept, _ = draw(half, min(size, len(half.said)), generator)
            items = _items(kept, target)
            right = np.zeros((len(kept.said), len(kept.said)), bool)
            if target is Modality.TEXT:
                for one in range(kept.judge.shape[1]):
                    right |= kept.judge[:, one] @ kept.judge[:, 0].T >= ALIKE
                np.fill_diagonal(right, True)
                own = base or usual(kept.pictures, items)
                evidence.append(shown(kept.pictures, items, right, own))
                continue
            mean = kept.judge.mean(axis=1)
            mean /= np.linalg.norm(mean, axis=1, keepdims=True)
            right = mean @ mean.T >= ALIKE
            own = base or usual(kept.pictures, items)
            for row in range(len(kept.said)):  # a file is not among its own hits
                others = np.arange(len(kept.said)) != row
                evidence.append(
                    shown(
                        kept.pictures[row : row + 1],
                        items[others],
                        right[row : row + 1, others],
                        own,
                    )
                )
    return evidence


def _items(captions: Captions, target: Modality) -> Vectors:
    return captions.pictures if target is Modality.IMAGE else captions.captions[:, 0]


def heard(
    names: Vectors,
    clips: Vectors,
    right: Flags,
    sizes: Iterable[int],
    generator: np.random.Generator,
) -> list[Shown]:
    """Puts names to indexes of sounds."""
    base = usual(names, clips)
    evidence = []
    for size in sizes:
        for _ in range(DRAWS):
            rows = generator.permutation(len(clips))[:size]
            one = shown(names, clips[rows], right[:, rows], base)
            # two collections that differ in more than size say nothing of what size does
            evidence.append(replace(one, crowd=np.zeros_like(one.crowd)))
    return evidence


# ---- files and words to vectors ------------------------------------------------------------------


def embed_captions(
    encoder: Encoder,
    captions: Path,
    images: Path,
    *,
    split: str,
    work: Path,
    most: int | None = None,
) -> Captions:
    """Embeds captioned pictures, at most so many of a split, in the order of the file.

    What is in ``work`` already is not embedded again.
    """
    said = read_captions(captions)[split][:most]
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{encoder.space}-{split}{'' if most is None else f'-{most}'}.npz"
    if not path.exists():
        from retrieval.learn.minilm import MiniLM

        tower = encoder.towers[Modality.IMAGE]
        rows = []
        for start in range(0, len(said), 4):
            pixels = read_pictures(images, [one.image for one in said[start : start + 4]])
            rows.append(tower.embed(list(pixels)))
        texts = [text for one in said for text in one.captions]
        np.savez(
            path,
            allow_pickle=False,
            pictures=np.concatenate(rows),
            captions=embed(encoder.towers[Modality.TEXT], texts).reshape(
                len(said), -1, encoder.dim
            ),
            judge=MiniLM().embed(texts).reshape(len(said), -1, 384),
        )
    with np.load(path, allow_pickle=False) as archive:
        return Captions(said, archive["pictures"], archive["captions"], archive["judge"])


def halves(captions: Captions) -> tuple[Captions, Captions]:
    """Gives the half to fit on and the half to measure on: every other picture."""
    rows = np.arange(len(captions.said))
    return captions.of(rows[::2]), captions.of(rows[1::2])


def as_asked(words: Sequence[str], target: Modality, tower: Tower) -> Vectors:
    """Embeds words as a search does."""
    return np.concatenate([phrase(word, choose(word, target), tower).vector for word in words])


def sound_vectors(tower: Tower, paths: Sequence[Path]) -> Vectors:
    """Embeds sounds: the mean of each one's windows, unit rows."""
    assert tower.rate_hz is not None
    rows = [
        sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors.mean(0) for path in paths
    ]
    matrix = np.stack(rows)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


def heard_evidence(
    encoder: Encoder, esc50: Path, tri_modal: Path, generator: np.random.Generator
) -> list[Shown]:
    """Puts names of sounds to clips: of kinds that were trained on, and of others."""
    audio, text = encoder.towers[Modality.AUDIO], encoder.towers[Modality.TEXT]
    clips = [
        clip
        for clip in read_esc50(esc50)
        if any(part.content is not None for part in sounds.windows(clip.path, audio.rate_hz or 1))
    ]
    kinds = sorted({clip.kind for clip in clips})
    own = np.array([kinds.index(clip.kind) for clip in clips])
    evidence = heard(
        as_asked(kinds, Modality.AUDIO, text),
        sound_vectors(audio, [clip.path for clip in clips]),
        np.arange(len(kinds))[:, None] == own,
        SIZES,
        generator,
    )
    with (tri_modal / "pairs.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert media.modality_of(rows[0]["sound"]) is Modality.AUDIO
    strange = heard(
        as_asked([row["name"] for row in rows], Modality.AUDIO, text),
        sound_vectors(audio, [tri_modal / row["sound"] for row in rows]),
        np.eye(len(rows), dtype=bool),
        (60, len(rows)),
        generator,
    )
    return [*evidence, *strange]


def main() -> None:
    """Reads the arguments, fits, and changes the model's card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--esc50", type=Path)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--model", type=Path, default=bundled.WEIGHTS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder = bundled.load(options.model)
    captions = embed_captions(
        encoder, options.captions, options.images, split="dev", work=options.work
    )
    half, _ = halves(captions)
    tower = encoder.towers[Modality.TEXT]
    typical = rivals.read(options.model / rivals.FILE)
    evidence: dict[tuple[Modality, Modality], list[Shown]] = {}
    for target in (Modality.IMAGE, Modality.TEXT):
        generator = np.random.default_rng(options.seed)
        nouns = as_asked(NOUNS, target, tower)
        near, sizes = (typical, PICTURED) if target is Modality.IMAGE else (None, SIZES)
        evidence[Modality.TEXT, target] = worded(
            half, nouns, target, generator, rivals=near, sizes=sizes
        )
        evidence[Modality.IMAGE, target] = pictured(half, target, generator)
    if options.esc50 is not None and options.media is not None:
        generator = np.random.default_rng(options.seed)
        evidence[Modality.TEXT, Modality.AUDIO] = heard_evidence(
            encoder, options.esc50, options.media, generator
        )
    path = options.model / "model.toml"
    table = tomllib.loads(path.read_text("utf-8"))
    backgrounds = {
        (Modality.TEXT, Modality.IMAGE): usual(half.captions[:, 0], half.pictures),
        (Modality.TEXT, Modality.TEXT): usual(half.captions[:, 1], half.captions[:, 0]),
        (Modality.IMAGE, Modality.IMAGE): usual(half.pictures, half.pictures),
        (Modality.IMAGE, Modality.TEXT): usual(half.pictures, half.captions[:, 0]),
        (Modality.TEXT, Modality.AUDIO): Calibration(1.0, 0.0, mean=0.03, spread=0.1),
    }
    for (query, target), shown_ in evidence.items():
        worded_ = (query, target) == (Modality.TEXT, Modality.IMAGE)
        fitted = fit(shown_, backgrounds[query, target], standing=not worded_)
        names = ("a", "b", "z", "n", "mean", "spread", *(("r",) if worded_ else ()))
        table["calibration"].setdefault(query.value, {})[target.value] = {
            name: getattr(fitted, name) for name in names
        }
    path.write_text(toml(table), encoding="utf-8")


if __name__ == "__main__":
    main()
