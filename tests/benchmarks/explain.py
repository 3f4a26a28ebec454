"""How good explanations are: the words near to a hit, and where in a picture it lies; prints JSON.

    python tests/benchmarks/explain.py words --flickr8k DIR --esc50 DIR [--work DIR]
    python tests/benchmarks/explain.py heat --flickr8k DIR [--pictures N] [--curves N]

``--work`` keeps vectors between runs. Both look at the split ``dev`` of Flickr8k alone, from which
the means and the words' weights do not come; the bundled model was trained on ESC-50's clips, so
what is said of sounds is flattered.

``words``: five words of the vocabulary for each of 1,000 pictures and 1,600 clips. A word *stands*
in a picture's captions if the stems of all its words do, in any of the five captions ("riding a
bike" in "he rides his bike"); stems are what is left without common endings, see ``stem``.
``standing`` is the share of the words given that stand, ``distinct`` the mean number of different
stems among those that do, out of all five words. Captions leave much unsaid, so neither can reach
its end; words drawn at random give ``chance``. A clip is ``named`` if one of its words shares a
stem with the name of its class; ``naming`` is the share of such words. The scores compared, with
c the cosine of word and item, over items b of a background (2,000 pictures of the split ``train``,
or the clips themselves):

``cosine``          c
``as shown``        held back 0.75 by ``means.npz``, without words that say the same as one before
                    and, for pictures, those that can only be heard
``held back x``     c - x mean_b c; ``means.npz`` instead of the background in the last column
``z-score``         (c - mean_b c) / std_b c
``CSLS k``          2 c - mean of the k largest of c over b (Conneau et al. 2018, arXiv 1710.04087)
``inverted b``      b c - log mean_b exp(b c) (Smith et al. 2017, arXiv 1702.03859)

``heat``: maps of several kinds. **Pointing**: a photograph, made a third as wide and high, is laid
into a corner of another that answers its caption by at least 0.3 of cosine less; the share of such
pairs whose map is hottest inside it, and the share of the heat above the median that lies inside
(``mass``); it covers a ninth. **Curves** (Petsiuk et al. 2018): the mean cosine with the picture's
first caption while the hottest places are replaced by the mean colour (``deletion``, lower is
better) or uncovered over a blurred copy (``insertion``, higher is better), in 14 steps.

``occlusion``  the loss of cosine by a patch of the mean colour
``window``     the cosine of what is seen through a window in a sheet of the mean colour
``crop``       the cosine of the window alone, enlarged
``shipped``    both, the middle of a window or crop counting most: ``retrieval.heat``
``RISE``       the covariance of the cosine with random masks, over their variance
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from retrieval import heat, media, sounds
from retrieval.learn.data import Captioned, read_captions
from retrieval.models import model
from retrieval.towers.bundled import WEIGHTS
from retrieval.types import Encoder, Modality, Tower, Vectors
from retrieval.vocabulary import heard as heard_words
from retrieval.vocabulary import vocabulary
from retrieval.vocabulary.nearest import HELD_BACK, nearest_words

Floats = NDArray[np.floating]
SIDE = 224
PASTED = SIDE // 3
MARGIN = 0.3
STEPS = 14
K = 5
STOP = frozenset("a an the of in on at to with and or is are by for from up down into over".split())
ENDINGS = ("ing", "ies", "ers", "es", "ed", "er", "s", "y", "e")


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("words", "heat"))
    parser.add_argument("--flickr8k", type=Path, required=True)
    parser.add_argument("--esc50", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--curves", type=int, default=12)
    options = parser.parse_args()
    encoder = model().load()
    figures = words(encoder, options) if options.what == "words" else maps(encoder, options)
    print(json.dumps({"space": encoder.space, options.what: figures}, indent=2))


# ---- words -------------------------------------------------------------------------------------


def words(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Compares ways to score words."""
    captioned = read_captions(options.flickr8k / "captions.tsv")
    folder = options.flickr8k / "images"
    names, vectors = vocabulary(encoder.space, encoder.towers[Modality.TEXT])
    own = [stems(name) for name in names]
    with np.load(WEIGHTS / "means.npz", allow_pickle=False) as archive:
        means = {modality: archive[modality.value].astype(np.float32) for modality in Modality}
    dev = captioned["dev"]
    pictures = kept(options.work, "dev_images", lambda: seen(encoder, folder, dev))
    others = kept(options.work, "train_images", lambda: seen(encoder, folder, captioned["train"]))
    some = np.random.default_rng(0).choice(len(others), 2_000, replace=False)
    said = [frozenset().union(*map(stems, one.captions)) for one in dev]
    figures: dict[str, Any] = {"words": len(names)}
    figures["pictures"] = {
        name: standing(np.argsort(-scores, axis=1)[:, :K], own, said)
        for name, scores in scored(pictures, others[some], vectors, means[Modality.IMAGE])
    }
    chance = np.random.default_rng(1).random((len(dev), len(names)))
    figures["pictures"]["chance"] = standing(np.argsort(chance, axis=1)[:, :K], own, said)
    figures["pictures"]["as shown"] = standing(
        shown(pictures, names, vectors, means[Modality.IMAGE], heard_words()), own, said
    )
    if options.esc50 is not None:
        with (options.esc50 / "esc50.csv").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        clips = kept(
            options.work,
            "esc50",
            lambda: heard(encoder, [options.esc50 / "audio" / row["filename"] for row in rows]),
        )
        classes = [stems(row["category"].replace("_", " ")) for row in rows]
        figures["clips"] = {
            name: naming(np.argsort(-scores, axis=1)[:, :K], own, classes)
            for name, scores in scored(clips, clips, vectors, means[Modality.AUDIO])
        }
        figures["clips"]["as shown"] = naming(
            shown(clips, names, vectors, means[Modality.AUDIO]), own, classes
        )
    return figures


def scored(
    items: Vectors, background: Vectors, vectors: Vectors, mean: Floats
) -> Iterator[tuple[str, Floats]]:
    """Gives the scores of every word for every item, way by way."""
    cosines, over = items @ vectors.T, background @ vectors.T
    middle, spread = over.mean(axis=0), over.std(axis=0)
    yield "cosine", cosines
    for part in (0.5, 0.75, 1.0):
        yield f"held back {part}", cosines - part * middle
    yield f"held back {HELD_BACK}, means.npz", cosines - HELD_BACK * (vectors @ mean)
    yield "z-score", (cosines - middle) / spread
    for k in (10, 200):
        yield f"CSLS {k}", 2 * cosines - np.sort(over, axis=0)[-k:].mean(axis=0)
    for beta in (5, 20):
        yield f"inverted {beta}", beta * cosines - np.log(np.exp(beta * over).mean(axis=0))


def shown(
    items: Vectors,
    names: Sequence[str],
    vectors: Vectors,
    mean: Floats,
    without: Collection[str] = (),
) -> list[list[int]]:
    """Gives the words that an explanation names."""
    place = {name: index for index, name in enumerate(names)}
    held = np.asarray(mean, np.float32)
    return [
        [
            place[word.text]
            for word in nearest_words(item, names, vectors, mean=held, without=without, k=K)
        ]
        for item in items
    ]


def standing(
    given: Sequence[Sequence[int]] | NDArray[np.int64],
    own: Sequence[frozenset[str]],
    said: Sequence[frozenset[str]],
) -> dict[str, float]:
    """Tells how many of the words given stand in the captions."""
    found = [
        [own[index] for index in row if own[index] <= captions]
        for row, captions in zip(given, said, strict=True)
    ]
    distinct = [len(frozenset().union(*row)) if row else 0 for row in found]
    return {
        "standing": round(100 * sum(map(len, found)) / sum(map(len, given)), 1),
        "distinct": round(float(np.mean(distinct)), 2),
    }


def naming(
    given: Sequence[Sequence[int]] | NDArray[np.int64],
    own: Sequence[frozenset[str]],
    classes: Sequence[frozenset[str]],
) -> dict[str, float]:
    """Tells how many of the words given name the class."""
    counts = [
        sum(bool(own[index] & name) for index in row)
        for row, name in zip(given, classes, strict=True)
    ]
    return {
        "named": round(100 * float(np.mean(np.array(counts) > 0)), 1),
        "naming": round(100 * sum(counts) / sum(map(len, given)), 1),
    }


def stems(text: str) -> frozenset[str]:
    """Gives the stems of a text's words, but for the commonest."""
    return frozenset(stem(word) for word in re.findall("[a-z']+", text.lower()) if word not in STOP)


def stem(word: str) -> str:
    """Takes off a common ending, and the second of two last letters that are the same."""
    word = word.removesuffix("'s")
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def kept(work: Path | None, name: str, make: Callable[[], Vectors]) -> Vectors:
    """Gives vectors from the last run, or makes and keeps them."""
    if work is None:
        return make()
    path = work / f"{name}.npy"
    if not path.exists():
        np.save(path, make())
    return np.asarray(np.load(path, allow_pickle=False), np.float32)


def seen(encoder: Encoder, folder: Path, captioned: Sequence[Captioned]) -> Vectors:
    """Embeds pictures."""
    tower = encoder.towers[Modality.IMAGE]
    rows = []
    for one in captioned:
        picture = media.decode((folder / one.image).read_bytes(), one.image).parts[0].content
        rows.append(tower.embed([tower.prepare(picture)]))
    return np.concatenate(rows)


def heard(encoder: Encoder, paths: Sequence[Path]) -> Vectors:
    """Embeds the first window of each sound."""
    tower = encoder.towers[Modality.AUDIO]
    assert tower.rate_hz is not None
    return np.concatenate(
        [sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors[:1] for path in paths]
    )


# ---- heat --------------------------------------------------------------------------------------

Pixels = NDArray[np.float32]
Map = Callable[[Pixels, Floats], Floats]


def maps(encoder: Encoder, options: argparse.Namespace) -> dict[str, Any]:
    """Compares maps on pairs of pictures, and on pictures with their own captions."""
    dev = read_captions(options.flickr8k / "captions.tsv")["dev"]
    folder = options.flickr8k / "images"
    tower = encoder.towers[Modality.IMAGE]
    captions = encoder.towers[Modality.TEXT].embed([one.captions[0] for one in dev])
    pictures = kept(options.work, "dev_images", lambda: seen(encoder, folder, dev))
    draw = np.random.default_rng(5)
    pairs = list(
        laid(draw, folder, [one.image for one in dev], pictures, captions, options.pictures)
    )
    whole = np.random.default_rng(6).choice(len(dev), options.curves, replace=False).tolist()
    figures: dict[str, Any] = {"pairs": options.pictures, "curves": options.curves}
    for name, make in kinds(tower).items():
        inside, mass = [], []
        for pixels, query, (left, top) in pairs:
            found = make(pixels, query)
            row, column = np.unravel_index(found.argmax(), found.shape)
            inside.append(top <= row < top + PASTED and left <= column < left + PASTED)
            above = np.clip(found - np.median(found), 0, None)
            part = above[top : top + PASTED, left : left + PASTED].sum() / max(above.sum(), 1e-9)
            mass.append(part)
        areas = []
        for index in whole:
            pixels = opened(folder / dev[index].image)
            areas.append(curves(tower, pixels, make(pixels, captions[index]), captions[index]))
        deletion, insertion = np.mean(areas, axis=0).tolist()
        figures[name] = {
            "pointing": round(100 * float(np.mean(inside)), 1),
            "mass": round(100 * float(np.mean(mass)), 1),
            "deletion": round(deletion, 4),
            "insertion": round(insertion, 4),
            "difference": round(insertion - deletion, 4),
        }
    return figures


def kinds(tower: Tower) -> dict[str, Map]:
    """Names the maps that are compared; the number of passes is in the name."""
    return {
        "crop 5x5 of 96 and window 5x5 of 112, as shipped: 50 passes": lambda pixels, query: (
            shipped(tower, pixels, query)
        ),
        "occlusion 7x7, patch 80: 50 passes": lambda pixels, query: (
            -1.0 * windowed(tower, pixels, query, 7, 80, "occlusion")
        ),
        "window 7x7 of 112: 49 passes": lambda pixels, query: windowed(
            tower, pixels, query, 7, 112, "window"
        ),
        "crop 5x5 of 96: 25 passes": lambda pixels, query: windowed(
            tower, pixels, query, 5, 96, "crop"
        ),
        "crop 5x5 of 96 and 4x4 of 144: 41 passes": lambda pixels, query: (
            windowed(tower, pixels, query, 5, 96, "crop")
            + windowed(tower, pixels, query, 4, 144, "crop")
        ),
        "RISE, 5x5 masks: 80 passes": lambda pixels, query: rise(tower, pixels, query, 80, 5),
    }


def shipped(tower: Tower, pixels: Pixels, query: Floats) -> Floats:
    """Gives the map of ``retrieval.heat``, pixel by pixel."""
    found = heat.heat_map(Image.fromarray(pixels.astype(np.uint8)), tower, query)
    return grown(found, SIDE)


def windowed(
    tower: Tower, pixels: Pixels, query: Floats, count: int, side: int, how: str
) -> Floats:
    """Gives each pixel the mean cosine of the squares that it lies in."""
    rim = 0 if how == "crop" else side / 2 - SIDE / count / 2
    starts = np.linspace(-rim, SIDE - side + rim, count).round().astype(int).tolist()
    total, number = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    squares = [
        (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
        for top in starts
        for left in starts
    ]
    mean = np.broadcast_to(pixels.mean(axis=(0, 1)), pixels.shape)
    views = []
    for square in squares:
        if how == "crop":
            cut = Image.fromarray(pixels[square].astype(np.uint8))
            views.append(np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
            continue
        under, over = (mean, pixels) if how == "window" else (pixels, mean)
        view = under.copy()
        view[square] = over[square]
        views.append(view)
    for square, score in zip(squares, cosines(tower, views, query).tolist(), strict=True):
        total[square] += score
        number[square] += 1
    return total / np.maximum(number, 1)


def rise(tower: Tower, pixels: Pixels, query: Floats, count: int, cells: int) -> Floats:
    """Gives each pixel the covariance of its being seen with the cosine, over its variance."""
    draw = np.random.default_rng(0)
    cell = -(-SIDE // cells)
    masks = []
    for _ in range(count):
        coarse = (draw.random((cells + 1, cells + 1)) < 0.5).astype(np.float32)
        x, y = draw.integers(0, cell, 2)
        masks.append(grown(coarse, (cells + 1) * cell)[y : y + SIDE, x : x + SIDE])
    mean = np.broadcast_to(pixels.mean(axis=(0, 1)), pixels.shape)
    views = [pixels * mask[..., None] + mean * (1 - mask[..., None]) for mask in masks]
    scores = cosines(tower, views, query)
    stack = np.stack(masks)
    centred = stack - stack.mean(axis=0)
    covariance = (centred * (scores - scores.mean())[:, None, None]).sum(axis=0)
    return np.asarray(covariance / np.maximum((centred**2).sum(axis=0), 1e-6))


def curves(tower: Tower, pixels: Pixels, found: Floats, query: Floats) -> tuple[float, float]:
    """Gives the areas under the curves of deletion and of insertion."""
    order = np.argsort(-found.ravel(), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order)) / len(order)
    place = ranks.reshape(found.shape)
    mean = np.broadcast_to(pixels.mean(axis=(0, 1)), pixels.shape)
    blurred = Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(16))
    dim = np.asarray(blurred, np.float32)
    parts = np.linspace(0, 1, STEPS + 1)
    hot = [(place < part)[..., None] for part in parts]
    views = [np.where(one, mean, pixels) for one in hot] + [
        np.where(one, pixels, dim) for one in hot
    ]
    scores = cosines(tower, views, query)
    deletion, insertion = (np.trapezoid(half, parts) for half in np.split(scores, 2))
    return float(deletion), float(insertion)


def cosines(tower: Tower, views: Sequence[Floats], query: Floats) -> Floats:
    """Embeds views of a picture, ``(224, 224, 3)`` each, and compares them with a query."""
    squares = [np.rint(view).astype(np.uint8) for view in views]
    return np.concatenate(
        [tower.embed(squares[start : start + 8]) @ query for start in range(0, len(squares), 8)]
    )


def laid(
    draw: np.random.Generator,
    folder: Path,
    names: Sequence[str],
    pictures: Vectors,
    captions: Vectors,
    count: int,
) -> Iterator[tuple[Pixels, Floats, tuple[int, int]]]:
    """Lays small photographs into corners of others: pixels, the caption of the small, corner."""
    while count:
        small, large = draw.choice(len(names), 2, replace=False).tolist()
        query = captions[small]
        if pictures[small] @ query - pictures[large] @ query < MARGIN:
            continue
        whole = Image.fromarray(opened(folder / names[large]).astype(np.uint8))
        part = Image.fromarray(opened(folder / names[small]).astype(np.uint8))
        left, top = (draw.integers(0, 2, 2) * (SIDE - PASTED)).tolist()
        whole.paste(part.resize((PASTED, PASTED), Image.Resampling.BICUBIC), (left, top))
        yield np.asarray(whole, np.float32), query, (left, top)
        count -= 1


def opened(path: Path) -> Pixels:
    """Reads a picture as the network sees it."""
    picture = media.decode(path.read_bytes(), path.name).parts[0].content
    return np.asarray(picture.resize((SIDE, SIDE)), np.float32)


def grown(coarse: Floats, side: int) -> Floats:
    """Enlarges a map."""
    image = Image.fromarray(np.asarray(coarse, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)


if __name__ == "__main__":
    main()
