#!/usr/bin/env python3
"""Tiny language models as users of TorchScript save them, and the logits that torch gives: tests/data/torchscript. Tried with torch 2.13."""
import io
import json
import pathlib
import zipfile
from typing import Dict, List, Optional

import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/torchscript"
IDS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
VOCABULARY, WIDTH = 11, 6


class Plain(torch.nn.Module):
    """Each logit depends on all ids up to its own."""
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids):
        return self.head(torch.tanh(self.embed(input_ids).cumsum(1)))


class InTuple(Plain):
    def forward(self, input_ids):
        logits = self.head(torch.tanh(self.embed(input_ids).cumsum(1)))
        return logits, logits.sum()


class InDictionary(Plain):
    def forward(self, input_ids: torch.Tensor, labels: Optional[torch.Tensor] = None) -> Dict[str, torch.Tensor]:
        logits = self.head(torch.tanh(self.embed(input_ids).cumsum(1)))
        return {"loss": logits.sum(), "logits": logits}


class WithMask(Plain):
    def forward(self, input_ids, attention_mask):
        return self.head(torch.tanh((self.embed(input_ids) * attention_mask.unsqueeze(-1)).cumsum(1)))


class LastOnly(Plain):
    def forward(self, input_ids):
        return self.head(torch.tanh(self.embed(input_ids).sum(1)))


class WantsMore(Plain):
    def forward(self, input_ids: torch.Tensor, lengths: List[int]) -> torch.Tensor:
        return self.head(self.embed(input_ids)[:, :lengths[0]])


def save(script, path):
    """As torch.jit.save, without the files that name the places of Python sources on this machine."""
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as kept:
        for name in whole.namelist():
            if not name.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), whole.read(name))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    ids = torch.tensor(IDS)
    logits = {}
    for name, kind, arguments in (("traced", Plain, (ids,)), ("traced_tuple", InTuple, (ids,)), ("scripted_dictionary", InDictionary, None),
                                  ("traced_mask", WithMask, (ids, torch.ones_like(ids))), ("traced_last_only", LastOnly, (ids,)), ("scripted_wants_more", WantsMore, None)):
        torch.manual_seed(5)
        model = kind().eval()
        if name == "traced_tuple":
            model = model.to(torch.bfloat16)
        with torch.inference_mode():
            script = torch.jit.trace(model, arguments) if arguments else torch.jit.script(model)
            save(script, OUT / f"{name}.pt")
            if name not in ("traced_last_only", "scripted_wants_more"):
                out = script(*(arguments or (ids,)))
                out = out["logits"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
                logits[name] = out.float().tolist()
    (OUT / "logits.json").write_text(json.dumps({"torch": torch.__version__.split("+")[0], "ids": IDS, "logits": logits}) + "\n")


main()
