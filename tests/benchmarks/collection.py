"""An index of captioned pictures for benchmarks: real store, real search, vectors made before."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from retrieval.learn.relevance import Captions
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import WHOLE, Encoder, Fingerprint, Modality

FOLDER = Path("/pictures")  # need not be there: the vectors are


def filled(path: Path, encoder: Encoder, captions: Captions) -> Store:
    """Makes an index of the pictures and opens it for reading."""
    records = [
        ItemRecord(
            path=path_of(one.image),
            fingerprint=Fingerprint(1, 1),
            content_hash=hashlib.blake2b(one.image.encode(), digest_size=16).digest(),
            modality=Modality.IMAGE,
            places=(WHOLE,),
            vectors=np.asarray(vector[None], np.float32),
        )
        for one, vector in zip(captions.said, captions.pictures, strict=True)
    ]
    with Store(path, write=True) as store:
        store.write(Batch(records=records), store.add_space(encoder))
    return Store(path)


def path_of(image: str) -> bytes:
    """Names a picture as the index does."""
    return os.fsencode(FOLDER / image)
