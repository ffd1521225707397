#!/usr/bin/env python3
"""What a sweep of four group sizes and four calibration sizes costs, beside single runs: quantization alone, no evaluation. Prints seconds, the sweep's time
over that of one point with the largest calibration set, and whether the sixteen artifacts have the bytes of sixteen single runs.

  scripts/bench/sweep_cost.py                        the demo model, 64 to 512 rows of its training set
  scripts/bench/sweep_cost.py --model DIR --texts calibration.jsonl --samples 8 16 32 64 --check

--check makes the exit status 1 when the sweep costs more than four times the single point, or an artifact differs. --no-singles leaves the other fifteen
single runs out, and with them the comparison of their bytes.
"""
import argparse
import json
import os
import pathlib
import platform
import sys
import tempfile

from tool_runs import print_table, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST = 4.0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/demo", metavar="DIR", help="a float checkpoint (default: the demo model)")
    parser.add_argument("--texts", type=pathlib.Path, metavar="FILE", help="calibration rows (default: drawn from the model's training set)")
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 128, 256, 512], help="calibration sizes, the largest last")
    parser.add_argument("--group-sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--salient", default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    parser.add_argument("--no-singles", action="store_true", help="only the sweep and the one point that it is compared with")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a bound is missed")
    return parser.parse_args()


def write_configs(options, folder):
    config = {"model": {"path": str(options.model.resolve())}, "quantization": {"propagate_error": False}}
    if options.texts: config["calibration"] = {"file": str(options.texts.resolve())}
    (folder / "run.yaml").write_text(json.dumps(config))
    grid = {"quantization.group_size": options.group_sizes, "calibration.samples": options.samples}
    (folder / "sweep.yaml").write_text(json.dumps({"run": str(folder / "run.yaml"), "grid": grid}))


def single(options, folder, group_size, samples):
    out = folder / f"single_{group_size}_{samples}"
    _, seconds, megabytes = run([options.salient, "run", folder / "run.yaml", "--threads", options.threads, "--set", f"quantization.group_size={group_size}",
                                 "--set", f"calibration.samples={samples}", "--set", f"output.folder={out}", "--set", f"output.store={out}/salient.db"],
                                options.threads)
    return seconds, megabytes, next(out.glob("*_quantized"))


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_configs(options, folder)
        largest = options.samples[-1]
        singles = {(options.group_sizes[0], largest): single(options, folder, options.group_sizes[0], largest)}
        text, seconds, megabytes = run([options.salient, "sweep", folder / "sweep.yaml", "--threads", options.threads, "--json", "--set",
                                        f"output={{folder: {folder}/swept, store: {folder}/swept/salient.db}}"], options.threads)
        swept = {(p["values"]["quantization.group_size"], p["values"]["calibration.samples"]): pathlib.Path(p["artifact"]) for p in json.loads(text)["points"]}
        if not options.no_singles:
            for point in swept:
                if point not in singles: singles[point] = single(options, folder, *point)
        different = [point for point, (_, _, artifact) in singles.items() if files_of(artifact) != files_of(swept[point])]
        one = sum(s for (_, samples), (s, _, _) in singles.items() if samples == largest) / sum(samples == largest for _, samples in singles)
        rows = [("one point, most calibration rows", f"{one:.1f}", f"{max(m for _, m, _ in singles.values()):.0f}", "1.0"),
                (f"sweep of {len(swept)} points", f"{seconds:.1f}", f"{megabytes:.0f}", f"{seconds / one:.2f}")]
        if not options.no_singles:
            total = sum(s for s, _, _ in singles.values())
            rows.append((f"{len(singles)} single runs", f"{total:.1f}", "", f"{total / one:.2f}"))
        print(f"{options.model.name}, {options.threads} threads, {platform.processor() or platform.machine()}")
        print_table([("work", "seconds", "peak MB", "of one point"), *rows])
        print(f"{len(singles) - len(different)} of {len(singles)} artifacts of single runs have the bytes of the sweep's" + "".join(f"\ndifferent: {p}" for p in different))
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps({"one_s": one, "sweep_s": seconds, "ratio": seconds / one, "points": len(swept),
                                                              "different": len(different), "singles": len(singles)}))
        if options.check and (different or seconds > MOST * one): sys.exit(1)


if __name__ == "__main__":
    main()
