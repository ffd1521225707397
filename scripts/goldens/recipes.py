#!/usr/bin/env python3
"""Golden of recipes: what llm-compressor itself makes of each recipe in tests/data/recipes, module by module on a small tree of linears.

usage: recipes.py          (an environment with llmcompressor 0.14; writes tests/data/recipes/saved_*.yaml and expected.json)

saved_*.yaml are recipes as llm-compressor writes them beside a checkpoint, with Python objects that it does not read back itself. older_*.yaml have AWQModifier with the scheme in it: they go through
llm-compressor's own compatibility function.
"""
import json
import re
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import torch
import yaml
from llmcompressor.modifiers.awq import AWQModifier as OlderAWQModifier
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.quantization.quantization.mixin import QuantizationMixin
from llmcompressor.modifiers.transform.awq import AWQMapping, AWQModifier
from llmcompressor.recipe import Recipe

FOLDER = Path(__file__).resolve().parents[2] / "tests/data/recipes"
SAVED = {
    "saved_awq": [AWQModifier(duo_scaling="both"), QuantizationModifier(targets=["Linear"], scheme="W4A16_ASYM", ignore=["lm_head"])],
    "saved_awq_gptq": [
        AWQModifier(mappings=[AWQMapping("re:.*input_layernorm$", ["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"]),
                              AWQMapping("re:.*up_proj$", ["re:.*down_proj$"])], duo_scaling=False, n_grid=10),
        GPTQModifier(targets="Linear", scheme="W3A16", ignore=["lm_head"], dampening_frac=0.05)],
    "saved_groups": [QuantizationModifier(ignore=["lm_head"], config_groups={
        "group_0": dict(targets=["Linear"], weights=dict(num_bits=4, symmetric=False, strategy="group", group_size=64)),
        "group_1": dict(targets=["re:.*down_proj$"], weights=dict(num_bits=8, symmetric=True, strategy="channel"))})],
}


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = torch.nn.ModuleDict({name: torch.nn.Linear(256, 256) for name in ("q_proj", "k_proj", "v_proj", "o_proj")})
        self.mlp = torch.nn.ModuleDict({"gate_proj": torch.nn.Linear(256, 512), "up_proj": torch.nn.Linear(256, 512), "down_proj": torch.nn.Linear(512, 256)})


class Tree(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([Block(), Block()])})
        self.lm_head = torch.nn.Linear(256, 300)


def read(path):
    if not path.stem.startswith("older_"):
        return Recipe.create_instance(str(path)).modifiers
    (stage,) = yaml.safe_load(path.read_text()).values()
    (modifiers,) = stage.values()
    return OlderAWQModifier(**modifiers["AWQModifier"])


expected = {}
for name, modifiers in SAVED.items():
    text = Recipe.from_modifiers(modifiers).yaml()
    text = re.sub(r"/\S*site-packages", "site-packages", text)
    (FOLDER / f"{name}.yaml").write_text(text)
for path in sorted(FOLDER.glob("*.yaml")):
    modifiers = SAVED[path.stem] if path.stem in SAVED else read(path)
    tree = Tree()
    entry = {}
    for modifier in modifiers:
        if isinstance(modifier, QuantizationMixin):
            modifier.initialize_quantization(tree)
        else:
            entry["awq"] = {"duo_scaling": modifier.duo_scaling, "n_grid": modifier.n_grid, "mappings": [
                {"smooth_layer": m.smooth_layer, "balance_layers": m.balance_layers} for m in modifier.mappings or []]}
        if isinstance(modifier, GPTQModifier):
            groups = modifier.resolved_config.config_groups.values()
            entry["gptq"] = {"dampening_frac": modifier.dampening_frac, "actorder": [getattr(g.weights.actorder, "value", g.weights.actorder) for g in groups]}
    entry["modules"] = {}
    for module_name, module in tree.named_modules():
        if isinstance(module, torch.nn.Linear):
            weights = getattr(getattr(module, "quantization_scheme", None), "weights", None)
            entry["modules"][module_name] = None if weights is None else [weights.num_bits, weights.group_size or -1, weights.symmetric]
    expected[path.stem] = entry
(FOLDER / "expected.json").write_text("{\n" + ",\n".join(f' "{name}": {json.dumps(entry)}' for name, entry in expected.items()) + "\n}\n")
