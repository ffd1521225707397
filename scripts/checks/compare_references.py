#!/usr/bin/env python3
"""Compares the program with the reference implementations on tiny random models that it makes itself, prints a table, and exits with 1
where something differs by more than its bound.

usage: PYTHON scripts/checks/compare_references.py [options], with a Python that has torch, transformers 5.23 and tokenizers
  logits      llama, mistral, qwen2, qwen3 in many variants against transformers, float32
  tokenize    the demo tokenizer and four small ones of published kinds against tokenizers
  render      the demo template and tests/data/templates against transformers' apply_chat_template
  autoawq     only with --awq-python, a Python with autoawq 0.2.9 (scripts/bench/compare_autoawq.py says how to install it): what
              AutoAWQ wrote as Salient reads it, and what Salient wrote as AutoAWQ's unpacking and AutoAWQ's own model read it
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ("logits", "tokenize", "render", "autoawq")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--demo", type=pathlib.Path, default=ROOT / "models/demo", metavar="DIR", help="model folder whose tokenizer and data are used")
    parser.add_argument("--awq-python", metavar="FILE", help="Python with autoawq 0.2.9 and transformers 4.51")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every program (default: every core)")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given several times")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="make the models there and leave them (default: a temporary folder)")
    return parser.parse_args()


class Program:
    def __init__(self, path, threads):
        self.path, self.threads = path, threads

    def command(self, words):
        return [str(word) for word in (self.path, *words, "--threads", self.threads)]

    def try_run(self, *words):
        """Exit status and standard output."""
        done = subprocess.run(self.command(words), stdin=subprocess.DEVNULL, capture_output=True)
        return done.returncode, done.stdout.decode("utf-8")

    def run(self, *words):
        return run(self.command(words))

    @staticmethod
    def guarded(name, check):
        """A row of the table; an exception is one that failed."""
        try:
            return check()
        except Exception as error:  # whatever it is belongs in the table, and the other cases still run
            return name, "error", f"{type(error).__name__}: {' '.join(str(error).split())[:1500]}", False


def run(command, environment=None):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode} of {' '.join(map(str, command[:3]))}: {done.stderr.decode('utf-8', 'replace')[-1200:]}")
    return done.stdout.decode("utf-8")


def parts(options, work):
    """(title of a part, what its figure is, its rows)."""
    import check_autoawq
    import check_logits
    import check_text
    program = Program(options.salient, options.threads)
    wanted = options.only or PARTS
    if "logits" in wanted:
        yield "logits", f"max |difference|, bound {check_logits.BOUND:g}", check_logits.check(program, work)
    if "tokenize" in wanted:
        yield "tokenize", "strings that differ", check_text.check_tokenizers(program, work, options.demo)
    if "render" in wanted:
        yield "render", "chats that differ", check_text.check_templates(program, work, options.demo, ROOT / "tests/data/templates")
    if "autoawq" in wanted and options.awq_python:
        yield "autoawq", f"max |difference|, bound {check_logits.BOUND:g}", check_autoawq.check(program, work, options.demo, options.awq_python, run)


def main():
    options = parse_arguments()
    if "autoawq" in (options.only or ()) and not options.awq_python:
        sys.exit("the part autoawq needs --awq-python")
    import torch
    import transformers
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failed = total = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or pathlib.Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            sys.exit(f"{work} is not empty; --keep needs an empty or new folder")
        for title, figure, rows in parts(options, work):
            print(f"\n{title}: {figure}")
            for name, value, note, passed in rows:
                print(f"  {'PASS' if passed else 'FAIL'}  {name:<52} {value:>10}  {note}", flush=True)
                total += 1
                failed += not passed
    print(f"\n{'FAIL' if failed or not total else 'PASS'}: {total - failed} of {total} (torch {torch.__version__}, transformers {transformers.__version__})")
    sys.exit(1 if failed or not total else 0)


if __name__ == "__main__":
    main()
