"""llama-quantize: its blocks of the smoothed model beside Salient's of the same file; and its Q4_K_M with the importance matrix that Salient measured on
the smoothed model, by the mean KL to the float model, beside the same without it and beside Salient's own quantization."""
import json
import re
import subprocess
import sys

import gguf
import numpy as np

import artifacts
import rows

ERROR_BOUND = 0.01  # of the reference algorithm's squared error
KINDS = ("Q8_0", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K")
WINDOW, WINDOWS = 256, 80


class Checks:
    def __init__(self, table):
        self.table, self.path = table, table.artifacts.path
        self.folder = table.artifacts.folder

    def quantized(self, kind, *words):
        """llama-quantize's file of the smoothed F16 file, and what it printed."""
        out = self.folder / f"llama-{kind}{'-imatrix' if words else ''}.gguf"
        done = subprocess.run([str(word) for word in (self.table.tools["llama-quantize"], *words, self.path("gguf-f16"), out, kind, self.table.threads)],
                              capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise RuntimeError(f"exit status {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
        return out, done.stdout + done.stderr

    def blocks(self, kind):
        theirs, _ = self.quantized(kind)
        ours = self.folder / f"salient-{kind}.gguf"
        if not ours.exists():
            self.table.salient("export", "--model", self.path("gguf-f16"), "--format", f"gguf-{kind.lower()}", "--out", ours)
        floats, found, expected = ({t.name: t for t in gguf.GGUFReader(path).tensors} for path in (self.path("gguf-f16"), ours, theirs))
        if {n: t.tensor_type for n, t in found.items()} != {n: t.tensor_type for n, t in expected.items()}:
            return "the files have other tensors, or in other types", False
        equal = total = 0
        errors = np.zeros(2)
        for name, tensor in found.items():
            if tensor.tensor_type.name == "F32":
                continue
            size = gguf.GGML_QUANT_SIZES[tensor.tensor_type][1]
            same = (tensor.data.reshape(-1, size) == expected[name].data.reshape(-1, size)).all(1)
            equal, total = equal + int(same.sum()), total + same.size
            weight = gguf.quants.dequantize(floats[name].data, floats[name].tensor_type)
            errors += [np.square(gguf.quants.dequantize(one.data, one.tensor_type) - weight, dtype=np.float64).sum() for one in (tensor, expected[name])]
        ratio = errors[0] / errors[1] - 1
        return f"{equal} of {total} blocks equal, squared error {100 * ratio:+.4f} % (bound 1 %)", abs(ratio) < ERROR_BOUND

    def kl(self, path):
        """Mean KL to the float demo model in 1e-3 nats."""
        text = self.table.salient("eval", path, "--compare-with", artifacts.DEMO, "--tasks", "perplexity", "--data", f"perplexity={artifacts.DEMO / 'data/heldout.txt'}",
                                  "--window", WINDOW, "--limit", WINDOWS, "--no-throughput", "--no-store", "--json")
        (task,) = json.loads(text)["model"]["tasks"]
        return 1e3 * next(metric["value"] for metric in task["metrics"] if metric["metric"] == "kl_divergence")

    def importance(self):
        path, text = self.quantized("Q4_K_M", "--imatrix", self.path("imatrix"))
        entries = re.search(r"loaded (\d+) importance matrix entries", text) or re.search(r"have importance matrix data with (\d+) entries", text)
        unused = re.findall(r"did not find weights for (\S+)", text)
        fields = gguf.GGUFReader(path).fields
        recorded = int(fields["quantize.imatrix.entries_count"].contents()) if "quantize.imatrix.entries_count" in fields else 0
        with_it, without, ours = self.kl(path), self.kl(self.quantized("Q4_K_M")[0]), self.kl(self.path("gguf-q4_k_m"))
        figures = (f"mean KL to float {with_it:.3f}e-3 nats, without {without:.3f}e-3, Salient's own Q4_K_M {ours:.3f}e-3; {entries.group(1) if entries else 'no'} entries read, "
                   f"{recorded} recorded, without weights: {', '.join(unused) or 'none'}")
        return figures, entries is not None and recorded > 0 and with_it < without and ours < with_it


def main():
    table = rows.Rows(__doc__, "")
    table.version = table.tools["version"]
    checks = Checks(table)
    for kind in KINDS:
        table.check(f"gguf-{kind.lower()}", "blocks of the same F16 file (salient export)", lambda: checks.blocks(kind))
    table.check("imatrix.gguf", "llama-quantize --imatrix on the smoothed F16 file", checks.importance)
    sys.exit(table.exit_status())


main()
