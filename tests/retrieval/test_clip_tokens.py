"""Tokens and pixels against open_clip's own, on whatever hypothesis comes up with."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.errors import ModelError
from retrieval.towers import clip_pixels, clip_tokens
from retrieval.towers.clip_tokens import Settings, cleaner, clip_ids, trimmed

PIECES = st.sampled_from(
    [
        "dog",
        "I'LL",
        "it's",
        " ",
        "\t\n",
        "&amp;",
        "<end_of_text>",
        "雪山",
        "🐶",
        "ﬁ",
        "1024",
        "_",
        "!?",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(max_codepoint=127), max_size=60),
    st.lists(PIECES, max_size=120).map("".join),
)


@given(TEXTS)
@example("")
@example("   ")
@example("a" * 500)
@example("<START_OF_TEXT> twice <end_of_text> dog")
@example("ÃƒÂ©tÃ©")
@example("\ud7ff\x00\x07")
@settings(max_examples=100)
def test_tokens_are_open_clips(text: str) -> None:
    """Every text gives the same tokens, cut after the same number."""
    from open_clip.tokenizer import SimpleTokenizer

    theirs: Any = test_tokens_are_open_clips
    tokenizer = theirs.__dict__.setdefault("tokenizer", SimpleTokenizer())
    for length in (77, 5):
        expected = tokenizer([text], context_length=length).numpy()
        np.testing.assert_array_equal(clip_ids([cleaner("lower")(text)], length), expected)


@given(TEXTS)
@example("fish &amp;amp; chips")
@example("a \x1b[31mred\x1b[0m house\r\n at dusk\x7f")
@settings(max_examples=100)
def test_cleaning_is_open_clips(text: str) -> None:
    """Each way of cleaning gives the same text."""
    from open_clip.tokenizer import get_clean_fn

    for kind in ("lower", "whitespace", "canonicalize"):
        assert cleaner(kind)(text) == get_clean_fn(kind)(text)


def test_plain_words_need_no_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    """What most people type is cleaned without the library that mends broken texts."""
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert cleaner("lower")(" A dog,  on the beach! ") == "a dog, on the beach!"
    with pytest.raises(ImportError):
        cleaner("lower")("l\u00e4uft")


@pytest.mark.parametrize(
    "content",
    [
        b"not packed",
        gzip.compress(b"#version\n" + b"a b\n" * 48_893),
        gzip.compress(b"#version\n" + b"a b\n" * 48_893 + b"ab\n"),
    ],
)
def test_damaged_vocabulary(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary that is no gzip file, too short, or holds no pairs, is refused."""
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(content)
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ModelError, match="reinstall open_clip_torch"):
        clip_tokens._vocabulary()


def test_no_such_cleaning() -> None:
    """A way of cleaning that open_clip does not have is refused."""
    with pytest.raises(ModelError, match="'shuffle'"):
        cleaner("shuffle")


@pytest.mark.parametrize(
    ("trim", "rows", "columns"),
    [
        ("end", [[8, 5, 9, 0, 0], [8, 9, 0, 0, 0]], 3),
        ("pad", [[0, 5, 2, 1, 1], [0, 5, 5, 2, 1]], 4),
        ("pad", [[1, 1, 1]], 1),
        ("", [[8, 9, 0, 0, 0]], 5),
    ],
)
def test_trimming(trim: str, rows: list[list[int]], columns: int) -> None:
    """Only what lies behind the longest text goes."""
    told = Settings(5, "lower", "clip", trim=trim, pad=1)
    ids = np.array(rows, np.int64)
    np.testing.assert_array_equal(trimmed(ids, told), ids[:, :columns])


@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from(["shortest", "longest", "squash"]),
    st.sampled_from(["bicubic", "bilinear"]),
    st.sampled_from([(32, 32), (24, 40), (40, 24)]),
)
@example(1, 150, "shortest", "bicubic", (32, 32))
@example(33, 32, "longest", "bicubic", (32, 32))
@settings(max_examples=60)
def test_pixels_are_open_clips(
    width: int, height: int, mode: str, interpolation: str, size: tuple[int, int]
) -> None:
    """Every shape gives the same pixels, whatever the way of resizing."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    # open_clip itself fails where the shorter side would round to nothing; here it has a pixel
    longest = max(width / size[1], height / size[0])
    assume(mode != "longest" or min(round(width / longest), round(height / longest)) > 0)
    rng = np.random.default_rng(width * 1000 + height)
    picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    config = {
        "resize_mode": mode,
        "interpolation": interpolation,
        "fill_color": 99,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    theirs = PreprocessCfg(size=size, **config)
    expected = (image_transform_v2(theirs, False)(picture) * 255).round().numpy().astype(np.uint8)
    given = clip_pixels.prepare(picture, clip_pixels.read(config, size))
    np.testing.assert_array_equal(given, expected.transpose(1, 2, 0))
