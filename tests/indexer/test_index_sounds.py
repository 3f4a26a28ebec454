"""Indexing folders with sounds among pictures and texts, in a space of colours and pitches."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from indexer import pipeline
from indexer.report import Progress
from retrieval import media, sounds
from retrieval.errors import MediaError
from retrieval.types import Encoder, Modality, Part, Vectors
from tests.fakes import RATE_HZ, PitchTower, colour_encoder, pitch_hz
from tests.indexer import inside
from tests.indexer.test_pipeline import Desk, ForbiddenTower, counts, reasons

Piece = tuple[str | None, float]
CHANGED = "changed while it was being read; the next run will take it"


class DeafTower(ForbiddenTower):
    """Lets a sound be read, but not embedded."""

    rate_hz: Any = RATE_HZ


FORBIDDEN = replace(
    colour_encoder(),
    towers={
        Modality.IMAGE: ForbiddenTower(),
        Modality.TEXT: ForbiddenTower(),
        Modality.AUDIO: DeafTower(),
    },
)


def melody(*pieces: Piece, rate: int = RATE_HZ) -> NDArray[np.float64]:
    """Tones that stand for colours, one after the other; without a colour there is silence."""
    rows = []
    for colour, seconds in pieces:
        time_s = np.arange(round(seconds * rate)) / rate
        hz = 0.0 if colour is None else pitch_hz(colour)
        rows.append(0.5 * np.sin(2 * np.pi * hz * time_s))
    return np.concatenate(rows)


def sing(desk: Desk, name: str, *pieces: Piece, rate: int = RATE_HZ) -> Path:
    """Writes a sound."""
    path = desk.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, melody(*pieces, rate=rate), rate)
    os.utime(path, ns=(desk.tick(),) * 2)
    return path


def film(desk: Desk, name: str, *pieces: Piece) -> Path:
    """Writes a sound as telephones do."""
    path, rate = desk.root / name, 16_000
    with av.open(os.fspath(path), "w") as container:
        track: Any = container.add_stream("aac", rate=rate, layout="mono")
        row = melody(*pieces, rate=rate).astype(np.float32)[None]
        for start in range(0, row.shape[1], 1024):
            piece = np.ascontiguousarray(row[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate = rate
            container.mux(track.encode(frame))
        container.mux(track.encode())
    os.utime(path, ns=(desk.tick(),) * 2)
    return path


def rows(desk: Desk, name: str) -> tuple[float | None, list[tuple[float, float]]]:
    """Reads the length of an item, and where its parts lie."""
    own = os.fsencode(desk.root / name)
    with inside.opened(desk.index) as connection:
        ((id, length),) = connection.execute(
            "SELECT id, duration_s FROM items WHERE path = ?", (own,)
        ).fetchall()
        places = connection.execute(
            "SELECT start_s, end_s FROM parts WHERE item_id = ? ORDER BY ordinal", (id,)
        ).fetchall()
    return length, places


def stored(vectors: Vectors) -> tuple[bytes, ...]:
    """Vectors as an index has them."""
    return tuple(row.tobytes() for row in vectors.astype("<f2"))


def embedded_directly(path: Path) -> tuple[bytes, ...]:
    """The vectors that belong to a sound."""
    return stored(sounds.embed(sounds.windows(path, RATE_HZ), PitchTower()).vectors)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Gives an empty folder without an index."""
    return Desk(tmp_path)


def with_tower(encoder: Encoder, tower: Any) -> Encoder:
    """The same with another tower of sounds."""
    return replace(encoder, towers={**encoder.towers, Modality.AUDIO: tower})


# ---- one change at a time ----------------------------------------------------------------------


def test_first_run(desk: Desk) -> None:
    """Sounds beside pictures and texts have their length, the places of windows, and vectors."""
    desk.draw("a.bmp", 1)
    desk.write("b.txt", "red")
    paths = {
        "c.wav": sing(desk, "c.wav", ("red", 7), ("blue", 20)),
        "d.flac": sing(desk, "d.flac", ("green", 1.5), rate=44_100),
        "e/f.ogg": sing(desk, "e/f.ogg", ("cyan", 12), rate=16_000),
        "g.m4a": film(desk, "g.m4a", ("white", 11)),
    }
    report = desk.run()
    assert counts(report) == {"added": 6}
    assert report.remarks == []
    assert desk.embedded == 1 + 1 + 5 + 1 + 2 + 2
    items = desk.items()
    assert set(items) == {"a.bmp", "b.txt", *paths}
    for name, path in paths.items():
        stat = path.stat()
        assert items[name].modality == "audio"
        assert (items[name].size, items[name].mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        assert items[name].content_hash == media.read(path).content_hash
        assert items[name].pixels == (None, None)
        assert items[name].vectors == embedded_directly(path)
        assert items[name].texts == (None,) * len(items[name].vectors)
    assert rows(desk, "c.wav") == (27.0, [(0, 10), (5, 15), (10, 20), (15, 25), (17, 27)])
    assert rows(desk, "d.flac") == (1.5, [(0, 1.5)])
    assert rows(desk, "e/f.ogg") == (12.0, [(0, 10), (2, 12)])
    length, places = rows(desk, "g.m4a")
    assert length == pytest.approx(11, abs=0.2)
    assert places == [(0, 10), (pytest.approx(1, abs=0.2), length)]
    assert rows(desk, "b.txt")[0] is None
    red = colour_encoder().towers[Modality.TEXT].embed(["green"])[0]
    (vector,) = np.frombuffer(items["d.flac"].vectors[0], "<f2")[None].astype(np.float32)
    assert float(vector @ red) > 0.99
    assert desk.items() == desk.fresh()


def test_the_hash_is_of_the_whole_file(desk: Desk) -> None:
    """Sounds are gone through for it in pieces, of which this file has several."""
    path = sing(desk, "a.wav", (None, 300), ("red", 1), rate=8_000)
    assert path.stat().st_size > 4 << 20
    found = media.read(path)
    assert found.data == b""
    copy = path.with_suffix(".txt")
    shutil.copy2(path, copy)
    whole = media.read(copy)
    assert whole.data == path.read_bytes()
    assert found.content_hash == whole.content_hash
    assert found.fingerprint == whole.fingerprint


def test_large_sounds_are_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for what is decoded whole."""
    sing(desk, "a.wav", ("red", 12))
    desk.write("b.txt", "red " * 3_000)
    monkeypatch.setattr(media, "MAX_FILE_BYTES", 10_000)
    assert counts(desk.run()) == {"added": 1, "failed": 1}
    assert set(desk.items()) == {"a.wav"}


def test_second_run_does_nothing(desk: Desk) -> None:
    """Nothing is listened to, written or announced."""
    sing(desk, "a.wav", ("red", 12))
    sing(desk, "b.flac", ("blue", 3))
    desk.draw("c.bmp", 1)
    desk.run()
    before = desk.items(), desk.ids(), inside.generation(desk.index)
    told: list[int] = []
    report = desk.run(encoder=FORBIDDEN, progress=Progress(told.append, told.append))
    assert counts(report) == {"unchanged": 3}
    assert (desk.items(), desk.ids(), inside.generation(desk.index)) == before
    assert told == []


def test_changed_touched_renamed_and_copied(desk: Desk) -> None:
    """Only new content is listened to; a copy has the length and the places, too."""
    names = ["changed.wav", "touched.wav", "old.wav", "copied.wav", "gone.wav"]
    for name, colour in zip(names, ("red", "green", "blue", "cyan", "white"), strict=True):
        sing(desk, name, (colour, 12), ("black", 4))
    desk.run()
    assert desk.embedded == 5 * 3
    ids = desk.ids()
    os.utime(desk.root / "touched.wav", ns=(5, 5))
    (desk.root / "old.wav").rename(desk.root / "new.wav")
    shutil.copy(desk.root / "copied.wav", desk.root / "copy.wav")
    (desk.root / "gone.wav").unlink()
    report = desk.run(encoder=FORBIDDEN)
    assert counts(report) == {"renamed": 1, "added": 1, "removed": 1, "unchanged": 3}
    assert desk.ids()["new.wav"] == ids["old.wav"]
    for name in ("new.wav", "copy.wav"):
        assert rows(desk, name) == (16.0, [(0, 10), (5, 15), (6, 16)])
    assert desk.items() == desk.fresh()
    sing(desk, "changed.wav", ("magenta", 3))
    assert counts(desk.run()) == {"updated": 1, "unchanged": 4}
    assert desk.embedded == 1
    assert rows(desk, "changed.wav") == (3.0, [(0, 3)])
    assert desk.items() == desk.fresh()


def test_swapped(desk: Desk) -> None:
    """Two sounds of one size that swap names swap their vectors, without being listened to."""
    a, b = sing(desk, "a.wav", ("red", 12)), sing(desk, "b.wav", ("blue", 12))
    desk.run()
    before = desk.items()
    a.rename(desk.root / "c")
    b.rename(a)
    (desk.root / "c").rename(b)
    desk.run()
    assert desk.items() == {"a.wav": before["b.wav"], "b.wav": before["a.wav"]}


def test_renamed_to_another_kind(desk: Desk) -> None:
    """What was heard as a sound is no picture; what was no picture may be a sound."""
    sing(desk, "a.wav", ("red", 2))
    sing(desk, "b.wav", ("blue", 2)).rename(desk.root / "b.jpg")
    assert counts(desk.run()) == {"added": 1, "failed": 1}
    (desk.root / "a.wav").rename(desk.root / "a.png")
    (desk.root / "b.jpg").rename(desk.root / "b.mp3")
    report = desk.run()
    assert reasons(desk, report) == {"a.png": "is not a picture in a format that anyseek knows"}
    assert set(desk.items()) == {"b.mp3"}
    assert desk.items() == desk.fresh()


def test_second_space(desk: Desk) -> None:
    """A second encoder adds vectors of its own for the same windows."""
    sing(desk, "a.wav", ("red", 12))
    desk.run()
    assert counts(desk.run(encoder=colour_encoder("colours-2"))) == {"updated": 1}
    assert len(desk.items()["a.wav"].vectors) == 4
    assert rows(desk, "a.wav") == (12.0, [(0, 10), (2, 12)])


def test_a_model_without_sounds(desk: Desk) -> None:
    """Sounds are passed over, the others indexed."""
    desk.draw("a.bmp", 1)
    sing(desk, "b.wav", ("red", 2))
    towers = {Modality.IMAGE: desk.encoder.towers[Modality.IMAGE]}
    report = desk.run(encoder=replace(desk.encoder, towers=towers))
    assert counts(report) == {"added": 1, "left_out": 1}
    assert set(desk.items()) == {"a.bmp"}


# ---- threads and batches -----------------------------------------------------------------------


class BatchTower(PitchTower):
    """Its vectors tell how many were embedded at once, as the last bits of real ones do."""

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Leans a little towards a colour, the more the larger the batch."""
        found = super().embed(batch)
        found[:, 0] += np.float32(0.1 * len(batch))
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def test_threads_and_batches_change_nothing(desk: Desk, tmp_path: Path) -> None:
    """Windows are batched within their own sound, whatever else is indexed beside it."""
    for number, seconds in enumerate((3, 12, 27, 31, 44, 60, 10, 5)):
        sing(desk, f"{number}.wav", ("red", seconds / 2), ("blue", seconds / 2))
        desk.draw(f"{number}.bmp", number)
    found = []
    for number, (workers, batch_size) in enumerate([(1, 1), (4, 4), (4, 50), (1, 4)]):
        desk.index = tmp_path / f"{number}.db"
        encoder = with_tower(colour_encoder(), BatchTower())
        desk.run(encoder=encoder, workers=workers, batch_size=batch_size)
        found.append(desk.items())
    assert len(found[0]) == 16
    assert found[0] == found[1] == found[2] == found[3]
    direct = sounds.embed(sounds.windows(desk.root / "5.wav", RATE_HZ), BatchTower())
    assert len(direct.places) == 11
    assert found[0]["5.wav"].vectors == stored(direct.vectors)


def test_many_sounds_and_threads(desk: Desk) -> None:
    """Every sound gets its own vectors."""
    names = [f"{number:02}.{suffix}" for number in range(12) for suffix in ("wav", "flac")]
    colours = ("red", "green", "blue", "yellow", "cyan")
    for number, name in enumerate(names):
        sing(desk, name, (colours[number % 5], 1 + number), (colours[number // 5], 3))
    assert counts(desk.run(workers=4)) == {"added": 24}
    items = desk.items()
    for name in names:
        assert items[name].vectors == embedded_directly(desk.root / name)


# ---- silence -----------------------------------------------------------------------------------


def test_silence_is_skipped(desk: Desk) -> None:
    """A silent sound is named with the reason, in every run."""
    sing(desk, "a.wav", (None, 12))
    sing(desk, "b.wav", (None, 0.5))
    desk.draw("c.bmp", 1)
    for known in (False, True):
        report = desk.run()
        assert counts(report) == {"unchanged" if known else "added": 1, "failed": 2}
        assert set(reasons(desk, report).values()) == {"is silent from start to end"}
        assert report.remarks == []
    assert set(desk.items()) == {"c.bmp"}


def test_a_sound_that_fell_silent_is_forgotten(desk: Desk) -> None:
    """It is no longer found by what it was; so is one that was emptied or spoilt."""
    for name in ("a.wav", "b.wav", "c.wav", "d.wav"):
        sing(desk, name, ("red", 2))
        desk.root.joinpath(name).write_bytes(desk.root.joinpath(name).read_bytes() + name.encode())
    assert counts(desk.run()) == {"added": 4}
    sing(desk, "a.wav", (None, 2))
    desk.write("b.wav", b"")
    desk.write("c.wav", b"junk" * 100)
    report = desk.run(encoder=FORBIDDEN)
    assert counts(report) == {"unchanged": 1, "failed": 3}
    why = reasons(desk, report)
    assert why["c.wav"].startswith("is not a sound in a format that anyseek knows")
    assert why["a.wav"] == "is silent from start to end"
    assert why["b.wav"] == "is empty"
    assert set(desk.items()) == {"d.wav"}


def test_silent_windows_are_told_in_one_remark(desk: Desk) -> None:
    """How many, in how many sounds, and where the first is; the others have vectors."""
    sing(desk, "a.wav", ("red", 30))
    sing(desk, "b.wav", ("red", 10), (None, 20), ("blue", 10))
    sing(desk, "c.wav", (None, 40), ("green", 10))
    report = desk.run()
    assert counts(report) == {"added": 3}
    where = desk.root / "b.wav"
    assert report.remarks == [
        f"10 silent window(s) in 2 sound(s) got no vector, the first in {where} at 10-20 s"
    ]
    starts = [start for start, _ in rows(desk, "b.wav")[1]]
    assert starts == [0, 5, 25, 30]
    assert rows(desk, "c.wav") == (50.0, [(35, 45), (40, 50)])
    assert desk.run().remarks == []
    sing(desk, "d.wav", (None, 10), ("red", 10))
    assert desk.run().remarks == [
        "1 silent window(s) in 1 sound(s) got no vector, "
        f"the first in {desk.root / 'd.wav'} at 0-10 s"
    ]


# ---- bad files ---------------------------------------------------------------------------------


def test_failures(desk: Desk) -> None:
    """Each bad sound is named with its reason, and the others are indexed."""
    good = sing(desk, "good.wav", ("red", 12))
    desk.write("lying.mp3", good.read_bytes() + b"\0")
    desk.write("cut.wav", good.read_bytes()[: RATE_HZ * 6])
    desk.write("empty.flac", b"")
    desk.write("words.mp3", "these are words")
    desk.write("short.wav", good.read_bytes()[: 44 + 300])
    (desk.root / "folder.wav").mkdir()
    os.mkfifo(desk.root / "pipe.wav")
    (desk.root / "loop.wav").symlink_to("loop.wav")
    report = desk.run()
    assert counts(report)["added"] == 3
    assert set(desk.items()) == {"good.wav", "lying.mp3", "cut.wav"}
    why = reasons(desk, report)
    assert why.pop("words.mp3").startswith("is not a sound in a format that anyseek knows")
    assert why["empty.flac"] == "is empty"
    assert why["short.wav"] == "is shorter than 50 ms"
    assert why.keys() <= {"empty.flac", "short.wav", "loop.wav", "pipe.wav"}
    assert desk.items()["cut.wav"].vectors == embedded_directly(desk.root / "cut.wav")
    assert desk.items() == desk.fresh()


def test_vector_that_is_not_finite(desk: Desk) -> None:
    """The sound is named, and forgotten if it was indexed; its neighbours are stored."""

    class Blind(PitchTower):
        def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
            found = super().embed(batch)
            found[found[:, 1] > 0.9] = np.nan
            return found

    for name in ("a.wav", "b.wav", "c.wav"):
        sing(desk, name, ("red", 12))
    desk.run()
    sing(desk, "b.wav", ("red", 20), ("green", 12))
    sing(desk, "d.wav", ("blue", 12))
    report = desk.run(encoder=with_tower(desk.encoder, Blind()))
    assert counts(report) == {"added": 1, "unchanged": 2, "failed": 1}
    assert reasons(desk, report) == {"b.wav": "gives no finite vector"}
    assert set(desk.items()) == {"a.wav", "c.wav", "d.wav"}


class Meddling(PitchTower):
    """Does something to a file while it is listened to."""

    def __init__(self, do: Any) -> None:
        super().__init__()
        self._do = do

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Meddles, then embeds."""
        self._do()
        return super().embed(batch)


@pytest.mark.parametrize("how", ["grows", "shrinks", "is written anew", "is touched", "vanishes"])
def test_changes_while_being_listened_to(desk: Desk, how: str) -> None:
    """A sound that changes meanwhile is left to the next run; its old item stays."""
    path = sing(desk, "a.wav", ("red", 12))
    sing(desk, "b.wav", ("green", 12))
    desk.run()
    before = desk.items()
    sing(desk, "a.wav", ("blue", 60))

    def meddle() -> None:
        match how:
            case "grows":
                with path.open("ab") as file:
                    file.write(bytes(8_000))
            case "shrinks":
                os.truncate(path, 30_000)
            case "is written anew":
                sing(desk, "a.wav", ("cyan", 60))
            case "is touched":
                os.utime(path, ns=(desk.tick(),) * 2)
            case "vanishes":
                path.unlink(missing_ok=True)

    report = desk.run(encoder=with_tower(desk.encoder, Meddling(meddle)))
    assert counts(report) == {"unchanged": 1, "failed": 1}
    assert reasons(desk, report) == {"a.wav": CHANGED}
    assert desk.items() == before
    again = desk.run()
    assert counts(again) == {"removed" if how == "vanishes" else "updated": 1, "unchanged": 1}
    assert desk.items() == desk.fresh()


def test_breaks_while_being_listened_to(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing can be made of it now says nothing about what it will be."""
    path = sing(desk, "a.wav", ("red", 12))
    desk.run()
    before = desk.items()
    sing(desk, "a.wav", ("blue", 12))
    real = sounds.windows

    def late(name: str | bytes | Path, rate_hz: int) -> Iterator[Part]:
        desk.write("a.wav", b"only half written")
        return real(name, rate_hz)

    with monkeypatch.context() as patch:
        patch.setattr(sounds, "windows", late)
        report = desk.run()
    assert reasons(desk, report) == {"a.wav": CHANGED}
    assert desk.items() == before
    report = desk.run()
    assert reasons(desk, report)["a.wav"].startswith("is not a sound")
    assert desk.items() == {}
    assert path.exists()


def test_unchanged_means_the_same_size_and_time(tmp_path: Path) -> None:
    """The check after listening, on its own."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"words")
    fingerprint = media.read(path).fingerprint
    media.check_unchanged(path, fingerprint)
    for other in (
        replace(fingerprint, size=4),
        replace(fingerprint, mtime_ns=fingerprint.mtime_ns + 1),
    ):
        with pytest.raises(MediaError, match="changed while it was being read"):
            media.check_unchanged(path, other)
    path.unlink()
    with pytest.raises(MediaError, match="changed while it was being read"):
        media.check_unchanged(os.fsencode(path), fingerprint)


def test_broken_encoder(desk: Desk) -> None:
    """What an encoder raises is not swallowed, and nothing half-done is stored."""

    def broken() -> None:
        raise RuntimeError("the model is broken")

    sing(desk, "a.wav", ("red", 12))
    with pytest.raises(RuntimeError, match="the model is broken"):
        desk.run(encoder=with_tower(desk.encoder, Meddling(broken)))
    assert desk.items() == {}


# ---- long recordings ---------------------------------------------------------------------------


def recording(path: Path, minutes: float, rate: int = 8_000) -> Path:
    """Writes noise of 8 bits, the same every ten seconds."""
    ten = np.random.default_rng(0).integers(-8_000, 8_000, 10 * rate).astype(np.int16)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_U8") as file:
        for _ in range(round(6 * minutes)):
            file.write(ten)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_several_minutes(desk: Desk, suffix: str) -> None:
    """A window every five seconds, also where reading comes in many blocks."""
    sing(desk, f"a{suffix}", *[("red", 30.0), ("blue", 30.0)] * 4, rate=8_000)
    assert counts(desk.run()) == {"added": 1}
    length, places = rows(desk, f"a{suffix}")
    assert length == 240
    assert places == [(5.0 * at, 5.0 * at + 10) for at in range(47)]
    vectors = [np.frombuffer(row, "<f2") for row in desk.items()[f"a{suffix}"].vectors]
    for (start, end), vector in zip(places, vectors, strict=True):
        if start // 30 == (end - 0.01) // 30:
            assert vector.argmax() == (0, 2)[int(start // 30) % 2]


MEASURE = """
import resource, sys
from pathlib import Path
from indexer import pipeline
from indexer.scan import roots_of
from retrieval.store import Store
from tests.fakes import colour_encoder
with Store(Path(sys.argv[1]), write=True) as store:
    report = pipeline.index(store, colour_encoder(), roots_of([Path(sys.argv[2])]))
print(report.added, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """An hour takes hardly more memory than a minute; its samples alone would be 115 MB."""
    used = []
    for minutes in (1, 60):
        folder = tmp_path / str(minutes)
        folder.mkdir()
        recording(folder / "a.wav", minutes)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, tmp_path / f"{minutes}.db", folder],
            capture_output=True,
            text=True,
            check=True,
        )
        added, megabytes = map(int, done.stdout.split())
        assert added == 1
        used.append(megabytes)
    assert used[1] < used[0] + 25


class SlowTower(PitchTower):
    """Takes its time, and does something before a batch."""

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        super().__init__()
        self.batches = 0
        self._at = at
        self._do = do

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Waits, then embeds."""
        self.batches += 1
        if self.batches == self._at:
            self._do()
        time.sleep(0.1)
        return super().embed(batch)


@pytest.mark.parametrize("at", [1, 7])
def test_interrupt(desk: Desk, at: int) -> None:
    """Ctrl-C does not wait for the end of a long recording, and what was committed stays."""
    for number in range(40):
        desk.draw(f"{number}.bmp", number)
    recording(desk.root / "z.wav", 20, RATE_HZ)  # 60 batches, 6 s
    recording(desk.root / "z2.wav", 20.5, RATE_HZ)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    tower = SlowTower(at, stop)
    report = desk.run(encoder=with_tower(desk.encoder, tower), workers=2, batch_size=4)
    assert report.interrupted
    assert not [t for t in threading.enumerate() if t.name.startswith("anyseek")]
    assert tower.batches <= at + 8
    assert report.added >= 1
    kept = desk.items()
    assert len(kept) == report.added
    assert set(kept) <= {f"{number}.bmp" for number in range(40)}
    again = desk.run()
    assert counts(again) == {"added": 42 - len(kept), "unchanged": len(kept)}
    assert desk.items() == desk.fresh()


def test_a_long_recording_keeps_nothing_from_being_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever kills the run while it listens loses little of what came before."""
    for number in range(40):
        desk.draw(f"{number}.bmp", number)
    recording(desk.root / "z.wav", 5, RATE_HZ)
    found: list[int] = []
    tower = SlowTower(10, lambda: found.append(len(desk.items())))
    monkeypatch.setattr(pipeline, "COMMIT_S", 0.1)
    assert counts(desk.run(encoder=with_tower(desk.encoder, tower), workers=2)) == {"added": 41}
    assert found[0] >= 20
    assert desk.items() == desk.fresh()
