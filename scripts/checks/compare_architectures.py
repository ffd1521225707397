#!/usr/bin/env python3
"""Compares the program with a live transformers on tiny random checkpoints of every architecture, in the configurations of the goldens and more, each in
several shapes (architecture_shapes.py), prints a line a case, and exits with 1 where something differs by more than its bound.

usage: PYTHON scripts/checks/compare_architectures.py [options], with a Python that has torch and transformers 5.23
  logits      of the float checkpoint, float32: max |difference|
  --quantize  instead, on fewer shapes: quantize, inspect and eval run; smoothing alone leaves transformers' logits as they are; the packed weights, as
              AutoAWQ's own packing_utils unpacks them, give transformers the logits that the program has. Needs --awq-python, a Python with autoawq 0.2.9
              (scripts/bench/compare_autoawq.py says how to install it).
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

from compare_references import ROOT, Program

TOKENS, GOLDEN_TOKENS = 96, 48  # more than the windows and the original lengths; the goldens' positions end at 64
SMOOTHED_BOUND = 1e-3           # relative to the largest logit
# Shapes to quantize and their group sizes.
GROUP_SIZES = {"as in the golden": 32, "one kv head": 32}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--demo", type=pathlib.Path, default=ROOT / "models/demo", metavar="DIR", help="model folder whose tokenizer and data are used")
    parser.add_argument("--quantize", action="store_true", help="the second part instead of the first")
    parser.add_argument("--awq-python", metavar="FILE", help="Python with autoawq 0.2.9")
    parser.add_argument("--threads", type=int, default=1, help="threads of every program (default: 1, the models are tiny)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression: only the cases in whose name it is found")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="leave the checkpoints of failed cases there")
    return parser.parse_args()


class Checks:
    def __init__(self, options):
        import architecture_shapes
        import check_autoawq
        import check_logits
        self.shapes, self.logits, self.autoawq = architecture_shapes, check_logits, check_autoawq
        self.program, self.options = Program(options.salient, options.threads), options
        self.packing = check_autoawq.packing_utils(options.awq_python) if options.quantize else None

    def reference(self, folder, ids, divisors=None):
        """transformers' logits; a fresh model, because dynamic kinds of rope keep what the last call used. `divisors`: of the outputs of modules."""
        model = self.shapes.goldens.load(folder)
        model.config.use_cache = False  # transformers' cache wants a layer with keys
        for name, divisor in (divisors or {}).items():
            model.get_submodule(name).register_forward_hook(lambda module, inputs, output, divisor=divisor: output / divisor)
        return self.logits.logits_of(model, ids)

    def ours(self, folder, ids, work):
        return self.logits.program_logits(self.program, folder, ids, work / "logits.npy")

    def ids(self, case, vocabulary):
        return self.logits.some_ids(vocabulary, GOLDEN_TOKENS if case.shape == "as in the golden" else TOKENS)

    def make(self, case, folder, **overrides):
        """The checkpoint, ids, and transformers' logits, after a look at whether they are of a size that says something."""
        config = self.shapes.make(case, folder, **overrides)
        ids = self.ids(case, config["vocab_size"])
        expected = self.reference(folder, ids)
        if not (expected.isfinite().all() and 0.1 < expected.std() < 10):
            raise ValueError(f"logits of deviation {expected.std():.2g} are of no use")
        new_config = folder.parent / "new_config.json"
        if new_config.exists():
            copy = folder.parent / "new"
            shutil.copytree(folder, copy)
            new_config.rename(copy / "config.json")
            if not self.reference(copy, ids).equal(expected):
                raise ValueError("for transformers, the old-style config.json is another model")
        return ids, expected

    def compare_logits(self, case, work):
        folder = work / "model"
        ids, expected = self.make(case, folder)
        value = self.logits.difference(self.ours(folder, ids, work), expected)
        files = len(list(folder.glob("*.safetensors")))
        stored = json.loads((folder / "config.json").read_text())
        note = f"deviation {expected.std():.2f}, {len(ids)} tokens, {stored.get('dtype', stored.get('torch_dtype'))}, {files} file{'s' if files > 1 else ''}"
        return case.name, f"{value:.1e}", note, value < self.logits.BOUND

    def quantize(self, case, model, out, *words):
        text = self.program.run("quantize", "--model", model, "--calib", self.options.demo / "data/calib_mixed.jsonl", "--out", out, "--samples", 16,
                                "--max-seq-len", 64, "--group-size", GROUP_SIZES[case.shape], "--n-grid", 4, "--json", *words)
        return json.loads(text)

    def write_unpacked(self, case, quantized, source, out):
        """A float checkpoint of an artifact; returns the divisors of activations."""
        from safetensors.torch import save_file
        weights, divisors = self.autoawq.autoawq_folder.unpack(quantized, self.packing)
        out.mkdir()
        save_file(self.shapes.stack_experts(case.model_type, weights, source), out / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((quantized / "config.json").read_text())
        del config["quantization_config"]
        (out / "config.json").write_text(json.dumps(config))
        return divisors

    def compare_smoothed(self, case, folder, work, ids, expected):
        self.quantize(case, folder, work / "smoothed", "--format", "smoothed")
        if not self.shapes.changed(folder, work / "smoothed"):
            raise ValueError("smoothing changed no tensor")
        return (self.logits.difference(self.reference(work / "smoothed", ids), expected) / expected.abs().max()).item()

    def compare_quantized(self, case, work):
        folder, artifact = work / "model", work / "awq"
        demo = json.loads((self.options.demo / "config.json").read_text())
        # In float32: storing smoothed weights in 16 bits rounds them anew, which the bound does not allow for.
        ids, expected = self.make(case, folder, dtype="float32", **{key: demo[key] for key in ("vocab_size", "eos_token_id", "pad_token_id")})
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.options.demo / name, folder)
        summary = self.quantize(case, folder, artifact)["summary"]
        found = json.loads(self.program.run("inspect", artifact, "--json"))
        smoothed = self.compare_smoothed(case, folder, work, ids, expected)
        divisors = self.write_unpacked(case, artifact, folder, work / "unpacked")
        unpacked = self.reference(work / "unpacked", ids, divisors)
        value = self.logits.difference(self.ours(artifact, ids, work), unpacked)
        moved = self.logits.difference(unpacked, expected)
        text = f"perplexity={self.options.demo / 'data/heldout.txt'}"
        evaluated = json.loads(self.program.run("eval", artifact, "--compare-with", folder, "--tasks", "perplexity", "--data", text, "--limit", 2,
                                                "--no-throughput", "--no-store", "--json"))
        metrics = {m["metric"]: m["value"] for m in evaluated["model"]["tasks"][0]["metrics"]}
        wrong = [text for text, bad in (
            ("packed logits", not value < self.logits.BOUND),
            ("4 bits moved nothing", not moved > self.autoawq.LEAST_CHANGE),
            ("smoothed", not smoothed < SMOOTHED_BOUND),
            ("above round-to-nearest", not summary["error"] <= summary["rtn_error"]),
            ("inspect", found["format"] != "awq-gemm" or found["contradictions"]),
            ("eval", not 0 <= metrics["kl_divergence"] < 10)) if bad]
        note = (f"smoothed {smoothed:.1e}, error/RTN {summary['error'] / summary['rtn_error']:.3f}, {summary['linears']} linears, moved {moved:.2f}, "
                f"KL {metrics['kl_divergence']:.4f}" + (f"; WRONG: {', '.join(wrong)}" if wrong else ""))
        return case.name, f"{value:.1e}", note, not wrong

    def rows(self):
        compare = self.compare_quantized if self.options.quantize else self.compare_logits
        for case in self.shapes.cases(tuple(GROUP_SIZES)) if self.options.quantize else self.shapes.cases():
            if not re.search(self.options.only, case.name):
                continue
            with tempfile.TemporaryDirectory() as temporary:
                row = self.program.guarded(case.name, lambda: compare(case, pathlib.Path(temporary)))
                if self.options.keep and not row[-1]:
                    shutil.copytree(temporary, self.options.keep / re.sub(r"\W+", "_", case.name), dirs_exist_ok=True)
            yield row


def main():
    options = parse_arguments()
    if options.quantize and not options.awq_python:
        sys.exit("--quantize needs --awq-python")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = []
    for name, value, note, passed in Checks(options).rows():
        print(f"{'PASS' if passed else 'FAIL'}  {name:<60} {value:>8}  {note}", flush=True)
        rows.append((value, passed))
    total, good = len(rows), sum(passed for _, passed in rows)
    worst = max((float(value) for value, _ in rows if value != "error"), default=float("nan"))
    print(f"\n{'PASS' if total and good == total else 'FAIL'}: {good} of {total}, worst difference {worst:.1e} (torch {torch.__version__}, "
          f"transformers {transformers.__version__})")
    sys.exit(0 if total and good == total else 1)


if __name__ == "__main__":
    main()
