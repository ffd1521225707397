#!/usr/bin/env python3
"""GGUF files in llama.cpp against transformers' logits and text of the folder that they were made from.

usage: PYTHON scripts/checks/check_gguf.py FOLDER [--salient build/release/salient] [--file MODEL.gguf] [--format gguf-f16] [--bound 0.02] [--tokens 48]
       PYTHON scripts/checks/check_gguf.py --architectures [--salient ...]

with a Python that has torch, transformers 5.23 and llama-cpp-python. Without --file the file is made by
`salient export --model FOLDER --format FORMAT --out FILE`. --architectures does so for the small models of tests/data/architectures that can be
written (they have no tokenizer: ids are compared). Compared are logits at every position, ids of texts and greedy text. Exits with 1 where logits differ
by more than the bound (relative to the largest one) or ids or texts differ.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import AutoTokenizer

from llama_engine import Engine

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/goldens"))
import architecture_cases  # noqa: E402

# None begins with a space: SentencePiece and llama.cpp put another before it, tokenizers' Metaspace does not (salient notes it).
TEXTS = ["Question: 12 + 30 = ?\nAnswer:", "Hello, world! It's 3.50.", "two  spaces\n\n\tand a tab", "Grüße aus 東京 🙂"]
# Where a graph is known to differ after so many positions (sliding windows), or in its activation's precision.
WINDOWED = {"mistral", "mixtral", "qwen2", "qwen3", "phi3", "starcoder2"}


def reference_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def greedy(model, ids, count):
    ids = list(ids)
    for _ in range(count):
        ids.append(int(reference_logits(model, ids)[-1].argmax()))
    return ids


def compare(name, path, folder, bound, tokens, window=None):
    """Prints a line; returns whether all is as it should be."""
    model = architecture_cases.load(folder, allow_unused=True)
    engine = Engine(path)
    has_tokenizer = (folder / "tokenizer.json").exists()
    fine = True
    if has_tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text in TEXTS:
            ours, theirs = tokenizer(text).input_ids, engine.encode(text)
            if ours != theirs:
                fine = False
                print(f"{name}: ids of {text!r} differ:\n  transformers {ours}\n  llama.cpp    {theirs}")
        ids = tokenizer(TEXTS[0]).input_ids
    else:
        ids = np.random.default_rng(0).integers(0, engine.size, window or 24).tolist()
    expected, found = reference_logits(model, ids), engine.logits(ids)
    difference = float(np.abs(expected - found).max() / np.abs(expected).max())
    ours, theirs = greedy(model, ids, tokens), engine.greedy(ids, tokens)
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), len(ours)) - len(ids)
    if window is None and same < tokens:
        # Equal logits may be told apart by rounding: a token counts as different where the reference prefers its own clearly.
        row = reference_logits(model, ours[: len(ids) + same])[-1]
        fine &= bool(row[ours[len(ids) + same]] - row[theirs[len(ids) + same]] <= 2 * bound * np.abs(row).max())
    fine &= difference <= bound
    print(f"{'ok  ' if fine else 'FAIL'} {name}: largest difference {difference:.2e} of the largest logit, {same} of {tokens} greedy tokens equal")
    if has_tokenizer and not fine:
        print("  transformers:", repr(tokenizer.decode(ours)), "\n  llama.cpp:   ", repr(tokenizer.decode(theirs)))
    engine.close()
    return fine


def export(salient, folder, fmt, path):
    run = subprocess.run([salient, "export", "--model", folder, "--format", fmt, "--out", path], capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def check_architectures(salient, fmt, bound):
    fine, written, refused = True, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for file in sorted((ROOT / "tests/data/architectures").glob("*.json")):
            for case in json.loads(file.read_text())["cases"]:
                folder = pathlib.Path(scratch) / f"{file.stem}_{case['name']}".replace(" ", "_")
                architecture_cases.write_checkpoint(case, folder)
                code, text = export(salient, folder, fmt, folder / "model.gguf")
                if code == 5:  # unsupported
                    refused += 1
                    continue
                if code != 0:
                    fine = False
                    print(f"FAIL {folder.name}: salient export: {text}")
                    continue
                written += 1
                window = 5 if file.stem in WINDOWED else None  # the models' window; beyond it the engines differ and salient says so
                fine &= compare(folder.name, folder / "model.gguf", folder, bound, 0 if window else 8, window)
    print(f"{written} written, {refused} refused")
    return fine and written > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--architectures", action="store_true")
    parser.add_argument("--salient", default=str(ROOT / "build/release/salient"))
    parser.add_argument("--file", type=pathlib.Path)
    parser.add_argument("--format", default="gguf-f16")
    parser.add_argument("--bound", type=float, default=0.02)
    parser.add_argument("--tokens", type=int, default=48)
    args = parser.parse_args()
    if args.architectures == (args.folder is not None):
        parser.error("give a folder, or --architectures")
    torch.set_num_threads(1)
    if args.architectures:
        return 0 if check_architectures(args.salient, args.format, args.bound) else 1
    with tempfile.TemporaryDirectory() as scratch:
        path = args.file
        if path is None:
            path = pathlib.Path(scratch) / "model.gguf"
            code, text = export(args.salient, args.folder, args.format, path)
            if code != 0:
                raise SystemExit(f"salient export failed ({code}): {text}")
        return 0 if compare(args.folder.name, path, args.folder, args.bound, args.tokens) else 1


if __name__ == "__main__":
    sys.exit(main())
