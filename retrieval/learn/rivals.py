r"""Makes the typical pictures that relevance looks at; see ``retrieval.rivals``.

    python -m retrieval.learn.rivals --captions flickr8k/captions.tsv --images flickr8k/images \
        --model retrieval/weights --work work

writes ``rivals.npz`` into the model's folder. Fit relevance anew afterwards
(``retrieval.learn.relevance``), as it counts on them.

Of every caption of the split ``train`` is worked out how near the pictures come that it was not
written of. A few points with weights are then moved, beginning at the means of clusters (Lloyd's
k-means), until they say the same: means of many, and nobody's photograph among them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval import vocabulary
from retrieval.learn.data import Captioned, read_captions, read_pictures
from retrieval.learn.sense import embed
from retrieval.rivals import FILE, SHARPNESS, Rivals
from retrieval.towers import bundled
from retrieval.types import Encoder, Modality, Vectors

KINDS = 128  # 64 lose 0.002 of AUROC, 256 gain 0.001
EVERY = 2  # captions that are learned from
LLOYD = 20  # rounds
EPOCHS = 6
BATCH = 256
RATE, RATE_OF_SHARES = 2e-3, 1e-2
SLOWER = 0.7  # an epoch
LEAST = 0.1  # of captions are counted as if something came nearer
AT_ONCE = 4

Floats = NDArray[np.float32]


def nearness(queries: Vectors, pictures: Vectors, own: NDArray[np.int64] | None = None) -> Floats:
    """Tells how near pictures come to queries, leaving out the one that each was written of.

    Returns:
        ``(n,)``: the logarithm of the mean of exponentials of the cosines, as a cosine.
    """
    rows = []
    for start in range(0, len(queries), 1_000):
        cosines = queries[start : start + 1_000] @ pictures.T
        if own is not None:
            cosines[np.arange(len(cosines)), own[start : start + 1_000]] = -1
        rows.append(np.log(np.exp(SHARPNESS * cosines).mean(axis=1)) / SHARPNESS)
    return np.concatenate(rows).astype(np.float32)


def fit(queries: Vectors, near: Floats, pictures: Vectors, *, kinds: int, seed: int) -> Rivals:
    """Makes few pictures that come as near to queries as all do (Adam, squared error).

    Args:
        queries: ``(n, dim)``; those of captions first, if there are others.
        near: ``(n,)``: what ``nearness`` says of them.
        pictures: ``(m, dim)``, to begin with.
        kinds: How many to make.
        seed: Of the draw, and of the order of learning.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    means, sizes = clusters(pictures, kinds, seed=seed)
    points = torch.tensor(means, requires_grad=True)
    shares = torch.tensor(np.log(sizes / sizes.sum()).astype(np.float32), requires_grad=True)
    asked, wanted = torch.tensor(queries), torch.tensor(near)
    optimizer = torch.optim.Adam(
        [{"params": [points], "lr": RATE}, {"params": [shares], "lr": RATE_OF_SHARES}]
    )
    slower = torch.optim.lr_scheduler.ExponentialLR(optimizer, SLOWER)
    for _ in range(EPOCHS):
        order = torch.randperm(len(asked), generator=generator)
        for rows in (order[at : at + BATCH] for at in range(0, len(order), BATCH)):
            said = torch.logsumexp(SHARPNESS * asked[rows] @ points.T + shares, dim=1) / SHARPNESS
            optimizer.zero_grad()
            loss = ((said - wanted[rows]) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        slower.step()
    made = points.detach().numpy().astype(np.float16).astype(np.float32)
    return Rivals(made, shares.detach().numpy(), -1.0, 0.0)


def clusters(pictures: Vectors, kinds: int, *, seed: int) -> tuple[Floats, Floats]:
    """Gives the means of clusters ``(at most kinds, dim)``, and how many pictures each has."""
    means: NDArray[np.floating] = pictures[
        np.random.default_rng(seed).permutation(len(pictures))[:kinds]
    ]
    for _ in range(LLOYD):
        nearest = (pictures @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)
        sizes = np.bincount(nearest, minlength=len(means))
        sums = np.zeros_like(means)
        np.add.at(sums, nearest, pictures)
        means = sums[sizes > 0] / sizes[sizes > 0, None]
    return np.asarray(means, np.float32), sizes[sizes > 0].astype(np.float32)


def settle(rivals: Rivals, captions: Vectors) -> Rivals:
    """Sets what is least and what is usual, by what captions ``(n, dim)`` have."""
    near = rivals.above(captions) + rivals.usual
    least = float(np.quantile(near, LEAST))
    usual = float(np.maximum(near, least).mean())
    return Rivals(rivals.pictures, rivals.shares, least, usual)


def write(rivals: Rivals, folder: Path) -> None:
    """Writes ``rivals.npz`` into a model's folder."""
    np.savez(
        folder / FILE,
        allow_pickle=False,
        pictures=rivals.pictures.astype(np.float16),
        shares=rivals.shares,
        least=np.float64(rivals.least),
        usual=np.float64(rivals.usual),
    )


def embed_pictures(encoder: Encoder, said: list[Captioned], images: Path, work: Path) -> Vectors:
    """Embeds pictures; what is in ``work`` already is not embedded again."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{encoder.space}-train-pictures.npy"
    if not path.exists():
        tower = encoder.towers[Modality.IMAGE]
        rows = []
        for start in range(0, len(said), AT_ONCE):
            names = [one.image for one in said[start : start + AT_ONCE]]
            rows.append(tower.embed(list(read_pictures(images, names))))
        np.save(path, np.concatenate(rows), allow_pickle=False)
    return np.asarray(np.load(path, allow_pickle=False), np.float32)


def main() -> None:
    """Reads the arguments, fits and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=bundled.WEIGHTS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder = bundled.load(options.model)
    tower = encoder.towers[Modality.TEXT]
    said = read_captions(options.captions)["train"]
    pictures = embed_pictures(encoder, said, options.images, options.work)
    texts = [text for one in said for text in one.captions][::EVERY]
    own = np.repeat(np.arange(len(said)), [len(one.captions) for one in said])[::EVERY]
    captions = embed(tower, texts)
    words = embed(tower, vocabulary.words())
    near = np.concatenate([nearness(captions, pictures, own), nearness(words, pictures)])
    made = fit(np.concatenate([captions, words]), near, pictures, kinds=KINDS, seed=options.seed)
    write(settle(made, captions), options.model)


if __name__ == "__main__":
    main()
