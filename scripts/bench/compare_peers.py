#!/usr/bin/env python3
"""Compares Salient with AutoAWQ and llm-compressor: mean KL to the float model at the same bits on the same calibration texts.

Every quantized model, ours and the peers', is written as a float checkpoint of its dequantized weights and measured by `salient eval`: one evaluator,
so that only the numbers in the weights differ. For each model, number of bits and seed:
  in domain      calibrated on 128 rows of three kinds of text, measured on held-out text of the same kinds: AutoAWQ, llm-compressor, Salient rounding
                 to nearest ("gram-only": its scale search and clipping alone) and Salient as it is by default
  out of domain  calibrated on 128 rows of one kind (openmath, arc or squad), measured on each of the two others: Salient both ways
and with --budget 3.5, in domain and out of it, bits chosen for each module with that mean (--target-bits) against the straight line between the whole
numbers of bits around it: the default at 3 and 4 bits.
Every figure is a file in --work, named after what was run; Salient's also after the program's hash. So the script can be stopped, run in parts
(--only, --models, --bits, --seeds), and run again after a change: it does what is missing and prints what is there.

The peers need Python environments of their own, which no other part of the project uses:
  python3 -m venv awq && awq/bin/pip install torch==2.13.0 && awq/bin/pip install transformers==4.51.3 datasets zstandard accelerate
  awq/bin/pip install --no-deps --no-build-isolation autoawq==0.2.9
  python3 -m venv lc && lc/bin/pip install torch==2.13.0 && lc/bin/pip install llmcompressor==0.14.0.1
  scripts/demo_model/make_data.py DATA
  scripts/bench/compare_peers.py --data DATA --work WORK --awq-python awq/bin/python --lc-python lc/bin/python \\
      --models demo=models/demo llama=LLAMA qwen3_plain=QWEN3
scripts/demo_model/train.py says how the two other models are made.

--check makes the exit status 1 where a ratio of means over the seeds misses its bound or a figure is missing.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import calibration_sets
from tool_runs import last_json_line, measure_with_salient, print_table, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
GROUP_SIZE = 128
BLOCK_TOKENS = 256  # of calibration blocks and of held-out windows
WINDOWS = {"mixed": 160} | dict.fromkeys(calibration_sets.DOMAINS, 80)
PEERS = {"autoawq": "peer_autoawq.py", "llm-compressor": "peer_llmcompressor.py"}
VARIANTS = {"gram-only": ["--rounding", "nearest"], "default": []}
BUDGET = "budget"  # the default with bits by module
TOOLS = tuple(PEERS) + tuple(VARIANTS)
# Ratio of the default's mean KL to another's, at most. Out of domain: the mean over both other domains, for each domain of calibration.
IN_DOMAIN_BOUNDS = {"autoawq": 0.4, "llm-compressor": 0.4}
OUT_OF_DOMAIN_BOUND = 1.0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="output of scripts/demo_model/make_data.py")
    parser.add_argument("--work", required=True, type=pathlib.Path, metavar="DIR", help="figures, calibration sets and temporary folders")
    parser.add_argument("--models", nargs="+", default=[f"demo={ROOT / 'models/demo'}"], metavar="NAME=DIR", help="default: the demo model")
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 3], help="default: 4 3")
    parser.add_argument("--budget", type=float, metavar="BITS", help="mean bits by module, such as 3.5, to measure as well")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="of the calibration rows; default: 1 to 5")
    parser.add_argument("--only", choices=("peers", "salient", "table"), help="run this part only; table: run nothing")
    parser.add_argument("--awq-python", metavar="FILE", help="Python with autoawq 0.2.9 and transformers 4.51")
    parser.add_argument("--lc-python", metavar="FILE", help="Python with llmcompressor 0.14.0.1")
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient", metavar="FILE", help="default: build/release")
    parser.add_argument("--evaluator", type=pathlib.Path, metavar="FILE", help="the program that measures (default: --salient)")
    parser.add_argument("--salient-format", default="dequantized", help="of `salient quantize` (default: dequantized)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every tool (default: every core)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a ratio misses its bound")
    options = parser.parse_args()
    options.models = dict(model.split("=", 1) for model in options.models)
    options.salient = options.salient.absolute()
    options.evaluator = (options.evaluator or options.salient).absolute()
    if options.only != "table" and not options.evaluator.exists() or options.only in (None, "salient") and not options.salient.exists():
        parser.error(f"no program {options.salient} or {options.evaluator}: build the project, or name one with --salient or --evaluator")
    if options.only in (None, "peers") and not (options.awq_python and options.lc_python):
        parser.error("the peers need --awq-python and --lc-python (or --only salient)")
    return options


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def weights_hash(folder):
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        sys.exit(f"{folder}: no .safetensors file")
    return "+".join(file_hash(file) for file in files)


class Figures:
    """Measured figures by what was run, each in a file of its own."""

    def __init__(self, options):
        self.options = options
        self.folder = options.work / "figures"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sets = options.work / "sets"
        self.models = {name: weights_hash(pathlib.Path(folder)) for name, folder in options.models.items()}
        self.program = file_hash(options.salient) if options.salient.exists() else None

    def path(self, model, bits, tool, calibration, seed, text):
        files = calibration_sets.calibration_file(self.sets, calibration, seed), calibration_sets.heldout_file(self.sets, text)
        parts = [self.models[model], GROUP_SIZE, BLOCK_TOKENS, WINDOWS[text]] + [file_hash(file) for file in files]
        if tool not in PEERS:
            parts += [self.program, self.options.salient_format] + VARIANTS.get(tool, [])
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        return self.folder / f"{model}-{bits}bit-{tool}-{calibration}{seed}-on-{text}-{key}.json"

    def read(self, *run_of):
        path = self.path(*run_of)
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, figure, *run_of):
        path = self.path(*run_of)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(figure, indent=2) + "\n")
        partial.replace(path)


def quantize(options, model, bits, tool, calibration, out):
    """Gives the seconds that the tool itself reports for the work, without loading its libraries."""
    if tool in PEERS:
        python = {"autoawq": options.awq_python, "llm-compressor": options.lc_python}[tool]
        text, _, _ = run([python, HERE / PEERS[tool], model, out, calibration, calibration_sets.ROWS, BLOCK_TOKENS, GROUP_SIZE, bits,
                          options.threads], options.threads)
        return last_json_line(text)["quantize_s"]
    width = ["--target-bits", bits] if tool == BUDGET else ["--bits", bits]
    text, _, _ = run([options.salient, "quantize", "--model", model, "--calib", calibration, "--out", out, *width, "--group-size", GROUP_SIZE,
                      "--max-seq-len", BLOCK_TOKENS, "--samples", calibration_sets.ROWS, "--discard-long-rows", "--format", options.salient_format,
                      "--threads", options.threads, "--json"] + VARIANTS.get(tool, []), options.threads)
    return json.loads(text)["quantize_s"]


def planned(options):
    """(model, bits, tool, calibration set, seed, texts) in the order in which they are run: a seed is complete before the next one."""
    for model in options.models:
        for seed in options.seeds:
            for bits in options.bits:
                if options.only in (None, "peers"):
                    for tool in PEERS:
                        yield model, bits, tool, "mixed", seed, ["mixed"]
                if options.only in (None, "salient"):
                    for tool in VARIANTS:
                        yield model, bits, tool, "mixed", seed, ["mixed"]
                        for domain in calibration_sets.DOMAINS:
                            yield model, bits, tool, domain, seed, other_domains(domain)
            if options.budget and options.only in (None, "salient"):
                for around in whole_bits_around(options.budget):
                    yield model, around, "default", "mixed", seed, ["mixed"]
                    for domain in calibration_sets.DOMAINS:
                        yield model, around, "default", domain, seed, other_domains(domain)
                yield model, options.budget, BUDGET, "mixed", seed, ["mixed"]
                for domain in calibration_sets.DOMAINS:
                    yield model, options.budget, BUDGET, domain, seed, other_domains(domain)


def other_domains(domain):
    return [text for text in calibration_sets.DOMAINS if text != domain]


def whole_bits_around(bits):
    return math.floor(bits), math.ceil(bits)


def run_missing(options, figures):
    for model, bits, tool, calibration, seed, texts in planned(options):
        missing = [text for text in texts if figures.read(model, bits, tool, calibration, seed, text) is None]
        if not missing:
            continue
        with tempfile.TemporaryDirectory(dir=options.work, prefix="tmp_") as work:
            folder = pathlib.Path(work) / "model"
            calibration_file = calibration_sets.calibration_file(figures.sets, calibration, seed)
            seconds = quantize(options, options.models[model], bits, tool, calibration_file, folder)
            if tool not in PEERS and file_hash(options.salient) != figures.program:
                sys.exit(f"{options.salient} was changed while it was measured: give a copy of it with --salient")
            for text in missing:
                figure = measure_with_salient(options.evaluator, folder, options.models[model], calibration_sets.heldout_file(figures.sets, text),
                                              BLOCK_TOKENS, WINDOWS[text], options.threads)
                figure |= {"quantize_s": seconds, "threads": options.threads}
                figures.write(figure, model, bits, tool, calibration, seed, text)
                print(f"{time.strftime('%H:%M:%S')} {model} {bits} bit {tool}, {calibration} seed {seed} on {text}: KL {1e3 * figure['kl']:.4f}e-3,"
                      f" {seconds:.1f} s", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)


def over_seeds(options, figures, model, bits, tool, calibration, texts):
    """KL of each seed for which every text was measured (their mean), in 1e-3 nats."""
    values = {}
    for seed in options.seeds:
        found = [figures.read(model, bits, tool, calibration, seed, text) for text in texts]
        if all(found):
            values[seed] = 1e3 * statistics.mean(figure["kl"] for figure in found)
    return values


def ratio_of_means(numerator, denominator):
    """Over the seeds that both have; nothing where there are none."""
    seeds = numerator.keys() & denominator.keys()
    return statistics.mean(numerator[s] for s in seeds) / statistics.mean(denominator[s] for s in seeds) if seeds else None


def summarize(options, figures):
    rows = []
    for model in options.models:
        for bits in options.bits:
            in_domain = {tool: over_seeds(options, figures, model, bits, tool, "mixed", ["mixed"]) for tool in TOOLS}
            row = {"model": model, "bits": bits, "in_domain": in_domain,
                   "ratios": {tool: ratio_of_means(in_domain["default"], in_domain[tool]) for tool in TOOLS if tool != "default"},
                   "out_of_domain": {}}
            for domain in calibration_sets.DOMAINS:
                others = other_domains(domain)
                for texts in [others] + [[text] for text in others]:
                    found = {tool: over_seeds(options, figures, model, bits, tool, domain, texts) for tool in VARIANTS}
                    name = f"{domain} to {' and '.join(texts)}"
                    row["out_of_domain"][name] = found | {"ratio": ratio_of_means(found["default"], found["gram-only"]),
                                                          "bounded": len(texts) > 1}
            rows.append(row)
    return rows


def summarize_budget(options, figures):
    """By model and where it was measured: KL with the budget, with the whole numbers of bits around it, and on the line between these."""
    low, high = whole_bits_around(options.budget)
    rows = []
    for model in options.models:
        for calibration, texts in [("mixed", ["mixed"])] + [(domain, other_domains(domain)) for domain in calibration_sets.DOMAINS]:
            by_bits = {bits: over_seeds(options, figures, model, bits, BUDGET if bits == options.budget else "default", calibration, texts)
                       for bits in (low, options.budget, high)}
            seeds = set.intersection(*(set(found) for found in by_bits.values()))
            means = {bits: statistics.mean(found[seed] for seed in seeds) for bits, found in by_bits.items()} if seeds else {}
            line = means[low] + (options.budget - low) * (means[high] - means[low]) if seeds else None
            rows.append({"model": model, "calibrated_on": calibration, "measured_on": texts, "kl": by_bits, "line": line,
                         "ratio": means[options.budget] / line if seeds else None})
    return rows


def print_budget(options, rows):
    low, high = whole_bits_around(options.budget)
    count = len(options.seeds)
    print(f"\n{options.budget:g} bits by module against {low} and {high} bits everywhere, the default otherwise")
    print_table([["model", "calibrated on, measured on", f"{low} bits", f"{high} bits", f"{options.budget:g} bits", "straight line", "ratio to it"]] +
                [[row["model"], f"{row['calibrated_on']} to {' and '.join(row['measured_on'])}"] +
                 [cell(row["kl"][bits], count) for bits in (low, high, options.budget)] +
                 [ratio_cell(row["line"]), ratio_cell(row["ratio"])] for row in rows])


def cell(values, count):
    if not values:
        return "-"
    found = list(values.values())
    spread = f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.4f}{spread}" + (f" ({len(found)} of {count})" if len(found) < count else "")


def ratio_cell(ratio):
    return "-" if ratio is None else f"{ratio:.3f}"


def print_report(options, rows):
    count = len(options.seeds)
    print(f"mean KL to float, 1e-3 nats: mean ± standard deviation over {count} seeds; ratios of means\n\nin domain")
    table = [["model", "bits", *TOOLS, "default/autoawq", "default/llm-compressor", "default/gram-only"]]
    for row in rows:
        table.append([row["model"], str(row["bits"])] + [cell(row["in_domain"][tool], count) for tool in TOOLS] +
                     [ratio_cell(row["ratios"][tool]) for tool in ("autoawq", "llm-compressor", "gram-only")])
    print_table(table)
    print("\nout of domain")
    table = [["model", "bits", "calibrated on, measured on", "gram-only", "default", "default/gram-only"]]
    for row in rows:
        for name, found in row["out_of_domain"].items():
            label = name if found["bounded"] else f"  {name}"
            table.append([row["model"], str(row["bits"]), label.ljust(30), cell(found["gram-only"], count), cell(found["default"], count),
                          ratio_cell(found["ratio"])])
    print_table(table)


def missed_bounds(options, rows):
    for row in rows:
        where = f"{row['model']}, {row['bits']} bits"
        for tool in TOOLS:
            if len(row["in_domain"][tool]) < len(options.seeds):
                yield f"{where}: {len(row['in_domain'][tool])} of {len(options.seeds)} seeds of {tool} are measured"
        for tool, bound in IN_DOMAIN_BOUNDS.items():
            if row["ratios"][tool] is not None and row["ratios"][tool] > bound:
                yield f"{where}: default/{tool} is {row['ratios'][tool]:.3f}, bound {bound:g}"
        for name, found in row["out_of_domain"].items():
            if not found["bounded"]:
                continue
            for tool in VARIANTS:
                if len(found[tool]) < len(options.seeds):
                    yield f"{where}, {name}: {len(found[tool])} of {len(options.seeds)} seeds of {tool} are measured"
            if found["ratio"] is not None and found["ratio"] > OUT_OF_DOMAIN_BOUND:
                yield f"{where}, {name}: default/gram-only is {found['ratio']:.3f}, bound {OUT_OF_DOMAIN_BOUND:g}"


def main():
    options = parse_arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    calibration_sets.write(options.data, options.work / "sets", options.seeds)
    figures = Figures(options)
    if options.only != "table":
        run_missing(options, figures)
    rows = summarize(options, figures)
    print_report(options, rows)
    budget = summarize_budget(options, figures) if options.budget else []
    if budget:
        print_budget(options, budget)
    if options.json:
        setting = {"group_size": GROUP_SIZE, "block_tokens": BLOCK_TOKENS, "windows": WINDOWS, "seeds": options.seeds, "models": options.models,
                   "rows": calibration_sets.ROWS, "program": figures.program}
        pathlib.Path(options.json).write_text(json.dumps({"setting": setting, "rows": rows, "budget": budget}, indent=2) + "\n")
    missed = list(missed_bounds(options, rows))
    for line in missed:
        print(f"missed: {line}")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
