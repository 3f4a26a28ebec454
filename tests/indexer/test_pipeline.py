"""Indexing real folders into real files, with an encoder of colours."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import indexer.pipeline as pipeline
import retrieval.index
from indexer.report import Progress, Report
from indexer.scan import Skipped, roots_of
from retrieval import media
from retrieval.errors import StorageError
from retrieval.search import Searcher, Wanted
from retrieval.store import Batch, Space, Store
from retrieval.types import Encoder, Modality, Vectors
from tests.fakes import COLOURS, ColourTower, PitchTower, WordTower, colour_encoder
from tests.indexer import inside

NOBODY = 65534
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where waiting for a disk is moot


class Desk:
    """A folder, an index and an encoder, with short words for what tests do with them."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.root.mkdir()
        self.index = base / "index.db"
        self.encoder = colour_encoder()
        self._clock = 10**18

    def tick(self) -> int:
        """Gives a time that no file had yet, in nanoseconds."""
        self._clock += 10**9
        return self._clock

    def draw(self, name: str, seed: int) -> Path:
        """Writes a picture; all have the same size in bytes."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        inside.draw(path, seed, mtime_ns=self.tick())
        return path

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, ns=(self.tick(),) * 2)
        return path

    def run(self, *roots: Path, encoder: Encoder | None = None, **options: Any) -> Report:
        """Indexes, and checks that the index agrees with itself."""
        with Store(self.index, write=True) as store:
            report = pipeline.index(
                store, encoder or self.encoder, roots_of(roots or [self.root]), **options
            )
        inside.check(self.index)
        return report

    @property
    def embedded(self) -> int:
        """Counts the parts that were embedded since the last look."""
        total = 0
        for tower in self.encoder.towers.values():
            assert isinstance(tower, ColourTower | PitchTower | WordTower)
            total += tower.embedded
            tower.embedded = 0
        return total

    def items(self) -> dict[str, inside.Item]:
        """Reads the items by their paths below the folder."""
        prefix = os.fsencode(self.root) + b"/"
        return {os.fsdecode(p.removeprefix(prefix)): i for p, i in inside.items(self.index).items()}

    def ids(self) -> dict[str, int]:
        """Reads the row ids of the items."""
        prefix = os.fsencode(self.root) + b"/"
        return {os.fsdecode(p.removeprefix(prefix)): i for p, i in inside.ids(self.index).items()}

    def fresh(self) -> dict[str, inside.Item]:
        """Reads the items of an index made anew from the same folder."""
        with tempfile.TemporaryDirectory(dir=QUICK) as folder:
            other = Path(folder) / "fresh.db"
            with Store(other, write=True) as store:
                pipeline.index(store, colour_encoder(), roots_of([self.root]))
            prefix = os.fsencode(self.root) + b"/"
            return {
                os.fsdecode(path.removeprefix(prefix)): item
                for path, item in inside.items(other).items()
            }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Gives an empty folder without an index."""
    return Desk(tmp_path)


def counts(report: Report) -> dict[str, int]:
    """Gives the counts that are not 0."""
    names = ("added", "updated", "renamed", "removed", "unchanged", "left_out")
    found = {name: getattr(report, name) for name in names} | {"failed": len(report.failed)}
    return {name: count for name, count in found.items() if count}


def reasons(desk: Desk, report: Report) -> dict[str, str]:
    """Gives the reasons of failures by path below the folder."""
    prefix = os.fsencode(desk.root) + b"/"
    assert len({skipped.path for skipped in report.failed}) == len(report.failed)
    return {os.fsdecode(s.path.removeprefix(prefix)): s.reason for s in report.failed}


class ForbiddenTower:
    """A tower that nobody may use."""

    side_px = None
    rate_hz = None

    def prepare(self, content: Any) -> Any:
        """Fails."""
        raise AssertionError("nothing is to be prepared")

    def embed(self, batch: Sequence[Any]) -> Vectors:
        """Fails."""
        raise AssertionError("nothing is to be embedded")


FORBIDDEN = replace(
    colour_encoder(), towers=dict.fromkeys((Modality.IMAGE, Modality.TEXT), ForbiddenTower())
)


# ---- one change at a time ----------------------------------------------------------------------


def test_first_run(desk: Desk) -> None:
    """Every item has the fingerprint, hash, size, places and vectors of its file."""
    picture = desk.root / "deep" / "wide.png"
    picture.parent.mkdir()
    Image.new("RGB", (30, 20), COLOURS["red"]).save(picture)
    desk.draw("b.bmp", 1)
    text = desk.write("c.txt", "The sea is blue.\n\nThe grass is green.")
    desk.write("d.zip", "nothing of ours")
    assert counts(desk.run()) == {"added": 3}
    assert desk.embedded == 3

    items = desk.items()
    assert set(items) == {"deep/wide.png", "b.bmp", "c.txt"}
    stat = picture.stat()
    red = colour_encoder().towers[Modality.TEXT].embed(["red"])[0]
    assert items["deep/wide.png"] == inside.Item(
        "image",
        stat.st_size,
        stat.st_mtime_ns,
        hashlib.blake2b(picture.read_bytes(), digest_size=16).digest(),
        (30, 20),
        (None,),
        (red.astype("<f2").tobytes(),),
    )
    words = "The sea is blue. The grass is green."
    both = colour_encoder().towers[Modality.TEXT].embed(["blue green"])[0]
    assert items["c.txt"].texts == (words,)
    assert items["c.txt"].vectors == (both.astype("<f2").tobytes(),)
    assert (
        items["c.txt"].content_hash == hashlib.blake2b(text.read_bytes(), digest_size=16).digest()
    )
    assert inside.generation(desk.index) == 1


def test_second_run_does_nothing(desk: Desk) -> None:
    """Nothing is prepared, embedded, written or even announced."""
    for seed in range(5):
        desk.draw(f"{seed}.bmp", seed)
    desk.write("a.txt", "red")
    desk.run()
    before = desk.items(), desk.ids(), inside.generation(desk.index)
    told: list[int] = []
    report = desk.run(encoder=FORBIDDEN, progress=Progress(told.append, told.append))
    assert counts(report) == {"unchanged": 6}
    assert (desk.items(), desk.ids(), inside.generation(desk.index)) == before
    assert told == []


def test_changed(desk: Desk) -> None:
    """Only the changed file is read and embedded again."""
    for seed in range(3):
        desk.draw(f"{seed}.bmp", seed)
    desk.run()
    assert desk.embedded == 3
    before = desk.items()
    desk.draw("1.bmp", 11)
    assert counts(desk.run()) == {"updated": 1, "unchanged": 2}
    assert desk.embedded == 1
    after = desk.items()
    assert after == desk.fresh()
    assert after["1.bmp"].vectors != before["1.bmp"].vectors
    assert {name for name in after if after[name] != before[name]} == {"1.bmp"}


def test_touched(desk: Desk) -> None:
    """A new time with the same content is noted without embedding."""
    path = desk.draw("a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.run()
    ids = desk.ids()
    os.utime(path, ns=(5, 5))
    assert counts(desk.run(encoder=FORBIDDEN)) == {"unchanged": 2}
    assert desk.items()["a.bmp"].mtime_ns == 5
    assert desk.ids() == ids
    assert inside.generation(desk.index) == 2
    desk.run(encoder=FORBIDDEN)
    assert inside.generation(desk.index) == 2


@pytest.mark.parametrize("target", ["0.bmp", "z.bmp", "before/a.bmp", "zz/a.bmp"])
def test_renamed(desk: Desk, target: str) -> None:
    """A rename or a move keeps item and vectors, whether the new path sorts before or after."""
    path = desk.draw("m/a.bmp", 1)
    desk.draw("m/b.bmp", 2)
    desk.run()
    ids = desk.ids()
    (desk.root / target).parent.mkdir(exist_ok=True)
    path.rename(desk.root / target)
    assert counts(desk.run(encoder=FORBIDDEN)) == {"renamed": 1, "unchanged": 1}
    assert desk.ids() == {target: ids["m/a.bmp"], "m/b.bmp": ids["m/b.bmp"]}
    assert desk.items() == desk.fresh()


def test_renamed_folder(desk: Desk) -> None:
    """A renamed folder costs nothing but reading."""
    for seed in range(20):
        desk.draw(f"old/{seed}.bmp", seed)
    desk.write("old/text.txt", "red\n\n" * 300 + "blue")
    desk.run()
    ids = desk.ids()
    (desk.root / "old").rename(desk.root / "new")
    assert counts(desk.run(encoder=FORBIDDEN)) == {"renamed": 21}
    assert desk.ids() == {name.replace("old", "new"): id for name, id in ids.items()}
    assert desk.items() == desk.fresh()


def test_renamed_from_outside_the_root(desk: Desk, tmp_path: Path) -> None:
    """A file that came from a folder outside the scanned one keeps its item."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    inside.draw(inbox / "a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.run(desk.root, inbox)
    (inbox / "a.bmp").rename(desk.root / "a.bmp")
    assert counts(desk.run(encoder=FORBIDDEN)) == {"renamed": 1, "unchanged": 1}
    assert desk.items() == desk.fresh()


def test_swapped(desk: Desk) -> None:
    """Two files that swap names swap their vectors."""
    a, b = desk.draw("a.bmp", 1), desk.draw("b.bmp", 2)
    desk.run()
    before = desk.items()
    a.rename(desk.root / "c")
    b.rename(a)
    (desk.root / "c").rename(b)
    assert counts(desk.run()) == {"updated": 2}
    assert desk.items() == {"a.bmp": before["b.bmp"], "b.bmp": before["a.bmp"]}


def test_moved_up_by_one(desk: Desk) -> None:
    """A chain of renames, a to b and b to c, leaves each content at its new place."""
    a, b = desk.draw("a.bmp", 1), desk.draw("b.bmp", 2)
    desk.run()
    before = desk.items()
    b.rename(desk.root / "c.bmp")
    a.rename(b)
    desk.run()
    assert desk.items() == {"b.bmp": before["a.bmp"], "c.bmp": before["b.bmp"]}


def test_copied(desk: Desk) -> None:
    """A copy takes over the vectors; the original stays."""
    path = desk.write("a.txt", "red\n\n" * 300 + "blue " * 90)
    desk.run()
    for target in ("b.txt", "0/a.txt"):
        (desk.root / target).parent.mkdir(exist_ok=True)
        shutil.copy(path, desk.root / target)
    assert counts(desk.run(encoder=FORBIDDEN)) == {"added": 2, "unchanged": 1}
    items = desk.items()
    assert items == desk.fresh()
    assert items["a.txt"].vectors == items["b.txt"].vectors == items["0/a.txt"].vectors
    assert len(items["a.txt"].vectors) > 3


def test_copied_over_another(desk: Desk) -> None:
    """A file that is overwritten with a copy takes over the other's vectors."""
    a, b = desk.draw("a.bmp", 1), desk.draw("b.bmp", 2)
    desk.run()
    shutil.copy(a, b)
    os.utime(b, ns=(desk.tick(),) * 2)
    assert counts(desk.run(encoder=FORBIDDEN)) == {"updated": 1, "unchanged": 1}
    assert desk.items() == desk.fresh()


def test_emptied_file_is_forgotten(desk: Desk) -> None:
    """A file cut to nothing is listed, and no longer found by what it was."""
    desk.draw("a.bmp", 1).write_bytes(b"x")
    path = desk.draw("b.bmp", 2)
    desk.run()
    path.write_bytes(b"")
    assert reasons(desk, desk.run())["b.bmp"] == "is empty"
    assert desk.items() == desk.fresh() == {}


def test_copied_and_original_deleted(desk: Desk) -> None:
    """A copy whose original is gone is a rename; a second copy is a copy."""
    path = desk.draw("m.bmp", 1)
    desk.run()
    shutil.copy(path, desk.root / "a.bmp")
    shutil.copy(path, desk.root / "z.bmp")
    path.unlink()
    assert counts(desk.run(encoder=FORBIDDEN)) == {"renamed": 1, "added": 1}
    assert desk.items() == desk.fresh()


def test_replaced_by_rename(desk: Desk) -> None:
    """`mv a b` over an indexed b leaves one item, a's, at b's path."""
    a, b = desk.draw("a.bmp", 1), desk.draw("b.bmp", 2)
    desk.run()
    ids, before = desk.ids(), desk.items()
    a.rename(b)
    assert counts(desk.run(encoder=FORBIDDEN)) == {"renamed": 1}
    assert desk.items() == {"b.bmp": before["a.bmp"]}
    assert desk.ids() == {"b.bmp": ids["a.bmp"]}


def test_many_of_one_content(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files of one content are each looked at a few times, not once for every other one."""
    path = desk.draw("old/0.bmp", 1)
    for number in range(1, 100):
        shutil.copy(path, desk.root / "old" / f"{number}.bmp")
    desk.run()
    (desk.root / "old").rename(desk.root / "new")
    (desk.root / "more").mkdir()
    for number in range(100):
        shutil.copy(desk.root / "new" / "0.bmp", desk.root / "more" / f"{number}.bmp")
    looks = 0
    real_stat, real_lstat = os.stat, os.lstat

    def stat(*arguments: Any, **options: Any) -> os.stat_result:
        nonlocal looks
        looks += 1
        return real_stat(*arguments, **options)

    def lstat(*arguments: Any, **options: Any) -> os.stat_result:
        nonlocal looks
        looks += 1
        return real_lstat(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        patch.setattr(os, "lstat", lstat)
        assert counts(desk.run(encoder=FORBIDDEN)) == {"renamed": 100, "added": 100}
    assert looks < 200 * 10
    assert desk.items() == desk.fresh()


def test_renamed_to_another_kind(desk: Desk) -> None:
    """Content is read again under a name by which it is read in another way."""
    words = "<p>red</p><script>blue</script>"
    for name in ("a.txt", "b.html", "c.txt"):
        desk.write(name, words + name[0])
    desk.draw("d.bmp", 1)
    desk.draw("e.bmp", 2)
    desk.run()
    renames = {
        "a.txt": "a.html",
        "b.html": "b.txt",
        "c.txt": "c.TXT",
        "d.bmp": "d.jpeg",
        "e.bmp": "e.txt",
    }
    for old, new in renames.items():
        (desk.root / old).rename(desk.root / new)
    report = desk.run()
    assert counts(report) == {"added": 2, "renamed": 2, "removed": 3, "failed": 1}
    assert reasons(desk, report) == {"e.txt": "is binary data, not text"}
    items = desk.items()
    assert items["a.html"].texts == ("red a",)
    assert items["b.txt"].texts == (words + "b",)
    assert items == desk.fresh()


def test_vanished(desk: Desk) -> None:
    """Files and folders that are gone are forgotten, under the scanned root only."""
    other = desk.draw("other/c.bmp", 3)
    for seed in range(3):
        desk.draw(f"here/{seed}.bmp", seed + 10)
    desk.draw("here-not/d.bmp", 4)
    desk.draw("here.bmp", 5)
    desk.run()
    before = desk.items()
    other.unlink()
    (desk.root / "here.bmp").unlink()
    (desk.root / "here" / "0.bmp").unlink()
    shutil.rmtree(desk.root / "here-not")
    assert counts(desk.run(desk.root / "here", encoder=FORBIDDEN)) == {"removed": 1, "unchanged": 2}
    del before["here/0.bmp"]
    assert desk.items() == before
    shutil.rmtree(desk.root / "here")
    (desk.root / "here").mkdir()
    assert counts(desk.run(desk.root / "here", encoder=FORBIDDEN)) == {"removed": 2}
    assert counts(desk.run(encoder=FORBIDDEN)) == {"removed": 3}
    assert desk.items() == {}


def test_vanished_then_back(desk: Desk) -> None:
    """A file that comes back is new, under a new id."""
    path = desk.draw("a.bmp", 1)
    desk.run()
    ids = desk.ids()
    content = path.read_bytes()
    path.unlink()
    assert counts(desk.run()) == {"removed": 1}
    desk.write("a.bmp", content)
    assert counts(desk.run()) == {"added": 1}
    assert desk.ids()["a.bmp"] > ids["a.bmp"]


def test_roots(desk: Desk) -> None:
    """Several roots, a single file among them, are brought in step in one run."""
    a = desk.draw("a/1.bmp", 1)
    desk.draw("b/2.bmp", 2)
    desk.draw("b/3.bmp", 3)
    desk.draw("c/4.bmp", 4)
    report = desk.run(desk.root / "b" / "2.bmp", desk.root / "a")
    assert counts(report) == {"added": 2}
    assert set(desk.items()) == {"a/1.bmp", "b/2.bmp"}
    a.unlink()
    assert counts(desk.run(desk.root / "b", desk.root / "c")) == {"added": 2, "unchanged": 1}
    assert set(desk.items()) == {"a/1.bmp", "b/2.bmp", "b/3.bmp", "c/4.bmp"}


def test_names(desk: Desk) -> None:
    """Names with newline, quote, percent, emoji or bytes that are not UTF-8 are kept exactly."""
    names = [b"new\nline.bmp", b"'q\"uote.bmp", "🦊.bmp".encode(), b"\xff\xfe.bmp", b"100%_a.bmp"]
    for seed, name in enumerate(names):
        inside.draw(desk.root / "x", seed)
        (desk.root / "x").rename(desk.root / os.fsdecode(name))
    assert counts(desk.run()) == {"added": 5}
    prefix = os.fsencode(desk.root) + b"/"
    assert set(inside.items(desk.index)) == {prefix + name for name in names}
    assert counts(desk.run(encoder=FORBIDDEN)) == {"unchanged": 5}


# ---- spaces ------------------------------------------------------------------------------------


def test_second_space(desk: Desk) -> None:
    """A second encoder adds its vectors; the first one's stay, and neither is made twice."""
    desk.draw("a.bmp", 1)
    desk.write("b.txt", "red")
    desk.run()
    ids, before = desk.ids(), desk.items()
    second = colour_encoder("colours-2")
    assert counts(desk.run(encoder=second)) == {"updated": 2}
    assert desk.ids() == ids
    assert {name: item.vectors[:1] for name, item in desk.items().items()} == {
        name: item.vectors for name, item in before.items()
    }
    assert [len(item.vectors) for item in desk.items().values()] == [2, 2]
    for space in ("colours-1", "colours-2"):
        forbidden = replace(FORBIDDEN, space=space)
        assert counts(desk.run(encoder=forbidden)) == {"unchanged": 2}


def test_change_seen_by_the_second_space_only(desk: Desk) -> None:
    """New content drops the vectors that other spaces had of the old."""
    desk.draw("a.bmp", 1)
    desk.run()
    desk.draw("a.bmp", 2)
    assert counts(desk.run(encoder=colour_encoder("colours-2"))) == {"updated": 1}
    assert len(desk.items()["a.bmp"].vectors) == 1
    assert counts(desk.run()) == {"updated": 1}
    assert len(desk.items()["a.bmp"].vectors) == 2


def test_modality_that_the_model_lacks(desk: Desk) -> None:
    """Files that the encoder has no tower for are passed over, the others indexed."""
    desk.draw("a.bmp", 1)
    desk.write("b.txt", "red")
    towers = {Modality.IMAGE: desk.encoder.towers[Modality.IMAGE]}
    report = desk.run(encoder=replace(desk.encoder, towers=towers))
    assert counts(report) == {"added": 1, "left_out": 1}
    assert set(desk.items()) == {"a.bmp"}


# ---- bad files ---------------------------------------------------------------------------------


def test_failures(desk: Desk) -> None:
    """Each bad file is named with its reason, and the others are indexed."""
    good = desk.draw("good.bmp", 1).read_bytes()
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "PNG")
    desk.write("truncated.png", buffer.getvalue()[:2000])
    desk.write("empty.jpg", b"")
    desk.write("words.jpg", b"these are words")
    desk.write("binary.txt", bytes(range(256)))
    desk.write("blank.txt", " \n\t\n")
    desk.write("mislabelled.jpg", good + b"\0")  # a BMP under another name is still a picture
    desk.write("z.txt", "blue")
    (desk.root / "broken.jpg").symlink_to("nowhere.jpg")
    report = desk.run()
    assert counts(report) == {"added": 3, "failed": 6}
    why = reasons(desk, report)
    assert why.pop("truncated.png").startswith("is damaged or truncated (")
    assert why == {
        "empty.jpg": "is empty",
        "words.jpg": "is not a picture in a format that anyseek knows",
        "binary.txt": "is binary data, not text",
        "blank.txt": "holds no words",
        "broken.jpg": "is a broken link",
    }
    assert set(desk.items()) == {"good.bmp", "mislabelled.jpg", "z.txt"}
    again = desk.run(encoder=FORBIDDEN)
    assert counts(again) == {"unchanged": 3, "failed": 6}
    assert reasons(desk, again).keys() == reasons(desk, report).keys()


def test_good_file_becomes_bad(desk: Desk) -> None:
    """When the content that was indexed has given way to nonsense, the item goes, too."""
    desk.draw("a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.run()
    desk.write("a.bmp", b"no picture any more")
    report = desk.run(encoder=FORBIDDEN)
    assert reasons(desk, report) == {"a.bmp": "is not a picture in a format that anyseek knows"}
    assert set(desk.items()) == {"b.bmp"}
    assert counts(desk.run(encoder=FORBIDDEN)) == {"unchanged": 1, "failed": 1}


def test_pdf_with_half_characters(desk: Desk) -> None:
    """A PDF whose font maps letters to halves of characters is stored without them."""
    cmap = (
        b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange "
        b"1 beginbfchar <41> <D800> endbfchar endcmap"
    )
    page = b"BT /F 12 Tf (red A) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(page), page),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(cmap), cmap),
    ]
    pdf, table = b"%PDF-1.4\n", b"0000000000 65535 f \n"
    for number, content in enumerate(objects, start=1):
        table += b"%010d 00000 n \n" % len(pdf)
        pdf += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    end = b"trailer<</Size 7/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(pdf)
    desk.write("a.pdf", pdf + b"xref\n0 7\n" + table + end)
    assert counts(desk.run()) == {"added": 1}
    assert desk.items()["a.pdf"].texts == ("red ?",)


def test_vector_that_is_not_finite(desk: Desk) -> None:
    """A file whose vector is not finite is named, and its neighbours in the batch are stored."""

    class Blind(ColourTower):
        def embed(self, batch: Sequence[Any]) -> Vectors:
            rows = super().embed(batch)
            rows[[(pixels == 255).all() for pixels in batch]] = np.nan
            return rows

    for seed in range(5):
        desk.draw(f"{seed}.bmp", seed)
    Image.new("RGB", (8, 8), "white").save(desk.root / "2w.bmp")
    report = desk.run(encoder=replace(desk.encoder, towers={Modality.IMAGE: Blind()}))
    assert counts(report) == {"added": 5, "failed": 1}
    assert reasons(desk, report) == {"2w.bmp": "gives no finite vector"}
    del desk.encoder.towers[Modality.TEXT]  # type: ignore[attr-defined]
    (desk.root / "2w.bmp").unlink()
    assert desk.items() == desk.fresh()


@pytest.mark.parametrize("grows", [True, False])
def test_changes_while_being_read(desk: Desk, monkeypatch: pytest.MonkeyPatch, grows: bool) -> None:
    """A file that changes while it is read is left to the next run; its old item stays."""
    path = desk.draw("a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.run()
    before = desk.items()
    desk.draw("a.bmp", 3)
    desk.draw("b.bmp", 4)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if os.path.samestat(found, path.stat()):
            if grows:
                with path.open("ab") as file:
                    file.write(b"more")
            else:
                inside.draw(path, 5, mtime_ns=desk.tick())
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        report = desk.run()
    assert counts(report) == {"updated": 1, "failed": 1}
    why = "changed while it was being read; the next run will take it"
    assert reasons(desk, report) == {"a.bmp": why}
    assert desk.items()["a.bmp"] == before["a.bmp"]
    assert counts(desk.run()) == {"updated": 1, "unchanged": 1}
    assert desk.items() == desk.fresh()


def test_changes_between_scan_and_reading(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint that is stored is that of the content that was embedded."""
    path = desk.draw("a.bmp", 1)
    real = media.read

    def late(name: str | bytes | Path, **more: Any) -> media.FileContent:
        inside.draw(path, 2, mtime_ns=77)
        return real(name, **more)

    monkeypatch.setattr(media, "read", late)
    desk.run()
    monkeypatch.undo()
    assert desk.items()["a.bmp"].mtime_ns == 77
    assert desk.items() == desk.fresh()


def test_vanishes_before_reading(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that vanishes after the scan is named; the next run forgets its item."""
    a = desk.draw("a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.run()
    desk.draw("a.bmp", 3)
    real = media.read

    def late(name: str | bytes | Path, **more: Any) -> media.FileContent:
        a.unlink()
        return real(name, **more)

    monkeypatch.setattr(media, "read", late)
    report = desk.run()
    monkeypatch.undo()
    assert counts(report) == {"unchanged": 1, "failed": 1}
    assert reasons(desk, report) == {"a.bmp": "vanished before it could be read"}
    assert counts(desk.run()) == {"removed": 1, "unchanged": 1}


def test_folder_vanishes_during_the_scan(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that goes while the walk stands before it is named; nothing else is touched."""
    for name in ("a/1.bmp", "b/2.bmp", "c/3.bmp"):
        desk.draw(name, ord(name[0]))
    desk.run()
    real = os.scandir

    def late(path: Any) -> Any:
        if path == os.fsencode(desk.root / "b"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    monkeypatch.setattr("indexer.scan.os.scandir", late)
    report = desk.run(encoder=FORBIDDEN)
    monkeypatch.undo()
    shutil.rmtree(desk.root / "b")
    assert report.failed == [Skipped(os.fsencode(desk.root / "b"), "vanished", True)]
    assert set(desk.items()) == {"a/1.bmp", "b/2.bmp", "c/3.bmp"}
    assert counts(desk.run(encoder=FORBIDDEN)) == {"removed": 1, "unchanged": 2}


@pytest.fixture
def open_desk() -> Iterator[Desk]:
    """Gives a desk whose folder is read without the superuser's rights."""
    base = Path(os.path.realpath(tempfile.mkdtemp(prefix="anyseek-")))
    base.chmod(0o777)
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield Desk(base)
    finally:
        os.seteuid(was)
        for path in [base, *(path for path in base.rglob("*") if path.is_dir())]:
            path.chmod(0o700)
        shutil.rmtree(base)


def test_folder_without_permission(open_desk: Desk) -> None:
    """What the index has below a closed folder is kept, also when it turns up elsewhere."""
    desk = open_desk
    for seed in range(3):
        desk.draw(f"closed/{seed}.bmp", seed)
    desk.draw("open/3.bmp", 3)
    desk.run()
    before = desk.items()
    shutil.copy(desk.root / "closed" / "1.bmp", desk.root / "open")
    (desk.root / "closed").chmod(0)
    report = desk.run()
    assert counts(report) == {"added": 1, "unchanged": 4, "failed": 1}
    assert reasons(desk, report) == {"closed": "no permission to open this folder"}
    after = desk.items()
    assert after.pop("open/1.bmp").vectors == before["closed/1.bmp"].vectors
    assert after == before


def test_file_without_permission(open_desk: Desk) -> None:
    """A file that may not be read is named; what the index has of it is kept."""
    desk = open_desk
    path = desk.draw("a.bmp", 1)
    desk.draw("b.bmp", 2)
    desk.run()
    before = desk.items()
    desk.draw("a.bmp", 3)
    path.chmod(0)
    report = desk.run()
    assert counts(report) == {"unchanged": 1, "failed": 1}
    assert reasons(desk, report) == {"a.bmp": "no permission to read it"}
    assert desk.items() == before


# ---- batches, threads, progress ----------------------------------------------------------------


def test_long_text(desk: Desk) -> None:
    """Hundreds of passages keep their order, and each has the vector of its own words."""
    names = list(COLOURS)
    random = np.random.default_rng(0)
    words = [" ".join(random.choice(names, 45)) for _ in range(400)]
    desk.write("long.txt", "\n\n".join(words))
    desk.write("short.txt", "red")
    assert counts(desk.run(batch_size=7)) == {"added": 2}
    item = desk.items()["long.txt"]
    assert " ".join(filter(None, item.texts)) == " ".join(words)
    assert len(item.texts) >= 300
    tower = WordTower()
    for text, vector in zip(item.texts, item.vectors, strict=True):
        assert text is not None
        assert vector == tower.embed([text])[0].astype("<f2").tobytes()


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (1, 50), (2, 8), (5, 3), (8, 1)])
def test_workers_and_batches(desk: Desk, workers: int, batch_size: int) -> None:
    """Threads and batches change nothing in the result, and no batch is larger than asked for."""
    for seed in range(30):
        desk.draw(f"{seed}.bmp", seed)
    for number in range(4):
        desk.write(
            f"t{number}.txt", "\n\n".join(["red blue " * 30, "green " * 50] * number + ["x"])
        )
    sizes: list[int] = []

    class Noting(ColourTower):
        def embed(self, batch: Sequence[Any]) -> Vectors:
            sizes.append(len(batch))
            return super().embed(batch)

    encoder = replace(desk.encoder, towers={Modality.IMAGE: Noting(), Modality.TEXT: WordTower()})
    report = desk.run(encoder=encoder, workers=workers, batch_size=batch_size)
    assert counts(report) == {"added": 34}
    assert desk.items() == desk.fresh()
    assert sum(sizes) == 30
    assert max(sizes) <= batch_size


def test_what_is_in_flight_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were read and not yet stored are few, however many there are."""
    for seed in range(150):
        desk.draw(f"{seed}.bmp", seed)
    lock = threading.Lock()
    alive = most = 0
    real_read, real_write = media.read, Store.write

    def read(name: str | bytes | Path, **more: Any) -> media.FileContent:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return real_read(name, **more)

    def write(self: Store, batch: Batch, space: Space) -> None:
        nonlocal alive
        with lock:
            alive -= len(batch)
        real_write(self, batch, space)

    monkeypatch.setattr(media, "read", read)
    monkeypatch.setattr(Store, "write", write)
    monkeypatch.setattr(pipeline, "COMMIT_ITEMS", 1)
    desk.run(workers=2, batch_size=4)
    assert alive == 0
    # waiting for decoding, for a batch to fill, and for three batches to be embedded
    assert most <= (4 * 2 + 4 + 1) + 4 + 4 * (2 + 1) + 2


def test_progress(desk: Desk) -> None:
    """The total is told once, and what is told as done adds up to it."""
    for seed in range(10):
        desk.draw(f"{seed}.bmp", seed)
    desk.run()
    desk.draw("3.bmp", 33)  # changed
    (desk.root / "4.bmp").rename(desk.root / "n.bmp")  # renamed
    shutil.copy(desk.root / "5.bmp", desk.root / "c.bmp")  # copied
    os.utime(desk.root / "6.bmp", ns=(1, 1))  # touched
    (desk.root / "7.bmp").unlink()  # vanished
    desk.write("bad.bmp", b"bad")  # fails
    (desk.root / "broken.bmp").symlink_to("nowhere")  # is not read at all
    totals: list[int] = []
    steps: list[int] = []
    report = desk.run(progress=Progress(totals.append, steps.append))
    assert counts(report) == {
        "updated": 1,
        "renamed": 1,
        "added": 1,
        "removed": 1,
        "unchanged": 7,
        "failed": 2,
    }
    assert totals == [5]
    assert steps[: sum(steps)] == [1] * 5 + steps[5:]


# ---- stopping ----------------------------------------------------------------------------------


def test_interrupt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C keeps what was stored, leaves no thread behind, and the next run does the rest."""
    for seed in range(60):
        desk.draw(f"{seed:02}.bmp", seed)
    monkeypatch.setattr(pipeline, "COMMIT_ITEMS", 7)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done == 20:
            raise KeyboardInterrupt

    report = desk.run(workers=2, batch_size=4, progress=Progress(advance=advance))
    assert report.interrupted
    assert not [t for t in threading.enumerate() if t.name.startswith("anyseek")]
    kept = desk.items()
    assert len(kept) == report.added == 20
    assert kept.items() <= desk.fresh().items()
    assert desk.embedded >= 20
    report = desk.run()
    assert not report.interrupted
    assert counts(report) == {"added": 40, "unchanged": 20}
    assert desk.embedded == 40
    assert desk.items() == desk.fresh()


def test_interrupt_before_vanished_are_forgotten(desk: Desk) -> None:
    """An interrupt forgets nothing, since a file may yet be found under another name."""
    a = desk.draw("a.bmp", 1)
    desk.run()
    a.rename(desk.root / "z.bmp")
    desk.draw("b.bmp", 2)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    report = desk.run(progress=Progress(advance=stop), workers=1, batch_size=1)
    assert report.interrupted
    assert report.removed == 0
    assert set(desk.items()) >= {"a.bmp"} or set(desk.items()) >= {"z.bmp"}
    desk.run()
    assert desk.items() == desk.fresh()


def test_storage_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails surfaces, keeps what was committed, and leaves no thread behind."""
    for seed in range(40):
        desk.draw(f"{seed:02}.bmp", seed)
    monkeypatch.setattr(pipeline, "COMMIT_ITEMS", 10)
    real = Store.write
    writes = 0

    def write(self: Store, batch: Batch, space: Space) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise StorageError("no space left")
        real(self, batch, space)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", write)
        with pytest.raises(StorageError, match="no space left"):
            desk.run()
    inside.check(desk.index)
    assert not [t for t in threading.enumerate() if t.name.startswith("anyseek")]
    assert 20 <= len(desk.items()) < 40
    kept = len(desk.items())
    assert counts(desk.run()) == {"added": 40 - kept, "unchanged": kept}
    assert desk.items() == desk.fresh()


def test_broken_encoder(desk: Desk) -> None:
    """What an encoder raises is not swallowed, and nothing half-done is stored."""

    class Broken(ColourTower):
        def embed(self, batch: Sequence[Any]) -> Vectors:
            raise RuntimeError("the model is broken")

    for seed in range(9):
        desk.draw(f"{seed}.bmp", seed)
    with pytest.raises(RuntimeError, match="the model is broken"):
        desk.run(encoder=replace(desk.encoder, towers={Modality.IMAGE: Broken()}))
    inside.check(desk.index)
    assert desk.items() == {}


@pytest.mark.parametrize("pages", [3, 10, 40])
def test_full_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """A full disk ends the run with a clear message; the next run, with space, completes."""
    monkeypatch.setattr(pipeline, "COMMIT_ITEMS", 20)
    for seed in range(10):
        desk.draw(f"a{seed}.bmp", seed)
    desk.run()
    before = desk.items()
    for number in range(250):
        desk.write(f"{number:03}.txt", f"red {number} " * 300)
    with Store(desk.index, write=True) as store:
        with store._engine.connect() as connection:
            used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {used + pages}")
            connection.rollback()
        with pytest.raises(StorageError) as caught:
            pipeline.index(store, desk.encoder, roots_of([desk.root]))
    assert str(caught.value) == (
        f"the disk with {desk.index} is full: free some space and run the same command again; "
        "everything committed before is kept"
    )
    inside.check(desk.index)
    kept = desk.items()
    assert before.items() <= kept.items()
    assert len(kept) < 260
    assert (len(kept) - 10) % 20 == 0 or pages > 3
    report = desk.run()
    assert counts(report) == {"added": 260 - len(kept), "unchanged": len(kept)}
    assert desk.items() == desk.fresh()


# ---- any sequence of changes -------------------------------------------------------------------

PICTURES = [f"{folder}{name}.bmp" for folder in ("", "a/", "a-b/", "a/b/") for name in "ab"]
TEXTS = ["a.txt", "a/c.html", "a/b/d.txt"]
NAMES = [*PICTURES, *TEXTS]
name_of = st.sampled_from(NAMES)
picture_of = st.sampled_from(PICTURES)
change = st.one_of(
    st.tuples(st.just("draw"), picture_of, st.integers(0, 3)),
    st.tuples(st.just("write"), st.sampled_from(TEXTS), st.integers(0, 3)),
    st.tuples(st.just("spoil"), name_of),
    st.tuples(st.just("touch"), name_of),
    st.tuples(st.just("move"), name_of, name_of),
    st.tuples(st.just("move"), picture_of, picture_of),
    st.tuples(st.just("swap"), picture_of, picture_of),
    st.tuples(st.just("copy"), name_of, name_of, st.booleans()),
    st.tuples(st.just("delete"), name_of),
    st.tuples(st.just("delete folder"), st.sampled_from(["a", "a-b", "a/b"])),
    st.tuples(st.just("move folder"), st.sampled_from(["a-b", "a/b"]), st.sampled_from(["c", "d"])),
    st.tuples(st.just("index"), st.sampled_from(["", "a", "a/b", "a/b/a.bmp"])),
)


def apply(desk: Desk, name: str, *how: Any) -> None:
    """Makes one change to the folder, where it is possible."""
    path = desk.root / str(how[0])
    match name:
        case "draw":
            desk.draw(*how)
        case "write":
            word = f"<b>{list(COLOURS)[how[1]]}</b> "
            desk.write(how[0], "\n\n".join([word * 40] * (how[1] + 1)))
        case "spoil":
            desk.write(how[0], b"\0nonsense")
        case "touch" if path.exists():
            os.utime(path, ns=(desk.tick(),) * 2)
        case "move" if path.exists():
            (desk.root / how[1]).parent.mkdir(parents=True, exist_ok=True)
            path.rename(desk.root / how[1])
        case "swap" if path.exists() and (desk.root / how[1]).exists():
            path.rename(desk.root / "aside")
            (desk.root / how[1]).rename(path) if how[0] != how[1] else None
            (desk.root / "aside").rename(desk.root / how[1])
        case "copy" if path.exists() and how[0] != how[1]:
            (desk.root / how[1]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, desk.root / how[1])
            if how[2]:  # otherwise with the original's time, as `cp -p` does
                os.utime(desk.root / how[1], ns=(desk.tick(),) * 2)
        case "delete":
            path.unlink(missing_ok=True)
        case "delete folder":
            shutil.rmtree(path, ignore_errors=True)
        case "move folder" if path.exists():
            shutil.rmtree(desk.root / how[1], ignore_errors=True)
            path.rename(desk.root / how[1])
        case "index" if path.exists():
            desk.run(path)


def best(index: Path, query: str) -> list[tuple[bytes, float]]:
    """Gives every item by its cosine to the query, best first."""
    with Store(index) as store:
        searcher = Searcher(store, colour_encoder())
        hits = searcher.by_text(query, Wanted(100))
    return sorted((hit.path, round(hit.score, 5)) for hit in hits)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.lists(change, min_size=1, max_size=12),
    st.lists(change, min_size=0, max_size=8),
    st.integers(1, 4),
)
def test_any_sequence_of_changes(
    first: list[tuple[Any, ...]], second: list[tuple[Any, ...]], commit_items: int
) -> None:
    """After any changes and runs the index holds what one made anew holds, masks included."""
    small: Any = {"SEAL_FROM": 2, "SEGMENT": 6, "STALE": 0.3}
    with (
        tempfile.TemporaryDirectory(prefix="anyseek-", dir=QUICK) as folder,
        mock.patch.multiple(retrieval.index, **small),
        mock.patch.object(pipeline, "COMMIT_ITEMS", commit_items),
    ):
        desk = Desk(Path(folder).resolve())
        for number, name in enumerate(PICTURES[::2]):
            desk.draw(name, number)
        for changes in (first, second):
            for one in changes:
                apply(desk, *one)
            desk.run()
            assert desk.items() == desk.fresh()
            assert best(desk.index, "red blue") == best(desk.index, "blue red")
