r"""How far relevance can be trusted: searches that have an answer against some that have none.

    python -m tests.benchmarks.relevance --captions flickr8k/captions.tsv \
        --images flickr8k/images --work WORK > tests/benchmarks/results/relevance.json

prints JSON. Needs ``[train]``, for the sentence encoder that judges. Pictures are the half of
Flickr8k's split ``dev`` that ``retrieval.learn.relevance`` did not fit on. Four indexes each of
several sizes are drawn of them, all figures are means over the four, and each is asked

``answerable``  500 captions of its pictures, or all where there are fewer
``nouns``       those of 98 nouns that its pictures show
``taken out``   200 captions of the half's other pictures
``absent``      100 words for things that the photographs do not show
``keys``        100 times keyboard noise
``scripts``     100 times letters at random, of scripts that the text tower does not know

through ``Searcher.answer``, as ``anyseek search`` does it. Of indexes of 500 and 1,000, 250
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

from retrieval.learn import relevance, sense
from retrieval.learn.relevance import NOUNS, Captions
from retrieval.models import model
from retrieval.query import Blend, Kind, Term
from retrieval.search import Answer, Searcher, Wanted
from tests.benchmarks.collection import filled, path_of

SIZES = (60, 100, 250, 500, 1_000)
OWN = 250  # pictures of larger indexes that are asked for
FILLING = 750  # pictures of ``train`` that the others are drawn of
ASKED = 500
TAKEN_OUT = 200
DRAWS = 4  # of each size; one draw is off by 0.03 of an AUROC
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
    figures: dict[str, Any] = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            draws = []
            for draw in range(DRAWS):
                place = Path(folder) / str(draw)
                place.mkdir()
                asked = Asked(half, others, options.work / "queries")
                draws.append(measure(asked, size, place, seed=1_000 * draw + size))
            spread = np.std([one["auroc"] for one in draws])
            figures[f"{size} pictures"] = {
                "auroc sd": round(float(spread), 3),
                **averaged(draws),
            }
    print(
        json.dumps({"space": encoder.space, "confident_from": spec.confident, **figures}, indent=2)
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for, what else is in large indexes, and where vectors of queries are kept."""

    half: Captions
    others: Captions
    cache: Path


def measure(asked_: Asked, size: int, folder: Path, *, seed: int) -> dict[str, Any]:
    """Asks one index everything."""
    generator = np.random.default_rng(seed)
    large = size >= len(asked_.half.said)
    kept, out = relevance.draw(asked_.half, OWN if large else size, generator)
    queries = {
        "answerable": drawn(kept, ASKED, generator),
        "taken out": drawn(out, TAKEN_OUT, generator),
    }
    if large:
        more, _ = relevance.draw(asked_.others, size - OWN, generator)
        kept = joined(kept, more)
    nonsense = noise(seed // 1_000)  # the same for all sizes, so that it is embedded once
    texts = {
        **{
            name: [one.said[row].captions[which] for one, row, which in rows]
            for name, rows in queries.items()
        },
        "nouns": [
            noun for noun, shown in zip(NOUNS, kept.holds(NOUNS), strict=True) if shown.any()
        ],
        "absent": list(ABSENT[:EACH]),
        **nonsense,
    }
    answers: dict[str, list[Answer]] = {}
    with filled(folder / "i.db", model().load(), kept) as store:
        searcher = Searcher(store, cache=asked_.cache)
        for name, asked in texts.items():
            answers[name] = [searcher.answer(plain(text), Wanted(k=10)) for text in asked]
    places = {path_of(one.image): place for place, one in enumerate(kept.said)}
    right = {name: np.zeros(len(asked), bool) for name, asked in texts.items()}
    elsewhere = np.zeros(TAKEN_OUT, bool)
    for name, rows in queries.items():
        fits = relevance.alike(
            np.stack([one.judge[row, which] for one, row, which in rows]), kept.judge
        )
        if name == "answerable":
            fits[np.arange(len(rows)), [row for _, row, _ in rows]] = True
        else:
            elsewhere = np.array(fits.any(axis=1), bool)
        first = [places[answer.hits[0].path] for answer in answers[name]]
        right[name] = fits[np.arange(len(rows)), first]
    first = [places[answer.hits[0].path] for answer in answers["nouns"]]
    right["nouns"] = kept.holds(texts["nouns"])[np.arange(len(first)), first]
    best = {
        name: np.array([answer.hits[0].relevance for answer in found])
        for name, found in answers.items()
    }
    some = ("answerable", "taken out")
    meant = {
        name: np.where([answer.meant for answer in found], best[name], 0.0)
        for name, found in answers.items()
    }
    answered = np.concatenate([meant["answerable"], meant["nouns"]])
    none = ("taken out", "absent", *nonsense)
    return {
        "flagged": {
            name: round(float(np.mean([not answer.confident for answer in found])), 3)
            for name, found in answers.items()
        },
        "auroc": round(auroc(best["answerable"], best["taken out"]), 3),
        "auroc_strict": round(auroc(best["answerable"], best["taken out"][~elsewhere]), 3),
        "against": {
            **{name: round(auroc(answered, meant[name]), 3) for name in none},
            "mixed": round(auroc(answered, join(meant, none)), 3),
        },
        "taken_out_strictly": int((~elsewhere).sum()),
        "ece": round(calibration_error(join(best, texts), join(right, texts)), 3),
        "ece_answerable": round(calibration_error(join(best, some), join(right, some)), 3),
        "right": round(float(right["answerable"].mean()), 3),
        "first_relevance": {
            name: [round(float(one), 3) for one in np.quantile(found, (0.05, 0.5, 0.95))]
            for name, found in best.items()
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


def plain(text: str) -> Blend:
    """Asks for words."""
    return Blend((Term(Kind.WORDS, text),))


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
