#!/usr/bin/env python3
"""Quantizes blocks of Qwen3-0.6B's size (random weights) with AutoAWQ 0.2.9, with llm-compressor 0.14 (AWQ, asymmetric) and with
Salient as it is by default, to 4 bits in groups of 128, one after the other on the same calibration texts, on the CPU. Prints
seconds, peak memory and the ratios against what the project aims at.

The peers need Python environments of their own, which no other part of the project uses:
  python3 -m venv awq && awq/bin/pip install torch==2.13.0 && awq/bin/pip install transformers==4.51.3 datasets zstandard accelerate
  awq/bin/pip install --no-deps --no-build-isolation autoawq==0.2.9
  python3 -m venv lc && lc/bin/pip install torch==2.13.0 && lc/bin/pip install llmcompressor==0.14.0.1
  scripts/bench/compare_block_quantization.py --awq-python awq/bin/python --lc-python lc/bin/python --json figures.json

A run takes 5 to 20 minutes, nearly all of it the peers'; --tools leaves some out, --blocks 1 --tokens 2048 is a quick try.
Seconds are those of the quantization as each tool counts it, without loading and, for the peers, without writing; Salient's hold
everything but its start. By default its model writes three quarters as many tokens itself, which the peers do not have: it is measured
with the given tokens alone (salient), which the ratios are of, and as it is by default (salient-default), both before and after the
peers, and the mean is taken. Peak memory is the process's; llm-compressor's up to the end of its quantization. --check makes the exit
status 1 when a ratio misses its bound or is missing.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile

from tool_runs import last_json_line, print_table, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
GROUP_SIZE, BITS = 128, 4
TOOLS = ("autoawq", "llm-compressor", "salient", "salient-default")
# At least as often: a peer's figure by Salient's.
BOUNDS = {("autoawq", "quantize_s"): 20.0, ("llm-compressor", "quantize_s"): 10.0, ("autoawq", "peak_mb"): 4.0}
UNITS = {"quantize_s": "seconds", "peak_mb": "peak memory, MB"}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq-python", metavar="FILE", help="Python with autoawq 0.2.9 and transformers 4.51")
    parser.add_argument("--lc-python", required=True, metavar="FILE", help="Python with llmcompressor 0.14; makes the model, too")
    parser.add_argument("--salient", default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), metavar="TOOL", help=f"of {', '.join(TOOLS)} (default: all)")
    parser.add_argument("--blocks", type=int, default=2, help="decoder blocks (default 2)")
    parser.add_argument("--tokens", type=int, default=17 * 512, help="calibration tokens (default 17 x 512)")
    parser.add_argument("--block-tokens", type=int, default=512, help="tokens of a calibration block (default 512)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every tool (default: every core)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a ratio misses its bound or is missing")
    options = parser.parse_args()
    if "autoawq" in options.tools and not options.awq_python:
        parser.error("--awq-python is needed for autoawq; --tools llm-compressor salient leaves it out")
    return options


def quantize_with_autoawq(options, model, texts, rows, out):
    text, _, megabytes = run([options.awq_python, HERE / "autoawq_quantize.py", model, out, texts, rows, options.block_tokens, GROUP_SIZE,
                              options.threads], options.threads)
    return {"quantize_s": last_json_line(text)["quantize_s"], "peak_mb": megabytes}


def quantize_with_llmcompressor(options, model, texts, rows, out):
    text, _, _ = run([options.lc_python, HERE / "peer_llmcompressor.py", model, out, texts, rows, options.block_tokens, GROUP_SIZE, BITS,
                      options.threads], options.threads)
    found = last_json_line(text)
    return {"quantize_s": found["quantize_s"], "peak_mb": found["peak_mb"]}


def quantize_with_salient_default(options, model, texts, rows, out, *more):
    shutil.rmtree(out, ignore_errors=True)
    text, _, megabytes = run([options.salient, "quantize", "--model", model, "--calib", texts, "--out", out, "--bits", BITS,
                              "--group-size", GROUP_SIZE, "--max-seq-len", options.block_tokens, "--samples", rows, "--discard-long-rows",
                              "--threads", options.threads, "--json", *more], options.threads)
    return {"quantize_s": json.loads(text)["quantize_s"], "peak_mb": megabytes}


def quantize_with_salient(options, model, texts, rows, out):
    return quantize_with_salient_default(options, model, texts, rows, out, "--self-generated", 0)


def measure(options, work):
    model, texts = work / "model", work / "calibration.jsonl"
    made, _, _ = run([options.lc_python, HERE / "random_qwen3.py", model, texts, options.blocks, options.tokens, options.block_tokens])
    made = last_json_line(made)
    quantizers = dict(zip(TOOLS, (quantize_with_autoawq, quantize_with_llmcompressor, quantize_with_salient, quantize_with_salient_default)))
    ours, peers = ([name for name in TOOLS if name in options.tools and name.startswith("salient") == mine] for mine in (True, False))
    found = {}
    for name in ours + peers + (ours if peers else []):
        found.setdefault(name, []).append(quantizers[name](options, model, texts, made["rows"], work / name))
        print(f"{name}: {found[name][-1]['quantize_s']:.1f} s, {found[name][-1]['peak_mb']:.0f} MB", file=sys.stderr)
    figures = {"calibration": made, "tools": {}}
    for name in TOOLS:
        if name in found:
            figures["tools"][name] = {key: statistics.mean(one[key] for one in found[name]) for key in UNITS}
    return figures


def ratios_of(tools):
    """Of each peer and figure, what Salient's is multiplied by to be it."""
    ours = tools.get("salient")
    if not ours:
        return {}
    return {f"{name}_{figure}": found[figure] / ours[figure] for name, found in tools.items() if not name.startswith("salient") for figure in UNITS}


def print_report(figures):
    rows = [["", "AutoAWQ", "llm-compressor", "Salient", "as by default", "to AutoAWQ", "to llm-compressor"]]
    for figure, title in UNITS.items():
        row = [title] + [f"{figures['tools'][name][figure]:.1f}" if name in figures["tools"] else "" for name in TOOLS]
        for name in ("autoawq", "llm-compressor"):
            ratio, bound = figures["ratios"].get(f"{name}_{figure}"), BOUNDS.get((name, figure))
            row.append("" if ratio is None else f"{ratio:.1f}x" + (f" (aim {bound:g}x)" if bound else ""))
        rows.append(row)
    print_table(rows)


def missed_bounds(ratios):
    for (name, figure), bound in BOUNDS.items():
        ratio = ratios.get(f"{name}_{figure}")
        if ratio is None:
            yield f"{UNITS[figure]} of {name} by Salient's: not measured, bound {bound:g}"
        elif ratio < bound:
            yield f"{UNITS[figure]} of {name} by Salient's: {ratio:.4g}, bound {bound:g}"


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, pathlib.Path(folder))
    figures["ratios"] = ratios_of(figures["tools"])
    figures["setting"] = {"machine": platform.machine(), "threads": options.threads, "blocks": options.blocks, "tokens": options.tokens,
                          "block_tokens": options.block_tokens, "bits": BITS, "group_size": GROUP_SIZE}
    print_report(figures)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    missed = list(missed_bounds(figures["ratios"]))
    for line in missed:
        print(f"missed: {line}")
    return 1 if options.check and missed else 0


sys.exit(main())
