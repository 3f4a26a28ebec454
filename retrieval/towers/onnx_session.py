"""Opens ONNX files for the towers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError


def runtime() -> Any:
    """Imports ONNX Runtime without its telemetry.

    Since 1.32 it notes a device's identity in the user's cache folder as soon as it is imported,
    and collects events to be sent. Nothing is sent from here, so the switch stands before that.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def open_session(weights: Path) -> Any:
    """Opens an ONNX file on the CPU, with one thread for each call.

    The indexer decodes on the same cores: it makes several calls at once instead.

    Raises:
        ModelError: If the file is missing or damaged.
    """
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            os.fspath(weights), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise ModelError(f"{weights} cannot be read ({error}): reinstall anyseek") from error
