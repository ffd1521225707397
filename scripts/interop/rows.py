"""The rows of the interop table that the check of one client gives, its arguments, and Salient's commands. Only the standard library and NumPy."""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import artifacts

ROOT = pathlib.Path(__file__).resolve().parents[2]
OK, FAIL, SKIPPED = "ok", "FAIL", "skipped"


class Rows:
    """Runs the comparisons of a client, prints each as it ends, and keeps rows/CLIENT.json up to it."""

    def __init__(self, description, version):
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--client", required=True)
        parser.add_argument("--work", type=pathlib.Path, required=True, help="where artifacts are kept and rows/CLIENT.json is written")
        parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient")
        parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
        parser.add_argument("--tool", action="append", default=[], metavar="NAME=PATH", help="another program that the check runs")
        self.options = parser.parse_args()
        self.tools = dict(tool.split("=", 1) for tool in self.options.tool)
        self.client, self.version, self.threads = self.options.client, version, self.options.threads
        self.artifacts = artifacts.Artifacts(self.options.salient.resolve(), self.options.work / "artifacts", self.threads)
        self.rows = []

    def add(self, artifact_format, compared, difference, status):
        row = dict(client=self.client, version=self.version, format=artifact_format, compared=compared, difference=difference, status=status)
        self.rows.append(row)
        print(f"{status:7} {self.client}  {artifact_format}: {compared}: {difference}", flush=True)
        folder = self.options.work / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.client}.json").write_text(json.dumps(self.rows, indent=1, ensure_ascii=False) + "\n")

    def check(self, artifact_format, compared, function):
        """One row: function() gives the difference as text and whether it is small enough. An exception is a row that failed."""
        try:
            difference, passed = function()
        except (Exception, SystemExit) as error:  # whatever it is belongs in the table, and the other rows still come
            difference, passed = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}", False
        self.add(artifact_format, compared, difference, OK if passed else FAIL)

    def below(self, artifact_format, compared, bound, function):
        """One row: the number that function() gives must lie below the bound."""
        def bounded():
            value = float(function())
            return f"{value:.1e} (bound {bound:g})", value < bound
        self.check(artifact_format, compared, bounded)

    def skip(self, artifact_format, compared, reason):
        self.add(artifact_format, compared, reason, SKIPPED)

    def salient(self, *words):
        """Standard output of the program."""
        return run([self.options.salient.resolve(), *words, "--threads", self.threads])

    def logits(self, model, ids):
        """float32 [len(ids), vocabulary], as `salient logits` gives them."""
        import numpy
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "logits.npy"
            self.salient("logits", "--model", model, "--ids", ",".join(map(str, ids)), "--out", out)
            return numpy.load(out)

    def exit_status(self):
        return 1 if any(row["status"] == FAIL for row in self.rows) or not self.rows else 0


def run(command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode} of {' '.join(map(str, command[:6]))}: {done.stderr.decode('utf-8', 'replace')[-600:]}")
    return done.stdout.decode("utf-8")


def relative(found, expected):
    """The largest difference over the largest value; NaN, which no bound admits, where shapes differ."""
    if found.shape != expected.shape:
        return float("nan")
    return float(abs(found - expected).max() / abs(expected).max())


def prompts(count):
    """Questions of the demo's test data in its chat template: what the model was trained to answer."""
    lines = (artifacts.DEMO / "data/openmath_test.jsonl").read_text(encoding="utf-8").splitlines()
    return [chat(json.loads(line)["question"]) for line in lines[:count]]


def chat(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
