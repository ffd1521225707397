"""Folders as transformers loads them by itself: float, smoothed, and compressed-tensors, whose own code unpacks the weights.

transformers 5.23 with compressed-tensors 0.20 does not load packed zero points, its own neither, unless it is told dequantize=True; and then it takes the
first scheme for all modules. Older ones (client compressed-tensors) load everything.
"""
import importlib.metadata
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

import artifacts
import rows

BOUND, SMOOTHED_BOUND = 1e-4, 1e-3  # of the largest logit; a model stored in bfloat16 is rounded anew when it has been scaled
LOADS_ZERO_POINTS = tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23)
DEQUANTIZED_BOUND = 2e-3            # dequantize=True multiplies codes and scales in the 16 bits of the scales
LEAST_CHANGE = 1e-4                 # 8 bits move the logits by more
# name of the artifact: (what it is, whether it has zero points, whether it has several schemes)
COMPRESSED = {
    "asymmetric": ("4 bits, zero points", True, False),
    "symmetric": ("4 bits, symmetric", False, False),
    "8-asymmetric": ("8 bits, zero points", True, False),
    "8-symmetric": ("8 bits, symmetric", False, False),
    "mixed": ("4 and 8 bits, two group sizes, with and without zero points, o_proj ignored", True, True),
    "from-awq": ("4 bits, converted from awq-gemm", True, False),
}


class Checks:
    def __init__(self, table):
        self.table = table
        self.ids = AutoTokenizer.from_pretrained(artifacts.DEMO)("".join(rows.prompts(4))).input_ids
        self.original = self.logits(artifacts.DEMO)

    @torch.inference_mode()
    def logits(self, folder, **how):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()
        return model(torch.tensor([self.ids])).logits[0].float().numpy()

    def against_salient(self, folder, **how):
        return rows.relative(self.logits(folder, **how), self.table.logits(folder, self.ids))

    def compressed(self, name, **how):
        folder = self.table.artifacts.path(f"compressed-tensors-{name}")
        found = self.logits(folder, **how)
        value, moved = rows.relative(found, self.table.logits(folder, self.ids)), rows.relative(found, self.original)
        bound = DEQUANTIZED_BOUND if how else BOUND
        return f"{value:.1e} (bound {bound:g}); quantization moves them by {moved:.1e}", value < bound and moved > LEAST_CHANGE

    def smoothed_in_float32(self):
        """The demo model stored as float32, smoothed: nothing is rounded anew."""
        source, smoothed = (self.table.options.work / name for name in ("demo_float32", "demo_float32_smoothed"))
        for folder in (source, smoothed):
            shutil.rmtree(folder, ignore_errors=True)
        source.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(artifacts.DEMO / name, source)
        config = source / "config.json"
        config.write_text(config.read_text().replace("bfloat16", "float32"))
        save_file({name: tensor.float() for name, tensor in load_file(artifacts.DEMO / "model.safetensors").items()}, source / "model.safetensors",
                  metadata={"format": "pt"})
        command, _ = artifacts.RECIPES["smoothed"]
        self.table.salient(*(source if word is artifacts.DEMO else word for word in command), "--out", smoothed)
        if all(tensor.equal(other) for tensor, other in zip(load_file(source / "model.safetensors").values(), load_file(next(smoothed.glob("*.safetensors"))).values())):
            raise RuntimeError("smoothing changed no weight")
        return rows.relative(self.logits(smoothed), self.logits(source))


def main():
    version = importlib.metadata.version
    table = rows.Rows(__doc__, f"{version('transformers')}, compressed-tensors {version('compressed-tensors')}")
    torch.set_num_threads(table.threads)
    checks = Checks(table)
    table.below("float", "logits against Salient's, the demo model", BOUND, lambda: checks.against_salient(artifacts.DEMO))
    smoothed = table.artifacts.path("smoothed")
    table.below("smoothed", "logits against the original's, stored as float32", SMOOTHED_BOUND, checks.smoothed_in_float32)
    table.below("smoothed", "logits against the original's, stored as bfloat16", SMOOTHED_BOUND, lambda: rows.relative(checks.logits(smoothed), checks.original))
    table.below("smoothed", "logits against Salient's", BOUND, lambda: checks.against_salient(smoothed))
    for name, (what, zero_points, several) in COMPRESSED.items():
        what, how = f"logits against Salient's; {what}", {}
        if zero_points and not LOADS_ZERO_POINTS:
            if several:
                table.skip("compressed-tensors", what, "this version loads zero points only with dequantize=True, and then takes the first scheme for all modules")
                continue
            what, how = what + "; dequantize=True", {"quantization_config": CompressedTensorsConfig(dequantize=True)}
        table.check("compressed-tensors", what, lambda: checks.compressed(name, **how))
    sys.exit(table.exit_status())


main()
