"""The pipeline on a checkpoint that a training has just written."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from ._progress import MessageFunction, Progress
from ._work import Cancellation
from .api import PathLike, run
from .errors import CorruptionError, NotFoundError

METADATA_FILE = "training_metadata.json"
# Keys of the section "quantization" of training_metadata.json, and those of a run configuration.
_PLANNED = {
    "method": "method",
    "weights_bits": "bits",
    "bits": "bits",
    "activations_bits": "activation_bits",
    "kv_cache_bits": "kv_cache_bits",
    "group_size": "group_size",
    "lm_head_dtype": "lm_head",
    "lm_head": "lm_head",
    "format": "format",
}


def read_training_metadata(checkpoint: PathLike) -> Dict[str, Any]:
    """training_metadata.json of a checkpoint. Raises NotFoundError, CorruptionError."""
    path = pathlib.Path(checkpoint) / METADATA_FILE
    if not path.is_file():
        raise NotFoundError(
            f"{path}: there is no such file",
            "",
            "the training writes it beside the checkpoint (docs/plugin.md); salient.run needs none",
        )
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptionError(f"{path}: {error}") from error
    if not isinstance(metadata, dict):
        raise CorruptionError(f"{path}: found a {type(metadata).__name__}, expected an object")
    return metadata


def config_from_training_metadata(checkpoint: PathLike, metadata: Mapping[str, Any]) -> Dict[str, Any]:
    """The run configuration that training_metadata.json plans: the quantization, the tasks, everything written beside the
    checkpoint. What it says of the base model, the training set and the prompts the run reads from the file itself.

        {"quantization": {"method": "AWQ", "weights_bits": 4, "group_size": 128, "lm_head_dtype": "fp16"},
         "evaluation": {"tasks": [{"name": "perplexity", "file": "heldout.txt"}]}}"""
    folder = pathlib.Path(checkpoint).resolve()
    planned = metadata.get("quantization") or {}
    quantization = {_PLANNED[key]: value for key, value in planned.items() if key in _PLANNED}
    if "method" in quantization:
        quantization["method"] = str(quantization["method"]).lower()
    config: Dict[str, Any] = {
        "name": folder.name,
        "model": {"path": str(folder)},
        "quantization": quantization,
        "output": {"folder": str(folder.parent), "store": str(folder.parent / "salient.db")},
    }
    if metadata.get("evaluation"):
        config["evaluation"] = dict(metadata["evaluation"])
    return config


def post_train(
    checkpoint: PathLike,
    *,
    config: Optional[Mapping[str, Any]] = None,
    overrides: Union[None, Mapping[str, Any], Sequence[str]] = None,
    progress: Progress = None,
    message: Optional[MessageFunction] = None,
    cancellation: Optional[Cancellation] = None,
    process: Optional[bool] = None,
) -> Dict[str, Any]:
    """Quantizes and evaluates a checkpoint as its training_metadata.json plans (config_from_training_metadata); the checkpoint
    itself is only read.

    config: sections that replace or add to the planned ones, key by key: {"calibration": {"samples": 64}}. The rest as
    salient.run(), which this calls.
    """
    merged = config_from_training_metadata(checkpoint, read_training_metadata(checkpoint))
    for section, values in (config or {}).items():
        merged[section] = {**merged.get(section, {}), **values} if isinstance(values, Mapping) else values
    return run(merged, overrides=overrides, progress=progress, message=message, cancellation=cancellation, process=process)


def write_training_metadata(checkpoint: PathLike, metadata: Mapping[str, Any]) -> pathlib.Path:
    """Writes training_metadata.json, whole or not at all; keys of one that is there stay where `metadata` has none."""
    path = pathlib.Path(checkpoint) / METADATA_FILE
    merged = read_training_metadata(checkpoint) if path.is_file() else {}
    for key, value in metadata.items():
        merged[key] = {**merged[key], **value} if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) else value
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path
