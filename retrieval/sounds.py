"""Sound files become windows of samples: decoded, mixed to mono, resampled, cut, in one stream.

Memory does not grow with the length of a recording. The same file gives the same windows, bit for
bit: nothing is cropped at random, and no window depends on the files around it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MediaError
from retrieval.types import Part, Place, Tower, Vectors

if TYPE_CHECKING:
    import soundfile

Samples = NDArray[np.float32]

FFMPEG_SUFFIXES = frozenset(
    ".m4a .m4b .aac .wma .mka .mp4 .m4v .mov .mkv .webm .avi .wmv .3gp .mpg .mpeg .ogv".split()
)
SUFFIXES = FFMPEG_SUFFIXES | frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf .w64 .rf64".split()
)
# FFmpeg also reads playlists, which name other files and addresses: only containers are let in.
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,aac,mpeg,mpegts,mp3,ogg,flac,wav,w64,aiff,caf"
)

WINDOW_S = 10.0  # what the towers are trained on
HOP_S = 5.0  # every moment lies in the inner half of a window, but for the first and last 2.5 s
MIN_S = 0.05
MAX_S = 24 * 3600.0  # a few kilobytes of FLAC can claim to be a year of silence
MIN_TAIL_S = 0.1  # a shorter rest than this gets no window of its own
MAX_RATE_HZ = 1_000_000
MAX_CHANNELS = 64
BLOCK_SAMPLES = 1 << 18  # decoded at once, over all channels: 1 MB
LOUDEST = 65_536.0  # floats that hold 16-bit numbers are let through; what is larger is damage

SILENCE = 10 ** (-80 / 20)
"""A window is silent if no 100 ms of it reach this root mean square: -80 dB of full scale.

The hiss of 16 bits lies near -98 dB, a quiet room through a microphone near -60 dB; the softest of
1,600 clips of ESC-50, crickets, reaches -70 dB.
"""

BATCH_SIZE = 4  # windows embedded at once; fixed, since other batches give other last bits


def is_sound(name: str | bytes) -> bool:
    """Tells from a file's name whether it should hold sound, perhaps beside moving pictures."""
    return _suffix(name) in SUFFIXES


def windows(path: str | bytes | Path, rate_hz: int) -> Iterator[Part]:
    """Reads a sound file, or the sound track of a video, window by window.

    Windows are 10 s long and start every 5 s; the last one ends with the file. A file that is
    shorter than a window is repeated until it fills one.

    Args:
        path: The file. What it holds is told from its content, whatever its name says.
        rate_hz: Wanted samples per second.

    Yields:
        Parts in the order of time. ``content`` is float32 ``(10 * rate_hz,)``, mono, without
        offset, at the file's own level; ``None`` for a window that is silent. ``place`` has
        ``start_s`` and ``end_s``.

    Raises:
        MediaError: With the reason, if nothing can be made of it. A file that breaks off is read
            up to there.
    """
    with _opened(path) as file:
        rate, blocks = _decoded(file, path)
        yield from _cut(_resampled(_sane(blocks), rate, rate_hz), rate_hz)


def tags(path: str | bytes | Path) -> list[tuple[str, str]]:
    """Gives what the tags of a sound file say, by name in lower case; nothing if that fails.

    Only formats that libsndfile reads are looked into.
    """
    if _suffix(path) in FFMPEG_SUFFIXES:
        return []
    import soundfile

    try:
        with _opened(path) as file:
            if file.read(2) == b"\xf0\x7e":  # see _by_sndfile
                return []
            file.seek(0)
            with soundfile.SoundFile(os.dup(file.fileno())) as sound:
                return list(sound.copy_metadata().items())
    except (MediaError, soundfile.LibsndfileError, RuntimeError, TypeError, ValueError):
        return []


@dataclass(frozen=True, slots=True)
class Heard:
    """The vectors of a sound.

    Attributes:
        places: Of the windows that have a vector, in order of time.
        vectors: ``(len(places), dim)`` float32, unit rows.
        silent: The windows without a vector.
        duration_s: Length of the whole.
    """

    places: tuple[Place, ...]
    vectors: Vectors
    silent: tuple[Place, ...]
    duration_s: float


def embed(parts: Iterable[Part], tower: Tower) -> Heard:
    """Embeds windows as they come, a few at a time.

    Raises:
        MediaError: If the parts cannot be read, or all are silent.
    """
    places: list[Place] = []
    silent: list[Place] = []
    batch: list[object] = []
    rows: list[Vectors] = []
    for part in parts:
        if part.content is None:
            silent.append(part.place)
            continue
        places.append(part.place)
        batch.append(tower.prepare(part.content))
        if len(batch) == BATCH_SIZE:
            rows.append(tower.embed(batch))
            batch = []
    if batch:
        rows.append(tower.embed(batch))
    if not rows:
        raise MediaError("is silent from start to end")
    last = max(place.end_s or 0.0 for place in (*places, *silent))
    return Heard(tuple(places), np.concatenate(rows), tuple(silent), last)


# ---- opening and decoding ----------------------------------------------------------------------


def _suffix(name: str | bytes | Path) -> str:
    return os.path.splitext(os.fsdecode(name))[1].lower()  # noqa: PTH122 (bytes, and hot)


@contextmanager
def _opened(path: str | bytes | Path) -> Iterator[FileIO]:
    try:
        # without waiting: a named pipe with a sound's name must not hang the run
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}") from None
    try:
        found = os.fstat(descriptor)
        if S_ISDIR(found.st_mode):
            raise MediaError("is a folder")
        if not S_ISREG(found.st_mode):
            raise MediaError("is a pipe or a device, not a file")
        if not found.st_size:
            raise MediaError("is empty")
        # without a buffer, so that the file stands where it says, for libsndfile's copy, too
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _decoded(file: FileIO, path: str | bytes | Path) -> tuple[int, Iterator[Samples]]:
    """Finds a decoder: gives the rate and blocks ``(n, channels)``."""
    if _suffix(path) in FFMPEG_SUFFIXES:
        try:
            return _by_ffmpeg(file)
        except MediaError:
            file.seek(0)
            if (found := _by_sndfile(file)) is not None:  # a name may lie
                return found
            raise
    if (found := _by_sndfile(file)) is not None:
        return found
    file.seek(0)
    try:
        return _by_ffmpeg(file)
    except MediaError as error:
        if isinstance(error, _LibraryMissingError):
            raise MediaError("is not a sound in a format that anyseek knows") from None
        raise


class _LibraryMissingError(MediaError):
    """PyAV is not installed."""


def _by_sndfile(file: FileIO) -> tuple[int, Iterator[Samples]] | None:
    import soundfile

    if file.read(2) == b"\xf0\x7e":  # a MIDI dump: libsndfile prints about damaged ones on stdout
        return None
    file.seek(0)
    try:
        sound = soundfile.SoundFile(os.dup(file.fileno()))
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError):
        return None
    try:
        _check(sound.samplerate, sound.channels)
    except MediaError:
        sound.close()
        raise
    # else it seeks after every read, and fails there where a file breaks off
    sound.seekable = lambda: False
    return sound.samplerate, _sndfile_blocks(sound)


def _sndfile_blocks(sound: soundfile.SoundFile) -> Iterator[Samples]:
    import soundfile

    frames = max(1, BLOCK_SAMPLES // sound.channels)
    read, failure = 0, None
    with sound:
        while failure is None:
            block = np.empty((frames, sound.channels), np.float32)
            try:
                count = len(sound.read(out=block))
            except (soundfile.LibsndfileError, RuntimeError) as error:
                failure = error
                count = max(sound.tell() - read, 0)  # it breaks off there
            if not count:
                break
            read += count
            yield block[:count]
    if not read and failure is not None:
        raise MediaError(f"is damaged or truncated ({failure})")


def _by_ffmpeg(file: FileIO) -> tuple[int, Iterator[Samples]]:
    try:
        import av
    except ImportError:
        raise _LibraryMissingError("needs one more library: pip install 'anyseek[av]'") from None
    try:
        container = av.open(
            file,
            "r",
            metadata_errors="ignore",
            options={"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "none"},
        )
    except (av.FFmpegError, ValueError, UnicodeError) as error:
        raise MediaError(
            f"is not a sound in a format that anyseek knows ({_said(error)})"
        ) from None
    if not container.streams.audio:
        container.close()
        raise MediaError("has no sound track")
    # a track in a coding that FFmpeg does not know has no context
    stream = next((one for one in container.streams.audio if one.codec_context), None)
    if stream is None:
        container.close()
        raise MediaError("has sound in a coding that FFmpeg does not know")
    rate = stream.codec_context.sample_rate
    try:
        _check(rate, stream.codec_context.channels)
    except MediaError:
        container.close()
        raise

    def blocks() -> Iterator[Samples]:
        layout = stream.layout
        failure, some, kind = "", False, None
        with container:
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                    frames = []
                    for frame in packet.decode():
                        if kind != (kind := (frame.format.name, frame.layout.name, frame.rate)):
                            # television changes between stereo and surround. Samples of the
                            # channels in turn: PyAV 18 reads past the end of eight planes
                            resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
                        frames.extend(resampler.resample(frame))
                except StopIteration:
                    break
                except av.InvalidDataError as error:  # one packet is lost, the next may do
                    failure = _said(error)
                    continue
                except (av.FFmpegError, ValueError) as error:
                    failure = _said(error)
                    break
                for frame in frames:
                    some = True
                    block = np.asarray(frame.to_ndarray(), np.float32)
                    yield block.reshape(-1, layout.nb_channels)
        if not some:
            raise MediaError(f"is damaged or truncated ({failure or 'no sound in it'})")

    return rate, blocks()


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _check(rate: int, channels: int) -> None:
    if not 0 < rate <= MAX_RATE_HZ:
        raise MediaError(f"claims {rate} samples a second (the limit is {MAX_RATE_HZ})")
    if not 0 < channels <= MAX_CHANNELS:
        raise MediaError(f"claims {channels} channels (the limit is {MAX_CHANNELS})")


# ---- samples to windows ------------------------------------------------------------------------


def _sane(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """Mixes to mono and keeps the first channel beside it, for channels that cancel each other.

    Yields:
        ``(n, 1)`` for mono files, else ``(n, 2)``; finite.
    """
    for block in blocks:
        finite = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        finite = np.clip(finite, -LOUDEST, LOUDEST)
        if finite.shape[1] > 1:
            channels = finite.shape[1]
            share = np.full(channels, 1 / channels, np.float32)
            finite = np.stack([finite @ share, finite[:, 0]], axis=1)
        yield finite


def _resampled(blocks: Iterator[Samples], rate: int, wanted: int) -> Iterator[Samples]:
    if rate == wanted:
        yield from blocks
        return
    import soxr

    stream, block = None, None
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(rate, wanted, block.shape[1], dtype="float32")
        yield stream.resample_chunk(np.ascontiguousarray(block))
    if stream is not None and block is not None:
        yield stream.resample_chunk(np.zeros((0, block.shape[1]), np.float32), last=True)


def _cut(blocks: Iterator[Samples], rate_hz: int) -> Iterator[Part]:
    window, hop = round(WINDOW_S * rate_hz), round(HOP_S * rate_hz)
    start = 0  # of the buffer, in samples from the beginning
    buffer: Samples | None = None
    previous: Samples | None = None  # the window before, which starts a hop earlier
    for block in blocks:
        buffer = block if buffer is None else np.concatenate([buffer, block])
        while len(buffer) >= window:
            previous, buffer = buffer[:window], buffer[hop:]
            yield _part(previous, start, window, rate_hz)
            start += hop
            if start > MAX_S * rate_hz:
                raise MediaError(f"is longer than {MAX_S / 3600:.0f} hours")
    if buffer is None or not len(buffer):
        raise MediaError("has no sound in it")
    if previous is None:
        if len(buffer) < MIN_S * rate_hz:
            raise MediaError(f"is shorter than {1000 * MIN_S:.0f} ms")
        yield _part(buffer, 0, window, rate_hz)
    elif start + len(buffer) - (start - hop + window) >= MIN_TAIL_S * rate_hz:
        last = np.concatenate([previous[:hop], buffer])[-window:]
        yield _part(last, start + len(buffer) - window, window, rate_hz)


def _part(samples: Samples, start: int, window: int, rate_hz: int) -> Part:
    """Makes a part of up to a window of samples ``(n, 1 or 2)``."""
    place = Place(
        start_s=round(start / rate_hz, 3), end_s=round((start + len(samples)) / rate_hz, 3)
    )
    mono = _centred(samples[:, 0])
    if samples.shape[1] > 1:
        first = _centred(samples[:, 1])
        if np.dot(mono, mono) < 0.01 * np.dot(first, first):  # 20 dB fainter: they cancel
            mono = first
    if _loudness(mono, rate_hz) < SILENCE:
        return Part(None, place)
    repeats = math.ceil(window / len(mono))
    return Part(np.ascontiguousarray(np.tile(mono, repeats)[:window]), place)


def _centred(channel: Samples) -> Samples:
    return np.asarray(channel - channel.mean(dtype=np.float64), np.float32)


def _loudness(samples: Samples, rate_hz: int) -> float:
    """Gives the root mean square of the loudest 100 ms; of the whole if there is less."""
    frame = rate_hz // 10
    if len(samples) <= frame:
        return math.sqrt(float(np.mean(samples.astype(np.float64) ** 2)))
    whole = samples[: len(samples) // frame * frame].astype(np.float64).reshape(-1, frame)
    loudest = max(
        float(np.mean(whole**2, axis=1).max()),
        float(np.mean(samples[-frame:].astype(np.float64) ** 2)),
    )
    return math.sqrt(loudest)
