r"""Pictures with words beside them: how well each way of fusing finds the picture.

    python tests/benchmarks/fusion.py --captions flickr8k/captions.tsv --images flickr8k/images \
        --work WORK

prints JSON. The 1,000 photographs of Flickr8k's split ``dev``, each with the first of its captions
as a sidecar; the queries are its other four captions. Every photograph is judged by the engine's
own scorers, ``Searcher.scorer``, and fused by ``retrieval.fusion``. Three indexes:

``all``      every photograph has its caption
``half``     a half of them, drawn at random, has none
``swapped``  three in ten have the caption of another photograph

Measures: R@1, R@5, R@10 in per cent, the share of queries whose photograph is among the first so
many; ties count against it. ``content`` and ``sidecar`` are the single sources. ``gain_r1`` is what
the default has over the better of the two, with a 95 % interval from 2,000 bootstrap samples of
photographs (percentiles; seed 0).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.fusion import SOURCES, USUAL, Fuse, Fusion, fused, logit_of
from retrieval.learn import relevance
from retrieval.learn.relevance import Captions
from retrieval.models import model
from retrieval.query import Blend, Kind, Term
from retrieval.search import Searcher
from retrieval.store import Batch, ItemRecord, Store
from retrieval.store import Captions as Beside
from retrieval.types import WHOLE, Encoder, Fingerprint, Modality, Source, Words, WordsOf
from tests.benchmarks.collection import path_of

SWAPPED = 0.3
SAMPLES = 2_000
REACHES = (1, 5, 10)
CONTENT, SIDECAR = SOURCES.index(Source.CONTENT), SOURCES.index(Source.SIDECAR)

Ranks = NDArray[np.int64]


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
    rng = np.random.default_rng(0)
    count = len(captions.said)
    own = np.arange(count)
    half = np.where(rng.random(count) < 0.5, own, -1)
    swapped = own.copy()
    some = np.flatnonzero(rng.random(count) < SWAPPED)
    swapped[some] = np.roll(some, 1)
    figures: dict[str, Any] = {
        name: measured(encoder, captions, sources)
        for name, sources in (("all", own), ("half", half), ("swapped", swapped))
    }
    print(json.dumps({"space": encoder.space, "default": USUAL.way, **figures}, indent=2))


def measured(encoder: Encoder, captions: Captions, captioned_by: Ranks) -> dict[str, Any]:
    """Measures one index; each picture has the caption of another, or of none where it says -1."""
    with (
        tempfile.TemporaryDirectory() as folder,
        filled(Path(folder) / "i.db", encoder, captions, captioned_by) as store,
    ):
        ranks = ranked(Searcher(store), captions, captioned_by)
    best = min(("content", "sidecar"), key=lambda name: -float((ranks[name] == 0).mean()))
    default = ranks[USUAL.way.value]
    gains = ((default == 0).astype(float) - (ranks[best] == 0)).reshape(len(captioned_by), -1)
    per_picture = gains.mean(axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(per_picture), (SAMPLES, len(per_picture)))
    low, high = np.percentile(100 * per_picture[drawn].mean(axis=1), (2.5, 97.5))
    return {
        **{
            name: {f"r{reach}": round(100 * float((found < reach).mean()), 1) for reach in REACHES}
            for name, found in ranks.items()
        },
        "better_source": best,
        "gain_r1": round(100 * float(gains.mean()), 1),
        "gain_r1_interval": [round(float(low), 1), round(float(high), 1)],
    }


def ranked(searcher: Searcher, captions: Captions, captioned_by: Ranks) -> dict[str, Ranks]:
    """Gives the rank of the right picture, 0 the best, for every query and way of fusing."""
    pictures = captions.pictures
    there = captioned_by >= 0
    beside = captions.captions[captioned_by, 0]
    ranks: dict[str, list[int]] = {}
    for right, one in enumerate(captions.said):
        for text in one.captions[1:]:
            query = Blend((Term(Kind.WORDS, text),))
            logits = np.full((len(pictures), len(SOURCES)), np.nan)
            content = searcher.scorer(query, Modality.IMAGE).judge(pictures)
            logits[:, CONTENT] = logit_of(content.log_relevance)
            said = searcher.scorer(query, WordsOf.IMAGE).judge(beside[there])
            logits[there, SIDECAR] = logit_of(said.log_relevance)
            ways = {way.value: fused(logits, Fuse(way)) for way in Fusion}
            alone: dict[Source, float] = {
                source: 0.0 for source in Source if source is not Source.SIDECAR
            }
            ways["sidecar"] = fused(logits, Fuse(Fusion.MEAN, alone))
            for name, values in ways.items():
                above = int((values >= values[right]).sum()) - 1
                if not np.isfinite(values[right]):
                    above = len(values)
                ranks.setdefault(name, []).append(above)
    return {name: np.array(found) for name, found in ranks.items()}


def filled(path: Path, encoder: Encoder, captions: Captions, captioned_by: Ranks) -> Store:
    """Makes the index and opens it for reading."""
    records = []
    for row, (one, vector) in enumerate(zip(captions.said, captions.pictures, strict=True)):
        record = ItemRecord(
            path=path_of(one.image),
            fingerprint=Fingerprint(1, 1),
            content_hash=row.to_bytes(16, "big"),
            modality=Modality.IMAGE,
            places=(WHOLE,),
            vectors=np.asarray(vector[None], np.float32),
        )
        if (of := int(captioned_by[row])) >= 0:
            words = Words(Source.SIDECAR, captions.said[of].captions[0])
            record = replace(record, captions=Beside((words,), captions.captions[of, :1]))
        records.append(record)
    with Store(path, write=True) as store:
        store.write(Batch(records=records), store.add_space(encoder))
    return Store(path)


if __name__ == "__main__":
    main()
