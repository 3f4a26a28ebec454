"""Networks exported once, so that a cold search runs them without torch.

An export is a folder in the platform's cache folder, named after what it was made from: the ONNX
graph, its weights in a file that is mapped into memory, and whatever else its maker adds. It is
there whole or not at all; one that is damaged, or of another version of ONNX Runtime, is made
again.

The graph is stored as ONNX Runtime has optimised it, and weights in float32, which are mapped and
need no work to open: 0.02 s for the text tower of ViT-B/32, where float16 would be cast anew each
time (``tests/benchmarks/towers.py``). Tables of tokens, of which a text needs a few rows, are in
float16.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers.device import cache_folder
from retrieval.towers.onnx_session import runtime

LAYOUT = 1  # of an export's folder; another makes all of them anew
LIST = "files.json"
SAMPLES, BLOCK = 32, 4096  # what is read of each file to tell that it is whole
MIN_COSINE = 0.99  # an export that gives other vectors than torch is not used
OPSET = 17  # the first with layer normalisation as one operation
LOCK_S = 1800.0  # another process may be exporting the largest of models

Arrays = Mapping[str, NDArray[Any]]


def exported(name: str, make: Callable[[Path], None], *, cache: Path | None = None) -> Path:
    """Gives the folder of an export, and has it made if it is not there or not whole.

    Processes that want the same one wait for the first.

    Args:
        name: What it was made from: a space, and what part of it.
        make: Fills an empty folder. What it raises is passed on, and nothing is kept.
        cache: Holds the exports; the platform's cache folder by default.

    Raises:
        ModelError: If the folder cannot be written.
    """
    folder = cache_folder(cache) / "exports" / re.sub(r"[^\w.-]", "-", name)
    if is_whole(folder):
        return folder
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=LOCK_S):
            if not is_whole(folder):
                _make(folder, make)
    except Timeout:
        raise ModelError(
            f"another process has been exporting {folder.name} for too long: try again later"
        ) from None
    except OSError as error:
        raise ModelError(
            f"the exported model cannot be kept in {folder} ({error.strerror or error}): "
            "make room there, or set XDG_CACHE_HOME to another folder"
        ) from error
    return folder


def forget(folder: Path) -> None:
    """Removes an export that looked whole and cannot be used, so that it is made again."""
    with suppress(OSError):
        (folder / LIST).unlink(missing_ok=True)


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    """Makes an export beside its place and moves it there; the lock is held."""
    for stale in folder.parent.glob(f"{folder.name}.*.tmp"):  # of processes that were killed
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(".tmp", f"{folder.name}.", folder.parent))
    try:
        new = temporary / "new"
        new.mkdir()
        make(new)
        files = {path.name: _print(path) for path in sorted(new.iterdir())}
        (new / LIST).write_text(json.dumps({"version": _version(), "files": files}), "utf-8")
        for path in new.iterdir():
            _sync(path)
        if folder.exists():
            folder.rename(temporary / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_whole(folder: Path) -> bool:
    """Tells whether an export is there, of this version, and every file as it was written.

    Sizes are compared, and of each file some blocks from its beginning to its end.
    """
    try:
        told = json.loads((folder / LIST).read_text("utf-8"))
        return told["version"] == _version() and all(
            _print(folder / Path(name).name) == known for name, known in told["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _version() -> str:
    # found without importing it: a whole export may be asked for by a search that needs no model
    from importlib.metadata import version

    return f"{LAYOUT} onnxruntime {version('onnxruntime')}"


def _print(path: Path) -> list[Any]:
    """Gives a file's size and a digest of blocks spread over it."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for at in np.unique(np.linspace(0, max(size - BLOCK, 0), SAMPLES).astype(np.int64)):
            file.seek(int(at))
            digest.update(file.read(BLOCK))
    return [size, digest.hexdigest()]


# ---- ONNX ----------------------------------------------------------------------------------------


def write_onnx(
    model: Any,
    folder: Path,
    *,
    name: str,
    examples: Sequence[Mapping[str, Any]],
    axes: Mapping[str, Mapping[int, str]],
    halve_tables: bool = True,
) -> None:
    """Exports a torch module as ``NAME.onnx`` and ``NAME.data``, and compares their vectors.

    Args:
        model: Takes tensors in the order of the inputs, gives one tensor ``(n, dim)`` of float32
            unit rows.
        folder: Where the files go.
        name: Their stem.
        examples: Inputs by name, of several shapes if those may vary: the first is traced, and all
            must give the vectors that torch gives.
        axes: The axes of each input that may vary, with a name for each.
        halve_tables: Whether the tables that are looked up by row are kept in float16.

    Raises:
        ModelError: If the export's vectors are other ones, or the library for it is missing.
    """
    import torch

    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ModelError("exporting a model needs one more library: pip install onnx") from None
    model = model.float().eval()
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".tmp") as scratch:
        raw = Path(scratch) / "traced.onnx"
        trace(model, examples[0], raw, axes=axes)
        if halve_tables:
            _halve_tables(raw)
        _optimise(raw, folder, name)
    session = open_onnx(folder, name)
    for example in examples:
        with torch.inference_mode():
            expected = model(*example.values()).float().cpu().numpy()
        inputs = {key: value.cpu().numpy() for key, value in example.items()}
        try:
            given = run_onnx(session, inputs)
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise ModelError(f"the exported {name} tower does not run: {error}") from error
        cosines = (given * expected).sum(axis=1) if given.shape == expected.shape else np.zeros(1)
        if not np.isfinite(cosines).all() or cosines.min() < MIN_COSINE:
            raise ModelError(
                f"the exported {name} tower gives other vectors than torch "
                f"(cosine {cosines.min():.4f}): this model cannot be used"
            )


def trace(
    model: Any, example: Mapping[str, Any], path: Path, *, axes: Mapping[str, Mapping[int, str]]
) -> None:
    """Writes a torch module as ONNX as it is; see ``write_onnx``."""
    import torch

    with warnings.catch_warnings(), torch.inference_mode(), _traceable(model):
        warnings.simplefilter("ignore")  # the tracer warns of every constant shape
        torch.onnx.export(
            model,
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=["embedding"],
            dynamic_axes={**axes, "embedding": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs one more library
        )


@contextmanager
def _traceable(model: Any) -> Iterator[None]:
    """Has attention written in plain operations: torch's own fixes the length of what it traced."""
    import torch

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX does not know torch's fused layers
    changed: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.MultiheadAttention)
        and module.batch_first
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    ]
    for module in changed:
        module.forward = functools.partial(_attend, module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
        torch.backends.mha.set_fastpath_enabled(fused)


def _attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = False,
    attn_mask: Any = None,
    **_rest: Any,
) -> tuple[Any, None]:
    """Does what ``torch.nn.MultiheadAttention`` does, for inference and without its weights.

    Args:
        module: The layer.
        query: ``(n, length, width)``.
        key: ``(n, others, width)``.
        value: Likewise.
        key_padding_mask: ``(n, others)``, true or minus infinity at what is not looked at.
        need_weights: Not done.
        attn_mask: ``(length, others)`` or ``(n * heads, length, others)``, true or minus infinity
            at what is not looked at.
    """
    import torch
    from torch.nn import functional

    heads, width = module.num_heads, module.embed_dim
    weights = module.in_proj_weight.chunk(3)
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)

    def split(x: Any) -> Any:
        return x.reshape(x.shape[0], -1, heads, width // heads).transpose(1, 2)

    q, k, v = (
        split(functional.linear(x, weight, bias))
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    masks = []
    if attn_mask is not None:
        own = attn_mask.dim() == 3
        masks.append(attn_mask.reshape(-1, heads, *attn_mask.shape[1:]) if own else attn_mask)
    if key_padding_mask is not None:
        masks.append(key_padding_mask[:, None, None, :])
    for mask in masks:
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(mask, float("-inf"))
        else:
            scores = scores + mask
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(query.shape[0], -1, width)
    return module.out_proj(mixed), None


def _halve_tables(path: Path) -> None:
    """Stores tables that rows are only gathered from as float16; the rows are cast afterwards."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for key in node.input:
            users.setdefault(key, []).append(node)
    for tensor in graph.initializer:
        found = users.get(tensor.name, [])
        gathers = all(node.op_type == "Gather" and node.input[0] == tensor.name for node in found)
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or not found:
            continue
        if not gathers or np.prod(tensor.dims) < 1 << 16:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
        for node in found:
            rows = node.output[0]
            node.output[0] = f"{rows}_half"
            cast = helper.make_node("Cast", [f"{rows}_half"], [rows], to=TensorProto.FLOAT)
            graph.node.insert(list(graph.node).index(node) + 1, cast)
    del graph.value_info[:]  # the types that the tracer wrote are those from before
    onnx.save(model, str(path))


def _optimise(raw: Path, folder: Path, name: str) -> None:
    """Has ONNX Runtime rewrite the graph, and writes that with its weights beside it."""
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # what goes beyond "extended" depends on the processor
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = os.fspath(folder / f"{name}.onnx")
    for key, value in (
        ("optimized_model_external_initializers_file_name", f"{name}.data"),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    onnxruntime.InferenceSession(os.fspath(raw), options, providers=["CPUExecutionProvider"])


def open_onnx(folder: Path, name: str, *, bulk: bool = False) -> Any:
    """Opens ``NAME.onnx`` of an export, its weights mapped into memory.

    For a search, whose one call should have all cores at once; in bulk for the indexer, which makes
    several calls with one thread each, and for which weights are packed first.

    Args:
        folder: Of the export.
        name: Stem of the files.
        bulk: Whether there will be many calls, from several threads.

    Raises:
        ModelError: If it cannot be read; call ``forget`` to have it made again.
    """
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1 if bulk else 0
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not bulk:  # packing reads and copies all weights; without it one call takes a tenth longer
        options.add_session_config_entry("session.disable_prepacking", "1")
    # the cores are also those that decode: no thread may burn one while it waits
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = folder / f"{name}.onnx"
    try:
        return onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise ModelError(f"{path} cannot be read ({error}): delete {folder}") from error


def run_onnx(session: Any, inputs: Arrays) -> NDArray[np.float32]:
    """Runs an export: ``(n, dim)`` float32, unit rows."""
    (vectors,) = session.run(["embedding"], dict(inputs))
    return np.asarray(vectors, np.float32)
