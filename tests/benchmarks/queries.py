r"""Composed queries: what negative terms, AND, OR and pictures beside words should do.

    python tests/benchmarks/queries.py --captions flickr8k/captions.tsv --images flickr8k/images \
        --work WORK

prints JSON. Over the 1,000 photographs of Flickr8k's split ``dev``, through ``Searcher.answer``.
A photograph shows a noun if two of its five captions hold it. All figures are nDCG@10 in per cent
(gains 0 and 1, discounts log2(rank + 1)), averaged over the pairs of nouns:

``not``      "A" - "B": photographs that show A and of which no caption holds B; pairs with at least
             five of those and five that show both
``and``      "A" AND "B": photographs that show both; pairs with at least four, against one averaged
             direction ("A" + "B")
``or``       "A" OR "B": photographs that show either; every thirteenth pair of which none shows
             both, against one averaged direction
``picture``  the first photograph that shows A, and the word B: photographs but that one that show
             both; against the plain sum of the two vectors

``and`` and ``or`` are in ``retrieval.scoring``, ``not`` in ``Negatives``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.asking import Manner
from retrieval.learn import relevance
from retrieval.learn.relevance import NOUNS, Captions
from retrieval.models import model
from retrieval.query import AllOf, AnyOf, Blend, Kind, Query, Term
from retrieval.scoring import Negatives
from retrieval.search import Searcher, Wanted
from tests.benchmarks.collection import filled, path_of

K = 10
FEWEST_SHOWING = 4

Flags = NDArray[np.bool_]


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    encoder = model().load()
    captions = relevance.embed_captions(
        encoder, options.captions, options.images, split="dev", work=options.work
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        filled(Path(folder) / "i.db", encoder, captions) as store,
    ):
        print(json.dumps(Composed(Searcher(store), captions).figures(), indent=2))


class Composed:
    """Queries over one index, and what should be found."""

    def __init__(self, searcher: Searcher, captions: Captions) -> None:
        """Looks up which photographs show and mention which nouns."""
        self._searcher = searcher
        self._paths = [path_of(one.image) for one in captions.said]
        self._vectors = captions.pictures
        shows = captions.holds(NOUNS)
        often = shows.sum(axis=1) >= FEWEST_SHOWING
        self._nouns = [noun for noun, keep in zip(NOUNS, often, strict=True) if keep]
        self._shows = shows[often]
        self._says = np.array(
            [
                [any(noun in text.lower() for text in one.captions) for one in captions.said]
                for noun in self._nouns
            ]
        )

    def figures(self) -> dict[str, Any]:
        """Measures everything."""
        one_way = list(itertools.permutations(range(len(self._nouns)), 2))
        pairs = list(itertools.combinations(range(len(self._nouns)), 2))
        shows = self._shows
        both = {pair: shows[pair[0]] & shows[pair[1]] for pair in one_way}
        alone = {pair: shows[pair[0]] & ~self._says[pair[1]] for pair in one_way}
        either = {pair: shows[pair[0]] | shows[pair[1]] for pair in pairs}
        left = [p for p in one_way if both[p].sum() >= 5 and alone[p].sum() >= 5]
        joint = [p for p in pairs if both[p].sum() >= 4]
        apart = [p for p in pairs if not both[p].any() and either[p].sum() >= 10][::13]
        words = self._words
        figures: dict[str, Any] = {
            "not": {"pairs": len(left), "ignored": self._mean(left, alone, lambda a, b: words(a))},
            "and": {
                "pairs": len(joint),
                "AND": self._mean(joint, both, lambda a, b: AllOf((words(a), words(b)))),
                "one direction": self._mean(joint, both, lambda a, b: words(a, b)),
            },
            "or": {
                "pairs": len(apart),
                "OR": self._mean(apart, either, lambda a, b: AnyOf((words(a), words(b)))),
                "one direction": self._mean(apart, either, lambda a, b: words(a, b)),
            },
        }
        for way in Negatives:
            manner = Manner(negatives=way)
            figures["not"][way.value] = self._mean(
                left, alone, lambda a, b: self._without(a, b), manner
            )
        figures["picture"] = self._pictured([p for p in one_way if both[p].sum() >= 5], both)
        return figures

    def _words(self, *nouns: int) -> Blend:
        return Blend(tuple(Term(Kind.WORDS, self._nouns[noun]) for noun in nouns))

    def _without(self, wanted: int, other: int) -> Blend:
        return Blend(
            (Term(Kind.WORDS, self._nouns[wanted]), Term(Kind.WORDS, self._nouns[other], -1.0))
        )

    def _mean(
        self,
        pairs: list[tuple[int, int]],
        relevant: dict[tuple[int, int], Flags],
        query: Callable[[int, int], Query],
        manner: Manner | None = None,
    ) -> float:
        values = []
        for pair in pairs:
            answer = self._searcher.answer(query(*pair), Wanted(k=K), manner or Manner())
            found = [self._paths.index(hit.path) for hit in answer.hits]
            values.append(ndcg(relevant[pair][found], int(relevant[pair].sum())))
        return round(100 * float(np.mean(values)), 1)

    def _pictured(
        self, pairs: list[tuple[int, int]], both: dict[tuple[int, int], Flags]
    ) -> dict[str, Any]:
        """Compares balanced terms with a plain sum, over vectors in memory."""
        from retrieval.asking import Piece, blended
        from retrieval.calibrate import Background
        from retrieval.types import Modality

        found: dict[str, list[float]] = {"balanced": [], "plain sum": [], "picture alone": []}
        for pair in pairs:
            example = int(np.flatnonzero(self._shows[pair[0]])[0])
            word = self._searcher.asker.phrased(
                self._nouns[pair[1]], Modality.IMAGE, Manner()
            ).vector[0]
            vectors = self._vectors[example], word
            pieces = []
            for vector in vectors:
                cosines = self._vectors @ vector
                background = Background(float(cosines.mean()), float(cosines.std()), len(cosines))
                pieces.append(Piece(Term(Kind.WORDS, "x"), Modality.TEXT, vector, None, background))
            relevant = both[pair].copy()
            relevant[example] = False
            for name, vector in (
                ("balanced", blended(pieces)),
                ("plain sum", sum(vectors)),
                ("picture alone", vectors[0]),
            ):
                scores = self._vectors @ vector
                scores[example] = -np.inf
                first = np.argsort(-scores, kind="stable")[:K]
                found[name].append(ndcg(relevant[first], int(relevant.sum())))
        means = {name: round(100 * float(np.mean(values)), 1) for name, values in found.items()}
        return {"pairs": len(pairs), **means}


def ndcg(hits: Flags, relevant: int) -> float:
    """Gives nDCG@10 of one ranking."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    return float((hits * discounts[: len(hits)]).sum() / discounts[: min(K, relevant)].sum())


if __name__ == "__main__":
    main()
