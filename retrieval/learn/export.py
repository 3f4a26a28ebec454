"""Trained towers become the files that the runtime loads: ONNX, npz, TOML."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.train import Head, rooted

PREPROCESSING = "rgb, transparent on white, squashed to 224x224 bicubic, uint8"
"""What happens to a picture before ``image.onnx``; part of the space's identity."""


class ImageTower(nn.Module):
    """Pixels to unit vectors, everything in one graph."""

    def __init__(self, trunk: nn.Module, tail: nn.Module, head: Head) -> None:
        """Chains the parts."""
        super().__init__()
        self.trunk, self.tail, self.head = trunk, tail, head

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``(n, 224, 224, 3)`` uint8 RGB to ``(n, dim)`` float32, unit rows."""
        x = self.trunk(image.permute(0, 3, 1, 2).float())
        embedding: Tensor = self.head(rooted(self.tail(x)))
        return embedding


def to_onnx(
    model: nn.Module, example: Tensor, path: Path, *, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Writes a model as ONNX with a first axis of any length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every constant shape
        torch.onnx.export(
            model.eval(),
            (example,),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
            opset_version=17,
            dynamo=False,
        )


def halve(path: Path) -> None:
    """Stores an ONNX file's float32 weights as float16, each cast back when it is loaded.

    ONNX Runtime folds the casts once, so that it computes with float32 as before.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    casts = []
    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        name = tensor.name
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    model.producer_name, model.producer_version, model.doc_string = "anyseek", "", ""
    onnx.save(model, str(path))


def write_image_tower(tower: ImageTower, path: Path) -> None:
    """Writes ``image.onnx``: input ``image``, output ``embedding``; see ``ImageTower.forward``."""
    example = torch.zeros(2, 224, 224, 3, dtype=torch.uint8)
    to_onnx(tower, example, path, inputs=["image"], outputs=["embedding"])
    halve(path)


def write_text_head(head: Head, shift: Tensor, scale: Tensor, path: Path) -> None:
    """Writes ``text.npz``; ``retrieval.towers.bundled_text`` reads it.

    Args:
        head: The trained head, which was given ``(features - shift) / scale``.
        shift: ``(k,)``, folded into the weights here.
        scale: ``(k,)``, likewise.
        path: The file.
    """
    arrays: dict[str, NDArray[np.float16]] = {}
    with torch.no_grad():
        for name, layer in (("linear", head.linear), ("up", head.up)):
            weight = (layer.weight / scale).T
            bias = layer.bias - (shift / scale) @ layer.weight.T
            arrays[f"{name}_weight"] = weight.numpy().astype(np.float16)
            arrays[f"{name}_bias"] = bias.numpy().astype(np.float16)
        arrays["down_weight"] = head.down.weight.T.numpy().astype(np.float16)
        arrays["down_bias"] = head.down.bias.numpy().astype(np.float16)
    np.savez(path, allow_pickle=False, **arrays)


def identity(name: str, files: Sequence[Path]) -> str:
    """Gives a space's identity: it changes whenever the weights or the preprocessing change."""
    digest = hashlib.sha256(PREPROCESSING.encode())
    for file in files:
        digest.update(file.read_bytes())
    return f"{name}-{digest.hexdigest()[:12]}"


def toml(table: dict[str, Any], *, header: str = "") -> str:
    """Writes nested tables of strings, numbers and lists of them as TOML."""
    lines: list[str] = [f"# {header}"] if header else []

    def value(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        if isinstance(item, str):
            return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(item, (list, tuple)):
            return "[" + ", ".join(value(one) for one in item) + "]"
        return str(item)

    def write(content: dict[str, Any], path: tuple[str, ...]) -> None:
        plain = {key: item for key, item in content.items() if not isinstance(item, dict)}
        if path and (plain or not content):
            lines.extend(["", f"[{'.'.join(path)}]"])
        lines.extend(f"{key} = {value(item)}" for key, item in plain.items())
        for key, item in content.items():
            if isinstance(item, dict):
                write(item, (*path, key))

    write(table, ())
    return "\n".join(lines) + "\n"
