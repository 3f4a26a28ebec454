"""Sounds of every format against tones and slices worked out in numpy; files that misbehave."""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from retrieval import media, sounds
from retrieval.errors import MediaError
from retrieval.types import Modality, Part, Place, Vectors
from tests.fakes import PitchTower

RATE = 8_000  # that windows are asked for, unless said otherwise
WINDOW = 10 * RATE
NOBODY = 65534
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where waiting for a disk is moot

Signal = NDArray[Any]


def tone(hz: float, seconds: float, rate: int = RATE, amplitude: float = 0.5) -> Signal:
    """A sine, ``(n,)``."""
    return np.asarray(amplitude * np.sin(2 * np.pi * hz / rate * np.arange(round(seconds * rate))))


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> Signal:
    """White noise of float32, ``(n, channels)``, another one in each channel."""
    shape = round(seconds * rate), channels
    return (0.1 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def save(
    path: Path,
    samples: Signal,
    rate: int = RATE,
    subtype: str | None = None,
    format: str | None = None,
) -> Path:
    """Writes a sound as libsndfile does, in pieces: it cannot write long Vorbis in one."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, subtype, format=format) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])
    return path


LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def film(
    path: Path,
    samples: Signal | None,
    rate: int,
    codec: str = "",
    *,
    video: str = "",
    format: str | None = None,
) -> Path:
    """Writes a sound, or a film with and without one, as FFmpeg does."""
    with av.open(os.fspath(path), "w", format=format) as container:
        pictures: Any = container.add_stream(video, rate=25) if video else None
        track: Any = None
        if pictures is not None:
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
        if samples is not None:
            columns = samples.reshape(len(samples), -1)
            layout = LAYOUTS[columns.shape[1]]
            track = container.add_stream(codec, rate=rate, layout=layout)
            track.bit_rate = 128_000
        if pictures is not None:
            for shade in range(20):
                pixels = np.full((32, 32, 3), 10 * shade, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode())
        if track is not None:
            row = np.ascontiguousarray(columns.reshape(1, -1), np.float32)
            sound = av.AudioFrame.from_ndarray(row, format="flt", layout=layout)
            sound.sample_rate = rate
            resampler = av.AudioResampler(
                format=track.codec_context.format,
                layout=layout,
                rate=rate,
                frame_size=track.codec_context.frame_size or 1024,
            )
            for piece in [*resampler.resample(sound), *resampler.resample(None)]:
                container.mux(track.encode(piece))
            container.mux(track.encode())
    return path


def heard(path: Path, rate_hz: int = RATE) -> list[Part]:
    """The windows of a file, after checks that hold for all of them."""
    parts = list(sounds.windows(path, rate_hz))
    assert parts
    for part in parts:
        assert part.place == Place(start_s=part.place.start_s, end_s=part.place.end_s)
        if part.content is not None:
            assert part.content.shape == (10 * rate_hz,)
            assert part.content.dtype == np.float32
            assert part.content.flags.c_contiguous
            assert np.isfinite(part.content).all()
    starts = [start for start, _ in spans(parts)]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    return parts


def spans(parts: Sequence[Part]) -> list[tuple[float, float]]:
    """Where the windows start and end."""
    found = []
    for part in parts:
        assert part.place.start_s is not None
        assert part.place.end_s is not None
        found.append((part.place.start_s, part.place.end_s))
    return found


def only(path: Path, rate_hz: int = RATE) -> tuple[Signal, float]:
    """The samples of a file of at most 10 s, without the repeats, and its length in seconds."""
    (part,) = heard(path, rate_hz)
    length = spans([part])[0][1]
    return part.content[: round(length * rate_hz)], length


def refused(path: Path) -> str:
    """The reason why nothing can be made of a file."""
    with pytest.raises(MediaError) as caught:
        list(sounds.windows(path, RATE))
    reason = str(caught.value)
    assert reason
    assert "\n" not in reason
    return reason


def rms(samples: Signal) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def pitch(samples: Signal, rate: int = RATE) -> float:
    """The frequency of the loudest tone."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(power.argmax() * rate / len(samples))


def assert_tone(path: Path, hz: float, level: float, *, within: float = 0.02) -> None:
    """Asserts that a file holds two seconds of one tone at a level."""
    samples, length = only(path)
    assert length == pytest.approx(2, abs=0.2)
    middle = samples[RATE // 2 : 3 * RATE // 2]  # lossy formats fade in and out
    assert pitch(middle) == pytest.approx(hz, abs=1.01)
    assert rms(middle) == pytest.approx(level, rel=within)


# ---- windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        (0.05, [(0, 0.05)]),
        (3, [(0, 3)]),
        (9.999, [(0, 9.999)]),
        (10, [(0, 10)]),
        (10.05, [(0, 10)]),
        (10.099, [(0, 10)]),
        (10.1, [(0, 10), (0.1, 10.1)]),
        (10.2, [(0, 10), (0.2, 10.2)]),
        (12, [(0, 10), (2, 12)]),
        (14.999, [(0, 10), (4.999, 14.999)]),
        (15, [(0, 10), (5, 15)]),
        (15.05, [(0, 10), (5, 15)]),
        (15.1, [(0, 10), (5, 15), (5.1, 15.1)]),
        (25, [(0, 10), (5, 15), (10, 20), (15, 25)]),
        (27.5, [(0, 10), (5, 15), (10, 20), (15, 25), (17.5, 27.5)]),
    ],
)
def test_where_windows_lie(tmp_path: Path, seconds: float, want: list[tuple[float, float]]) -> None:
    """They start every 5 s, the last one ends with the file, and a tail of 0.1 s is heard."""
    samples = noise(seconds)[:, 0]
    parts = heard(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert spans(parts) == want
    for part, (start, end) in zip(parts, want, strict=True):
        piece = samples[round(start * RATE) : round(end * RATE)]
        piece = piece - piece.mean()
        repeated = np.concatenate([piece] * math.ceil(WINDOW / len(piece)))[:WINDOW]
        np.testing.assert_allclose(part.content, repeated, rtol=0, atol=1e-7)


@settings(max_examples=40)
@given(st.integers(50, 60_000), st.sampled_from([777, 5_000, 1 << 18]))
def test_every_moment_is_in_a_window(length: int, block: int) -> None:
    """But for less than 0.1 s at the end; every window is full and is what the file has there."""
    rate = 1_000
    samples = noise(length / rate, rate, seed=length)[:, 0]
    with (
        tempfile.TemporaryDirectory(dir=QUICK) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sounds, "BLOCK_SAMPLES", block)
        parts = heard(save(Path(folder) / "a.wav", samples, rate, "FLOAT"), rate)
    reached = 0
    for part, (start, end) in zip(parts, spans(parts), strict=True):
        first, last = round(start * rate), round(end * rate)
        assert first <= reached < last <= length
        reached = last
        piece = samples[first:last]
        assert len(piece) == min(length, 10 * rate)
        want = np.resize(piece - piece.mean(), 10 * rate)
        np.testing.assert_allclose(part.content, want, rtol=0, atol=1e-7)
    assert length - reached < 0.1 * rate
    assert [start for start, _ in spans(parts)][:-1] == [5.0 * i for i in range(len(parts) - 1)]


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "channels"),
    [
        ("a.wav", "FLOAT", 8_000, 1),
        ("a.wav", "FLOAT", 12_345, 2),
        ("a.wav", "PCM_16", 16_000, 6),
        ("a.wav", "PCM_16", 8_000, 7),
        ("a.flac", "PCM_24", 44_100, 8),
        ("a.ogg", "VORBIS", 22_050, 2),
        ("a.opus", "OPUS", 48_000, 1),
        ("a.mp3", "MPEG_LAYER_III", 32_000, 2),
    ],
)
def test_the_same_file_gives_the_same_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    subtype: str,
    rate: int,
    channels: int,
) -> None:
    """Twice, and however many samples are decoded at once."""
    format = "OGG" if name.endswith(".opus") else None
    path = save(tmp_path / name, noise(12.3, rate, channels), rate, subtype, format)
    first = heard(path)
    for block in (1 << 18, 1_000 * channels, 77_777):
        monkeypatch.setattr(sounds, "BLOCK_SAMPLES", block)
        again = heard(path)
        assert spans(again) == spans(first)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one.content, other.content)


@pytest.mark.parametrize("rate", [11_025, 12_345, 16_000, 22_050, 44_100, 48_000, 192_000])
def test_resampling_in_a_stream_is_resampling_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    """Every window is a slice of the signal that was resampled whole, its last sample included."""
    monkeypatch.setattr(sounds, "BLOCK_SAMPLES", 10_007)
    samples = noise(11.3, rate)[:, 0]
    parts = heard(save(tmp_path / "a.wav", samples, rate, "FLOAT"))
    whole = soxr.resample(samples, rate, RATE)
    starts = [0, len(whole) - WINDOW]
    assert spans(parts) == [(round(at / RATE, 3), round((at + WINDOW) / RATE, 3)) for at in starts]
    for at, part in zip(starts, parts, strict=True):
        piece = whole[at : at + WINDOW]
        np.testing.assert_allclose(part.content, piece - piece.mean(), rtol=0, atol=2e-6)


def test_what_is_too_high_for_the_rate_is_not_folded_down(tmp_path: Path) -> None:
    """A tone above half the rate is not heard, rather than heard as another one."""
    high = tone(7_000, 2, 44_100) * np.hanning(88_200)  # to begin abruptly is to have all pitches
    (part,) = heard(save(tmp_path / "a.wav", high, 44_100))
    assert part.content is None
    path = save(tmp_path / "b.wav", high + tone(300, 2, 44_100), 44_100)
    assert_tone(path, 300, 0.5 / math.sqrt(2))


# ---- formats -----------------------------------------------------------------------------------

SNDFILE: list[tuple[str, str, str, float]] = [
    ("u8.wav", "WAV", "PCM_U8", 0.01),
    ("16.wav", "WAV", "PCM_16", 0.002),
    ("24.WAVE", "WAV", "PCM_24", 0.002),
    ("32.wav", "WAV", "PCM_32", 0.002),
    ("float.wav", "WAV", "FLOAT", 0.002),
    ("double.wav", "WAV", "DOUBLE", 0.002),
    ("extensible.wav", "WAVEX", "PCM_24", 0.002),
    ("ulaw.wav", "WAV", "ULAW", 0.02),
    ("alaw.wav", "WAV", "ALAW", 0.02),
    ("ms-adpcm.wav", "WAV", "MS_ADPCM", 0.02),
    ("ima-adpcm.wav", "WAV", "IMA_ADPCM", 0.02),
    ("gsm.wav", "WAV", "GSM610", 0.1),
    ("16.flac", "FLAC", "PCM_16", 0.002),
    ("24.flac", "FLAC", "PCM_24", 0.002),
    ("vorbis.ogg", "OGG", "VORBIS", 0.02),
    ("vorbis.oga", "OGG", "VORBIS", 0.02),
    ("opus.ogg", "OGG", "OPUS", 0.05),
    ("a.opus", "OGG", "OPUS", 0.05),
    ("a.mp3", "MP3", "MPEG_LAYER_III", 0.02),
    ("a.aif", "AIFF", "PCM_16", 0.002),
    ("a.aiff", "AIFF", "PCM_24", 0.002),
    ("a.aifc", "AIFF", "FLOAT", 0.002),
    ("a.au", "AU", "PCM_16", 0.002),
    ("a.caf", "CAF", "PCM_16", 0.002),
    ("alac.caf", "CAF", "ALAC_16", 0.002),
    ("a.w64", "W64", "PCM_16", 0.002),
    ("a.rf64", "RF64", "PCM_16", 0.002),
    ("rf64.wav", "RF64", "PCM_16", 0.002),
    ("nist.wav", "NIST", "PCM_16", 0.002),  # as collections of speech have them
]
FFMPEG: list[tuple[str, str, str, int, float]] = [
    ("a.m4a", "aac", "", 44_100, 0.02),
    ("a.m4b", "aac", "", 22_050, 0.02),
    ("alac.m4a", "alac", "", 44_100, 0.002),
    ("a.aac", "aac", "", 44_100, 0.02),
    ("a.wma", "wmav2", "", 44_100, 0.02),
    ("a.mka", "ac3", "", 48_000, 0.02),
    ("a.mp4", "aac", "mpeg4", 48_000, 0.02),
    ("a.m4v", "aac", "mpeg4", 44_100, 0.02),
    ("a.mov", "pcm_s16le", "mpeg4", 44_100, 0.002),
    ("a.mkv", "aac", "mpeg4", 48_000, 0.02),
    ("b.mkv", "pcm_s16le", "mpeg4", 11_025, 0.002),
    ("a.webm", "libopus", "libvpx", 48_000, 0.02),
    ("a.avi", "libmp3lame", "mpeg4", 44_100, 0.06),
    ("b.avi", "pcm_s16le", "mpeg4", 44_100, 0.002),
    ("a.wmv", "wmav2", "mpeg4", 44_100, 0.02),
    ("a.3gp", "aac", "mpeg4", 16_000, 0.02),
    ("a.mpg", "mp2", "mpeg2video", 44_100, 0.02),
    ("a.mpeg", "mp2", "", 44_100, 0.02),
    ("a.ogv", "libopus", "", 48_000, 0.02),
]
CONTAINERS = {".m4b": "mp4", ".m4v": "mp4", ".ogv": "ogg"}  # FFmpeg writes none by these names


def example(folder: Path, name: str, samples: Callable[[int], Signal]) -> Path:
    """Writes an example of a format; its samples are made for a rate that the format allows."""
    for own, format, subtype, _ in SNDFILE:
        if own == name:
            rate = {"OPUS": 48_000, "GSM610": 8_000}.get(subtype, 44_100)
            return save(folder / name, samples(rate), rate, subtype, format)
    for own, codec, video, rate, _ in FFMPEG:
        if own == name:
            container = CONTAINERS.get(Path(name).suffix)
            return film(folder / name, samples(rate), rate, codec, video=video, format=container)
    raise KeyError(name)


TOLERANCES = {row[0]: row[3] for row in SNDFILE} | {row[0]: row[4] for row in FFMPEG}


@pytest.mark.parametrize("name", TOLERANCES)
def test_a_tone_survives_every_format(tmp_path: Path, name: str) -> None:
    """Its frequency, its level and its length."""
    path = example(tmp_path, name, lambda rate: tone(440, 2, rate))
    assert media.modality_of(name) is Modality.AUDIO
    assert sounds.is_sound(name)
    assert_tone(path, 440, 0.5 / math.sqrt(2), within=TOLERANCES[name])


@pytest.mark.parametrize("name", ["16.wav", "16.flac", "vorbis.ogg", "a.m4a", "a.wma", "a.mkv"])
def test_both_channels_are_heard(tmp_path: Path, name: str) -> None:
    """A tone that only one side has comes out at half its level."""
    for side in (0, 1):

        def samples(rate: int, side: int = side) -> Signal:
            return np.stack([tone(440, 2, rate) * (side == at) for at in (0, 1)], axis=1)

        assert_tone(example(tmp_path, name, samples), 440, 0.25 / math.sqrt(2), within=0.03)


@pytest.mark.parametrize(
    "rate", [4_000, 8_000, 11_025, 12_345, 22_050, 44_100, 48_000, 96_000, 192_000, 384_000]
)
def test_every_rate(tmp_path: Path, rate: int) -> None:
    """Lower and higher than wanted, and with no simple ratio to it."""
    for format in ("WAV", "AIFF", "AU"):
        path = save(tmp_path / "a.wav", tone(440, 2, rate), rate, "PCM_16", format)
        assert_tone(path, 440, 0.5 / math.sqrt(2), within=0.002)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 12, 64])
def test_every_number_of_channels(tmp_path: Path, channels: int) -> None:
    """What all channels have comes out as it is."""
    samples = np.repeat(tone(440, 2)[:, None], channels, axis=1)
    got, _ = only(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_allclose(got, samples[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4a", "aac", 44_100), ("a.mov", "pcm_s16le", 44_100), ("a.mkv", "pcm_s16le", 48_000)],
)
def test_every_number_of_channels_of_films(
    tmp_path: Path, name: str, codec: str, rate: int, channels: int
) -> None:
    """Surround sound of six and of eight channels, too; AAC makes the low one fainter."""
    samples = np.repeat(tone(440, 2, rate)[:, None], channels, axis=1)
    within = 0.15 if codec == "aac" and channels > 2 else 0.02
    path = film(tmp_path / name, samples, rate, codec)
    assert_tone(path, 440, 0.5 / math.sqrt(2), within=within)


def test_channels_that_change_on_the_way(tmp_path: Path) -> None:
    """Recorded television changes between mono, stereo and surround, and even the rate."""
    pieces = [(300, 1, 44_100), (500, 2, 44_100), (700, 6, 44_100), (900, 2, 22_050)]
    for order in (pieces, pieces[::-1]):
        data = b""
        for hz, channels, rate in order:
            samples = np.repeat(tone(hz, 2, rate)[:, None], channels, axis=1)
            data += film(tmp_path / "one.aac", samples, rate, "aac").read_bytes()
        path = tmp_path / "all.aac"
        path.write_bytes(data)
        samples, length = only(path)
        assert length == pytest.approx(8, abs=0.5)
        for at, (hz, _, _) in enumerate(order):
            middle = samples[int((2.05 * at + 0.7) * RATE) : int((2.05 * at + 1.5) * RATE)]
            assert pitch(middle) == pytest.approx(hz, abs=3)
            assert rms(middle) > 0.1


def test_a_film_without_sound(tmp_path: Path) -> None:
    """The reason says what is missing."""
    for name in ("a.mp4", "a.mkv", "a.avi"):
        path = film(tmp_path / name, None, 0, video="mpeg4")
        assert refused(path) == "has no sound track"


def test_a_track_in_an_unknown_coding(tmp_path: Path) -> None:
    """Neither FFmpeg nor anyone else knows a coding of this name."""
    path = film(tmp_path / "a.mov", tone(440, 1), RATE, "pcm_s16le")
    data = path.read_bytes()
    assert data.count(b"sowt") == 1
    path.write_bytes(data.replace(b"sowt", b"zzzz"))
    assert refused(path) == "has sound in a coding that FFmpeg does not know"


# ---- samples -----------------------------------------------------------------------------------


def test_short_sounds_are_repeated(tmp_path: Path) -> None:
    """From the first sample, as often as needed, with the place of the one time that there is."""
    samples = noise(3.3)[:, 0]
    samples -= samples.mean()
    (part,) = heard(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert part.place == Place(start_s=0, end_s=3.3)
    np.testing.assert_allclose(part.content, np.resize(samples, WINDOW), rtol=0, atol=1e-7)


def test_the_shortest_sound(tmp_path: Path) -> None:
    """50 ms are a sound, less is not, at any rate."""
    for rate in (8_000, 48_000, 44_100):
        least = round(0.05 * rate)
        path = save(tmp_path / "a.wav", tone(440, 1, rate)[:least], rate)
        assert spans(heard(path)) == [(0, 0.05)]
        path = save(tmp_path / "b.wav", tone(440, 1, rate)[: least - rate // 1000], rate)
        assert refused(path) == "is shorter than 50 ms"
    path = save(tmp_path / "c.wav", tone(440, 1)[:399])
    assert refused(path) == "is shorter than 50 ms"
    path = save(tmp_path / "c.wav", np.zeros(0))
    assert refused(path) == "has no sound in it"


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    """They count as silence; a file of nothing else is silent."""
    samples = tone(440, 2).astype(np.float32)
    holes = samples.copy()
    holes[100:110], holes[200:210], holes[300:310] = np.nan, np.inf, -np.inf
    want = samples.copy()
    want[100:110] = want[200:210] = want[300:310] = 0
    got, _ = only(save(tmp_path / "a.wav", holes, subtype="FLOAT"))
    np.testing.assert_allclose(got, want - want.mean(), rtol=0, atol=1e-6)
    pair = np.stack([holes, samples], axis=1)
    got, _ = only(save(tmp_path / "b.wav", pair, subtype="DOUBLE"))
    half = (want + samples) / 2
    np.testing.assert_allclose(got, half - half.mean(), rtol=0, atol=1e-6)
    for value in (np.nan, np.inf, -np.inf):
        path = save(tmp_path / "c.wav", np.full(RATE, value), subtype="FLOAT")
        (part,) = heard(path)
        assert part.content is None


def test_floats_far_beyond_full_scale(tmp_path: Path) -> None:
    """16-bit numbers in floats are let through; what is larger is cut off and stays finite."""
    samples = (32_768 * tone(440, 2, amplitude=1)).astype(np.float32)
    got, _ = only(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_allclose(got, samples, rtol=0, atol=0.01)
    got, _ = only(save(tmp_path / "b.wav", np.sign(samples) * 1e38, subtype="FLOAT"))
    assert np.abs(got).max() == pytest.approx(65_536, rel=0.01)
    assert pitch(got) == pytest.approx(440, abs=1)
    (part,) = heard(save(tmp_path / "c.wav", np.full(RATE, 1e38), subtype="FLOAT"))
    assert part.content is None
    (part,) = heard(save(tmp_path / "d.wav", np.full(RATE, 1e-42), subtype="FLOAT"))
    assert part.content is None
    (part,) = heard(save(tmp_path / "e.wav", tone(440, 1, amplitude=1e-42), subtype="DOUBLE"))
    assert part.content is None


def test_an_offset_does_not_count(tmp_path: Path) -> None:
    """A tone on top of one is the tone; an offset alone is silence."""
    samples = tone(440, 2, amplitude=0.1)
    for offset in (-0.5, 0.3):
        got, _ = only(save(tmp_path / "a.wav", samples + offset, subtype="FLOAT"))
        np.testing.assert_allclose(got, samples, rtol=0, atol=1e-6)
        for channels in (1, 2):
            path = save(tmp_path / "b.wav", np.full((RATE, channels), offset), subtype="FLOAT")
            (part,) = heard(path)
            assert part.content is None
    long = noise(12)[:, 0]
    without, with_offset = (
        heard(save(tmp_path / "c.wav", long + offset, subtype="DOUBLE")) for offset in (0, 0.25)
    )
    for one, other in zip(without, with_offset, strict=True):
        np.testing.assert_allclose(one.content, other.content, rtol=0, atol=1e-6)


def test_clipping(tmp_path: Path) -> None:
    """A tone that was driven to a square wave is as loud as can be, and stays a sound."""
    square = np.clip(tone(441, 2, amplitude=50), -1, 1)
    got, _ = only(save(tmp_path / "a.wav", square))
    assert np.abs(got).max() == pytest.approx(1, abs=0.01)
    assert pitch(got) == pytest.approx(441, abs=1)


def test_one_step_of_sixteen_bits_is_silence(tmp_path: Path) -> None:
    """The last bit dithers in every recording; the highest does not."""
    signs = np.random.default_rng(0).choice([-1, 1], RATE)
    path = save(tmp_path / "a.wav", signs.astype(np.int16))
    (part,) = heard(path)
    assert part.content is None
    got, _ = only(save(tmp_path / "b.wav", (32_767 * signs).astype(np.int16)))
    assert rms(got) == pytest.approx(1, abs=0.01)


def test_the_threshold_of_silence(tmp_path: Path) -> None:
    """-80 dB of full scale, from both sides, in the loudest tenth of a second."""
    limit = 10 ** (-80 / 20)
    signs = np.resize([1.0, -1.0], RATE)  # root mean square 1, without offset
    for channels in (1, 2):
        pair = np.repeat(signs[:, None], channels, axis=1)
        path = save(tmp_path / "a.wav", 1.001 * limit * pair, subtype="FLOAT")
        assert heard(path)[0].content is not None
        path = save(tmp_path / "b.wav", 0.999 * limit * pair, subtype="FLOAT")
        assert heard(path)[0].content is None
    burst = np.zeros(12 * RATE)
    burst[2 * RATE : 2 * RATE + RATE // 10] = limit * signs[: RATE // 10]
    loud = heard(save(tmp_path / "c.wav", 1.001 * burst, subtype="FLOAT"))
    assert [part.content is None for part in loud] == [False, False]
    faint = heard(save(tmp_path / "d.wav", 0.999 * burst, subtype="FLOAT"))
    assert [part.content is None for part in faint] == [True, True]
    end = np.zeros(2_000)  # a quarter of a second, its end is no whole tenth of one
    end[-400:] = 1.5 * limit * signs[:400]
    assert heard(save(tmp_path / "e.wav", end, subtype="FLOAT"))[0].content is not None
    end[-400:] = 1.3 * limit * signs[:400]
    assert heard(save(tmp_path / "f.wav", end, subtype="FLOAT"))[0].content is None
    short = limit * signs[:500]
    assert heard(save(tmp_path / "g.wav", 1.001 * short, subtype="FLOAT"))[0].content is not None
    assert heard(save(tmp_path / "h.wav", 0.999 * short, subtype="FLOAT"))[0].content is None


def test_channels_that_cancel_each_other(tmp_path: Path) -> None:
    """A pair in opposite phase is heard by its first channel, an ordinary pair by their mean."""
    left = tone(440, 2)
    got, _ = only(save(tmp_path / "a.wav", np.stack([left, -left], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(got, left, rtol=0, atol=1e-6)
    rest = tone(900, 2, amplitude=0.01)  # what does not cancel is 34 dB fainter
    pair = np.stack([left + rest, -left + rest], axis=1)
    got, _ = only(save(tmp_path / "b.wav", pair, subtype="FLOAT"))
    np.testing.assert_allclose(got, left + rest, rtol=0, atol=1e-6)
    for share, by_mean in ((0.25, True), (0.15, False)):  # 18 and 22 dB below the first channel
        right = (share - 1) * left
        got, _ = only(save(tmp_path / "c.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
        want = share / 2 * left if by_mean else left
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6) if share / 2 < 0.1 else None
        assert (rms(got) < 0.2) == (share / 2 >= 0.1)


def test_silence_within(tmp_path: Path) -> None:
    """Just the windows that hear nothing but silence have no content."""
    gap = np.zeros(25 * RATE)
    samples = np.concatenate([tone(440, 10), gap, tone(440, 12.5)])
    parts = heard(save(tmp_path / "a.flac", samples))
    assert [start for start, _ in spans(parts)] == [0, 5, 10, 15, 20, 25, 30, 35, 37.5]
    silent = [start for (start, _), part in zip(spans(parts), parts, strict=True) if not _has(part)]
    assert silent == [10, 15, 20, 25]


def _has(part: Part) -> bool:
    return part.content is not None


# ---- embedding ---------------------------------------------------------------------------------


class NotingTower(PitchTower):
    """Notes how many windows it embedded at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def embed(self, batch: Sequence[NDArray[np.float32]]) -> Vectors:
        """Embeds as the other does."""
        self.batches.append(len(batch))
        return super().embed(batch)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_windows_are_embedded_in_batches(count: int) -> None:
    """In order, a few at a time, silent ones not at all."""
    tower = NotingTower()
    asked = tower.rate_hz
    rows = noise(10, asked, 2 * count, seed=3)
    parts = [
        Part(rows[:, at] if at % 2 else None, Place(start_s=5.0 * at, end_s=5.0 * at + 10))
        for at in range(2 * count)
    ]
    found = sounds.embed(iter(parts), tower)
    assert found.places == tuple(part.place for part in parts[1::2])
    assert found.silent == tuple(part.place for part in parts[::2])
    assert found.duration_s == 10.0 * count + 5
    assert found.vectors.shape == (count, 8)
    for row, part in zip(found.vectors, parts[1::2], strict=True):
        np.testing.assert_array_equal(row, PitchTower().embed([part.content])[0])
    assert tower.batches == [4] * (count // 4) + [count % 4] * (count % 4 > 0)


def test_nothing_but_silence_has_no_vector() -> None:
    """Neither has no window at all."""
    silence = [Part(None, Place(start_s=5.0 * at, end_s=5.0 * at + 10)) for at in range(3)]
    with pytest.raises(MediaError, match=r"^is silent from start to end$"):
        sounds.embed(silence, PitchTower())


def test_the_last_window_may_be_silent() -> None:
    """The length of the whole counts it."""
    parts = [
        Part(noise(10, 4_000)[:, 0], Place(start_s=0.0, end_s=10.0)),
        Part(None, Place(start_s=5.0, end_s=15.0)),
    ]
    assert sounds.embed(parts, PitchTower()).duration_s == 15


# ---- bad files ---------------------------------------------------------------------------------

UNKNOWN = "is not a sound in a format that anyseek knows"


def test_names_of_sounds() -> None:
    """Only the suffix counts, in any case, in text and bytes."""
    for suffix in sounds.SUFFIXES:
        assert sounds.is_sound("x" + suffix)
        assert sounds.is_sound(b"/\xff" + suffix.upper().encode())
        assert media.modality_of("a" + suffix) is Modality.AUDIO
    for name in ("wav", ".wav", "a.wav.part", "a.jpg", "a", ""):
        assert not sounds.is_sound(name)


@pytest.mark.parametrize("suffix", sorted(sounds.SUFFIXES))
def test_files_of_no_format(tmp_path: Path, suffix: str) -> None:
    """Nothing, chance, zeros, words and a picture are refused under every name."""
    path = tmp_path / ("a" + suffix)
    path.write_bytes(b"")
    assert refused(path) == "is empty"
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(picture, "JPEG")
    random = np.random.default_rng(5)
    for data in (
        b"x",
        b"RIFF",
        bytes(5_000),
        random.bytes(50),
        random.bytes(5_000),
        b"These are words.\n" * 200,
        picture.getvalue(),
        b"<html><body>404 Not Found</body></html>",
    ):
        path.write_bytes(data)
        assert refused(path).startswith((UNKNOWN, "is damaged or truncated", "has no sound"))


WITH_INDEX = (".m4a", ".m4b", ".m4v", ".mp4", ".mov", ".3gp")


@pytest.mark.parametrize("name", TOLERANCES)
def test_truncated_files(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Each is refused, or heard up to where it breaks off; nothing is said on the way."""

    def samples(rate: int) -> Signal:
        return tone(440, 3, rate) + 0.5 * noise(3, rate)[:, 0]

    data = example(tmp_path, name, samples).read_bytes()
    path = tmp_path / ("cut-" + name)
    for length in (1, 4, 11, 12, 20, 43, 44, 50, 100, 300, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        try:
            (part,) = heard(path)
        except MediaError:
            # nothing can be made of these without the index at their end
            assert length < len(data) // 2 or path.suffix in WITH_INDEX
            continue
        if length >= len(data) // 2:
            assert part.content is not None
            end = spans([part])[0][1]
            assert length / len(data) * 3 == pytest.approx(end, abs=0.8)
            middle = part.content[RATE // 4 : RATE]
            assert pitch(middle) == pytest.approx(440, abs=2)
            assert rms(middle) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)
    assert capfd.readouterr().out == ""


def wav(data: bytes, *, claims: int | None = None, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of 16 bits that says of itself what it is told."""
    claims = len(data) if claims is None else claims
    return (
        b"RIFF"
        + struct.pack("<I", min(36 + claims, 0xFFFFFFFF))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * rate % 2**32, 2 * channels % 65536, 16)
        + b"data"
        + struct.pack("<I", claims)
        + data
    )


def test_headers_that_claim_another_length(tmp_path: Path) -> None:
    """More than there is, as broken-off recordings do, or less: what is there is heard."""
    samples = (32_767 * tone(440, 3)).astype("<i2")
    whole = samples / 32_768
    path = tmp_path / "a.wav"
    for claims in (len(samples.tobytes()) + 2, 10**6, 2**31 - 1, 2**31, 0xFFFFFFFE, 0xFFFFFFFF):
        path.write_bytes(wav(samples.tobytes(), claims=claims))
        got, length = only(path)
        assert length == 3
        np.testing.assert_allclose(got, whole - whole.mean(), rtol=0, atol=1e-6)
    path.write_bytes(wav(samples.tobytes(), claims=RATE * 2))
    got, length = only(path)
    assert length == 1
    np.testing.assert_allclose(got, whole[:RATE] - whole[:RATE].mean(), rtol=0, atol=1e-6)


def test_headers_that_claim_no_length(tmp_path: Path) -> None:
    """0 bytes stand in recordings whose end was never written."""
    samples = (32_767 * tone(440, 3)).astype("<i2")
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples.tobytes(), claims=0))
    assert refused(path) == "has no sound in it"


def test_headers_that_claim_odd_rates_and_channels(tmp_path: Path) -> None:
    """Nothing is allocated by what a header says."""
    data = noise(1).tobytes()
    path = tmp_path / "a.wav"
    for rate in (0, 2**31 - 1, 2**31, 2**32 - 1):
        path.write_bytes(wav(data, rate=rate))
        assert refused(path)
    path.write_bytes(wav(data, rate=1_000_001))
    assert refused(path) == "claims 1000001 samples a second (the limit is 1000000)"
    path.write_bytes(wav(data, channels=65))
    assert refused(path) == "claims 65 channels (the limit is 64)"
    for channels in (0, 1_025, 65_535):
        path.write_bytes(wav(data, channels=channels))
        assert refused(path)
    path.write_bytes(wav(bytes(2_000_000), rate=1_000_000))
    assert heard(path)[0].content is None


def test_a_rate_of_one_sample_a_second(tmp_path: Path) -> None:
    """The lowest rate makes a few bytes long, and still no more than a file."""
    path = save(tmp_path / "a.wav", noise(30, 1)[:, 0] * 5, 1)
    assert spans(heard(path)) == [(5.0 * at, 5.0 * at + 10) for at in range(5)]


def test_flac_that_claims_years(tmp_path: Path) -> None:
    """What its header says of the length is not believed."""
    path = save(tmp_path / "a.flac", tone(440, 2))
    data = bytearray(path.read_bytes())
    assert data[:8] == b"fLaC\0\0\0\x22"
    data[21] |= 0x0F  # 36 bits of length in samples: 99 days of 8 kHz
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)
    assert_tone(path, 440, 0.5 / math.sqrt(2))


def test_the_longest_sound(tmp_path: Path) -> None:
    """A day is listened to, and no more."""
    rate = 100
    path = tmp_path / "a.wav"
    for seconds in (86_400, 86_410):
        path.write_bytes(wav(b"", claims=2 * seconds * rate, rate=rate))
        with path.open("r+b") as file:
            file.truncate(44 + 2 * seconds * rate)
        parts = sounds.windows(path, rate)
        if seconds == 86_400:
            last = list(parts)[-1]
            assert last == Part(None, Place(start_s=86_390, end_s=86_400))
        else:
            with pytest.raises(MediaError, match=r"^is longer than 24 hours$"):
                list(parts)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("16.wav", "a.mp3"),
        ("16.wav", "a.m4a"),
        ("16.wav", "a.mkv"),
        ("16.wav", "a.flac"),
        ("a.mp3", "a.wav"),
        ("a.mp3", "a.m4a"),
        ("16.flac", "a.ogg"),
        ("a.au", "a.m4a"),
        ("a.au", "a.mp4"),
        ("nist.wav", "a.wma"),
        ("a.m4a", "a.mp3"),
        ("a.mkv", "a.wav"),
        ("a.wma", "a.ogg"),
        ("a.webm", "a.mp4"),
        ("vorbis.ogg", "a.opus"),
    ],
)
def test_names_that_lie(tmp_path: Path, kind: str, name: str) -> None:
    """The content tells the format."""
    path = example(tmp_path, kind, lambda rate: tone(440, 2, rate))
    lying = tmp_path / ("lying-" + name)
    path.rename(lying)
    assert_tone(lying, 440, 0.5 / math.sqrt(2), within=0.03)


def test_names_that_lie_in_large_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later Pythons read ahead farther; what one decoder read is not lost to the other."""
    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", 1 << 17)
    for seconds in (0.1, 2, 9):
        path = tmp_path / "a.m4a"
        save(path, tone(440, seconds), format="AU", subtype="PCM_16")
        assert only(path)[1] == seconds


def test_a_sound_named_as_a_picture(tmp_path: Path) -> None:
    """It counts as what its name says, and is refused."""
    data = wav(noise(1).tobytes())
    with pytest.raises(MediaError, match="is not a picture"):
        media.decode(data, "a.jpg")


def _synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def test_mp3_with_a_cover(tmp_path: Path) -> None:
    """A picture of 2 MB before the sound, full of what looks like the start of sound."""
    sound = save(tmp_path / "a.mp3", tone(440, 2, 44_100), 44_100).read_bytes()
    picture = (b"\xff\xfb\x90\x64" + bytes(range(252))) * 8_192
    content = b"\0image/jpeg\0\x03\0" + picture
    frame = b"APIC" + struct.pack(">I", len(content)) + b"\0\0" + content
    for version in (3, 4):
        if version == 4:
            frame = b"APIC" + _synchsafe(len(content)) + b"\0\0" + content
        tag = b"ID3" + bytes([version, 0, 0]) + _synchsafe(len(frame)) + frame
        path = tmp_path / "b.mp3"
        path.write_bytes(tag + sound)
        assert path.stat().st_size > 2 << 20
        assert_tone(path, 440, 0.5 / math.sqrt(2))


def test_mp3_with_tags_at_the_end(tmp_path: Path) -> None:
    """ID3v1 and APE tags are no sound."""
    sound = save(tmp_path / "a.mp3", tone(440, 2, 44_100), 44_100).read_bytes()
    id3 = b"TAG" + b"Title".ljust(124, b"\0") + b"\x0c"
    assert len(id3) == 128
    item = struct.pack("<II", 5, 0) + b"Title\0words"

    def ape(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII", 2_000, len(item) + 32, 1, flags) + bytes(8)

    tail = ape(0xA0000000) + item + ape(0x80000000)
    path = tmp_path / "b.mp3"
    for end in (id3, tail, tail + id3):
        path.write_bytes(sound + end)
        assert_tone(path, 440, 0.5 / math.sqrt(2))
        assert only(path)[1] == only(tmp_path / "a.mp3")[1]


def test_midi_dumps_are_no_sounds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The library would write about a damaged one on stdout, where results go."""
    path = save(tmp_path / "a.wav", tone(440, 0.5), RATE, "PCM_16", "SDS")
    data = path.read_bytes()
    for name in ("a.wav", "a.m4a"):
        path = tmp_path / name
        path.write_bytes(data[:500] + b"\x55" + data[501:])
        assert refused(path).startswith(UNKNOWN)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.mp4", "a.m4a", "a.wav", "a.mp3", "a.mkv", "a.ogg"])
def test_playlists_are_not_followed(tmp_path: Path, name: str) -> None:
    """A file that names others opens none of them; a pipe would hang whoever does."""
    save(tmp_path / "other.wav", tone(440, 2))
    film(tmp_path / "other.m4a", tone(440, 2, 44_100), 44_100, "aac")
    os.mkfifo(tmp_path / "pipe.wav")
    path = tmp_path / name
    for other in ("other.wav", "other.m4a", "pipe.wav", "/etc/passwd"):
        full = os.path.join(tmp_path, other)  # noqa: PTH118 (keeps what is absolute)
        for text in (
            f"ffconcat version 1.0\nfile {other}\n",
            f"ffconcat version 1.0\nfile '{full}'\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{full}\n#EXT-X-ENDLIST\n",
            f"[playlist]\nFile1={full}\nNumberOfEntries=1\n",
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            f"<Period><AdaptationSet><Representation><BaseURL>{full}</BaseURL></Representation>"
            "</AdaptationSet></Period></MPD>",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        ):
            path.write_text(text)
            assert refused(path).startswith(UNKNOWN)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Pipes, folders, loops, broken links and devices have their reasons."""
    for suffix in (".wav", ".m4a"):
        pipe, folder, loop = (tmp_path / (name + suffix) for name in ("pipe", "folder", "loop"))
        os.mkfifo(pipe)
        assert refused(pipe) == "is a pipe or a device, not a file"
        folder.mkdir()
        assert refused(folder) == "is a folder"
        loop.symlink_to(loop)
        assert refused(loop).startswith("cannot be read: ")
        assert refused(tmp_path / ("gone" + suffix)) == "cannot be read: No such file or directory"
        device = tmp_path / ("device" + suffix)
        device.symlink_to("/dev/zero")
        assert refused(device) == "is a pipe or a device, not a file"


def test_a_file_without_permission() -> None:
    """The reason is the system's."""
    was = os.geteuid()
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:
        path = save(Path(folder) / "a.wav", tone(440, 1))
        path.chmod(0)
        Path(folder).chmod(0o755)
        if was == 0:
            os.seteuid(NOBODY)
        try:
            assert refused(path) == "cannot be read: Permission denied"
        finally:
            os.seteuid(was)


def test_names_of_bytes(tmp_path: Path) -> None:
    """Names that are not text are opened like others."""
    path = save(tmp_path / "a.wav", tone(440, 2))
    name = os.fsencode(tmp_path) + b"/\xff\xfe\n.wav"
    os.rename(path, name)  # noqa: PTH104 (bytes)
    (part,) = sounds.windows(name, RATE)
    assert pitch(part.content) == pytest.approx(440, abs=1)
    film(tmp_path / "b.m4a", tone(440, 2, 44_100), 44_100, "aac").rename(os.fsdecode(name))
    (part,) = sounds.windows(name, RATE)
    assert pitch(part.content[:RATE]) == pytest.approx(440, abs=1)


def test_files_are_closed(tmp_path: Path) -> None:
    """After the last window, after a refusal, and when nobody wants the rest."""
    good = save(tmp_path / "a.wav", noise(30))
    clip = film(tmp_path / "a.m4a", noise(30, 44_100), 44_100, "aac")
    mute = film(tmp_path / "mute.mp4", None, 0, video="mpeg4")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF" + bytes(99))
    wide = tmp_path / "wide.wav"
    wide.write_bytes(wav(bytes(9_999), channels=65))
    folder = tmp_path / "folder.wav"
    folder.mkdir()

    def everything() -> None:
        heard(good)
        for path in (bad, mute, wide, folder):
            refused(path)
        for path in (good, clip):
            parts = sounds.windows(path, RATE)
            next(parts)
            parts.close()  # type: ignore[attr-defined]

    everything()
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    for _ in range(5):
        everything()
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208


def test_nothing_is_read_ahead_of_need(tmp_path: Path) -> None:
    """The first window of a long file comes before the rest was read."""
    path = save(tmp_path / "a.wav", noise(120))
    parts = sounds.windows(path, RATE)
    next(parts)
    with path.open("r+b") as file:
        file.truncate(RATE * 2 * 60)
    assert len(list(parts)) < 15


# ---- without the library for films -------------------------------------------------------------


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the remedy where it would help; the rest works all the same."""
    clip = film(tmp_path / "a.m4a", tone(440, 2, 44_100), 44_100, "aac")
    lying = save(tmp_path / "lying.m4a", tone(440, 2), format="WAV")
    path = save(tmp_path / "a.wav", tone(440, 2))
    junk = tmp_path / "junk.wav"
    junk.write_bytes(b"junk" * 99)
    monkeypatch.setitem(sys.modules, "av", None)
    assert refused(clip) == "needs one more library: pip install 'anyseek[av]'"
    assert refused(junk) == UNKNOWN
    for sound in (lying, path):
        assert_tone(sound, 440, 0.5 / math.sqrt(2))


# ---- chance ------------------------------------------------------------------------------------

FUZZED = [
    "16.wav", "ms-adpcm.wav", "gsm.wav", "24.flac", "vorbis.ogg", "a.opus", "a.mp3", "a.aif",
    "a.au", "alac.caf", "a.w64", "a.rf64", "a.m4a", "alac.m4a", "a.aac", "a.wma", "a.mkv", "a.mp4",
    "a.webm", "a.avi", "a.mpg",
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small file of every format."""
    folder = tmp_path_factory.mktemp("small")
    return {
        name: example(folder, name, lambda rate: tone(440, 0.3, rate)).read_bytes()
        for name in FUZZED
    }


@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=12)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    cut=st.floats(0, 1),
    near=st.sampled_from([64, 512, 1 << 20]),
)
def test_damaged_files(
    small: dict[str, bytes], name: str, flips: list[tuple[float, int]], cut: float, near: int
) -> None:
    """Whatever is damaged in a file, it gives sound windows or a reason."""
    data = bytearray(small[name])
    for at, value in flips:
        data[int(at * (min(len(data), near) - 1))] = value
    if cut < 0.5:
        data = data[: int(2 * cut * len(data))]
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            for number, part in enumerate(sounds.windows(path, RATE)):
                assert part.content is None or np.isfinite(part.content).all()
                if number > 20:
                    break
        except MediaError:
            pass
