r"""How far relevance can be trusted: searches that have an answer against some that have none.

    python -m tests.benchmarks.relevance --captions flickr8k/captions.tsv \
        --images flickr8k/images --work WORK > tests/benchmarks/results/relevance.json

prints JSON. Needs ``[train]``, for the sentence encoder that judges. Pictures are the half of
Flickr8k's split ``dev`` that ``retrieval.learn.relevance`` did not fit on. Eight indexes each of
several sizes are drawn of them, all figures are means over the eight, and each is asked

``answerable``  500 captions of its pictures, or all where there are fewer
``nouns``       those of 98 nouns that its pictures show
``taken out``   200 captions of the half's other pictures
``absent``      100 words for things that the photographs do not show
``keys``        100 times keyboard noise
``scripts``     100 times letters at random, of scripts that the text tower does not know

with the functions that ``anyseek search`` uses, many queries at once; some are put to a search,
too, which must say the same. Of indexes of 500 and 1,000, 250
pictures are of that half and the others of the split ``train``, which nobody asks for: the towers
know those, so they are not quite like pictures of one's own.

Measures:
``flagged``     share of queries for which the answer says that there is no good match
``auroc``       of the first hit's relevance, answerable against taken out, with its standard
                deviation over the draws; ``strict`` leaves out captions that another picture of the
                index answers, see below
``against``     the same against each kind of query without an answer, and ``mixed`` against 500 of
                all kinds; nouns are among the answerable, and what the answer says to mean nothing
                counts as 0
``auroc_right`` the same, first hits that answer against others, of captions and nouns
``ece``         expected calibration error (Guo et al. 2017, arXiv 1706.04599) of the first hit's
                relevance, 15 bins of equal width, over all queries
``ece_answerable``  the same over the answerable and the taken out alone
``right``       share of first hits that answer

A picture answers a caption that was written of it or that says much the same as one that was: a
cosine of at least 0.7 in all-MiniLM-L6-v2, which has no part in the model.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.calibrate import Background
from retrieval.learn import relevance, sense
from retrieval.learn.relevance import NOUNS, Captions
from retrieval.models import ModelSpec, model
from retrieval.query import Blend, Kind, Term
from retrieval.search import Searcher, Wanted
from retrieval.types import Modality, Vectors
from tests.benchmarks.collection import filled, path_of

Flags = NDArray[np.bool_]

SIZES = (60, 100, 250, 500, 1_000)
OWN = 250  # pictures of larger indexes that are asked for
FILLING = 750  # pictures of ``train`` that the others are drawn of
ASKED = 500
TAKEN_OUT = 200
DRAWS = 8  # of each size; one draw is off by 0.03 of an AUROC
NOISES = 2  # sets of nonsense
CHECKED = 4  # of each kind of words
EACH = 100
BINS = 15

ABSENT = tuple(
    """an invoice with a tax number|a spreadsheet of quarterly revenue|an mri scan of a knee
source code in an editor|a map of the underground|a bar chart|a circuit diagram of an amplifier
a blood cell under a microscope|the rings of saturn|an aircraft carrier|a nuclear power plant
a dinosaur skeleton|the great pyramid of giza|a submarine under ice|an octopus on coral|a jellyfish
a bowl of ramen|a stethoscope|a passport page|a chess board|a violin on velvet|an orchid
a snow leopard|a polar bear|a whale shark|a steam locomotive|a space shuttle launch
a volcano erupting|the northern lights|an x-ray of a hand|a tax form|a bar code|a sheet of music
wind turbines at sea|an oil rig|a grand piano|a lighthouse in a storm|an observatory dome
an operating theatre|a court room|a parliament in session|a satellite image of a delta|a tornado
a penguin colony|a kangaroo with a joey|a giraffe at a water hole|a hippopotamus|a crocodile
a rhinoceros|a gorilla|a panda eating bamboo|a lobster|a scorpion|a beehive|a spider web with dew
a cactus in a desert|a rice terrace|a vineyard|a tulip field|a coral reef|an iceberg|a glacier
a geyser|a stalactite cave|a suspension bridge under construction|a wind tunnel|a crane in a harbour
a container ship|a hot air balloon|a helicopter landing on a roof|a fighter jet|a tank in a museum
a medieval suit of armour|a stained glass window|a cathedral nave|a mosque|a pagoda|a totem pole
a sarcophagus|a roman mosaic|an oil painting of a nobleman|a marble bust|a printed circuit board
a server rack|a 3d printer|a microscope|a test tube|a periodic table|a blackboard with equations
a globe|a sewing machine|a typewriter|a rotary telephone|a chandelier|a four poster bed|a fireplace
a dishwasher|an espresso machine|a plate of sushi|a loaf of bread|a wheel of cheese""".replace(
        "\n", "|"
    ).split("|")
)


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--fitted-half", action="store_true", help="measure where it was fitted")
    options = parser.parse_args()
    spec = model(options.model)
    encoder = spec.load()
    both = relevance.halves(
        relevance.embed_captions(
            encoder, options.captions, options.images, split="dev", work=options.work
        )
    )
    half = both[0 if options.fitted_half else 1]
    others = relevance.embed_captions(
        encoder,
        options.captions,
        options.images,
        split="train",
        work=options.work,
        most=FILLING,
    )
    search = Search(spec)
    figures: dict[str, Any] = {}
    for size in SIZES:
        draws = [measure(search, half, others, size, draw) for draw in range(DRAWS)]
        spread = float(np.std([one["auroc"] for one in draws]))
        figures[f"{size} pictures"] = {"auroc sd": round(spread, 3), **averaged(draws)}
    print(
        json.dumps({"space": encoder.space, "confident_from": spec.confident, **figures}, indent=2)
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What a search finds of some queries, ``(n,)`` each.

    Attributes:
        first: Row of the first hit.
        relevance: Of the first hit.
        meant: Whether the query means anything to the model.
    """

    first: NDArray[np.int64]
    relevance: NDArray[np.float64]
    meant: Flags


class Search:
    """Searches pictures as ``retrieval.search`` does, for many queries at once."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.encoder = spec.load()
        self._words: dict[str, tuple[Vectors, Vectors]] = {}

    def words(self, texts: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Embeds words as they are asked, and as they are: ``(n, dim)`` each."""
        tower = self.encoder.towers[Modality.TEXT]
        for text in texts:
            if text not in self._words:
                asked = relevance.as_asked([text], Modality.IMAGE, tower)
                self._words[text] = asked, tower.embed([tower.prepare(text)])
        pairs = [self._words[text] for text in texts]
        return np.concatenate([one for one, _ in pairs]), np.concatenate([raw for _, raw in pairs])

    def find(self, asked: Vectors, raw: Vectors, pictures: Vectors) -> Found:
        """Finds the first hit of each query."""
        calibration = self.spec.calibrations[Modality.TEXT, Modality.IMAGE]
        rivals, sense = self.spec.rivals(), self.spec.sense()
        nearer = np.zeros(len(asked)) if rivals is None else rivals.above(asked)
        # as the store keeps them
        cosines = asked @ pictures.astype(np.float16).astype(np.float32).T
        first = cosines.argmax(axis=1)
        logits = [
            calibration.against(
                Background(float(row.mean()), float(row.std()), len(row), float(near))
            ).logit(row[[at]])
            for row, at, near in zip(cosines, first, nearer, strict=True)
        ]
        meant = np.ones(len(asked), bool) if sense is None else sense.made(raw)
        return Found(first, 1 / (1 + np.exp(-np.concatenate(logits))), meant)

    def check(self, texts: Sequence[str], kept: Captions, found: Found) -> None:
        """Compares what was found with what a search says.

        Raises:
            AssertionError: If they differ.
        """
        with (
            tempfile.TemporaryDirectory() as folder,
            filled(Path(folder) / "i.db", self.encoder, kept) as store,
        ):
            searcher = Searcher(store, spec=self.spec)
            for at, text in enumerate(texts):
                answer = searcher.answer(Blend((Term(Kind.WORDS, text),)), Wanted(k=1))
                assert answer.hits[0].path == path_of(kept.said[found.first[at]].image)
                assert abs(answer.hits[0].relevance - found.relevance[at]) < 1e-4
                assert answer.meant == found.meant[at]


def measure(search: Search, half: Captions, others: Captions, size: int, draw: int) -> Any:
    """Asks one index everything."""
    generator = np.random.default_rng(1_000 * draw + size)
    large = size >= len(half.said)
    kept, out = relevance.draw(half, OWN if large else size, generator)
    queries = {
        "answerable": drawn(kept, ASKED, generator),
        "taken out": drawn(out, TAKEN_OUT, generator),
    }
    if large:
        more, _ = relevance.draw(others, size - OWN, generator)
        kept = joined(kept, more)
    nonsense = noise(draw % NOISES)
    nouns = [noun for noun, shown in zip(NOUNS, kept.holds(NOUNS), strict=True) if shown.any()]
    texts = {"nouns": nouns, "absent": list(ABSENT[:EACH]), **nonsense}
    found: dict[str, Found] = {}
    right: dict[str, Flags] = {}
    elsewhere = np.zeros(TAKEN_OUT, bool)
    for name, rows in queries.items():
        asked = np.stack([one.captions[row, which] for one, row, which in rows])
        found[name] = search.find(asked, asked, kept.pictures)
        fits = relevance.alike(
            np.stack([one.judge[row, which] for one, row, which in rows]), kept.judge
        )
        if name == "answerable":
            fits[np.arange(len(rows)), [row for _, row, _ in rows]] = True
        else:
            elsewhere = np.array(fits.any(axis=1), bool)
        right[name] = fits[np.arange(len(rows)), found[name].first]
    for name, words in texts.items():
        found[name] = search.find(*search.words(words), kept.pictures)
        right[name] = np.zeros(len(words), bool)
        if draw == 0:
            search.check(words[:CHECKED], kept, found[name])
    right["nouns"] = kept.holds(nouns)[np.arange(len(nouns)), found["nouns"].first]
    best = {name: one.relevance for name, one in found.items()}
    meant = {name: np.where(one.meant, one.relevance, 0.0) for name, one in found.items()}
    some, none = ("answerable", "taken out"), ("taken out", "absent", *nonsense)
    answered = join(meant, ("answerable", "nouns"))
    three = (*some, "nouns")
    shown, true = join(best, three), join(right, three)
    return {
        "flagged": {
            name: round(float(np.mean(values < search.spec.confident)), 3)
            for name, values in meant.items()
        },
        "auroc": round(auroc(best["answerable"], best["taken out"]), 3),
        "auroc_strict": round(auroc(best["answerable"], best["taken out"][~elsewhere]), 3),
        "against": {
            **{name: round(auroc(answered, meant[name]), 3) for name in none},
            "mixed": round(auroc(answered, join(meant, none)), 3),
        },
        "taken_out_strictly": int((~elsewhere).sum()),
        "auroc_right": round(auroc(shown[true], shown[~true]), 3),
        "ece": round(calibration_error(join(best, best), join(right, best)), 3),
        "ece_answerable": round(calibration_error(join(best, some), join(right, some)), 3),
        "right": round(float(right["answerable"].mean()), 3),
        "first_relevance": {
            name: [round(float(one), 3) for one in np.quantile(values, (0.05, 0.5, 0.95))]
            for name, values in best.items()
        },
    }


def joined(one: Captions, other: Captions) -> Captions:
    """Puts two collections into one."""
    return Captions(
        [*one.said, *other.said],
        np.concatenate([one.pictures, other.pictures]),
        np.concatenate([one.captions, other.captions]),
        np.concatenate([one.judge, other.judge]),
    )


def averaged(figures: Sequence[Any]) -> Any:
    """Averages nested figures of several draws, place by place."""
    first = figures[0]
    if isinstance(first, dict):
        return {name: averaged([one[name] for one in figures]) for name in first}
    if isinstance(first, list):
        return [averaged(values) for values in zip(*figures, strict=True)]
    return round(float(np.mean(figures)), 3)


def drawn(
    captions: Captions, count: int, generator: np.random.Generator
) -> list[tuple[Captions, int, int]]:
    """Draws pictures and one caption of each, no caption twice."""
    width = captions.captions.shape[1]
    chosen = generator.permutation(len(captions.said) * width)[:count]
    return [(captions, int(one) // width, int(one) % width) for one in chosen]


def noise(seed: int) -> dict[str, list[str]]:
    """Makes keyboard noise and letters of unknown scripts, other than those fitted on."""
    made = sense.noise(5 * EACH, seed + 10_000)
    # some numbers in a script's range are no letters, and nothing of them is an empty query
    texts = [text for text in made if any(one.isprintable() for one in text.replace(" ", ""))]
    random.Random(seed).shuffle(texts)
    foreign = [
        text for text in texts if all(ord(letter) > 0x300 for letter in text if letter != " ")
    ]
    keys = [text for text in texts if text not in foreign]
    return {"keys": keys[:EACH], "scripts": foreign[:EACH]}


def join(values: dict[str, NDArray[Any]], names: Sequence[str] | Any) -> NDArray[Any]:
    """Puts groups one after the other."""
    return np.concatenate([values[name] for name in names])


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Gives the chance that a positive is above a negative, ties counting half."""
    pairs = positive[:, None] - negative[None]
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def calibration_error(relevance: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Gives the mean gap between relevance and truth over bins, weighted by their size."""
    bins = np.minimum((relevance * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == one).mean() * abs(relevance[bins == one].mean() - right[bins == one].mean())
        for one in np.unique(bins)
    ]
    return float(np.sum(gaps))


if __name__ == "__main__":
    main()
