"""TorchScript files in Python and in C++, forward and through the cache: float, AutoAWQ's and compressed-tensors' packed weights."""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoTokenizer

import artifacts
import rows

PROMPT = 40  # tokens of the first step
BOUND = 1e-4  # of the largest logit
MODELS = {"float": ("torchscript", None), "awq-gemm": ("torchscript-awq", "awq-gemm"), "compressed-tensors": ("torchscript-compressed", "compressed-tensors-mixed")}


def in_python(table, script, folder):
    """The last lines of scripts/checks/check_torchscript.py, which compares with transformers."""
    command = [sys.executable, rows.ROOT / "scripts/checks/check_torchscript.py", script, folder]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    bad = [line for line in lines if not line.startswith("ok")] + ([done.stderr[-400:]] if not lines else [])
    forward = next((line.rsplit(" ", 1)[-1] for line in lines if "forward of [" in line), "none")
    return "; ".join(bad) if bad else f"{forward} (bound 2e-3), {len(lines)} comparisons", done.returncode == 0 and not bad


def in_cpp(table, script, source, ids):
    """forward() and step() of the C++ program against Salient's logits of the model that was exported."""
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "logits"
        rows.run([table.tools["run_torchscript"], script, out, PROMPT, *ids])
        forward, steps = np.fromfile(out, np.float32).reshape(2, len(ids), -1)
    expected = table.logits(source, ids)
    values = rows.relative(forward, expected), rows.relative(steps[PROMPT - 1:], expected[PROMPT - 1:])
    return "forward {:.1e}, {} steps {:.1e} (bound {:g})".format(values[0], len(ids) - PROMPT + 1, values[1], BOUND), max(values) < BOUND


def main():
    table = rows.Rows(__doc__, torch.__version__)
    ids = AutoTokenizer.from_pretrained(artifacts.DEMO)("".join(rows.prompts(2))).input_ids
    for what, (script, source) in MODELS.items():
        script, source = table.artifacts.path(script), table.artifacts.path(source) if source else artifacts.DEMO
        table.check("torchscript", f"Python, {what}: forward, cache and greedy text against transformers", lambda: in_python(table, script, source))
        table.check("torchscript", f"C++, {what}: forward and cache against Salient's logits", lambda: in_cpp(table, script, source, ids))
    sys.exit(table.exit_status())


main()
