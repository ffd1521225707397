"""Salient from Python: quantization as the step after fine-tuning, and the evaluation that says what it broke.

    import salient
    salient.quantize("models/demo", "demo_awq", calibration="prompts.txt")

Everything runs in libsalient (a C library, no compiled extension of Python); docs/plugin.md of Salient describes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._work import Cancellation
from .api import command, evaluate, library_info, quantize, run
from .errors import (
    CancelledError,
    CheckFailedError,
    CorruptionError,
    InternalError,
    InvalidArgumentError,
    IoError,
    LibraryNotFoundError,
    NotFoundError,
    SalientError,
    UnsupportedError,
)
from .post_train import config_from_training_metadata, post_train

if TYPE_CHECKING:
    from .trainer_callback import PostTrainQuantization

__version__ = "0.1.0"
__all__ = [
    "Cancellation",
    "CancelledError",
    "CheckFailedError",
    "CorruptionError",
    "InternalError",
    "InvalidArgumentError",
    "IoError",
    "LibraryNotFoundError",
    "NotFoundError",
    "PostTrainQuantization",
    "SalientError",
    "UnsupportedError",
    "command",
    "config_from_training_metadata",
    "evaluate",
    "library_info",
    "post_train",
    "quantize",
    "run",
]


def __getattr__(name: str) -> Any:
    # transformers is imported by those who train with it, and takes seconds.
    if name == "PostTrainQuantization":
        from .trainer_callback import PostTrainQuantization

        return PostTrainQuantization
    raise AttributeError(f"module 'salient' has no attribute {name!r}")
