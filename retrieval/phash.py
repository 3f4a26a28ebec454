"""Perceptual hashes of pictures: 64 bits that stay nearly the same when a picture is saved anew.

The hash is pHash's (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.2; http://phash.org): the picture in grey at 32 x 32, its two-dimensional
discrete cosine transform (DCT-II), of that the 8 x 8 lowest frequencies without the first row and
column, and for each whether it lies above their median. Two hashes are compared by the number of
bits in which they differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 32
LOW = 8
FLATTEST = 2.0  # grey levels of 255: below this standard deviation, bits follow noise
LANCZOS = 1  # Pillow's number of the filter, which averages over all pixels that it drops

Hashes = NDArray[np.uint64]

_ANGLES = np.pi / SIDE * np.outer(np.arange(1, LOW + 1), np.arange(SIDE) + 0.5)
_BASIS = np.sqrt(2 / SIDE) * np.cos(_ANGLES)


def phash(picture: Image) -> int | None:
    """Gives a picture's hash, or ``None`` where it is too even for one to mean anything.

    Args:
        picture: Upright, of any mode that converts to grey.
    """
    grey = picture.convert("L").resize((SIDE, SIDE), LANCZOS)
    values = np.asarray(grey, np.float64)
    if values.std() < FLATTEST:
        return None
    low = _BASIS @ values @ _BASIS.T
    bits = low.ravel() > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(one: Hashes, other: Hashes) -> NDArray[np.uint8]:
    """Counts the bits in which hashes differ, 0..64."""
    return np.asarray(np.bitwise_count(one ^ other), np.uint8)


def near_pairs(hashes: Hashes, most: int) -> Iterator[NDArray[np.int64]]:
    """Finds all pairs of hashes that differ in at most ``most`` bits; exact.

    Multi-index hashing (Norouzi et al. 2012, arXiv 1307.2982) in its simplest form: of ``most + 1``
    pieces of the bits, two near hashes have at least one in common, by the pigeonhole principle. So
    hashes are sorted by one piece after the other and only those with the same are compared.

    Args:
        hashes: ``(n,)``.
        most: Bits, 0..15.

    Yields:
        ``(m, 2)`` positions, the smaller first; every pair in one of them alone.
    """
    edges = np.linspace(0, 64, most + 2).astype(int).tolist()
    masks = [np.uint64((1 << end) - (1 << start)) for start, end in itertools.pairwise(edges)]
    for turn, mask in enumerate(masks):
        pieces = hashes & mask
        order = np.argsort(pieces, kind="stable")
        ends = np.searchsorted(pieces[order], pieces[order], "right")
        first, step = np.arange(len(order)), 0
        while len(first):
            # the neighbour one place further, two places further, ... while the piece is the same
            step += 1
            first = first[first + step < ends[first]]
            one, other = order[first], order[first + step]
            near = distance(hashes[one], hashes[other]) <= most
            one, other = one[near], other[near]
            for earlier in masks[:turn]:  # a pair with an earlier piece in common was given then
                fresh = ((hashes[one] ^ hashes[other]) & earlier) != 0
                one, other = one[fresh], other[fresh]
            if len(one):
                yield np.sort(np.stack([one, other], axis=1), axis=1)
