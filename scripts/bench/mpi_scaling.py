#!/usr/bin/env python3
"""How much faster `salient quantize` is over ranks: the same work by 1 and 2 processes of one thread each, as mpirun starts them.

  python3 -m venv env && env/bin/pip install numpy
  env/bin/python scripts/bench/mpi_scaling.py                  # --ranks 1,2,4 on a machine with four free cores

The model is random, with the shapes of a block of Qwen3-0.6B (--shape llama-3-8b: of Llama 3 8B) and few blocks; calibration texts are the demo's. Each
number of ranks is run --repeats times in turn and the fastest run counts. Efficiency is the time of one rank over that of n ranks and n. Nothing else
should run meanwhile: ranks wait for one another, so that the slower core's time counts.
"""
import argparse
import json
import pathlib
import shutil
import tempfile

from random_model import ROOT, SHAPES, write_model
from tool_runs import run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salient", default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--mpirun", default=shutil.which("mpirun"), metavar="FILE", help="the launcher (default: that of PATH)")
    parser.add_argument("--shape", default="qwen3-0.6b", choices=sorted(SHAPES), help="of a block (default qwen3-0.6b)")
    parser.add_argument("--blocks", type=int, default=2, help="blocks of the model (default 2)")
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks (default 1,2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each rank (default 1)")
    parser.add_argument("--samples", type=int, default=256, help="calibration texts (default 256)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each number of ranks (default 2)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("options", nargs="*", help="further options of salient quantize, after --")
    options = parser.parse_args()
    if options.mpirun is None:
        parser.error("there is no mpirun: apt-get install openmpi-bin libopenmpi-dev, and build again")
    return options


def quantize(model, out, ranks, options):
    """(seconds of the whole command, what it reports)"""
    command = [options.salient, "quantize", "--model", model, "--calib", ROOT / "models/demo/data/calib_mixed.jsonl", "--out", out, "--samples",
               options.samples, "--max-seq-len", 512, "--threads", options.threads, "--json", *options.options]
    if ranks > 1:
        environment = ["-x", f"OMP_NUM_THREADS={options.threads}"]
        command = [options.mpirun, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", *environment, "-n", ranks, *command]
    text, seconds, _ = run(command, options.threads)
    shutil.rmtree(out)
    return seconds, json.loads(text)


def main():
    options = parse_arguments()
    numbers = [int(number) for number in options.ranks.split(",")]
    best = {}
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "model"
        write_model(options.shape, model, as_float=True, blocks=options.blocks)
        for _ in range(options.repeats):
            for ranks in numbers:
                found = quantize(model, pathlib.Path(folder) / "out", ranks, options)
                if ranks not in best or found[0] < best[ranks][0]:
                    best[ranks] = found
    print(f"{options.shape}, {options.blocks} blocks, {best[numbers[0]][1]['calibration']['tokens']} calibration tokens, {options.threads} threads a rank\n")
    print("ranks  seconds  speedup  efficiency  rounding error left")
    base_ranks, base = numbers[0], best[numbers[0]][0]
    rows = []
    for ranks in numbers:
        seconds, result = best[ranks]
        speedup = base / seconds
        rows.append({"ranks": ranks, "seconds": seconds, "speedup": speedup, "efficiency": speedup * base_ranks / ranks,
                     "error_ratio": result["summary"]["error_ratio"], "peak_memory_mb": result["peak_memory_mb"]})
        print(f"{ranks:5}  {seconds:7.1f}  {speedup:7.2f}  {rows[-1]['efficiency']:10.0%}  {rows[-1]['error_ratio']:19.4f}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"shape": options.shape, "blocks": options.blocks, "threads": options.threads, "rows": rows}))


main()
