"""AutoAWQ GEMM folders as transformers 5 loads them, with GPTQModel's packed layers on the CPU."""
import importlib.metadata
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import artifacts
import rows

BOUND = 1e-2  # of the largest logit: the layers compute in 16 bits


@torch.inference_mode()
def packed_logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, device_map="cpu").eval()
    packed = {type(module).__name__ for module in model.modules() if hasattr(module, "qweight")}
    if not packed:
        raise RuntimeError(f"{folder}: loaded without a packed layer")
    return model(torch.tensor([ids])).logits[0].float().numpy(), ", ".join(sorted(packed))


def main():
    version = importlib.metadata.version
    table = rows.Rows(__doc__, f"{version('transformers')}, gptqmodel {version('gptqmodel')}")
    torch.set_num_threads(table.threads)
    ids = AutoTokenizer.from_pretrained(artifacts.DEMO)("".join(rows.prompts(4))).input_ids

    def compare(folder):
        found, layers = packed_logits(folder, ids)
        value = rows.relative(found, table.logits(folder, ids))
        return f"{value:.1e} (bound {BOUND:g}), {layers}", value < BOUND

    for name in ("awq-gemm", "awq-gemm-symmetric"):
        table.check(name, "Salient's logits against its packed layers in float16", lambda: compare(table.artifacts.path(name)))
    sys.exit(table.exit_status())


main()
