"""Files become pictures and passages; ``retrieval.sounds`` reads those that hold sound.

Nothing in a file is trusted: the size of a picture is checked before its pixels are decoded, the
format is told from the content and not from the name, and whatever a decoder raises becomes one
``MediaError`` with a reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retrieval import sounds
from retrieval.documents import passages
from retrieval.errors import MediaError
from retrieval.exif import facts_of, orientation_of
from retrieval.inscribed import picture_words, sound_words
from retrieval.types import NO_FACTS, Facts, Fingerprint, Media, Modality, Part, Source, Words

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .avif .heic .heif".split()
)
TEXT_SUFFIXES = frozenset(".txt .text .md .markdown .rst .html .htm .xhtml .pdf".split())
HEIF_SUFFIXES = frozenset((".heic", ".heif"))
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

MAX_FILE_BYTES = 192 << 20  # two such files at once still leave memory to decode one of them
# A 200-megapixel telephone JPEG is decoded at an eighth of its size; other formats must be
# decoded whole, 4 bytes a pixel, and 128 megapixels keep that within 512 MB.
MAX_JPEG_PIXELS = 256_000_000
MAX_PIXELS = 128_000_000
LARGE_PIXELS = 16_000_000  # above this, pictures that decode whole are decoded one at a time
Image.MAX_IMAGE_PIXELS = None  # our own limits stand above, and are checked before decoding

# Pixels come in blocks of this size. The C library gives blocks of over 32 MB back to the system
# when they are freed; smaller ones it may keep, for each thread, and a run would use ever more.
Image.core.set_block_size(64 << 20)  # type: ignore[attr-defined]

TURNS = {  # what EXIF's orientation asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

CHANGED = "changed while it was being read; the next run will take it"

_one_large_picture = threading.Semaphore(1)
_heif = threading.Lock()


def modality_of(name: str | bytes) -> Modality | None:
    """Tells from a file's name what it should hold; ``None`` if it is nothing that we read."""
    suffix = os.path.splitext(os.fsdecode(name))[1].lower()  # noqa: PTH122 (bytes, and hot)
    if suffix in IMAGE_SUFFIXES:
        return Modality.IMAGE
    if suffix in TEXT_SUFFIXES:
        return Modality.TEXT
    if suffix in sounds.SUFFIXES:
        return Modality.AUDIO
    return None


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes with the fingerprint that belongs to exactly them.

    Attributes:
        data: The whole file; empty for sounds, which are decoded as a stream.
        fingerprint: Size and time, the same before and after reading.
        content_hash: 16 bytes of BLAKE2b over the whole file.
    """

    data: bytes
    fingerprint: Fingerprint
    content_hash: bytes


def read(path: str | bytes | Path, *, stopped: Callable[[], bool] = lambda: False) -> FileContent:
    """Reads a file whole, and makes sure that it did not change meanwhile.

    Files that should hold sound are only gone through for their hash, whatever their size.

    Args:
        path: The file.
        stopped: Asked now and then while a long recording is gone through.

    Raises:
        MediaError: If it is gone, unreadable, too large, or changing, or reading was stopped.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if modality_of(os.fsencode(path)) is Modality.AUDIO:
                return _read(file, keep=False, stopped=stopped)
            return _read(file, keep=True, stopped=stopped)
    except FileNotFoundError:
        raise MediaError("vanished before it could be read") from None
    except PermissionError:
        raise MediaError("no permission to read it") from None
    except IsADirectoryError:
        raise MediaError("is a folder") from None
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}") from None


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe with a picture's name must not hang the run."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read(file: BinaryIO, *, keep: bool, stopped: Callable[[], bool]) -> FileContent:
    before = os.fstat(file.fileno())
    if not S_ISREG(before.st_mode):
        raise MediaError("is a pipe or a device, not a file")
    if keep and before.st_size > MAX_FILE_BYTES:
        raise MediaError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    digest = hashlib.blake2b(digest_size=16)
    data, length = b"", 0
    if keep:
        data = file.read(before.st_size + 1)  # one more byte than there should be tells growth
        digest.update(data)
        length = len(data)
    else:
        while length <= before.st_size and (some := file.read(1 << 20)):
            if stopped():
                raise MediaError("was not read to its end")
            digest.update(some)
            length += len(some)
    fingerprint = Fingerprint(before.st_size, before.st_mtime_ns)
    if length != before.st_size or _fingerprint(os.fstat(file.fileno())) != fingerprint:
        raise MediaError(CHANGED)
    return FileContent(data, fingerprint, digest.digest())


def check_unchanged(path: str | bytes | Path, fingerprint: Fingerprint) -> None:
    """Makes sure that a file which was read in pieces is still the one that it was.

    Raises:
        MediaError: If it is not.
    """
    try:
        same = _fingerprint(os.stat(path)) == fingerprint  # noqa: PTH116 (bytes)
    except OSError:
        same = False
    if not same:
        raise MediaError(CHANGED)


def _fingerprint(stat: os.stat_result) -> Fingerprint:
    return Fingerprint(stat.st_size, stat.st_mtime_ns)


def decode(data: bytes, name: str | bytes, *, side_px: int | None = None) -> Media:
    """Turns a file's bytes into its parts.

    Args:
        data: The whole file.
        name: Its name or path; the suffix tells pictures from texts.
        side_px: If given, a picture may come scaled down, its shorter side not below this.

    Raises:
        MediaError: With the reason, if nothing can be made of it.
    """
    if not data:
        raise MediaError("is empty")
    match modality_of(name):
        case Modality.IMAGE:
            return _picture(data, name, side_px)
        case Modality.TEXT:
            return Media(Modality.TEXT, passages(data, os.fsdecode(name)))
        case Modality.AUDIO:
            raise ValueError("sounds are not decoded whole: see retrieval.sounds.windows")
    raise MediaError("is no kind of file that anyseek reads")


def _picture(data: bytes, name: str | bytes, side_px: int | None) -> Media:
    with _opened(data, name) as image:
        return _picture_from(image, side_px)


@contextlib.contextmanager
def _opened(data: bytes, name: str | bytes) -> Iterator[Image.Image]:
    """Opens a picture; whatever its decoder raises inside becomes a ``MediaError``."""
    suffix = os.path.splitext(os.fsdecode(name))[1].lower()  # noqa: PTH122
    if suffix in HEIF_SUFFIXES or data[4:12] in (b"ftypheic", b"ftypmif1", b"ftypheix"):
        _load_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is not the reader's business here
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                yield image
    except UnidentifiedImageError:
        raise MediaError("is not a picture in a format that anyseek knows") from None
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("needs more memory than there is") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
        EOFError,
        RuntimeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:  # what Pillow's decoders are known to raise on damaged files
        raise MediaError(f"is damaged or truncated ({error})") from None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    limit = MAX_JPEG_PIXELS if image.format in ("JPEG", "MPO") else MAX_PIXELS
    if width * height > limit:
        raise MediaError(
            f"{width} x {height} pixels are too many (the limit is {limit // 1_000_000} million)"
        )


def _picture_from(image: Image.Image, side_px: int | None) -> Media:
    _check_size(image)
    width, height = image.size
    scaled = side_px is not None and image.format in ("JPEG", "MPO")
    large = width * height > LARGE_PIXELS and not scaled
    with _one_large_picture if large else contextlib.nullcontext():
        said = _facts_of(image)
        if side_px is not None and scaled:
            # libjpeg scales by 1/2, 1/4 or 1/8 while it decodes. Twice the wanted side leaves the
            # last halving to the tower's own filter, so that the result hardly differs.
            scale = max(1.0, min(width, height) / (2 * side_px))
            image.draft("RGB", (int(width / scale), int(height / scale)))
        pixels = _shrunk(image, side_px)
        orientation = orientation_of(image)
        if pixels is not image:
            image.close()  # frees its pixels before the next large picture is let in
    if orientation in TURNS:
        pixels = pixels.transpose(TURNS[orientation])
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return Media(Modality.IMAGE, (Part(pixels),), width, height, facts=said)


def facts(data: bytes, name: str | bytes) -> Facts:
    """Gives what a picture's metadata say, without decoding more than they need.

    Args:
        data: The whole file.
        name: Its name or path.

    Returns:
        Nothing said, for what is no picture or a damaged one.
    """
    if modality_of(name) is not Modality.IMAGE:
        return NO_FACTS
    try:
        with _opened(data, name) as image:
            _check_size(image)
            large = image.width * image.height > LARGE_PIXELS and image.format == "PNG"
            with _one_large_picture if large else contextlib.nullcontext():
                return _facts_of(image)
    except MediaError:
        return NO_FACTS


def inscribed_words(data: bytes, path: str | bytes) -> Words | None:
    """Gives the words that a picture or a sound carries, if there are any.

    Args:
        data: Of a picture, the whole file; sounds are read where they lie.
        path: Its path.
    """
    text = ""
    match modality_of(path):
        case Modality.IMAGE:
            with contextlib.suppress(MediaError), _opened(data, path) as image:
                text = picture_words(image)
        case Modality.AUDIO:
            text = sound_words(sounds.tags(path))
    return Words(Source.METADATA, text) if text else None


def _facts_of(image: Image.Image) -> Facts:
    if image.format == "PNG":
        image.load()  # EXIF may follow the pixels, whose damage must be told
    return facts_of(image)


def _shrunk(image: Image.Image, side_px: int | None) -> Image.Image:
    """Decodes to RGB, averaged over whole squares of pixels where more than enough are left.

    Converting and averaging go strip by strip: a large picture is in memory once, not thrice.
    """
    image.load()
    top = _top(image)
    factor = 1 if side_px is None else min(image.size) // (2 * side_px)
    if factor < 2:
        return _rgb(image, top)
    width, height = image.size
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = 8 * factor
    for upper in range(0, height, rows):
        strip = image.crop((0, upper, width, min(upper + rows, height)))
        small.paste(_rgb(strip, top).reduce(factor), (0, upper // factor))
    return small


def _rgb(image: Image.Image, top: float) -> Image.Image:
    """Converts any mode to RGB; transparent parts become white, as a page would show them.

    Args:
        image: Of any mode.
        top: The value that is white, in modes of more than 8 bits.
    """
    if _is_wide(image):
        grey = np.clip(_finite(image) / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_wide(image: Image.Image) -> bool:
    """Tells grey of 16 or 32 bits or floats, which Pillow itself would clip at 255."""
    return image.mode.startswith("I;16") or image.mode in ("I", "F")


def _top(image: Image.Image) -> float:
    """Gives the value that is white in a wide picture: what its format or its content suggests."""
    if not _is_wide(image):
        return 255.0
    if image.mode.startswith("I;16"):
        return 65535.0
    # Pillow's getextrema takes a NaN for the highest value if it comes first
    highest = max(
        float(_finite(image.crop((0, upper, image.width, min(upper + 64, image.height)))).max())
        for upper in range(0, image.height, 64)
    )
    if image.mode == "F":
        return 1.0 if highest <= 1 else max(255.0, highest)
    return 255.0 if highest <= 255 else max(65535.0, highest)


def _finite(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _load_heif() -> None:
    with _heif:
        if "HEIF" in Image.OPEN:
            return
        try:
            import pillow_heif
        except ImportError:
            raise MediaError("HEIC needs one more library: pip install 'anyseek[heif]'") from None
        pillow_heif.register_heif_opener()
