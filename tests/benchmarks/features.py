"""Times warm queries that use many features at once, and prints the figures as JSON.

    python -m tests.benchmarks.features --items 100000

The index is that of ``tests/benchmarks/filters.py`` in the space of the bundled model. Its vectors
are made up, so what is found means nothing; the words are embedded by the real text tower. Each
query is asked once before the clock starts, so that weights, examples, samples and the filter's
list are there; what a query's own words cost is timed apart.

``plain``     two words
``composed``  ``(A + B - C) AND (D OR E)``, in words, over pictures from five years, 25 % of all
``liked``     the same with two hits liked and one not
``everything``  the same with the hits explained: terms, templates, nearest words
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from unittest import mock

from cli.explain import notes
from retrieval import asking
from retrieval.asking import Manner
from retrieval.examples import Example
from retrieval.explain import Explainer
from retrieval.filters import Filters
from retrieval.models import model
from retrieval.query import parse
from retrieval.search import Searcher, Wanted
from retrieval.store import Store
from retrieval.types import Encoder, Modality
from tests.benchmarks.filters import fill
from tests.benchmarks.speed import Figures, machine, spread

REPEAT = 15
YEARS = Filters(after=datetime(2010, 1, 1), before=datetime(2015, 1, 1))
COMPOSED = ["(", "2:golden retriever", "+", "swimming pool", "-", "people", ")", "AND"]
COMPOSED += ["(", "summer", "OR", "a garden in the sun", ")"]


def main() -> None:
    """Fills an index, measures, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    encoder = model().load()
    with tempfile.TemporaryDirectory(prefix="anyseek-features-") as name:
        index = Path(name) / "i.db"
        fill(index, options.items, encoder)
        with Store(index) as store:
            figures = measure(store, encoder)
    about = {"machine": machine(), "items": options.items, "n": REPEAT}
    print(json.dumps({**about, "warm_ms": figures}, indent=2))


def measure(store: Store, encoder: Encoder) -> Figures:
    """Times each kind of query."""
    searcher = Searcher(store)
    explainer = Explainer(store, encoder)
    composed = parse(COMPOSED)
    wanted = Wanted(k=10, filters=YEARS)
    hits = searcher.answer(composed, wanted).hits
    liked = Manner(
        liked=tuple(Path(hit.path.decode()) for hit in hits[:2]),
        unliked=(Path(hits[-1].path.decode()),),
    )

    def stored(store_: Store, space: object, encoder_: Encoder, path: Path) -> Example:
        """The files are not there, but their vectors are."""
        item = store.item(str(path).encode())
        assert item is not None
        vector = store.item_vectors(item[0], store.spaces()[0]).astype("float32")
        return Example(str(path).encode(), Modality.IMAGE, vector)

    with mock.patch.object(asking, "example", stored):
        return {
            "plain": timed(lambda: searcher.answer(parse(["a dog"]), replace(wanted, k=10))),
            "composed": timed(lambda: searcher.answer(composed, wanted)),
            "liked": timed(lambda: searcher.answer(composed, wanted, liked)),
            "everything": timed(
                lambda: notes(
                    searcher,
                    searcher.answer(composed, wanted, liked).hits,
                    composed,
                    liked,
                    folder=None,
                    explainer=explainer,
                )
            ),
            "words": timed(lambda: fresh(encoder)),
        }


def fresh(encoder: Encoder) -> None:
    """Embeds the words of the composed query."""
    tower = encoder.towers[Modality.TEXT]
    tower.embed([tower.prepare(word) for word in COMPOSED if len(word) > 3])


def timed(action: Callable[[], object]) -> Figures:
    """Times an action, in milliseconds of wall time."""
    action()
    taken = []
    for _ in range(REPEAT):
        began_s = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - began_s))
    return spread(taken)


if __name__ == "__main__":
    main()
