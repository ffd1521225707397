"""AutoAWQ 0.2.9 in float32 on the CPU, for autoawq_quantize.py and peer_autoawq.py."""
import json
import warnings

warnings.filterwarnings("ignore")

import torch
from awq import AutoAWQForCausalLM


def read_texts(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def load_model(folder):
    # The scale search keeps the original weights as tensor.cpu(), which for a tensor that is on the CPU is the tensor itself, then
    # scales them in place: without a real copy the search would compare, and keep, destroyed weights.
    torch.Tensor.cpu = lambda self, *args, **kwargs: self.detach().clone()
    return AutoAWQForCausalLM.from_pretrained(folder, device_map="cpu", torch_dtype=torch.float32, safetensors=True)


def quantize(model, tokenizer, texts, rows, block_tokens, group_size, bits, version="GEMM", **how):
    config = {"zero_point": version != "Marlin", "q_group_size": group_size, "w_bit": bits, "version": version}
    model.quantize(tokenizer, quant_config=config, calib_data=texts, max_calib_samples=rows, max_calib_seq_len=block_tokens, **how)
