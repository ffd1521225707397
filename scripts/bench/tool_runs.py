"""Runs programs and reads what they measured, for compare_*.py and memory_by_blocks.py. Needs only the standard library."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def run(command, threads=None):
    """Runs a command, with `threads` OpenMP threads where given; gives what it printed, its seconds by the clock and its peak resident memory
    in MB. Ends this program where the command fails."""
    words = [str(word) for word in command]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        text = output.read()
        if process.returncode != 0:
            tail = "\n".join((text + errors.read()).splitlines()[-15:])
            sys.exit(f"exit status {process.returncode} of: {' '.join(words)}\n{tail}")
    return text, seconds, usage.ru_maxrss * 1024 / 1e6  # ru_maxrss is in KiB on Linux


def last_json_line(text):
    return json.loads(text.strip().splitlines()[-1])


def measure_with_salient(program, folder, model, text_file, window, windows, threads):
    """Mean KL to the float `model` and perplexity over the first `windows` windows (0 = all) of `window` tokens, as `salient eval` has them."""
    text, _, _ = run([program, "eval", folder, "--tasks", "perplexity", "--data", f"perplexity={text_file}", "--compare-with", model, "--window", window,
                      "--limit", windows, "--threads", threads, "--no-throughput", "--no-store", "--json"], threads)
    (task,) = json.loads(text)["model"]["tasks"]
    metrics = {metric["metric"]: metric["value"] for metric in task["metrics"]}
    return {"kl": metrics["kl_divergence"], "perplexity": metrics["perplexity"]}


def packing_utils_of(python):
    """Where AutoAWQ's unpacking functions lie, found without importing AutoAWQ."""
    text, _, _ = run([python, "-c", "import importlib.util as u; print(u.find_spec('awq').submodule_search_locations[0])"], 1)
    return pathlib.Path(text.strip()) / "utils/packing_utils.py"


def print_table(rows):
    """Rows of strings, the first of them headings; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("  ".join(text.ljust(width) if i == 0 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))))
        if number == 0:
            print("  ".join("-" * width for width in widths))
