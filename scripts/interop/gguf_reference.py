"""The demo model's GGUF files in transformers: the float weights that the package gguf reads from the blocks; and the same with activations rounded as
llama.cpp rounds them before it multiplies by blocks. (transformers' own reader of GGUF takes this model's head_dim to be another.)

ggml-cpu's table type_traits_cpu names for each type of weight the type (vec_dot_type) into which activations are put; quantize_row_q8_0 and
quantize_row_q8_K_ref say how.
"""
import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import artifacts


def q8_0(x):
    """Blocks of 32, the scale (largest magnitude / 127) kept in float16."""
    blocks = x.unflatten(-1, (-1, 32))
    largest = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    return ((blocks * inverse).round() * (largest / 127.0).half().float()).flatten(-2)


def q8_k(x):
    """Blocks of 256, the value of the largest magnitude becomes -127, the scale stays in float32."""
    blocks = x.unflatten(-1, (-1, 256))
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    inverse = torch.where(largest != 0, -127.0 / largest, 0.0)
    return ((blocks * inverse).round().clamp(max=127) * torch.where(inverse != 0, 1 / inverse, 0.0)).flatten(-2)


ROUNDING = {
    "F32": lambda x: x, "F16": lambda x: x.half().float(), "BF16": lambda x: x.bfloat16().float(), "Q8_0": q8_0, "Q4_0": q8_0, "Q4_K": q8_k, "Q5_K": q8_k,
    "Q6_K": q8_k,
}


class Reference:
    """Logits of a GGUF file of the demo model, with float or with rounded activations."""

    def __init__(self, path):
        config = AutoConfig.from_pretrained(artifacts.DEMO)
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        self.rounded = False
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_hidden_layers)
        weights = {}
        for name in self.model.state_dict():
            tensor = stored.pop(names.get_name(name, try_suffixes=(".weight",)), None)
            if tensor is not None:
                weights[name] = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).float()
                self.round_inputs(name.removesuffix(".weight"), tensor.tensor_type.name)
        missing, _ = self.model.load_state_dict(weights, strict=False)
        if stored or set(missing) - {"lm_head.weight"}:
            raise RuntimeError(f"{path}: tensors that transformers does not know: {sorted(stored)[:3]}, missing: {missing[:3]}")
        if missing:  # the head is the embedding
            self.model.tie_weights()
            self.round_inputs("lm_head", next(t.tensor_type.name for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight"))

    def round_inputs(self, name, kind):
        module = self.model.get_submodule(name)
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _module, inputs: (ROUNDING[kind](inputs[0]),) if self.rounded else inputs)

    @torch.inference_mode()
    def logits(self, ids, rounded=False):
        """float32 [len(ids), vocabulary]."""
        self.rounded = rounded
        return self.model(torch.tensor([ids])).logits[0].float().numpy()
