#!/usr/bin/env python3
"""Writes the calibration sets and held-out texts that compare_peers.py measures with.

usage: calibration_sets.py DATA OUT SEED...

DATA is the output of scripts/demo_model/make_data.py. For each seed, 128 different training rows a set, chat template applied, as JSON
lines {"text": ...}: OUT/mixed_SEED.jsonl (the three kinds in equal parts, shuffled), OUT/openmath_SEED.jsonl, OUT/arc_SEED.jsonl, OUT/squad_SEED.jsonl.
Once: OUT/heldout_KIND.txt, the test rows of models/demo/data of one kind, rendered the same way; OUT/heldout_mixed.txt is models/demo/data/heldout.txt.
Needs only the standard library; the same seed always gives the same bytes.
"""
import json
import os
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/demo_model"))
import chat  # noqa: E402

ROWS = 128
RENDER = {"openmath": chat.math_chat, "arc": chat.arc_chat, "squad": chat.squad_chat}
DOMAINS = tuple(RENDER)
SETS = ("mixed",) + DOMAINS


def read_lines(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def draw(domain, rows, count, seed):
    """Texts of `count` different rows. A generator of its own for each domain, so that one set does not depend on another."""
    return [RENDER[domain](row) for row in random.Random(f"{domain} {seed}").sample(rows, count)]


def mixed_texts(rows, seed):
    shares = [ROWS // len(DOMAINS) + (i < ROWS % len(DOMAINS)) for i in range(len(DOMAINS))]
    texts = [text for domain, share in zip(DOMAINS, shares) for text in draw(domain, rows[domain], share, seed)]
    random.Random(seed).shuffle(texts)
    return texts


def calibration_file(folder, name, seed):
    return pathlib.Path(folder) / f"{name}_{seed}.jsonl"


def heldout_file(folder, name):
    return pathlib.Path(folder) / f"heldout_{name}.txt"


def write_once(path, text):
    """Leaves a file alone that is right already: another process may be reading it."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write(data, out, seeds):
    data, out = pathlib.Path(data), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = {domain: read_lines(data / "full" / f"{domain}_train.jsonl") for domain in DOMAINS}
    for seed in seeds:
        sets = {"mixed": mixed_texts(rows, seed)} | {domain: draw(domain, rows[domain], ROWS, seed) for domain in DOMAINS}
        for name, texts in sets.items():
            write_once(calibration_file(out, name, seed), "".join(json.dumps({"text": text}) + "\n" for text in texts))
    demo = ROOT / "models/demo/data"
    for domain in DOMAINS:
        texts = [RENDER[domain](row) for row in read_lines(demo / f"{domain}_test.jsonl")]
        write_once(heldout_file(out, domain), "".join(texts))
    write_once(heldout_file(out, "mixed"), (demo / "heldout.txt").read_text(encoding="utf-8"))


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    write(sys.argv[1], sys.argv[2], [int(seed) for seed in sys.argv[3:]])


if __name__ == "__main__":
    main()
