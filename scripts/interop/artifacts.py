"""Artifacts of the demo model that the checks of scripts/interop read, made by the program when they are first asked for. Standard library only.

They lie in a folder named after the program's bytes, so another build makes its own, and each appears whole or not at all.
"""
import hashlib
import pathlib
import shutil
import subprocess

DEMO = pathlib.Path(__file__).resolve().parents[2] / "models/demo"
CALIBRATION = ["--calib", DEMO / "data/calib_mixed.jsonl", "--samples", 128, "--max-seq-len", 256]
IMATRIX_ROWS = 128  # one text a row, so that another program can run the same ones
GGUF_FORMATS = ("gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_0", "gguf-q4_k_s", "gguf-q4_k_m", "gguf-q5_k_m", "gguf-q6_k")


def quantize(*words):
    return ("quantize", "--model", DEMO, *CALIBRATION, *words)


def export(source, name):
    """Of the demo model (source None) or of another artifact."""
    return ("export", "--model", source, "--format", name)


# name: (command without --out, what the path ends in)
RECIPES = {
    "smoothed": (quantize("--format", "smoothed"), ""),
    "awq-gemm": (quantize("--format", "awq-gemm"), ""),
    "awq-gemm-symmetric": (quantize("--format", "awq-gemm", "--symmetric"), ""),
    "awq-gemv": (export("awq-gemm", "awq-gemv"), ""),
    "awq-gemv-fast": (export("awq-gemm", "awq-gemv-fast"), ""),
    "awq-marlin": (export("awq-gemm-symmetric", "awq-marlin"), ""),
    "compressed-tensors-asymmetric": (quantize("--format", "compressed-tensors"), ""),
    "compressed-tensors-symmetric": (quantize("--format", "compressed-tensors", "--symmetric"), ""),
    "compressed-tensors-8-asymmetric": (quantize("--format", "compressed-tensors", "--bits", 8), ""),
    "compressed-tensors-8-symmetric": (quantize("--format", "compressed-tensors", "--bits", 8, "--symmetric"), ""),
    "compressed-tensors-mixed": (quantize("--format", "compressed-tensors", "--override", "down_proj=bits:8,group_size:64",
                                          "--override", "k_proj=bits:8,zero_point:false", "--ignore", "o_proj"), ""),
    "compressed-tensors-from-awq": (export("awq-gemm", "compressed-tensors"), ""),
    "gguf-f16": (export("smoothed", "gguf-f16"), ".gguf"),
    "gguf-bf16": (export("smoothed", "gguf-bf16"), ".gguf"),
    **{name: (quantize("--format", name), "") for name in GGUF_FORMATS[2:]},
    "gguf-q4_k_m-plain": (export(None, "gguf-q4_k_m"), ".gguf"),
    "torchscript": (export(None, "torchscript"), ".pt"),
    "torchscript-awq": (export("awq-gemm", "torchscript"), ".pt"),
    "torchscript-compressed": (export("compressed-tensors-mixed", "torchscript"), ".pt"),
    "imatrix": (("imatrix", "--model", "smoothed", "--calib", DEMO / "data/calib_mixed.jsonl", "--samples", IMATRIX_ROWS, "--packing",
                 "rows"), ".gguf"),
}


class Artifacts:
    def __init__(self, program, folder, threads):
        self.program, self.threads = program, threads
        digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
        self.folder = folder.resolve() / digest
        for other in folder.glob("*"):
            if other.name != digest:
                shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        """The artifact's folder or file; of a GGUF folder the file in it."""
        command, suffix = RECIPES[name]
        path = self.folder / (name + suffix)
        if not path.exists():
            words = [DEMO if word is None else self.path(word) if word in RECIPES and before == "--model" else word
                     for before, word in zip(("", *command), command)]
            done = subprocess.run([str(word) for word in (self.program, *words, "--out", path, "--threads", self.threads)], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"salient {' '.join(map(str, words))}: exit status {done.returncode}: {done.stderr[-600:]}")
        return next(path.glob("*.gguf")) if path.is_dir() and name in GGUF_FORMATS else path
