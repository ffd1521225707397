"""PostTrainQuantization: a callback of transformers' Trainer that runs Salient at the end of a training."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import random
import shutil
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Union

from transformers import TrainerCallback

from ._progress import MessageFunction, Progress
from ._work import Cancellation
from .api import PathLike
from .errors import CheckFailedError, InvalidArgumentError, SalientError, UnsupportedError
from .post_train import METADATA_FILE, post_train, write_training_metadata

logger = logging.getLogger("salient")
ROWS_FILE = "calibration_rows.jsonl"
_TOKEN_KEYS = ("input_ids", "labels", "attention_mask")


class PostTrainQuantization(TrainerCallback):
    """Quantizes what a Trainer has trained and evaluates it against what was trained.

        trainer = Trainer(..., processing_class=tokenizer, callbacks=[PostTrainQuantization(tasks=[{"name": "perplexity", "file": "heldout.txt"}])])
        trainer.train()
        print(trainer.callback_handler.callbacks[-1].result["artifact"])

    At the end of the training, in the process of rank 0, the trained model is saved with its tokenizer in <output_dir>/final,
    unless the Trainer's own checkpoint of the last step (or of the best one, with load_best_model_at_end) holds it already, and
    training_metadata.json is written beside it. Then the pipeline runs: the artifact, the report and the store salient.db are
    written into <output_dir>. The checkpoint is not touched.

    method, bits, group_size: of the quantization; quantization: further settings of it, as in a run configuration. train_file:
    the training rows as they were before they were tokenized, for calibration prompts in the model's chat template; without it,
    rows of the Trainer's own training set are used, tokens as they are. dataset: its name, a part of the artifact's;
    system_prompt: of conversations that have none. samples, max_seq_len, seed: of the calibration. tasks: names or {"name",
    "file", "limit"}; evaluation: further settings. training_method, peft: "SFT", "NoPeft" or "LoRA" (found out), parts of the
    artifact's name. checkpoint: a folder to save to instead. output_folder: for the artifact instead of <output_dir>. overrides,
    progress, message, cancellation, process: as in salient.run().

    Afterwards `checkpoint_folder` is where the trained model is, and `result` what salient.run() returned, or `error` what it
    raised. An error is logged and does not end the training's program, unless raise_errors is set; the trained model is saved
    before. KeyboardInterrupt stops the pipeline at its next safe point and goes on.
    """

    def __init__(
        self,
        *,
        method: str = "awq",
        bits: int = 4,
        group_size: int = 128,
        quantization: Optional[Mapping[str, Any]] = None,
        dataset: Optional[str] = None,
        train_file: Optional[PathLike] = None,
        system_prompt: Optional[str] = None,
        samples: int = 128,
        max_seq_len: int = 512,
        seed: int = 42,
        tasks: Sequence[Union[str, Mapping[str, Any]]] = (),
        evaluation: Optional[Mapping[str, Any]] = None,
        training_method: str = "SFT",
        peft: Optional[str] = None,
        checkpoint: Optional[PathLike] = None,
        output_folder: Optional[PathLike] = None,
        overrides: Union[None, Mapping[str, Any], Sequence[str]] = None,
        progress: Progress = None,
        message: Optional[MessageFunction] = None,
        cancellation: Optional[Cancellation] = None,
        process: Optional[bool] = None,
        raise_errors: bool = False,
    ) -> None:
        self.quantization = {"method": method, "bits": bits, "group_size": group_size, **(quantization or {})}
        self.dataset = dataset
        self.train_file = None if train_file is None else pathlib.Path(train_file).resolve()
        self.system_prompt = system_prompt
        self.samples, self.max_seq_len, self.seed = samples, max_seq_len, seed
        self.evaluation = {**(evaluation or {}), "tasks": list(tasks)}
        self.training_method, self.peft = training_method, peft
        self.checkpoint = None if checkpoint is None else pathlib.Path(checkpoint)
        self.output_folder = output_folder
        self.call = dict(overrides=overrides, progress=progress, message=message, cancellation=cancellation, process=process)
        self.raise_errors = raise_errors
        self.checkpoint_folder: Optional[pathlib.Path] = None
        self.result: Optional[Dict[str, Any]] = None
        self.error: Optional[BaseException] = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Before hours of training, not after them.
        if self.train_file is not None and not self.train_file.is_file():
            raise InvalidArgumentError(f"PostTrainQuantization: train_file={self.train_file}: there is no such file")

    def on_train_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero:
            return
        self.result = self.error = None
        try:
            folder = self.checkpoint_folder = self._saved(args, state, model, processing_class)
            output = pathlib.Path(self.output_folder or args.output_dir).resolve()
            output.mkdir(parents=True, exist_ok=True)
            write_training_metadata(folder, self._metadata(state, model, train_dataloader))
            self.result = post_train(folder, config=self._config(folder, output, train_dataloader), **self.call)
        except BaseException as error:
            self.error = error
            if isinstance(error, CheckFailedError):
                self.result = error.output
            if self.raise_errors or not isinstance(error, (Exception, KeyboardInterrupt)):
                raise
            where = (
                f"the trained model is in {self.checkpoint_folder}"
                if self.checkpoint_folder
                else "the trained model was not saved by Salient"
            )
            text = (
                "stopped by the user"
                if isinstance(error, KeyboardInterrupt)
                else str(error) if isinstance(error, SalientError) else repr(error)
            )
            logger.error("quantization after the training failed (%s): %s", where, text)
            return
        logger.info("quantized: %s", self.result["artifact"])

    # Where the model as it is in memory lies on disk, saved now unless it was before.
    def _saved(self, args: Any, state: Any, model: Any, processing_class: Any) -> pathlib.Path:
        output = pathlib.Path(args.output_dir).resolve()
        if self.checkpoint is None:
            found = state.best_model_checkpoint if args.load_best_model_at_end else output / f"checkpoint-{state.global_step}"
            if found is not None and _is_checkpoint(pathlib.Path(found)):
                folder = pathlib.Path(found).resolve()
                if processing_class is not None and not (folder / "tokenizer.json").is_file():
                    processing_class.save_pretrained(str(folder))
                return folder
        if getattr(args, "fsdp", None) or _is_zero3(args):
            raise UnsupportedError(
                "the model's weights lie on several ranks, none of which can save them alone",
                "",
                "let the Trainer save a whole checkpoint at the last step (save_strategy, FULL_STATE_DICT), which is used then",
            )
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        target = (self.checkpoint or output / "final").resolve()
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(str(partial))
        if processing_class is not None:
            processing_class.save_pretrained(str(partial))
        _replace(partial, target)
        return target

    def _metadata(self, state: Any, model: Any, train_dataloader: Any) -> Dict[str, Any]:
        config = getattr(model, "config", None)
        base = str(getattr(config, "_name_or_path", "") or "")
        adapters = getattr(model, "peft_config", None)
        peft = self.peft
        if peft is None:
            kind = str(getattr(next(iter(adapters.values())), "peft_type", "")) if adapters else ""
            peft = ("LoRA" if kind.endswith("LORA") else kind.rsplit(".", 1)[-1]) if kind else "NoPeft"
        if adapters and not base:
            base = str(next(iter(adapters.values())).base_model_name_or_path or "")
        dataset: Dict[str, Any] = {"name": self.dataset or (self.train_file.stem if self.train_file else "train")}
        if self.train_file is not None:
            dataset["train_file"] = str(self.train_file)
        rows = _length(getattr(train_dataloader, "dataset", None))
        if rows is not None:
            dataset["rows"] = rows
        planned = {
            "method": str(self.quantization["method"]).upper(),
            "weights_bits": self.quantization["bits"],
            "group_size": self.quantization["group_size"],
        }
        metadata: Dict[str, Any] = {
            "base_model": pathlib.Path(base).name or "model",
            "dataset": dataset,
            "training": {"method": self.training_method, "peft": peft, "steps": int(state.global_step)},
            "quantization": {**planned, "extras": {"ptq_planned": True}},
        }
        if self.system_prompt is not None:
            metadata["system_prompt"] = self.system_prompt
        return metadata

    def _config(self, folder: pathlib.Path, output: pathlib.Path, train_dataloader: Any) -> Dict[str, Any]:
        calibration: Dict[str, Any] = {"max_seq_len": self.max_seq_len, "seed": self.seed}
        if self.train_file is None:
            rows = output / ROWS_FILE
            _write_rows(rows, _draw_rows(getattr(train_dataloader, "dataset", None), self.samples, self.seed))
            calibration["file"] = str(rows)
        else:
            calibration["samples"] = self.samples
        return {
            "quantization": self.quantization,
            "calibration": calibration,
            "evaluation": self.evaluation,
            "output": {"folder": str(output), "store": str(output / "salient.db")},
        }


def _is_checkpoint(folder: pathlib.Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json")) and any(folder.glob("*.safetensors"))


def _is_zero3(args: Any) -> bool:
    plugin = getattr(args, "deepspeed_plugin", None)
    return plugin is not None and getattr(plugin, "zero_stage", 0) == 3


def _replace(partial: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a folder; one of this name goes."""
    if target.exists():
        old = target.with_name(target.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(partial, target)
        shutil.rmtree(old)
    else:
        os.rename(partial, target)


def _length(dataset: Any) -> Optional[int]:
    try:
        return len(dataset)
    except TypeError:
        return None


def _draw_rows(dataset: Any, samples: int, seed: int) -> List[Mapping[str, Any]]:
    """Up to `samples` rows of the training set: drawn where it can be indexed, else the first ones."""
    if dataset is None:
        raise InvalidArgumentError(
            "PostTrainQuantization: the Trainer has no training set to calibrate on", "", "name the training rows: train_file=..."
        )
    count = _length(dataset)
    if count is None:
        rows: Iterable[Any] = (row for _, row in zip(range(samples), iter(dataset)))
    else:
        rows = (dataset[index] for index in sorted(random.Random(seed).sample(range(count), min(samples, count))))
    drawn = [row for row in rows if isinstance(row, Mapping)]
    if not drawn:
        raise InvalidArgumentError(
            "PostTrainQuantization: the training set's rows are no dicts", "", "name the training rows: train_file=..."
        )
    return drawn


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As calibration rows (calibration/calibration_rows.h): tokens where the rows have them, else the rows themselves."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        for row in rows:
            if "input_ids" in row:
                row = {key: _plain(row[key]) for key in _TOKEN_KEYS if key in row and row[key] is not None}
            try:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            except TypeError as error:
                raise InvalidArgumentError(
                    f"PostTrainQuantization: a row of the training set cannot be written as JSON: {error}",
                    "",
                    "name the training rows: train_file=...",
                ) from error
    os.replace(partial, path)


__all__ = ["METADATA_FILE", "PostTrainQuantization"]
