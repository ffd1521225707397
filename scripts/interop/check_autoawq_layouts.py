"""AutoAWQ's four layouts: the bytes of its own packing, the logits of its unpacking and of its packed layers, and folders that it wrote itself."""
import importlib.metadata
import shutil
import sys

import numpy as np
import torch
from transformers import AutoTokenizer

import artifacts
import rows

SCRIPTS = rows.ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS / "bench"))
import autoawq_folder  # noqa: E402
from tool_runs import packing_utils_of  # noqa: E402

LAYOUTS = {"awq-gemm": "awq-gemm", "awq-gemv": "awq-gemm", "awq-gemv-fast": "awq-gemm", "awq-marlin": "awq-gemm-symmetric"}  # and the codes' source
BOUND, FLOAT16_BOUND = 1e-4, 1e-2  # of the largest logit
CALIBRATION_ROWS, BLOCK, GROUP_SIZE = 16, 64, 128


class Checks:
    def __init__(self, table):
        self.table, self.path = table, table.artifacts.path
        self.packing = autoawq_folder.load_packing_utils(packing_utils_of(sys.executable))
        self.ids = AutoTokenizer.from_pretrained(artifacts.DEMO)("".join(rows.prompts(2))).input_ids

    def unpacked(self, folder):
        with torch.inference_mode():
            return autoawq_folder.load_unpacked(folder, self.packing)(torch.tensor([self.ids])).logits[0].float().numpy()

    def packed(self, loader, folder):
        out = self.table.options.work / "packed_logits.npy"
        rows.run([sys.executable, SCRIPTS / "checks/packed_logits.py", loader, folder, ",".join(map(str, self.ids)), out])
        return np.load(out)

    def bytes_of(self, name):
        linears = rows.run([sys.executable, SCRIPTS / "checks/packed_layouts.py", self.path(LAYOUTS[name]), self.path(name)]).split()[-1]
        return f"0 bytes differ, {linears} linears", int(linears) > 0

    def written(self, version):
        """A folder that AutoAWQ quantizes, made anew."""
        folder = self.table.options.work / f"autoawq_{version}"
        shutil.rmtree(folder, ignore_errors=True)
        rows.run([sys.executable, SCRIPTS / "bench/autoawq_quantize.py", artifacts.DEMO, folder, artifacts.DEMO / "data/calib_mixed.jsonl", CALIBRATION_ROWS,
                  BLOCK, GROUP_SIZE, self.table.threads, version])
        return folder

    def converted(self, version):
        """What AutoAWQ wrote: Salient's logits of it against AutoAWQ's unpacking of what Salient converts it to."""
        folder, gemm = self.written(version), self.table.options.work / f"autoawq_{version}_gemm"
        shutil.rmtree(gemm, ignore_errors=True)
        self.table.salient("export", "--model", folder, "--format", "awq-gemm", "--out", gemm)
        return rows.relative(self.table.logits(folder, self.ids), self.unpacked(gemm))


def main():
    table = rows.Rows(__doc__, importlib.metadata.version("autoawq"))
    torch.set_num_threads(table.threads)
    checks = Checks(table)
    salient = {name: table.logits(checks.path(name), checks.ids) for name in {*LAYOUTS, *LAYOUTS.values()}}
    for name, source in LAYOUTS.items():
        table.check(name, "bytes of AutoAWQ's packing of the same codes; it loads the folder", lambda: checks.bytes_of(name))
        if name != source:
            table.below(name, f"Salient's logits against those of {source}", 1e-9, lambda: rows.relative(salient[name], salient[source]))
    for name in ("awq-gemm", "awq-gemm-symmetric"):
        table.below(name, "Salient's logits against AutoAWQ's unpacked weights in float32", BOUND,
                    lambda: rows.relative(salient[name], checks.unpacked(checks.path(name))))
    for loader, what in (("autoawq", "AutoAWQ's packed layers in float16"), ("transformers", "transformers 4.51 with AutoAWQ's packed layers in float16")):
        table.below("awq-gemm", f"Salient's logits against {what}", FLOAT16_BOUND,
                    lambda: rows.relative(checks.packed(loader, checks.path("awq-gemm")), salient["awq-gemm"]))
    table.below("awq-gemm", "written by AutoAWQ: Salient's logits against AutoAWQ's unpacked weights", BOUND,
                lambda: (lambda folder: rows.relative(table.logits(folder, checks.ids), checks.unpacked(folder)))(checks.written("GEMM")))
    for name, version in (("awq-gemv", "GEMV"), ("awq-gemv-fast", "GEMV_FAST"), ("awq-marlin", "Marlin")):
        table.below(name, "written by AutoAWQ: Salient's logits against AutoAWQ's unpacking of Salient's conversion to GEMM", BOUND,
                    lambda: checks.converted(version))
    sys.exit(table.exit_status())


main()
