"""Models of open_clip: pictures and texts in one space, from published checkpoints.

``source`` is ``ARCH/PRETRAINED`` as open_clip's table names its weights, ``ARCH/FILE``,
``hf-hub:ORG/NAME``, or ``local-dir:FOLDER``. Weights are safetensors; a pickle is opened only with
``ANYSEEK_ALLOW_PICKLE=1``, and then as tensors alone.

Torch reads a checkpoint once. Texts run through an export from then on, and so do pictures where
the processor computes in float32: ONNX Runtime gives a fifth more pictures than torch there, and
lets several threads compute at once (``tests/benchmarks/towers.py``). A cold search imports neither
torch nor open_clip.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError
from retrieval.towers import clip_pixels, export, open_clip_files
from retrieval.towers.clip_tokens import Tokens, missing, trimmed
from retrieval.towers.described import Described, Progress
from retrieval.towers.device import Batches, Device, best_batch, choose
from retrieval.towers.hub import bar
from retrieval.towers.open_clip_files import Checkpoint
from retrieval.types import Encoder, Modality, Tower, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS_AT_ONCE = 16  # keeps the working set of a call near 50 MB


def describe(source: str) -> Described:
    """Tells what a model is, without importing a library; see ``described``.

    Raises:
        ModelMissingError: If its files are not on this machine.
        ModelError: If the source means nothing, or the files are damaged.
    """
    found = open_clip_files.find(source)
    return Described(
        space=open_clip_files.space(found),
        dim=int(found.config["embed_dim"]),
        modalities=(Modality.IMAGE, Modality.TEXT),
        size_bytes=found.weights.stat().st_size,
        licence=found.licence,
    )


def load(source: str, device: str | None = None, *, cache: Path | None = None) -> Encoder:
    """Makes the encoder; weights are read when a tower is first used.

    Args:
        source: Of the model.
        device: For pictures, see ``device.choose``; texts always run on the processor.
        cache: Folder for exports; the platform's cache folder by default.

    Raises:
        ModelError: As of ``describe``. An absent device is told when pictures are embedded.
    """
    found = open_clip_files.find(source)
    model = _Model(found, open_clip_files.space(found), cache)
    towers: dict[Modality, Tower] = {
        Modality.IMAGE: ImageTower(model, device),
        Modality.TEXT: TextTower(model),
    }
    return Encoder(source, model.space, int(found.config["embed_dim"]), towers)


@dataclass(frozen=True, slots=True)
class _Context:
    """Learned vectors before the words, see ``open_clip_context``; they make another space."""

    space: str
    vectors: Callable[[], NDArray[np.float32]]


class _Model:
    """A checkpoint and its exports, shared by its towers."""

    def __init__(self, checkpoint: Checkpoint, space: str, cache: Path | None) -> None:
        self.checkpoint = checkpoint
        self.space = space
        self.cache = cache
        self.lock = threading.RLock()
        self._network: Any = None

    def network(self) -> Any:
        """Reads the weights with torch, once until ``drop``."""
        if self._network is None:
            from retrieval.towers.open_clip_network import build

            self._network = build(self.checkpoint)
        return self._network

    def drop(self) -> None:
        """Lets the weights go."""
        self._network = None

    def exported(self, part: str, context: _Context | None = None) -> Path:
        """Gives the folder of an export, made if need be: ``image`` or ``text``."""

        def make(folder: Path) -> None:
            from retrieval.towers import open_clip_context, open_clip_network

            if context is not None:
                vectors = context.vectors()
                open_clip_context.export(self.network(), self.checkpoint, vectors, folder)
            elif part == "text":
                open_clip_network.export_texts(self.network(), self.checkpoint, folder)
            else:
                how = self.checkpoint.preprocess
                open_clip_network.export_pictures(self.network(), how, folder)

        space = self.space if context is None else context.space
        return export.exported(f"{space}-{part}", make, cache=self.cache)

    def opened(self, part: str, *, bulk: bool, context: _Context | None = None) -> tuple[Any, Path]:
        """Opens an export, which is made again if it looked whole and was not."""
        folder = self.exported(part, context)
        try:
            return export.open_onnx(folder, part, bulk=bulk), folder
        except ModelError:
            export.forget(folder)
            folder = self.exported(part, context)
            return export.open_onnx(folder, part, bulk=bulk), folder


class ImageTower:
    """Pictures into the space."""

    def __init__(self, model: _Model, device: str | None) -> None:
        """Names what is read at the first ``embed``."""
        self._model = model
        self._asked = device
        self._how = model.checkpoint.preprocess
        self._session: Any = None
        self._network: _OnTorch | None = None

    @property
    def side_px(self) -> int:
        """Longer side of what the network sees."""
        return self._how.side_px

    @property
    def rate_hz(self) -> None:
        """Moot for pictures."""
        return None

    def prepare(self, content: Image) -> NDArray[np.uint8]:
        """Cuts and resizes an RGB picture as open_clip does; see ``clip_pixels.prepare``."""
        return clip_pixels.prepare(content, self._how)

    def embed(self, batch: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Embeds pixels: ``(n, dim)`` float32, unit rows.

        Raises:
            ModelError: If the weights cannot be used, or the device is not there.
        """
        self._open()
        if self._network is not None:
            return self._network.embed(batch)
        return export.run_onnx(self._session, {"image": np.stack(batch)})

    def _open(self) -> None:
        model = self._model
        with model.lock:
            if self._session is not None or self._network is not None:
                return
            device = choose(self._asked)
            if device.on_gpu or device.precision != "float32":
                model.exported("text")
                self._network = _OnTorch(model, device)
            else:
                self._session, _ = model.opened("image", bulk=True)
                model.exported("text")  # while torch is there, so that the first search has it
            model.drop()


class _OnTorch:
    """The picture tower in torch, for graphics processors and for bfloat16."""

    def __init__(self, model: _Model, device: Device) -> None:
        from retrieval.towers.open_clip_network import pictures

        how = model.checkpoint.preprocess
        self._device = device
        self._lock = threading.Lock()
        self._module = pictures(model.network(), how).to(device.name)
        self._module.visual.to(device.dtype())
        blank = np.zeros((how.height, how.width, 3), np.uint8)
        size = best_batch(
            model.space, device, lambda count: self._run([blank] * count), cache=model.cache
        )
        self._batches = Batches(size)

    def embed(self, batch: Sequence[NDArray[np.uint8]]) -> Vectors:
        """Embeds pixels, one call at a time: torch itself uses what the device has."""
        with self._lock:
            return self._batches.run(batch, self._run)

    def _run(self, batch: Sequence[NDArray[np.uint8]]) -> Vectors:
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(batch)).to(self._device.name)
            return np.asarray(self._module(pixels).cpu().numpy(), np.float32)


class TextTower:
    """Texts into the space, without torch once the tower is exported."""

    def __init__(self, model: _Model, context: _Context | None = None) -> None:
        """Names what is read at the first ``embed``."""
        self._model = model
        self._context = context
        self._opened: tuple[Any, Tokens] | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """What it is read from."""
        return self._model.checkpoint

    def steered(self, space: str, vectors: Callable[[], NDArray[np.float32]]) -> TextTower:
        """Gives a tower that reads learned vectors before the words; see ``open_clip_context``.

        Args:
            space: Identity of its vectors, which depends on the context.
            vectors: Gives the context; asked when the tower is first used.
        """
        return TextTower(self._model, _Context(space, vectors))

    @property
    def side_px(self) -> None:
        """Moot for texts."""
        return None

    @property
    def rate_hz(self) -> None:
        """Moot for texts."""
        return None

    def prepare(self, content: str) -> str:
        """Takes a text as it is."""
        return content

    def embed(self, batch: Sequence[str]) -> Vectors:
        """Embeds texts: ``(n, dim)`` float32, unit rows, in order."""
        session, tokens = self._open()
        rows = []
        for start in range(0, len(batch), TEXTS_AT_ONCE):
            ids = tokens(batch[start : start + TEXTS_AT_ONCE])
            rows.append(export.run_onnx(session, {"ids": trimmed(ids, tokens.settings)}))
        return np.concatenate(rows)

    def _open(self) -> tuple[Any, Tokens]:
        with self._model.lock:
            if self._opened is None:
                if self._context is not None:
                    self._context.vectors()  # says if they are not the ones that made the export
                session, folder = self._model.opened("text", bulk=False, context=self._context)
                self._opened = session, Tokens(folder)
                self._model.drop()
            return self._opened


# ---- fetching ------------------------------------------------------------------------------------


def pull(source: str, progress: Progress = lambda done, total: None) -> None:
    """Fetches what a model needs into the hub's cache; what is there is not fetched again.

    Raises:
        ModelError: If the source means nothing, the hub cannot be reached, or it lacks the files.
    """
    done: set[open_clip_files.Wanted] = set()
    # a model's description, once it is here, may tell of a text tower or a tokenizer elsewhere
    while missing := [one for one in open_clip_files.wanted(source) if one not in done]:
        for one in missing:
            _fetch(source, one, progress)
            done.add(one)
    open_clip_files.find(source)


def _fetch(source: str, wanted: open_clip_files.Wanted, progress: Progress) -> None:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise missing() from None
    for name in wanted.files:
        try:
            hf_hub_download(wanted.repository, name, tqdm_class=bar(progress))
            if wanted.one:
                return
        except LocalEntryNotFoundError as error:  # nothing here, and no way to the hub
            raise _unreached(source, wanted, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the network's libraries, which have no common base class
            raise _unreached(source, wanted, error) from error
    if wanted.one:
        raise ModelError(
            f"{wanted.repository} has none of {', '.join(wanted.files)}: "
            f"{source} cannot be used with anyseek"
        )


def _unreached(source: str, wanted: open_clip_files.Wanted, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()
    return ModelError(
        f"{source} cannot be fetched: {wanted.repository} was not reached "
        f"({type(error).__name__}{': ' + reason[0][:200] if reason else ''})"
    )
