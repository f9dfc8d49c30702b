"""Sessions of onnxruntime: one way to open a network, for exported files and for graphs.

`onnx.py` opens files of whole networks, `graph.py` those whose weights come from elsewhere. Nothing
here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectors._errors import WeightsError

from ..runtime.text import reason

CPU = "CPUExecutionProvider"


def open_session(path: Path, providers: Sequence[Any], threads: int) -> Any:
    """onnxruntime's session of an ONNX file.

    Args:
        path: of the file.
        providers: onnxruntime's names for where to compute.
        threads: that compute.

    Raises:
        WeightsError: onnxruntime cannot load the file.
    """
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait busily would take the cores from processes that decode pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors, which come as exceptions
    try:
        return runtime.InferenceSession(str(path), options, providers=list(providers))
    # It raises types of its own that have nothing in common.
    except Exception as error:
        raise WeightsError(f"onnxruntime cannot load {path.name} ({reason(error):.200})") from error
