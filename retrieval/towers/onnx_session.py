"""Opens ONNX files for the towers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError


def open_session(weights: Path) -> Any:
    """Opens an ONNX file on the CPU, with one thread for each call.

    The indexer decodes on the same cores: it makes several calls at once instead.

    Raises:
        ModelError: If the file is missing or damaged.
    """
    import onnxruntime

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
