#!/usr/bin/env python3
"""Quantizes one model with AutoAWQ 0.2.9 and with Salient, one after the other on the same calibration texts, and compares seconds,
peak memory and quality. Prints a table, and the figures as JSON to --json FILE.

AutoAWQ needs Python environments of its own, which no other part of the project uses:
  python3 -m venv awq && awq/bin/pip install torch==2.13.0 && awq/bin/pip install transformers==4.51.3 datasets zstandard accelerate
  awq/bin/pip install --no-deps --no-build-isolation autoawq==0.2.9
  python3 -m venv hf && hf/bin/pip install torch==2.13.0 && hf/bin/pip install transformers==5.23.0
  scripts/bench/compare_autoawq.py --awq-python awq/bin/python --hf-python hf/bin/python

How it is measured. Peak memory is that of the whole process, from the operating system. "Quantization" is AutoAWQ's quantize() call and
the time that `salient quantize --json` gives for the same work, writing included; "whole process" is by the clock. Both
artifacts are then unpacked by AutoAWQ's own function and run by transformers, in one process. With --runs N the tools take turns and medians are shown.
Only the ratios carry over to another machine. --check makes the exit status 1 when a ratio misses its bound.
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

from tool_runs import last_json_line, measure_with_salient, packing_utils_of, print_table, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
GROUP_SIZE = 128

# What the project promises on the demo model: (figure, worst value, whether more is better).
BOUNDS = (("speed_ratio", 10.0, True), ("memory_ratio", 1.0, True), ("perplexity_difference_percent", 0.1, False),
          ("kl_ratio", 1.0, False))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awq-python", required=True, metavar="FILE", help="Python with autoawq 0.2.9 and transformers 4.51")
    parser.add_argument("--hf-python", required=True, metavar="FILE", help="Python with torch and transformers, for measuring")
    parser.add_argument("--salient", default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--model", default=ROOT / "models/demo", metavar="DIR")
    parser.add_argument("--calib", default=ROOT / "models/demo/data/calib_mixed.jsonl", metavar="FILE")
    parser.add_argument("--rows", type=int, default=128, help="calibration texts (default 128)")
    parser.add_argument("--block", type=int, default=256, help="tokens of a calibration block (default 256)")
    parser.add_argument("--text", default=ROOT / "models/demo/data/heldout.txt", metavar="FILE", help="text for perplexity and KL")
    parser.add_argument("--window", type=int, default=256, help="tokens of a window of it (default 256)")
    parser.add_argument("--windows", type=int, default=160, help="how many of them, from its start; 0 = all (default 160)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of both tools (default: every core)")
    parser.add_argument("--runs", type=int, default=1, help="how often each tool quantizes; medians are shown (default 1)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", metavar="DIR", help="keep both artifacts there (default: a temporary folder)")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a ratio misses its bound")
    return parser.parse_args()


def quantize_with_autoawq(options, out):
    text, seconds, megabytes = run(
        [options.awq_python, HERE / "autoawq_quantize.py", options.model, out, options.calib, options.rows, options.block, GROUP_SIZE,
         options.threads], options.threads)
    return {"quantize_s": last_json_line(text)["quantize_s"], "process_s": seconds, "peak_mb": megabytes}


def quantize_with_salient(options, out):
    text, seconds, megabytes = run(
        [options.salient, "quantize", "--model", options.model, "--calib", options.calib, "--out", out, "--bits", 4,
         "--group-size", GROUP_SIZE, "--max-seq-len", options.block, "--samples", options.rows, "--threads", options.threads,
         "--discard-long-rows", "--json"], options.threads)
    return {"quantize_s": json.loads(text)["quantize_s"], "process_s": seconds, "peak_mb": megabytes}


def median_of(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def measure(options, work):
    folders = {"autoawq": work / "autoawq", "salient": work / "salient"}
    tools = {"autoawq": quantize_with_autoawq, "salient": quantize_with_salient}
    runs = {"autoawq": [], "salient": []}
    for number in range(options.runs):
        for name, quantize in tools.items():
            shutil.rmtree(folders[name], ignore_errors=True)
            runs[name].append(quantize(options, folders[name]))
            found = runs[name][-1]
            print(f"run {number + 1}/{options.runs} {name}: {found['quantize_s']:.2f} s, {found['peak_mb']:.0f} MB", file=sys.stderr)
    text, _, _ = run(
        [options.hf_python, HERE / "measure_artifacts.py", options.model, options.text, options.window, options.windows,
         options.threads, packing_utils_of(options.awq_python)] + [f"{name}={folder}" for name, folder in folders.items()], options.threads)
    quality = last_json_line(text)
    quality["salient_eval"] = measure_with_salient(options.salient, folders["salient"], options.model, options.text, options.window,
                                                   options.windows, options.threads)
    return {"runs": runs, "medians": {name: median_of(found) for name, found in runs.items()}, "quality": quality}


def ratios_of(figures):
    awq, ours = figures["medians"]["autoawq"], figures["medians"]["salient"]
    models, own = figures["quality"]["models"], figures["quality"]["salient_eval"]["perplexity"]
    packed = models["salient"]["perplexity"]
    return {
        "speed_ratio": awq["quantize_s"] / ours["quantize_s"],
        "process_speed_ratio": awq["process_s"] / ours["process_s"],
        "memory_ratio": awq["peak_mb"] / ours["peak_mb"],
        "perplexity_difference_percent": 100 * abs(own - packed) / packed,
        "kl_ratio": models["salient"]["kl"] / models["autoawq"]["kl"],
    }


def print_report(figures):
    medians, models, ratios = figures["medians"], figures["quality"]["models"], figures["ratios"]
    awq, ours, own = medians["autoawq"], medians["salient"], figures["quality"]["salient_eval"]
    print_table([
        ["", "float", "AutoAWQ", "Salient", "ratio"],
        ["quantization, s", "", f"{awq['quantize_s']:.2f}", f"{ours['quantize_s']:.2f}", f"{ratios['speed_ratio']:.1f}x faster"],
        ["whole process, s", "", f"{awq['process_s']:.2f}", f"{ours['process_s']:.2f}", f"{ratios['process_speed_ratio']:.1f}x faster"],
        ["peak memory, MB", "", f"{awq['peak_mb']:.0f}", f"{ours['peak_mb']:.0f}", f"{ratios['memory_ratio']:.1f}x less"],
        ["perplexity (transformers)"] + [f"{models[name]['perplexity']:.5f}" for name in ("float", "autoawq", "salient")] + [""],
        ["perplexity (salient eval)", "", "", f"{own['perplexity']:.5f}",
         f"{ratios['perplexity_difference_percent']:.4f} % apart"],
        ["mean KL to float, 1e-3 nats", "", f"{1e3 * models['autoawq']['kl']:.4f}", f"{1e3 * models['salient']['kl']:.4f}",
         f"{ratios['kl_ratio']:.2f} of it"],
        ["the same by salient eval", "", "", f"{1e3 * own['kl']:.4f}", ""],
        ["top-1 agreement with float", "", f"{models['autoawq']['top1']:.4f}", f"{models['salient']['top1']:.4f}", ""],
    ])


def missed_bounds(ratios):
    for name, bound, more_is_better in BOUNDS:
        if ratios[name] < bound if more_is_better else ratios[name] > bound:
            yield f"{name} is {ratios[name]:.4g}, bound {bound:g}"


def main():
    options = parse_arguments()
    if options.keep:
        work = pathlib.Path(options.keep)
        work.mkdir(parents=True, exist_ok=True)
        figures = measure(options, work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(options, pathlib.Path(folder))
    figures["ratios"] = ratios_of(figures)
    figures["setting"] = {"machine": platform.machine(), "threads": options.threads, "runs": options.runs, "model": str(options.model),
                          "rows": options.rows, "block": options.block, "group_size": GROUP_SIZE, "window": options.window,
                          "windows": options.windows}
    print_report(figures)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    missed = list(missed_bounds(figures["ratios"]))
    for line in missed:
        print(f"missed: {line}")
    return 1 if options.check and missed else 0


sys.exit(main())
