"""AutoAWQ GEMM folders, both ways: what AutoAWQ wrote as `salient logits` reads it, and what `salient quantize` wrote as AutoAWQ reads it.

The reference is transformers on the float32 weights that AutoAWQ's own packing_utils unpacks; prompts of several lengths, because few tokens take
another path through the packed weights than many. With the folder that Salient wrote, AutoAWQ's from_quantized and transformers 4.51's
from_pretrained are run too: their packed layers compute in float16, hence a bound of their own. AutoAWQ's other layouts, exported from that
folder, must be what AutoAWQ packs of it, byte by byte (packed_layouts.py), and keep Salient's logits.
"""
import pathlib
import shutil
import sys

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_models
from check_logits import BOUND, difference, logits_of, program_logits, some_ids

HERE = pathlib.Path(__file__).resolve().parent
BENCH = HERE.parent / "bench"
sys.path.insert(0, str(BENCH))
import autoawq_folder  # noqa: E402
from tool_runs import packing_utils_of  # noqa: E402

ROWS, BLOCK = 32, 128  # calibration texts, tokens of a block
LENGTHS = (96, 8, 5, 1)
FLOAT16_BOUND = 4e-2
LAYOUTS = ("awq-gemv", "awq-gemv-fast", "awq-marlin")
LEAST_CHANGE = 1e-2  # by which 4 bits move the logits of a random model at the very least


def packing_utils(python):
    return autoawq_folder.load_packing_utils(packing_utils_of(python))


class Case:
    def __init__(self, program, work, demo, python, run, row):
        self.program, self.python, self.run_command = program, python, run
        self.name, model_type, keys, self.group_size = row
        self.float_folder = work / f"awq_{self.name.replace(' ', '_')}"
        self.out = work / "logits.npy"
        vocabulary = len(AutoTokenizer.from_pretrained(demo))
        self.calibration = demo / "data/calib_mixed.jsonl"
        tiny_models.make(self.float_folder, model_type, {**keys, "vocab_size": vocabulary})
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(demo / name, self.float_folder)
        self.ids = some_ids(vocabulary)
        self.float_logits = logits_of(AutoModelForCausalLM.from_pretrained(self.float_folder, dtype=torch.float32).eval(), self.ids)

    def folder_of(self, writer):
        return self.float_folder.with_name(f"{self.float_folder.name}_{writer}")

    def quantize_with_autoawq(self):
        self.run_command([self.python, BENCH / "autoawq_quantize.py", self.float_folder, self.folder_of("autoawq"), self.calibration, ROWS, BLOCK,
                          self.group_size, self.program.threads])

    def quantize_with_salient(self, name="salient", *flags):
        self.program.run("quantize", "--model", self.float_folder, "--calib", self.calibration, "--out", self.folder_of(name), "--group-size",
                         self.group_size, "--samples", ROWS, "--max-seq-len", BLOCK, "--discard-long-rows", *flags)

    def compare(self, writer, packing):
        """A row: our logits of a folder against those of its weights as AutoAWQ unpacks them."""
        getattr(self, f"quantize_with_{writer}")()
        folder = self.folder_of(writer)
        unpacked = autoawq_folder.load_unpacked(folder, packing)
        moved = difference(logits_of(unpacked, self.ids), self.float_logits)
        values = [difference(program_logits(self.program, folder, self.ids[:n], self.out), logits_of(unpacked, self.ids[:n])) for n in LENGTHS]
        note = "; ".join(f"{n} tokens {value:.1e}" for n, value in zip(LENGTHS, values)) + f"; 4 bits moved the logits by {moved:.2f}"
        return f"{self.name}, written by {writer}", f"{max(values):.1e}", note, all(value < BOUND for value in values) and moved > LEAST_CHANGE

    def compare_loader(self, loader):
        """A row: our logits of our folder against those of AutoAWQ's or transformers 4.51's packed layers."""
        folder = self.folder_of("salient")
        ours = program_logits(self.program, folder, self.ids, self.out)
        self.run_command([self.python, HERE / "packed_logits.py", loader, folder, ",".join(map(str, self.ids)), self.out])
        value = difference(torch.from_numpy(numpy.load(self.out)), ours)
        return f"{self.name}, loaded by {loader}", f"{value:.1e}", f"float16, bound {FLOAT16_BOUND:g}", value < FLOAT16_BOUND

    def compare_layout(self, layout):
        """A row: our logits of the folder in another layout against those of the GEMM folder, once AutoAWQ has packed and loaded the same."""
        source, folder = self.folder_of("salient"), self.folder_of(layout)
        if layout == "awq-marlin":
            source = self.folder_of("symmetric")
            self.quantize_with_salient("symmetric", "--symmetric")
        self.program.run("export", "--model", source, "--format", layout, "--out", folder)
        linears = self.run_command([self.python, HERE / "packed_layouts.py", source, folder]).split()[-1]
        first, second = (program_logits(self.program, one, self.ids, self.out) for one in (source, folder))
        value = difference(first, second)
        return f"{self.name}, exported as {layout}", f"{value:.1e}", f"{linears} linears as AutoAWQ packs them; bound 0", value == 0


def check(program, work, demo, python, run):
    packing = packing_utils(python)
    for row in tiny_models.QUANTIZED_CASES:
        case = Case(program, work, demo, python, run, row)
        for writer in ("autoawq", "salient"):
            yield program.guarded(f"{case.name}, written by {writer}", lambda: case.compare(writer, packing))
        for loader in ("autoawq", "transformers"):
            yield program.guarded(f"{case.name}, loaded by {loader}", lambda: case.compare_loader(loader))
        for layout in LAYOUTS:
            yield program.guarded(f"{case.name}, exported as {layout}", lambda: case.compare_layout(layout))
