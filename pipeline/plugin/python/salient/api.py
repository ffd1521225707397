"""The calls: run, quantize, evaluate, command."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from . import _library
from ._progress import MessageFunction, Progress, Shower
from ._work import Cancellation, in_process_is_safe, perform
from .errors import CheckFailedError, InvalidArgumentError

PathLike = Union[str, "os.PathLike[str]"]


def _perform(
    request: Dict[str, Any],
    progress: Progress,
    message: Optional[MessageFunction],
    cancellation: Optional[Cancellation],
    process: Optional[bool],
) -> Optional[str]:
    with Shower(progress, message) as show:
        return perform(request, show, cancellation, process)


def _parsed(request: Dict[str, Any], *rest: Any) -> Any:
    try:
        return json.loads(_perform(request, *rest) or "null")
    except CheckFailedError as error:  # the work was done, its figures are there
        if error.output:
            error.output = json.loads(error.output)
        raise


def _assignments(overrides: Union[None, Mapping[str, Any], Sequence[str]]) -> List[str]:
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value, default=os.fspath)}" for key, value in overrides.items()]
    if isinstance(overrides, str):
        raise InvalidArgumentError(f"overrides: found the text {overrides!r}, expected a dict or a list of 'a.b=value'")
    return list(overrides)


def run(
    config: Union[PathLike, Mapping[str, Any]],
    *,
    overrides: Union[None, Mapping[str, Any], Sequence[str]] = None,
    name: Optional[str] = None,
    progress: Progress = None,
    message: Optional[MessageFunction] = None,
    cancellation: Optional[Cancellation] = None,
    process: Optional[bool] = None,
) -> Dict[str, Any]:
    """The whole chain of a run configuration, as `salient run`: calibrate, quantize, store, detect, evaluate.

    config: a YAML file, or the configuration as a dict. overrides: {"quantization.group_size": 64} or
    ["quantization.group_size=64"].
    name: of the run, where the configuration has none. progress: a function of (label, unit, done, total), True for bars, False
    for nothing; by default bars on a terminal.
    message: a function of each line that the user should see; by default the logger "salient". process: True for a process of its
    own, False for this one; by default this one wherever libsalient and Python's torch are of one build (SALIENT_PROCESS=1 and 0
    say the same).

    Returns what `salient run --json` prints: "run", "artifact", "report", "calibration", "stages_run", "stages_skipped",
    "peak_memory_bytes", "evaluation". Raises SalientError; a CheckFailedError has the result as its `output`. KeyboardInterrupt
    stops at the next safe point: the same call goes on from there.
    """
    if isinstance(config, Mapping):
        request: Dict[str, Any] = {"text": json.dumps(config, default=os.fspath), "name": name}
    else:
        request = {"path": os.fspath(config), "name": name}
    request["overrides"] = _assignments(overrides)
    return _parsed(request, progress, message, cancellation, process)


def _flags(options: Mapping[str, Any]) -> List[str]:
    """{"num_fewshot": 5, "fresh": True, "set": ["a=1", "b=2"]} as ["--num-fewshot", "5", "--fresh", "--set", "a=1", "--set",
    "b=2"]. None and False are left away."""
    words: List[str] = []
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(flag)
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            # In one word: a value may begin with a dash.
            words.append(f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
    return words


def quantize(
    model: PathLike,
    output: PathLike,
    calibration: Union[None, PathLike, Sequence[PathLike], Mapping[PathLike, float]] = None,
    *,
    recipe: Optional[PathLike] = None,
    device: str = "cpu",
    threads: Optional[int] = None,
    packing: Optional[str] = None,
    long_rows: Optional[str] = None,
    loss_mask: Optional[str] = None,
    text_rows: Optional[str] = None,
    content: Optional[str] = None,
    system_prompt: Optional[str] = None,
    question_field: Optional[str] = None,
    answer_field: Optional[str] = None,
    seed: Optional[int] = None,
    progress: Progress = None,
    message: Optional[MessageFunction] = None,
    cancellation: Optional[Cancellation] = None,
    process: Optional[bool] = None,
    **settings: Any,
) -> Dict[str, Any]:
    """Quantizes a float checkpoint, as `salient quantize`.

    model: a folder, or org/name in the Hugging Face cache. output: the artifact's folder, which must not exist. calibration: rows
    (.jsonl, .json, .csv or .txt), several files, or
    {file: weight}. recipe: llm-compressor's recipe.yaml. packing ... seed: as the options of the command (salient quantize --help).
    settings: every key of the section `quantization` of a configuration: method="awq", bits=4, group_size=128,
    format="compressed-tensors", max_calib_samples=128, overrides=[{"pattern": "down_proj", "bits": 8}], ...

    Returns what `salient quantize --json` prints: "folder", "quantize_s", "bytes", "summary", "coverage", "warnings", ... The
    other arguments and errors: see run().
    """
    words = ["quantize", f"--model={os.fspath(model)}", f"--out={os.fspath(output)}", "--json", f"--device={device}"]
    if isinstance(calibration, Mapping):
        words.append("--calib=" + ",".join(f"{os.fspath(file)}:{weight}" for file, weight in calibration.items()))
    elif calibration is not None:
        files = [calibration] if isinstance(calibration, (str, os.PathLike)) else calibration
        words += [f"--calib={os.fspath(file)}" for file in files]
    if settings:
        words.append("--quant-config=" + json.dumps(settings, default=os.fspath))
    words += _flags(
        dict(
            recipe=recipe,
            threads=threads,
            packing=packing,
            long_rows=long_rows,
            loss_mask=loss_mask,
            text_rows=text_rows,
            content=content,
            system_prompt=system_prompt,
            question_field=question_field,
            answer_field=answer_field,
            seed=seed,
        )
    )
    return _parsed({"words": words}, progress, message, cancellation, process)


def evaluate(
    model: Union[PathLike, Sequence[PathLike]],
    tasks: Union[str, Sequence[str]],
    *,
    data: Optional[Mapping[str, PathLike]] = None,
    compare_with: Optional[PathLike] = None,
    store: Optional[PathLike] = None,
    progress: Progress = None,
    message: Optional[MessageFunction] = None,
    cancellation: Optional[Cancellation] = None,
    process: Optional[bool] = None,
    **options: Any,
) -> Any:
    """Evaluates models, each beside its original where one is given, as `salient eval`.

    model: a folder, a GGUF or TorchScript file, or org/name in the Hugging Face cache; or several of them. tasks: names, groups
    or YAML files. data: {"arc": "arc_test.jsonl", "gsm8k:train": "train.jsonl"}. compare_with: the original. store: a database
    for the results; by default they are not stored.
    options: the further options of the command: limit=100, num_fewshot=5, apply_chat_template=True, runtime_cost=True, kv_bits=8,
    no_throughput=True, ...

    Returns what `salient eval --json` prints: {"model": {"tasks": [...]}, "base": ...}, for several models a list. The other
    arguments and errors: see run().
    """
    models = [model] if isinstance(model, (str, os.PathLike)) else list(model)
    words = (
        ["eval"]
        + [os.fspath(one) for one in models]
        + ["--json", "--tasks=" + (tasks if isinstance(tasks, str) else ",".join(tasks))]
    )
    words += [f"--data={task}={os.fspath(file)}" for task, file in (data or {}).items()]
    words += ["--no-store"] if store is None else [f"--store={os.fspath(store)}"]
    words += _flags({"compare_with": compare_with, **options})
    return _parsed({"words": words}, progress, message, cancellation, process)


def command(
    words: Sequence[Union[str, PathLike]],
    *,
    progress: Progress = None,
    message: Optional[MessageFunction] = None,
    cancellation: Optional[Cancellation] = None,
    process: Optional[bool] = None,
) -> str:
    """One call of the program, such as ["inspect", "models/demo", "--json"]. Returns what it prints on standard output; an error
    has that as its `output`."""
    if isinstance(words, str):
        raise InvalidArgumentError(f"words: found the text {words!r}, expected a list of words")
    return _perform({"words": [os.fspath(word) for word in words]}, progress, message, cancellation, process) or ""


def library_info() -> Dict[str, Any]:
    """{"path", "torch", "python_torch", "in_process"}: the library that is used, the libtorch it is built with, Python's, and
    whether the work runs in this process."""
    path = _library.find_library()
    return {
        "path": pathlib.Path(path),
        "torch": _library.torch_of_library(path),
        "python_torch": _library.torch_of_python(),
        "in_process": in_process_is_safe(path),
    }
