"""What leaves an index and comes in again, and everything that must not come in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import indexer.pipeline as pipeline
from indexer.scan import roots_of
from retrieval.check import check
from retrieval.errors import ExchangeError, StorageError
from retrieval.exchange import bringing, choosing, leaving
from retrieval.exchange.bringing import Brought, Target, bring
from retrieval.exchange.leaving import Left, leave
from retrieval.search import Wanted
from retrieval.spaces import Spaces
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import NO_FACTS, Encoder, Facts, Fingerprint, Modality, Place
from tests.conftest import content_hash, make_record, rows_of, run_sql, unit_rows
from tests.fakes import colour_encoder

DIM = 8
SPACE = "made-up/space 1"
TARGET = Target(SPACE, "made-up", DIM)


def filled(index: Path, records: Sequence[ItemRecord], *, space: str = SPACE) -> None:
    """Makes an index of some items."""
    with Store(index, write=True) as store:
        own = store.add_space(Encoder("made-up", space, DIM, {}))
        store.write(Batch(records=list(records)), own)


def out_of(index: Path, out: Path, **options: Any) -> list[Left]:
    """Exports an index."""
    with Store(index) as store:
        return leave(store, out, **options)


def into(index: Path, path: Path, target: Target | None = TARGET, **options: Any) -> Brought:
    """Imports into an index; without a target, into what the files say."""
    found = choosing.sources(path, path.parent)
    if target is None:
        target, found = choosing.target(found, model=None, space=None, dim=None)
    with Store(index, write=True) as store:
        return bring(store, found, target, **options)


def content(index: Path) -> dict[bytes, tuple[Any, ...]]:
    """Reads every item by its path, with its parts and vectors, but without ids and dates of rows.

    With sqlite3 alone.
    """
    found: dict[bytes, tuple[Any, ...]] = {}
    for row in run_sql(
        index,
        "SELECT i.path, i.modality, size, mtime_ns, hex(content_hash), width, height, duration_s, "
        "taken_at, camera, lat, lon, ordinal, start_s, end_s, page, line, text, s.name, vector "
        "FROM items i JOIN parts p ON p.item_id = i.id JOIN vectors v ON v.part_id = p.id "
        "JOIN spaces s ON s.id = v.space_id WHERE v.modality = i.modality "
        "ORDER BY path, s.name, ordinal",
    ):
        found[row[0]] = (*found.get(row[0], (row[1:12],)), row[12:])
    return found


# ---- round trips -------------------------------------------------------------------------------

numbers = st.integers(0, 2**40)
seconds = st.floats(0, 1e6, allow_nan=False)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
facts = st.builds(
    Facts,
    st.none() | st.datetimes().map(lambda when: when.replace(microsecond=0).isoformat()),
    st.none() | st.just("Made Up X-100"),
    st.just(12.5),
    st.floats(-180, 180),
)
maybe = [st.none() | kind for kind in (seconds, seconds, numbers, numbers, words)]
places = st.builds(Place, *maybe)
names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"\0/") and name not in (b".", b"..")
)
SUFFIXES = {Modality.IMAGE: b".jpg", Modality.AUDIO: b".wav", Modality.TEXT: b".txt"}


@st.composite
def items(draw: st.DrawFn) -> list[ItemRecord]:
    """Items of all kinds, with names that need not be text."""
    records = []
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for name in draw(st.lists(names, min_size=1, max_size=6, unique=True)):
        modality = draw(st.sampled_from(Modality))
        parts = draw(st.lists(places, min_size=1, max_size=3))
        path = b"/nowhere/at all/" + name + SUFFIXES[modality]
        record = make_record(path, unit_rows(rng, len(parts), DIM), modality=modality, places=parts)
        records.append(
            replace(
                record,
                fingerprint=Fingerprint(draw(numbers), draw(st.integers(-(2**60), 2**60))),
                facts=draw(st.just(NO_FACTS) | facts),
                width=draw(st.none() | numbers),
                duration_s=draw(st.none() | seconds),
            )
        )
    return records


@pytest.mark.parametrize("format", leaving.FORMATS)
@pytest.mark.parametrize("dtype", leaving.DTYPES)
def test_out_and_in_again(
    format: str, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever an index holds, another one holds it after export and import, to the bit."""

    @settings(max_examples=10)
    @given(items())
    def same(records: list[ItemRecord]) -> None:
        folder = tmp_path_factory.mktemp("trip")
        filled(folder / "a", records)
        (left,) = out_of(folder / "a", folder / "out", format=format, dtype=dtype)
        assert left.count == sum(len(record.places) for record in records)
        brought = into(folder / "b", folder / "out", None)
        assert brought == Brought(added=len(records), missing=len(records))
        assert content(folder / "b") == content(folder / "a")
        before = rows_of(folder / "b")
        again = into(folder / "b", folder / "out", None)
        assert again == Brought(unchanged=len(records), missing=len(records))
        assert rows_of(folder / "b")["vectors"] == before["vectors"]

    same()


def test_parquet_as_others_read_it(tmp_path: Path) -> None:
    """The file is plain Parquet: lists of one length, its space in the metadata, paths as text."""
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 3, DIM)
    records = [
        make_record(b"/a/one.jpg", vectors[:1], taken_at="2024-05-31T18:04:00", lat=1.0, lon=2.0),
        make_record(
            b"/a/\xff.txt",
            vectors[1:],
            modality=Modality.TEXT,
            places=[Place(line=1, text="eins"), Place(line=4, text="zwei")],
        ),
    ]
    filled(tmp_path / "a", records)
    (left,) = out_of(tmp_path / "a", tmp_path / "out", dtype="float32")
    assert [file.name for file in left.files] == ["made-up_space_1-ea9b3309.parquet"]
    table = pq.read_table(left.files[0])
    assert table.schema.metadata[b"anyseek.space"] == SPACE.encode()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIM)
    read = table.to_pydict()
    assert read["path"] == ["/a/one.jpg", None, None]
    assert read["path_bytes"] == [None, b"/a/\xff.txt", b"/a/\xff.txt"]
    assert read["part"] == [0, 0, 1]
    assert read["text"] == [None, "eins", "zwei"]
    assert read["line"] == [None, 1, 4]
    assert read["lat"] == [1.0, None, None]
    assert read["content_hash"][0] == content_hash(b"/a/one.jpg").hex()
    np.testing.assert_array_equal(
        np.array(read["vector"], np.float32), vectors.astype(np.float16).astype(np.float32)
    )


def test_npy_as_others_read_it(tmp_path: Path) -> None:
    """The array is what numpy loads, and line ``n`` is of row ``n``."""
    vectors = unit_rows(np.random.default_rng(0), 4, DIM)
    filled(tmp_path / "a", [make_record(b"/%d.jpg" % i, vectors[i : i + 1]) for i in range(4)])
    (left,) = out_of(tmp_path / "a", tmp_path / "out", format="npy")
    array, lines = left.files
    np.testing.assert_array_equal(np.load(array, allow_pickle=False), vectors.astype(np.float16))
    read = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(line["row"], line["path"]) for line in read] == [(i, f"/{i}.jpg") for i in range(4)]


def test_spaces_are_chosen(tmp_path: Path) -> None:
    """A file per space; an import takes those of its space, and asks where there are several."""
    rng = np.random.default_rng(0)
    index = tmp_path / "a"
    filled(index, [make_record(b"/a.jpg", unit_rows(rng, 1, DIM))], space="one")
    filled(index, [make_record(b"/a.jpg", unit_rows(rng, 1, DIM))], space="two")
    assert [one.space for one in out_of(index, tmp_path / "out")] == ["one", "two"]
    (left,) = out_of(index, tmp_path / "only", spaces=["two"])
    assert left.space == "two"
    with pytest.raises(ExchangeError, match="the index has no space three; it has one, two"):
        out_of(index, tmp_path / "only", spaces=["three"])
    with pytest.raises(ExchangeError, match=r"several spaces \(one, two\): give --model NAME"):
        into(tmp_path / "b", tmp_path / "out", None)
    found = choosing.sources(tmp_path / "out", tmp_path)
    for name in ("one", "two"):
        target, some = choosing.target(found, model=None, space=name, dim=None)
        assert target == Target(name, "made-up", DIM)
        with Store(tmp_path / "b", write=True) as store:
            bring(store, some, target)
    assert content(tmp_path / "b") == content(index)
    with pytest.raises(ExchangeError, match="of the space one, two, and not of anyseek-1-"):
        choosing.target(found, model="anyseek-1", space=None, dim=None)


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    """A file that is there stays, and a failure leaves nothing half-written."""
    index, out = tmp_path / "a", tmp_path / "out"
    filled(index, [make_record(b"/a.jpg", unit_rows(np.random.default_rng(0), 1, DIM))])
    (left,) = out_of(index, out)
    before = left.files[0].read_bytes()
    with pytest.raises(ExchangeError, match="is there already; replace it with --force"):
        out_of(index, out)
    filled(index, [make_record(b"/b.jpg", unit_rows(np.random.default_rng(1), 1, DIM))])

    def stop(done: int, total: int) -> None:
        raise OSError(28, os.strerror(28))

    for format in leaving.FORMATS:
        with pytest.raises(StorageError, match="No space left on device"):
            out_of(index, out, force=True, format=format, progress=stop)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {
            left.files[0].name: before
        }
    (again,) = out_of(index, out, force=True)
    assert again.count == 2
    assert [path.name for path in out.iterdir()] == [left.files[0].name]
    with pytest.raises(ExchangeError, match="is a file; name a folder"):
        out_of(index, left.files[0])


# ---- clip-retrieval ----------------------------------------------------------------------------


def clip(
    folder: Path,
    vectors: NDArray[Any],
    columns: dict[str, list[Any]],
    *,
    number: str = "0",
    kind: str = "img_emb",
) -> Path:
    """Writes a part of clip-retrieval's layout."""
    for name in (kind, "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / kind / f"{kind}_{number}.npy", vectors)
    pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def test_clip_retrieval(tmp_path: Path) -> None:
    """Pictures by their paths, captions by the text beside the picture, parts in numeric order."""
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 6, DIM)
    folder = tmp_path / "clip"
    for number, some in (("10", slice(0, 2)), ("9", slice(2, 3))):
        columns = {"image_path": [f"/p/{i}.png" for i in range(6)[some]]}
        columns["caption"] = [f"number {i}" for i in range(6)[some]]
        clip(folder, vectors[some].astype(np.float16), columns, number=number)
        clip(folder, vectors[3:][some].astype(np.float16), columns, number=number, kind="text_emb")
    assert into(tmp_path / "a", folder) == Brought(added=6, missing=6)
    found = content(tmp_path / "a")
    for i in range(3):
        ((modality, size, mtime_ns, digest, *_), part) = found[b"/p/%d.png" % i]
        assert (modality, size, mtime_ns, digest) == ("image", 0, 0, "")
        assert part[-1] == vectors[i].astype("<f2").tobytes()
        ((modality, *_), part) = found[b"/p/%d.txt" % i]
        assert (modality, part[4:6]) == ("text", (1, f"number {i}"))
    texts = {i: found[b"/p/%d.txt" % i][1][-1] for i in range(3)}
    assert texts[0] == vectors[3].astype("<f2").tobytes()
    assert texts[2] == vectors[5].astype("<f2").tobytes()


def test_relative_paths(tmp_path: Path) -> None:
    """They begin at the root and stay below it; links of folders are resolved as by a walk."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    vectors = unit_rows(np.random.default_rng(0), 2, DIM)
    folder = clip(tmp_path / "clip", vectors, {"image_path": ["link/a.jpg", "./b/c.jpg"]})
    into(tmp_path / "a", folder)
    root = os.fsencode(tmp_path)
    assert set(content(tmp_path / "a")) == {root + b"/real/a.jpg", root + b"/b/c.jpg"}
    for path, reason in (
        ("../b.jpg", "leads out of"),
        ("b/../../c.jpg", "leads out of"),
        ("b/", "is no path of a file"),
        ("", "is no path of a file"),
        ("b\0.jpg", "is no path of a file"),
        (None, "is no path of a file"),
        ("/a.wav", "is audio by its name, not image"),
        ("/a.xyz", "'/a.xyz' should be image, and is no such file by its name; leave it out"),
    ):
        clip(folder, vectors, {"image_path": ["ok.jpg", path]})
        with pytest.raises(ExchangeError, match=f"img_emb_0.npy row 1: .*{reason}"):
            into(tmp_path / "a", folder)
    clip(folder, vectors, {"image_path": ["ok.jpg", "000000012"]})  # the key of a sample
    assert into(tmp_path / "b", folder).added == 2


# ---- what is refused ---------------------------------------------------------------------------


def test_bad_vectors_are_refused(tmp_path: Path) -> None:
    """The row is named, whatever is wrong with it, and nothing is written, not even the space."""
    good = unit_rows(np.random.default_rng(0), 1500, DIM).astype(np.float64)
    paths = [f"/p/{i}.jpg" for i in range(1500)]
    Store(tmp_path / "a", write=True).close()
    before = rows_of(tmp_path / "a")
    for value, reason in (
        (np.nan, "its vector is not finite"),
        (np.inf, "its vector is not finite"),
        (0.0, "its vector is zero, and points nowhere"),
        (good[1400] * 1.02, "its vector has length 1.02, not 1; --normalise scales all"),
        (good[1400] * 1e200, "its vector is not finite|its vector has length 1e"),
    ):
        rows = good.copy()
        rows[1400] = value
        folder = clip(tmp_path / "clip", rows, {"image_path": paths})
        with pytest.raises(
            ExchangeError, match=rf"img_emb_0.npy row 1400 \(/p/1400.jpg\): ({reason})"
        ):
            into(tmp_path / "a", folder)
        assert rows_of(tmp_path / "a") == before
    rows[1400] = good[1400] * 1.009
    clip(tmp_path / "clip", rows, {"image_path": paths})
    assert into(tmp_path / "a", folder).added == 1500
    clip(tmp_path / "clip", rows * 7, {"image_path": paths})
    assert into(tmp_path / "b", folder, normalise=True).added == 1500
    stored = np.frombuffer(content(tmp_path / "b")[b"/p/1400.jpg"][1][-1], "<f2")
    np.testing.assert_array_equal(stored, good[1400].astype(np.float32).astype(np.float16))


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    """Counts, dimensions, types and paths that come twice."""
    good = unit_rows(np.random.default_rng(0), 3, DIM)
    paths = ["/a.jpg", "/b.jpg", "/c.jpg"]
    folder = tmp_path / "clip"

    def refused(reason: str, vectors: NDArray[Any], columns: dict[str, list[Any]]) -> None:
        clip(folder, vectors, columns)
        with pytest.raises(ExchangeError, match=reason):
            into(tmp_path / "a", folder)

    refused(
        "has 3 rows and .*metadata_0.parquet 2: row 2 has nothing", good, {"image_path": paths[:2]}
    )
    refused("has 2 rows and .*metadata_0.parquet 3: row 2 has", good[:2], {"image_path": paths})
    refused("has no column 'image_path'; it has url", good, {"url": paths})
    refused(
        "row 0: its vector has 4 numbers, and those of the space",
        good[:, :4],
        {"image_path": paths},
    )
    refused("holds int64, and vectors are float16", good.astype(np.int64), {"image_path": paths})
    refused("holds an array of shape \\(24,\\)", good.reshape(-1), {"image_path": paths})
    refused("cannot be read as an array", np.array([{}, print], object), {"image_path": paths})
    refused(
        r"row 2 \(/a.jpg\): '/a.jpg' comes a second time, after .*row 0",
        good,
        {"image_path": ["/a.jpg", "/b.jpg", "/a.jpg"]},
    )
    refused("comes a second time", good, {"image_path": ["/b.jpg", "/b.jpg", "/a.jpg"]})
    clip(folder, good, {"image_path": paths})
    clip(folder, good, {"image_path": paths}, number="1")
    with pytest.raises(ExchangeError, match=r"img_emb_1.npy row 0 .* comes a second time"):
        into(tmp_path / "a", folder)
    (folder / "img_emb" / "img_emb_1.npy").unlink()
    with pytest.raises(ExchangeError, match=r"metadata_1.parquet has no img_emb_1.npy"):
        into(tmp_path / "a", folder)
    (folder / "metadata" / "metadata_1.parquet").unlink()
    data = (folder / "img_emb" / "img_emb_0.npy").read_bytes()
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(data[:-8])
    with pytest.raises(ExchangeError, match="cannot be read as an array"):
        into(tmp_path / "a", folder)
    (folder / "metadata" / "metadata_0.parquet").write_bytes(b"PAR1 and nothing more")
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(data)
    with pytest.raises(ExchangeError, match="cannot be read as Parquet"):
        into(tmp_path / "a", folder)
    assert not (tmp_path / "a").exists() or content(tmp_path / "a") == {}


OTHERWISE = "it is damaged, cut short or of another kind; write or copy it again"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a, or anything else",
        b"PK\x03\x04" + bytes(40),  # as of a file of several arrays
        b"\x80\x04N.",  # a pickle
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        b"\x93NUMPY\x01\x00\x08\x00({[\n\n\n\n\n",
        b"\x93NUMPY\x01\x00\x08\x00{'a': }\n",
        b"\x93NUMPY\x01\x00\x3e\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 9)}".ljust(61)
        + b"\n",
        b"PAR1",
        b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1",
    ],
)
@pytest.mark.parametrize(("suffix", "kind"), [("npy", "an array of NumPy"), ("parquet", "Parquet")])
def test_files_that_are_something_else(tmp_path: Path, data: bytes, suffix: str, kind: str) -> None:
    """One line with the file and what it should be, in our words and not in a library's."""
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(data)
    with pytest.raises(ExchangeError) as caught:
        choosing.sources(file, tmp_path)
    assert str(caught.value) == f"{file} cannot be read as {kind}: {OTHERWISE}"


def test_an_array_that_cannot_be_opened(tmp_path: Path) -> None:
    """The system's own words say why."""
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(ExchangeError) as caught:
        choosing.sources(tmp_path, tmp_path)
    assert str(caught.value) == f"{tmp_path}/a.npy cannot be read: Is a directory"


def test_paths_that_are_no_text(tmp_path: Path) -> None:
    """A column of text may hold anything, if another program wrote it."""
    paths = pa.Array.from_buffers(
        pa.string(),
        1,
        [None, pa.py_buffer(bytes((0, 0, 0, 0, 2, 0, 0, 0))), pa.py_buffer(b"\xff/")],
    )
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"path": paths, "vector": [[1.0, 0.0]]}), file)
    (source,) = choosing.sources(file, tmp_path)
    with pytest.raises(ExchangeError) as caught:
        list(source.chunks())
    assert str(caught.value) == f"{file} cannot be read as Parquet: {OTHERWISE}"


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[::-1],
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:2], lines[2].replace('"row": 2', '"row": 3'), lines[3]],
        lambda lines: [*lines[:3], "{"],
        lambda lines: [*lines[:3], "[" * 100_000],
        lambda lines: [*lines[:3], lines[3].replace("made-up/space 1", "another")],
        lambda lines: [*lines[:3], lines[3].replace('"width": 640', '"width": -1')],
        lambda lines: [*lines[:3], lines[3].replace('"width": 640', '"width": true')],
        lambda lines: [*lines[:3], lines[3].replace('"width": 640', '"width": 1e999')],
        lambda lines: [*lines[:3], lines[3].replace('"width": 640', '"lat": 5.0')],
        lambda lines: [*lines[:3], lines[3].replace('"width": 640', '"taken_at": "today"')],
        lambda lines: [*lines[:3], lines[3].replace('"width": 640', '"camera": "a\\nb"')],
        lambda lines: [*lines[:3], lines[3].replace('_hash": "', '_hash": "00')],
        lambda lines: [*lines[:3], lines[3].replace('"image"', '"smell"')],
        lambda lines: [*lines[:3], lines[3].replace("/3.jpg", "/3.wav")],
    ],
)
def test_lines_that_do_not_fit(tmp_path: Path, change: Any) -> None:
    """An array and lines that were not written together, or say what cannot be."""
    vectors = unit_rows(np.random.default_rng(0), 4, DIM)
    filled(tmp_path / "a", [make_record(b"/%d.jpg" % i, vectors[i : i + 1]) for i in range(4)])
    (left,) = out_of(tmp_path / "a", tmp_path / "out", format="npy")
    lines = left.files[1].read_text().splitlines()
    assert change(lines) != lines
    left.files[1].write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(ExchangeError, match=r"row \d"):
        into(tmp_path / "b", tmp_path / "out")
    assert content(tmp_path / "b") == {}


def test_an_array_of_another_export(tmp_path: Path) -> None:
    """As many rows of the same length are not enough: each line knows its vector."""
    for seed, name in enumerate("ab"):
        vectors = unit_rows(np.random.default_rng(seed), 4, DIM)
        records = [make_record(b"/%d.jpg" % i, vectors[i : i + 1]) for i in range(4)]
        filled(tmp_path / name, records)
        (left,) = out_of(tmp_path / name, tmp_path / f"out{name}", format="npy")
    (tmp_path / "outa" / left.files[0].name).write_bytes(left.files[0].read_bytes())
    with pytest.raises(ExchangeError, match=r"jsonl row 0: is not of row 0 of .*\.npy; the two"):
        into(tmp_path / "c", tmp_path / "outa")


def test_a_flipped_bit_in_parquet(tmp_path: Path) -> None:
    """Pages have checksums: what the disk changed is not taken for a vector."""
    vectors = unit_rows(np.random.default_rng(0), 500, DIM)
    filled(tmp_path / "a", [make_record(b"/%d.jpg" % i, vectors[i : i + 1]) for i in range(500)])
    (left,) = out_of(tmp_path / "a", tmp_path / "out")
    data = bytearray(left.files[0].read_bytes())
    column = pq.ParquetFile(left.files[0]).metadata.row_group(0).column(20)
    assert column.path_in_schema.startswith("vector")
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    left.files[0].write_bytes(data)
    with pytest.raises(ExchangeError, match="cannot be read as Parquet"):
        into(tmp_path / "b", tmp_path / "out")


def test_parquet_of_others(tmp_path: Path) -> None:
    """Two columns are enough; lists must have one length and no empty place."""
    vectors = unit_rows(np.random.default_rng(0), 2, DIM)
    file = tmp_path / "x.parquet"

    def write(lists: list[Any], **more: list[Any]) -> None:
        kind = pa.list_(pa.float32())
        pq.write_table(
            pa.table({"path": ["/a.jpg", "/b.mp3"], "vector": pa.array(lists, kind), **more}), file
        )

    write([row.tolist() for row in vectors], width=[float("nan"), 5.0])
    assert into(tmp_path / "a", file) == Brought(added=2, missing=2)
    found = content(tmp_path / "a")
    assert found[b"/b.mp3"][0][0] == "audio"
    assert found[b"/b.mp3"][0][4] == 5
    assert found[b"/a.jpg"][0][4] is None
    write([vectors[0].tolist(), vectors[1, :5].tolist()])
    with pytest.raises(ExchangeError, match=r"x.parquet row 1: its vector has 5 numbers, not 8"):
        into(tmp_path / "a", file)
    write([vectors[0].tolist(), None])
    with pytest.raises(ExchangeError, match=r"x.parquet row 1: its vector has 0 numbers, not 8"):
        into(tmp_path / "a", file)
    write([vectors[0].tolist(), [None, *vectors[1, 1:].tolist()]])
    with pytest.raises(ExchangeError, match=r"x.parquet row 1: its vector has an empty place"):
        into(tmp_path / "a", file)
    with pytest.raises(ExchangeError, match="which model made these vectors"):
        into(tmp_path / "a", file, None)
    write([row.tolist() for row in vectors])
    with pytest.raises(ExchangeError, match=r"row 1 .*: is audio, which made-up does not embed"):
        into(tmp_path / "a", file, replace(TARGET, modalities=(Modality.IMAGE,)))
    pq.write_table(pa.table({"path": ["/a.jpg"], "vector": [[1, 0]]}), file)
    with pytest.raises(ExchangeError, match="holds int64"):
        into(tmp_path / "a", file)
    (tmp_path / "empty").mkdir()
    for path, reason in (("empty", "nothing to import"), ("gone", "no file or folder at")):
        with pytest.raises(ExchangeError, match=reason):
            into(tmp_path / "a", tmp_path / path)


# ---- files that are there ----------------------------------------------------------------------


def draw(path: Path, colour: str) -> None:
    """Draws a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def run(index: Path, *roots: Path, space: str = "colours-1") -> tuple[int, int, int, int, int]:
    """Indexes folders; gives what was added, updated, renamed, removed, and what was embedded."""
    encoder = colour_encoder(space)
    with Store(index, write=True) as store:
        done = pipeline.index(store, encoder, roots_of(roots), workers=1)
    embedded = sum(tower.embedded for tower in encoder.towers.values())  # type: ignore[attr-defined]
    return done.added, done.updated, done.renamed, done.removed, embedded


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, indexed as ``a`` and exported to ``out``."""
    for name, colour in (("r", "red"), ("g", "green"), ("b", "blue")):
        draw(tmp_path / "photos" / f"{name}.png", colour)
    run(tmp_path / "a", tmp_path / "photos")
    out_of(tmp_path / "a", tmp_path / "out")
    return tmp_path / "photos"


@pytest.mark.parametrize("read", [True, False])
def test_what_came_in_counts_as_indexed(photos: Path, tmp_path: Path, read: bool) -> None:
    """The next run embeds nothing, and the two indexes hold the same."""
    assert into(tmp_path / "b", tmp_path / "out", None, read=read) == Brought(added=3)
    assert run(tmp_path / "b", photos) == (0, 0, 0, 0, 0)
    assert content(tmp_path / "b") == content(tmp_path / "a")


@pytest.mark.parametrize("read", [True, False])
def test_touched_and_changed_files(photos: Path, tmp_path: Path, read: bool) -> None:
    """A new time alone costs no embedding; a new content costs one, even at the old time."""
    os.utime(photos / "r.png", (5, 5))
    stat = (photos / "g.png").stat()
    draw(photos / "g.png", "yellow")
    os.utime(photos / "g.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (photos / "g.png").stat().st_size == stat.st_size
    brought = into(tmp_path / "b", tmp_path / "out", None, read=read)
    assert brought == Brought(added=3, changed=1 if read else 0)
    if read:  # unread, a content at its old size and time is the one that was embedded
        assert into(tmp_path / "b", tmp_path / "out", None) == Brought(unchanged=3, changed=1)
        assert run(tmp_path / "b", photos) == (0, 1, 0, 0, 1)
        run(tmp_path / "fresh", photos)
        assert content(tmp_path / "b") == content(tmp_path / "fresh")
    else:
        assert run(tmp_path / "b", photos) == (0, 0, 0, 0, 0)


def test_files_that_are_not_there(photos: Path, tmp_path: Path) -> None:
    """They outlive a run over another folder, are found elsewhere, and vanish like any other."""
    photos.rename(tmp_path / "moved")
    assert into(tmp_path / "b", tmp_path / "out", None) == Brought(added=3, missing=3)
    draw(tmp_path / "others" / "w.png", "white")
    assert run(tmp_path / "b", tmp_path / "others") == (1, 0, 0, 0, 1)
    assert len(content(tmp_path / "b")) == 4
    (tmp_path / "moved" / "b.png").unlink()
    assert run(tmp_path / "b", tmp_path / "moved") == (0, 0, 2, 0, 0)
    assert os.fsencode(photos / "b.png") in content(tmp_path / "b")
    photos.mkdir()
    assert run(tmp_path / "b", photos) == (0, 0, 0, 1, 0)


def test_clip_retrieval_of_files_that_are_there(photos: Path, tmp_path: Path) -> None:
    """Read, they have a digest and count as indexed; another model's vectors come beside."""
    paths = [str(path) for path in sorted(photos.iterdir())]
    vectors = unit_rows(np.random.default_rng(0), 3, DIM)
    folder = clip(tmp_path / "clip", vectors, {"image_path": paths})
    for index, read in (("b", True), ("c", False)):
        brought = into(tmp_path / index, folder, read=read)
        assert brought == Brought(added=3)
        assert run(tmp_path / index, photos, space=SPACE) == (0, 0, 0, 0, 0)
        assert run(tmp_path / index, photos) == (0, 3, 0, 0, 3)
        for path in paths:
            head, mine, other = content(tmp_path / index)[os.fsencode(path)]
            assert head[3] == content_hash(Path(path).read_bytes()).hex().upper()
            assert {mine[-2], other[-2]} == {"colours-1", SPACE}
    # into an index that has them: both spaces side by side, and what was known is still known
    before = content(tmp_path / "a")
    assert into(tmp_path / "a", folder, read=False) == Brought(updated=3)
    after = content(tmp_path / "a")
    assert {path: (one[0], one[1]) for path, one in after.items()} == before


def test_parts_of_another_space_are_not_lost(tmp_path: Path) -> None:
    """An item in two parts keeps its vectors: one that comes in one part is refused."""
    rng = np.random.default_rng(0)
    filled(tmp_path / "a", [make_record(b"/a.jpg", unit_rows(rng, 2, DIM))], space="other")
    before = rows_of(tmp_path / "a")
    folder = clip(tmp_path / "clip", unit_rows(rng, 1, DIM), {"image_path": ["/a.jpg"]})
    with pytest.raises(ExchangeError, match=r"comes in 1 part\(s\), and the index has it in 2"):
        into(tmp_path / "a", folder)
    assert rows_of(tmp_path / "a") == before


def test_similar_without_the_model(photos: Path, tmp_path: Path) -> None:
    """Files that are in the index find each other by what came in."""
    paths = [str(path) for path in sorted(photos.iterdir())]
    vectors = np.eye(DIM, dtype=np.float32)[:3]
    vectors[2] = np.float32(0.6) * vectors[0] + np.float32(0.8) * vectors[2]
    into(tmp_path / "b", clip(tmp_path / "clip", vectors, {"image_path": paths}))
    with Store(tmp_path / "b") as store:
        searcher = Spaces(store)
        wanted = searcher.wanted_like(Path(paths[0]), Wanted(3))
        hits = searcher.answer(searcher.like(Path(paths[0])), wanted).hits
    assert [os.fsdecode(hit.path) for hit in hits] == [paths[2], paths[1]]
    assert hits[0].score == pytest.approx(0.6, abs=1e-3)


# ---- large, killed, full, two at once ----------------------------------------------------------

MANY = """
import resource, sys
from pathlib import Path
import numpy as np
from retrieval.exchange import choosing
from retrieval.exchange.bringing import Target, bring
from retrieval.exchange.leaving import leave
from retrieval.store import Store
folder, out = map(Path, sys.argv[1:])
with Store(folder / "index.db", write=True) as store:
    found = choosing.sources(folder, folder)
    print(bring(store, found, Target("s", "m", 512)).added)
with Store(folder / "index.db") as store:
    print(leave(store, out)[0].count)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number(tmp_path: Path) -> None:
    """Five times as many items go in and out in hardly more memory."""
    peaks = []
    for count in (3_000, 15_000):
        folder = tmp_path / str(count)
        vectors = unit_rows(np.random.default_rng(0), count, 512).astype(np.float16)
        clip(folder, vectors, {"image_path": [f"/nowhere/{i:07}.jpg" for i in range(count)]})
        done = subprocess.run(
            [sys.executable, "-c", MANY, folder, tmp_path / f"out{count}"],
            check=True,
            capture_output=True,
            text=True,
        )
        added, left, peak_mb = map(int, done.stdout.split())
        assert (added, left) == (count, count)
        peaks.append(peak_mb)
    # 12 MB more are mapped, and two of SQLite's caches of pages, one each for the way in and out,
    # end at 32 MB each; rows held as lists of Python's numbers would be 200 MB more
    assert peaks[1] < peaks[0] + 12 + 2 * 32 + 20


KILLED = """
import os, sys
from pathlib import Path
from retrieval.exchange import bringing, choosing
from retrieval.store import Store
bringing.COMMIT_ITEMS = 10
write, left = Store.write, int(sys.argv[2])
def dying(self, batch, space):
    global left
    left -= 1
    if left < 0:
        with self._engine.begin() as connection:
            from retrieval.store.writing import apply
            apply(connection, batch, space)
            os.kill(os.getpid(), 9)
    write(self, batch, space)
Store.write = dying
folder = Path(sys.argv[1])
with Store(folder / "index.db", write=True) as store:
    bringing.bring(store, choosing.sources(folder, folder), bringing.Target("s", "m", 8))
"""


def test_killed(tmp_path: Path) -> None:
    """A killed import leaves whole batches, and the same import completes them."""
    for name in ("killed", "whole"):
        vectors = unit_rows(np.random.default_rng(0), 95, DIM)
        clip(tmp_path / name, vectors, {"image_path": [f"/nowhere/{i}.jpg" for i in range(95)]})
    for batches in (3, 4):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path / "killed", str(batches)], capture_output=True
        )
        assert done.returncode == -9
        # what is there already is passed over, in empty batches
        index = tmp_path / "killed" / "index.db"
        assert len(content(index)) == batches * 10
        assert check(index).findings == ()
    target = Target("s", "m", DIM)
    assert into(index, tmp_path / "killed", target) == Brought(added=55, unchanged=40, missing=95)
    into(tmp_path / "whole" / "index.db", tmp_path / "whole", target)
    assert content(index) == content(tmp_path / "whole" / "index.db")


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends an import with a clear message; with space, it completes."""
    monkeypatch.setattr(bringing, "COMMIT_ITEMS", 20)
    count = 400
    vectors = unit_rows(np.random.default_rng(0), count, DIM)
    paths = [f"/nowhere/{i}{'x' * 150}.jpg" for i in range(count)]
    folder = clip(tmp_path / "clip", vectors, {"image_path": paths})
    index = tmp_path / "index.db"
    with Store(index, write=True) as store:
        with store._engine.connect() as connection:
            used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {used + 5}")
            connection.rollback()
        with pytest.raises(StorageError, match="is full: free some space and run the same"):
            bring(store, choosing.sources(folder, folder), TARGET)
    kept = len(content(index))
    assert 0 < kept < count
    assert kept % 20 == 0
    assert check(index).findings == ()
    assert into(index, folder) == Brought(added=count - kept, unchanged=kept, missing=count)


def test_two_imports_at_once(tmp_path: Path) -> None:
    """The second waits for the first; both are in."""
    command = [sys.executable, "-c", "from cli.app import main; main()", "import"]
    running = []
    for number in range(2):
        vectors = unit_rows(np.random.default_rng(number), 200, DIM)
        paths = [f"/nowhere/{number}/{i}.jpg" for i in range(200)]
        folder = clip(tmp_path / str(number), vectors, {"image_path": paths})
        some = [str(folder), "--space", "s", "--dim", "8", "--index", str(tmp_path / "index.db")]
        running.append(
            subprocess.Popen([*command, *some], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    for process in running:
        out, _ = process.communicate()
        assert (process.returncode, out) == (0, b"200 added, 0 updated, 0 unchanged in s\n")
    assert len(content(tmp_path / "index.db")) == 400
    assert check(tmp_path / "index.db").findings == ()
