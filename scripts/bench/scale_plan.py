#!/usr/bin/env python3
"""What quantizing larger models would take, from rates measured here: two blocks of Qwen3-0.6B's shape (random weights) are quantized on two sizes of
calibration set, which gives the seconds that a weight takes by itself (search, rounding, packing) and those that a weight takes for each token (forward
passes, Gram matrices); reading and writing are timed on a file. Prints the rates and, as Markdown, bytes, seconds and memory by stage for the shapes below.

  scripts/bench/scale_plan.py --python hf/bin/python        a Python with torch, safetensors and tokenizers, which makes the model

The plan counts what the program does today: of a mixture, every expert runs over all calibration tokens once, for the statistics of its down_proj. Search and
rounding multiply with Gram matrices, so a weight costs more the wider its linear is: the truth lies between the row that takes it as measured and the one
that lets all of it grow with the width.
"""
import argparse
import json
import os
import pathlib
import tempfile
import time

from tool_runs import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
BLOCKS, BLOCK_TOKENS = 2, 512
MEASURED_WEIGHTS = BLOCKS * (1024 * 2048 * 2 + 1024 * 1024 * 2 + 3 * 1024 * 3072)

# name: blocks, hidden size, weights of attention and dense parts a block, experts, weights of one expert, experts a token, width inside an expert, vocabulary
SHAPES = {
    "8B dense (Llama-3 shape)": (32, 4096, 218_103_808, 0, 0, 0, 14336, 128_256),
    "70B dense (Llama-3 shape)": (80, 8192, 855_638_016, 0, 0, 0, 28672, 128_256),
    "671B mixture (DeepSeek-V3 shape)": (61, 7168, 231_000_000, 256, 44_040_192, 8, 2048, 129_280),
}


def measure(options, model, texts, samples, out):
    text, seconds, megabytes = run([options.salient, "quantize", "--model", model, "--calib", texts, "--out", out, "--group-size", 128, "--max-seq-len", BLOCK_TOKENS,
                                    "--samples", samples, "--self-generated", 0, "--threads", options.threads, "--json"], options.threads)
    found = json.loads(text)
    tokens = json.loads((out / "quantization_metadata.json").read_text())["calibration_tokens"]
    return tokens, found.get("seconds", seconds), megabytes


def disk_rates(folder):
    block, count = os.urandom(1 << 24), 64
    path = folder / "disk.bin"
    start = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(count): file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter() - start
    return count * len(block) / written


# Mean width of a linear's input over the weights that are measured: q, k, v, gate, up read 1024 numbers, o 2048, down 3072.
MEASURED_WIDTH = (1024 * (2048 + 2 * 1024 + 2 * 3072) * 1024 + 2048 * 1024 * 2048 + 3072 * 1024 * 3072) * BLOCKS / MEASURED_WEIGHTS


def mean_width(shape):
    _, hidden, dense, experts, expert, _, inner, _ = shape
    if experts: return (2 * hidden + inner) / 3
    mlp = hidden * inner
    return ((dense - mlp) * hidden + mlp * inner) / dense


def plan(shape, tokens, fixed, each):
    blocks, hidden, dense, experts, expert, chosen, inner, vocabulary = shape
    weights = blocks * (dense + experts * expert)
    source = 2 * (weights + 2 * vocabulary * hidden)
    packed = weights * 4.1875 / 8 + 2 * 2 * vocabulary * hidden
    through = blocks * (dense + experts * expert)  # every expert sees every token once, for statistics; and those that chose it twice
    routed = blocks * chosen * expert
    hidden_states = tokens * hidden * 4 * (2 if experts == 0 else 5)
    memory = 4 * (expert if experts else dense) * 2 + 4 * (dense if experts else 0) + 4 * (3 * hidden * hidden + inner * inner) * 2
    return {"source": source, "artifact": packed, "scratch": hidden_states, "memory": memory, "weights_s": fixed * weights,
            "gram_s": fixed * weights * mean_width(shape) / MEASURED_WIDTH,
            "tokens_s": each * tokens * (through + routed)}


def giga(value): return f"{value / 1e9:,.1f} GB"


def hours(seconds):
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, metavar="FILE", help="Python with torch, safetensors and tokenizers")
    parser.add_argument("--salient", default=ROOT / "build/release/salient", metavar="FILE")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=128 * 512, help="calibration tokens of the plan (default 128 x 512)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model, texts = folder / "model", folder / "texts.jsonl"
        made = json.loads(run([options.python, HERE / "random_qwen3.py", model, texts, BLOCKS, 17 * BLOCK_TOKENS, BLOCK_TOKENS], options.threads)[0].strip().splitlines()[-1])
        rows = made.get("rows", 64)
        small_tokens, small_s, _ = measure(options, model, texts, max(1, rows // 3), folder / "small")
        tokens, seconds, megabytes = measure(options, model, texts, rows, folder / "large")
        write = disk_rates(folder)
    each = (seconds - small_s) / (tokens - small_tokens) / MEASURED_WEIGHTS
    fixed = (seconds - each * tokens * MEASURED_WEIGHTS) / MEASURED_WEIGHTS
    print(f"{options.threads} threads; {MEASURED_WEIGHTS / 1e6:.1f} M weights: {small_tokens} tokens {small_s:.1f} s, {tokens} tokens {seconds:.1f} s, {megabytes:.0f} MB")
    print(f"a weight by itself {fixed * 1e9:.0f} ns, for each token {each * 1e12:.1f} ps; a file is written at {write / 1e9:.2f} GB/s\n")
    table = [("", *SHAPES)]
    plans = [plan(shape, options.tokens, fixed, each) for shape in SHAPES.values()]
    for label, key, show in [("source, 16 bits", "source", giga), ("artifact, 4 bits", "artifact", giga), ("hidden states on disk", "scratch", giga),
                             ("memory, one block or expert", "memory", giga), ("search, rounding, packing, a weight as here", "weights_s", hours),
                             ("the same, growing with the width", "gram_s", hours),
                             (f"forward and Gram, {options.tokens} tokens", "tokens_s", hours)]:
        table.append((label, *(show(p[key]) for p in plans)))
    table.append(("reading the source twice", *(hours(2 * p["source"] / write) for p in plans)))
    print("| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
    for row in table[1:]: print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
