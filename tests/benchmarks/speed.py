"""Measures speed and memory, and writes the figures as JSON.

Run it on an otherwise idle machine, from an environment with anyseek installed::

    python tests/benchmarks/speed.py --out speed.json            # everything, about ten minutes
    python tests/benchmarks/speed.py search --items 100000       # one part

Commands are timed as whole cold processes: a new interpreter each time, files in the page cache.
Every figure comes with its number of runs, median, minimum and maximum.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.pipeline import BATCH_SIZE, cores
from retrieval import media, models
from retrieval.index import seal
from retrieval.store import Batch, ItemRecord, Store
from retrieval.types import WHOLE, Fingerprint, Modality, Vectors

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "data" / "samples" / "photos"
QUERY = "a dog barking at the sea"
Figures = dict[str, Any]


def main() -> None:
    """Runs the chosen parts and writes one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout by default")
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=15, help="runs of each cold command")
    parser.add_argument("--pictures", type=Path, help="folder of your own JPEGs for `fidelity`")
    options = parser.parse_args()
    figures: Figures = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="anyseek-speed-") as name:
        for part in options.parts or PARTS:
            print(f"{part} ...", file=sys.stderr, flush=True)
            folder = Path(name) / part
            folder.mkdir()
            figures[part] = PARTS[part](folder, options)
            shutil.rmtree(folder)
    text = json.dumps(figures, indent=2) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")


def machine() -> Figures:
    """Describes where the figures were taken."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    packages = (
        *("anyseek", "faiss-cpu", "numpy", "onnxruntime", "pillow", "soundfile", "soxr"),
        "sqlalchemy",
    )
    return {
        "processor": model,
        "cores": cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def spread(values: Sequence[float], digits: int = 3) -> Figures:
    """Sums up repeated measurements."""
    return {
        "n": len(values),
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


# ---- cold searches -----------------------------------------------------------------------------


def search(folder: Path, options: argparse.Namespace) -> Figures:
    """Times `anyseek search` as a cold process, at several sizes of the index."""
    base = sample_vectors()
    figures: Figures = {}
    for items in options.items:
        index = folder / f"{items}.db"
        fill(index, items, base)
        command = ["search", QUERY, "--index", str(index), "--format", "json"]
        anyseek(command)  # unpacks the sentence encoder once, as a person's first search does
        runs = [anyseek(command) for _ in range(options.repeat)]
        figures[f"{items} items"] = {
            "wall_s": spread([run["wall_s"] for run in runs]),
            "peak_mb": spread([run["peak_mb"] for run in runs], 0),
        }
    figures["python -c pass"] = {
        "wall_s": spread([timed([sys.executable, "-c", "pass"])["wall_s"] for _ in range(5)])
    }
    return figures


def fill(index: Path, items: int, base: Vectors) -> None:
    """Makes an index whose vectors are those of real pictures with some noise around them."""
    random_ = np.random.default_rng(0)
    encoder = models.model().load()
    with Store(index, write=True) as store:
        space = store.add_space(encoder)
        for start in range(0, items, 5_000):
            count = min(5_000, items - start)
            rows = base[random_.integers(0, len(base), count)]
            noise = random_.normal(0, 0.5 / np.sqrt(rows.shape[1]), rows.shape)
            rows = rows + noise.astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            store.write(
                Batch(
                    records=[
                        ItemRecord(
                            f"/pictures/{(start + i) // 1000:04}/{start + i:07}.jpg".encode(),
                            Fingerprint(start + i, 1),
                            hashlib.blake2b(str(start + i).encode(), digest_size=16).digest(),
                            Modality.IMAGE,
                            (WHOLE,),
                            rows[i : i + 1].astype(np.float32),
                        )
                        for i in range(count)
                    ]
                ),
                space,
            )
        seal(store, space, Modality.IMAGE)


def sample_vectors() -> Vectors:
    """Embeds the sample photographs."""
    tower = models.model().load().towers[Modality.IMAGE]
    inputs = [prepared(path, tower) for path in sorted(SAMPLES.iterdir())]
    return tower.embed(inputs)


# ---- indexing ----------------------------------------------------------------------------------


def index(folder: Path, options: argparse.Namespace) -> Figures:
    """Times indexing end to end, and against the bound that its two halves set."""
    return {
        "12 megapixels": against_bound(folder, "large", 80, (4000, 3000), 3),
        "COCO size": against_bound(folder, "small", 1_000, (640, 480), 3),
    }


def against_bound(
    folder: Path, name: str, count: int, size: tuple[int, int], repeat: int
) -> Figures:
    """Measures decoding alone, embedding alone, and the command, each with a thread per core."""
    pictures = folder / name
    megabytes = make_jpegs(pictures, count, size)
    tower = models.model().load().towers[Modality.IMAGE]
    paths = sorted(pictures.iterdir())
    tower.embed([prepared(paths[0], tower)])  # reads the weights
    decode, embed, whole, inside, share, peak = [], [], [], [], [], []
    for run in range(repeat):
        with ThreadPoolExecutor(cores()) as pool:
            started = time.perf_counter()
            inputs = list(pool.map(lambda path: prepared(path, tower), paths))
            decode.append(count / (time.perf_counter() - started))
            batches = [inputs[i : i + BATCH_SIZE] for i in range(0, count, BATCH_SIZE)]
            started = time.perf_counter()
            list(pool.map(tower.embed, batches))
            embed.append(count / (time.perf_counter() - started))
        del inputs, batches
        command = ["index", str(pictures), "--index", str(folder / f"{name}-{run}.db")]
        done = anyseek(command)
        whole.append(count / done["wall_s"])
        inside.append(count / float(done["stdout"].split(" in ")[1].split()[0]))
        share.append(inside[-1] / (1 / (1 / decode[-1] + 1 / embed[-1])))
        peak.append(done["peak_mb"])
    return {
        "pictures": count,
        "megabytes_each": round(megabytes, 2),
        "decode_per_s": spread(decode, 1),
        "embed_per_s": spread(embed, 1),
        "index_per_s": spread(inside, 1),
        "index_per_s_with_start_up": spread(whole, 1),
        "share_of_bound": spread(share),
        "peak_mb": spread(peak, 0),
    }


def prepared(path: Path, tower: Any) -> NDArray[np.uint8]:
    """Decodes a picture and prepares it, as indexing does."""
    data = media.read(path).data
    item = media.decode(data, path.name, side_px=tower.side_px)
    result: NDArray[np.uint8] = tower.prepare(item.parts[0].content)
    return result


def make_jpegs(folder: Path, count: int, size: tuple[int, int]) -> float:
    """Writes pictures like a camera's: enlarged samples with sensor noise; gives MB per file."""
    folder.mkdir()
    random_ = np.random.default_rng(0)
    noise = random_.normal(0, 6, (size[1], size[0], 3))
    samples = sorted(SAMPLES.iterdir())
    kinds: list[bytes] = []
    for path in samples[: min(len(samples), 20)]:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB").resize(size), np.float32)
        target = folder / "kind.jpg"
        noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(target, quality=92)
        kinds.append(target.read_bytes())
        target.unlink()
    for number in range(count):
        # bytes after the end of a JPEG are ignored: each file is a content of its own
        data = kinds[number % len(kinds)] + number.to_bytes(4, "big")
        (folder / f"{number:05}.jpg").write_bytes(data)
    return sum(map(len, kinds)) / len(kinds) / 1e6


def rescan(folder: Path, options: argparse.Namespace) -> Figures:
    """Times a second `anyseek index` over 100,000 unchanged files."""
    count = 100_000
    pictures = folder / "pictures"
    encoder = models.model().load()
    vector = sample_vectors()[:1]
    with Store(folder / "index.db", write=True) as store:
        space = store.add_space(encoder)
        for start in range(0, count, 1_000):
            batch = Batch()
            below = pictures / f"{start // 1000:03}"
            below.mkdir(parents=True)
            for number in range(start, start + 1_000):
                path = below / f"{number:06}.jpg"
                path.write_bytes(number.to_bytes(4, "big"))
                stat = path.stat()
                batch.records.append(
                    ItemRecord(
                        os.fsencode(path.resolve()),
                        Fingerprint(stat.st_size, stat.st_mtime_ns),
                        hashlib.blake2b(path.name.encode(), digest_size=16).digest(),
                        Modality.IMAGE,
                        (WHOLE,),
                        vector,
                    )
                )
            store.write(batch, space)
    command = ["index", str(pictures), "--index", str(folder / "index.db")]
    runs = [anyseek(command) for _ in range(max(3, options.repeat // 3))]
    assert all("100000 unchanged" in run["stdout"] for run in runs), runs[0]["stdout"]
    return {
        "files": count,
        "wall_s": spread([run["wall_s"] for run in runs]),
        "peak_mb": spread([run["peak_mb"] for run in runs], 0),
    }


def memory(folder: Path, options: argparse.Namespace) -> Figures:
    """Measures the peak memory of indexing folders of growing size, and of huge pictures."""
    figures: Figures = {}
    for count in (500, 2_000, 8_000):
        make_jpegs(folder / str(count), count, (640, 480))
        run = anyseek(["index", str(folder / str(count)), "--index", str(folder / f"{count}.db")])
        figures[f"{count} pictures"] = {"peak_mb": round(run["peak_mb"])}
    huge = folder / "huge"
    huge.mkdir()
    for number in range(4):
        Image.new("RGBA", (10_000, 10_000), (number, 90, 200, 255)).save(
            huge / f"{number}.png", compress_level=1
        )
    run = anyseek(["index", str(huge), "--index", str(folder / "huge.db")])
    figures["4 PNGs of 100 megapixels with alpha"] = {"peak_mb": round(run["peak_mb"])}
    return figures


def sounds(folder: Path, options: argparse.Namespace) -> Figures:
    """Times indexing sounds end to end, as cold processes, and measures memory."""
    kinds = {
        "30 WAV of 1 minute": (30, 60, 44_100, 2, "wav"),
        "1 MP3 of 1 hour": (1, 3_600, 44_100, 2, "mp3"),
        "1,000 FLAC of 3 s": (1_000, 3, 48_000, 1, "flac"),
        "1 WAV of 10 hours": (1, 36_000, 8_000, 1, "wav"),
    }
    figures: Figures = {}
    for name, (count, seconds, rate_hz, channels, suffix) in kinds.items():
        recordings = folder / suffix / str(count)
        make_sounds(recordings, count, seconds, rate_hz, channels, suffix)
        runs = []
        for number in range(1 if seconds > 10_000 else 3):
            index = folder / f"{count}-{suffix}-{number}.db"
            runs.append(anyseek(["index", str(recordings), "--index", str(index)]))
            assert runs[-1]["stdout"].startswith(f"{count} added"), runs[-1]["stdout"]
        shutil.rmtree(recordings)
        figures[name] = {
            "wall_s": spread([run["wall_s"] for run in runs], 2),
            "times_real_time": spread([count * seconds / run["wall_s"] for run in runs], 0),
            "peak_mb": spread([run["peak_mb"] for run in runs], 0),
        }
    return figures


def make_sounds(
    folder: Path, count: int, seconds: int, rate_hz: int, channels: int, suffix: str
) -> None:
    """Writes noise that swells and fades with a wandering tone in it, each file another."""
    import soundfile

    folder.mkdir(parents=True)
    moment = np.arange(rate_hz)[:, None] / rate_hz
    for number in range(count):
        random_ = np.random.default_rng(number)
        with soundfile.SoundFile(folder / f"{number:05}.{suffix}", "w", rate_hz, channels) as file:
            for second in range(seconds):
                noise = random_.normal(0, 0.1, (rate_hz, channels)).astype(np.float32)
                tone = np.sin(2 * np.pi * random_.uniform(100, 3_000) * moment) * 0.2
                file.write(noise * (1 + np.sin(second)) / 2 + tone.astype(np.float32))


def fidelity(folder: Path, options: argparse.Namespace) -> Figures:
    """Compares the vectors of scaled and of full decoding."""
    pictures: Path | None = options.pictures
    if pictures is None:
        pictures = folder / "pictures"
        make_jpegs(pictures, 20, (4000, 3000))
    tower = models.model().load().towers[Modality.IMAGE]
    cosines = []
    for path in sorted(pictures.glob("*.[jJ][pP]*[gG]")):
        data = path.read_bytes()
        one, other = (
            tower.embed(
                [tower.prepare(media.decode(data, path.name, side_px=side).parts[0].content)]
            )[0]
            for side in (None, tower.side_px)
        )
        cosines.append(float(one @ other))
    return {
        "pictures": len(cosines),
        "mean": round(statistics.mean(cosines), 5),
        "cosine": spread(cosines, 5),
    }


# ---- processes ---------------------------------------------------------------------------------


def anyseek(arguments: Sequence[str]) -> Figures:
    """Runs the command as a cold process."""
    return timed([sys.executable, "-c", "from cli.app import main; main()", *arguments])


LAUNCHER = """
import json, os, sys, time
started = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, code, usage = os.wait4(child, 0)
wall_s = time.perf_counter() - started
figures = [os.waitstatus_to_exitcode(code), wall_s, usage.ru_maxrss / 1024]
print(json.dumps(figures), file=sys.stderr)
"""


def timed(command: Sequence[str]) -> Figures:
    """Runs a process; gives its wall-clock seconds, peak resident MB and output.

    A small process starts it, since a child's peak begins with what its parent had.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    code, wall_s, peak_mb = json.loads(done.stderr.splitlines()[-1])
    if code:
        raise SystemExit(f"{' '.join(command)} failed with {code}: {done.stderr}")
    return {"wall_s": wall_s, "peak_mb": peak_mb, "stdout": done.stdout}


PARTS: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "search": search,
    "index": index,
    "rescan": rescan,
    "memory": memory,
    "sounds": sounds,
    "fidelity": fidelity,
}

if __name__ == "__main__":
    main()
