"""Times a ViT-B/32 of open_clip in every way it can be run, and prints the figures as JSON.

    python -m tests.benchmarks.towers > tests/benchmarks/results/towers.json

The checkpoint is ViT-B-32-256 with random weights in the format of published ones, which run as
fast. ``encoder`` has pictures per second of processor time, of one thread, so that other work on
the machine changes little; beside it the share of the rate at which torch multiplies matrices of
the network's shapes in float32, and the lowest cosine to torch in float32. ``text_tower`` has the
processor time of opening an exported text tower and of one short text. ``indexing`` has pictures
per second of wall time: decoding and preparing alone, embedding alone, and the indexer end to end,
whose bound is 1 / (1 / decoding + 1 / embedding). Rounds of the three take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from indexer.pipeline import cores, index
from retrieval import media
from retrieval.store import Store
from retrieval.towers import export, open_clip, open_clip_files, open_clip_network
from retrieval.towers.onnx_session import runtime
from retrieval.towers.open_clip_tables import architecture
from retrieval.types import Modality
from tests.benchmarks.speed import Figures, machine, spread

ARCH = "ViT-B-32-256"
TOKENS, WIDTH, LAYERS = 65, 768, 12
# multiplications and additions of one picture: patches, four projections, the MLP, attention
FLOP = 2 * (64 * 3072 * WIDTH + LAYERS * (12 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH))
BATCH = 4

Pixels = NDArray[np.uint8]


def main() -> None:
    """Makes a checkpoint, measures, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=24, help="of a round of indexing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=Path, default=Path("data/samples/photos"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="anyseek-towers-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        source = f"local-dir:{checkpoint(folder / 'model')}"
        photos = sorted(path for path in options.photos.iterdir() if path.suffix == ".jpg")
        figures: Figures = {"machine": machine() | {"torch": torch.__version__}}
        figures["gflop_of_a_picture"] = round(FLOP / 1e9, 2)
        figures["encoder"] = encoders(source, folder, photos)
        figures["text_tower"] = text_tower(source, folder)
        figures["indexing"] = indexing(source, folder, photos, options.pictures, options.rounds)
    figures["load"] = [round(one, 1) for one in os.getloadavg()]
    print(json.dumps(figures, indent=2))


def checkpoint(folder: Path) -> Path:
    """Writes random weights as a model that open_clip would publish."""
    from open_clip.model import CLIP

    folder.mkdir()
    config = architecture(ARCH)
    torch.manual_seed(0)
    network = CLIP(**config)
    tensors = {name: one.contiguous() for name, one in network.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    told = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(told), "utf-8")
    return folder


def processor_s(run: Callable[[], object], repeat: int = 3, *, warm: bool = True) -> float:
    """Gives the least processor time of some runs after one that is not counted."""
    if warm:
        run()
    took = []
    for _ in range(repeat):
        started = time.process_time()
        run()
        took.append(time.process_time() - started)
    return min(took)


def multiplied(dtype: torch.dtype, repeat: int) -> float:
    """Measures the rate of matrix products of the MLP's shape, in GFLOP/s of one thread."""
    a, b = torch.randn(BATCH * TOKENS, WIDTH).to(dtype), torch.randn(WIDTH, 4 * WIDTH).to(dtype)
    took = processor_s(lambda: a @ b, repeat, warm=repeat > 1)
    return 2 * a.shape[0] * WIDTH * 4 * WIDTH / took / 1e9


def encoders(source: str, folder: Path, photos: list[Path]) -> Figures:
    """Runs the picture tower in every way."""
    torch.set_num_threads(1)
    found = open_clip_files.find(source)
    how = found.preprocess
    network = open_clip_network.build(found)
    tower = open_clip.load(source, "cpu").towers[Modality.IMAGE]
    pixels = np.stack([tower.prepare(_decoded(path, how.side_px)) for path in photos[:16]])
    some = pixels[:BATCH]
    module = open_clip_network.pictures(network, how)
    peak = multiplied(torch.float32, 5)
    rows: Figures = {
        "matrix_product_float32_gflop_s": round(peak, 1),
        "matrix_product_bfloat16_gflop_s": round(multiplied(torch.bfloat16, 1), 2),
    }

    def torch_run(some: Pixels, module: Any = module) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(some)).numpy(), np.float32)

    expected = torch_run(pixels)

    def row(name: str, run: Callable[[Pixels], NDArray[np.float32]]) -> None:
        rate = len(some) / processor_s(lambda: run(some))
        cosine = float((run(pixels) * expected).sum(axis=1).min())
        rows[name] = {
            "pictures_s": round(rate, 3),
            "share_of_matrix_product": round(rate * FLOP / 1e9 / peak, 3),
            "cosine": round(cosine, 5),
        }

    row("torch float32", torch_run)
    try:
        compiled = torch.compile(module)
        row("torch float32, compiled", lambda some: torch_run(some, compiled))
    except Exception as error:  # where there is no compiler for C++
        rows["torch float32, compiled"] = f"does not run: {type(error).__name__}"
    torch._dynamo.reset()

    raw = folder / "onnx"
    raw.mkdir()
    open_clip_network.export_pictures(network, how, raw)
    plain = export.open_onnx(raw, "image", bulk=True)
    row("ONNX Runtime float32", lambda some: export.run_onnx(plain, {"image": some}))
    traced = raw / "traced.onnx"  # the quantiser does not know what ONNX Runtime has fused
    example = {"image": torch.from_numpy(some)}
    export.trace(module, example, traced, axes={"image": {0: "n"}})
    for name, path in quantised(traced, raw, pixels):
        session = _session(path)

        def run(some: Pixels, session: Any = session) -> NDArray[np.float32]:
            return export.run_onnx(session, {"image": some})

        row(f"ONNX Runtime int8 {name}", run)
    module.visual.to(torch.bfloat16)
    one = pixels[:1]
    took = processor_s(lambda: torch_run(one), 1, warm=False)
    rows["torch bfloat16"] = {
        "pictures_s": round(1 / took, 3),
        "share_of_matrix_product": round(FLOP / 1e9 / took / peak, 3),
        "cosine": round(float((torch_run(one) * expected[:1]).sum()), 5),
    }
    return rows


def quantised(path: Path, folder: Path, pixels: Pixels) -> Iterator[tuple[str, Path]]:
    """Quantises an export to 8 bits, with scales found at run time and with fixed ones."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    kinds = ["MatMul", "Gemm"]
    dynamic = folder / "dynamic.onnx"
    quantize_dynamic(
        path,
        dynamic,
        per_channel=True,
        op_types_to_quantize=kinds,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    yield "dynamic", dynamic

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(pixels[8:])

        def get_next(self) -> dict[str, Pixels] | None:
            some = next(self._left, None)
            return None if some is None else {"image": some[None]}

    static = folder / "static.onnx"
    quantize_static(path, static, Pictures(), per_channel=True, op_types_to_quantize=kinds)
    yield "static", static


def _session(path: Path) -> Any:
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )


def text_tower(source: str, folder: Path) -> Figures:
    """Opens the exported text tower and embeds one short text, in a process that has the rest."""
    tower = open_clip.load(source, "cpu").towers[Modality.TEXT]
    started = time.perf_counter()
    tower.embed(["a dog on the beach"])
    made = time.perf_counter() - started
    (exported,) = (folder / "cache" / "anyseek" / "exports").glob("*-text")
    opening = processor_s(lambda: export.open_onnx(exported, "text"))
    return {
        "export_s": round(made, 1),
        "bytes": sum(path.stat().st_size for path in exported.iterdir()),
        "open_processor_s": round(opening, 3),
        "one_short_text_processor_s": round(processor_s(lambda: tower.embed(["a dog"])), 4),
        "one_full_text_processor_s": round(processor_s(lambda: tower.embed(["dog " * 90])), 4),
    }


def _decoded(path: Path, side_px: int) -> Image.Image:
    picture = media.decode(path.read_bytes(), path.name, side_px=side_px).parts[0].content
    assert isinstance(picture, Image.Image)
    return picture


def indexing(source: str, folder: Path, photos: list[Path], count: int, rounds: int) -> Figures:
    """Indexes photographs end to end, and does the two halves alone."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(count):
        path = photos[number % len(photos)]
        # a comment behind the picture makes each content another
        (pictures / f"{number}.jpg").write_bytes(path.read_bytes() + str(number).encode())
    paths = sorted(pictures.iterdir())
    encoder = open_clip.load(source, "cpu")
    tower = encoder.towers[Modality.IMAGE]
    assert tower.side_px is not None
    side = tower.side_px

    def prepared(path: Path) -> Any:
        return tower.prepare(_decoded(path, side))

    inputs = [prepared(path) for path in paths]
    tower.embed(inputs[:1])
    batches = [inputs[at : at + BATCH] for at in range(0, count, BATCH)]
    rates: dict[str, list[float]] = {"decoding": [], "embedding": [], "end_to_end": []}
    with ThreadPoolExecutor(cores()) as pool:
        for number in range(rounds):
            for name, work in (
                ("decoding", lambda: list(pool.map(prepared, paths))),
                ("embedding", lambda: list(pool.map(tower.embed, batches))),
            ):
                started = time.perf_counter()
                work()
                rates[name].append(count / (time.perf_counter() - started))
            with Store(folder / f"{number}.db", write=True) as store:
                started = time.perf_counter()
                report = index(store, encoder, [os.fsencode(pictures)])
                rates["end_to_end"].append(count / (time.perf_counter() - started))
            assert report.added == count
    shares = [
        end * (1 / decoding + 1 / embedding)
        for decoding, embedding, end in zip(*rates.values(), strict=True)
    ]
    told: Figures = {name: spread(values) for name, values in rates.items()}
    return {"pictures": count, **told, "share_of_bound": spread(shares)}


if __name__ == "__main__":
    main()
