#!/usr/bin/env python3
"""usage: scripts/goldens/architectures.py [MODEL_TYPE ...]  -- writes tests/data/architectures/<model_type>.json, all when none is named.

Made with transformers 5.23 and torch 2.13 (CPU, float32, eager attention but for falcon). A file holds, for a few tiny configurations, config.json, the tensors by name (their
values follow from the names: architecture_cases.py), and what transformers computes with them:
  ids        two rows of different lengths, each run alone, without padding
  positions  per row, those whose logits are stored
  logits     per row and position, 5 decimals
  greedy     8 new ids after the first 5 of each row; the same with and without a cache
"""
import copy
import json
import pathlib
import re
import sys
import tempfile

import torch
import transformers

import architecture_cases as cases

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "architectures"
LENGTHS, POSITIONS = (11, 7), ((0, 6, 10), (3, 6))
PROMPT, NEW = 5, 8
MARGIN = 0.01  # between the best and the second logit of every greedy step: another order of additions must not turn it
# What the mathematics cancels: a key bias where nothing rotates the keys, the epsilon of an activation.
CANCELLED = re.compile(r"decoder.*k_proj\.bias$|act_fn\.eps$")


def rows(seed):
    return [[int(3 + (v + 1) / 2 * (cases.SMALL["vocab_size"] - 3)) for v in cases.values(f"ids/{seed}/{row}", [n], 0.0, 1.0)] for row, n in enumerate(LENGTHS)]


@torch.no_grad()
def logits_of(folder, ids):
    # A model of its own for every row: dynamic rope kinds keep what the last call used.
    return cases.load(folder, allow_unused=True)(torch.tensor([ids])).logits[0].float()


@torch.no_grad()
def greedy(folder, prompt):
    """New ids by repeated full forward passes, None where a choice is too close to call or the cached run says otherwise."""
    ids = list(prompt)
    for _ in range(NEW):
        best = logits_of(folder, ids)[-1].topk(2)
        if best.values[0] - best.values[1] < MARGIN:
            return None
        ids.append(int(best.indices[0]))
    model = cases.load(folder, allow_unused=True)
    prompt = torch.tensor([prompt])
    cached = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=NEW, use_cache=True)
    return ids[PROMPT:] if cached[0].tolist() == ids else None


@torch.no_grad()
def unused(folder, ids):
    """The weights (of each expert) whose change leaves all logits as they are: a reader could ignore those and pass."""
    model = cases.load(folder, allow_unused=True)

    def run():
        return torch.cat([copy.deepcopy(model)(torch.tensor([row])).logits[0] for row in ids])

    before, kept = run(), set(model.state_dict())
    found = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in kept or CANCELLED.search(name):
            continue
        if hasattr(model.config, "vision_config") and "language_model" not in name and "lm_head" not in name:
            continue  # rows of text go past it
        old = tensor.data.clone()
        for part in range(tensor.shape[0]) if tensor.dim() == 3 and "experts" in name else [...]:
            if "correction" in name or "expert_bias" in name:
                tensor.data.neg_()
            else:
                wave = torch.sin(torch.arange(old[part].numel(), dtype=torch.float32)).view(old[part].shape)
                tensor.data[part] = (1.3 * old[part].float() + 0.15 * wave).to(old.dtype)
            if (run() - before).abs().max() < 3e-3:
                found.append(f"{name} {part}")
            tensor.data.copy_(old)
    return found


def make(model_type, name):
    case = cases.build(model_type, name)
    options = cases.CASES[model_type][name][1]
    new_config = case.pop("new_config")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "given"
        cases.write_checkpoint(case, folder)
        cases.load(folder, allow_unused=bool(options.get("extra")))
        new, left = [None], []
        for seed in range(60):
            ids = rows(seed)
            new = [greedy(folder, row[:PROMPT]) for row in ids]
            left = [] if None in new else unused(folder, ids)
            if None not in new and not left:
                break
        else:
            raise ValueError(f"no rows whose greedy continuation is clear and that use every weight; unused by the last: {left}")
        logits = [logits_of(folder, row) for row in ids]
        size = torch.cat(logits).std().item()
        assert all(x.isfinite().all() for x in logits) and 0.2 < size < 5, size
        say = f"{model_type} {name}: size {size:.2f} seed {seed}"
        if case["config"] != new_config:
            cases.write_checkpoint(case, pathlib.Path(temporary) / "new", new_config)
            assert all(torch.equal(logits_of(pathlib.Path(temporary) / "new", row), x) for row, x in zip(ids, logits)), "the rewritten config.json is another model"
        if options.get("off"):
            cases.write_checkpoint(case, pathlib.Path(temporary) / "off", {**new_config, **options["off"]})
            change = (logits_of(pathlib.Path(temporary) / "off", ids[0]) - logits[0]).abs().max().item()
            assert change > 1e-2, f"switching off {options['off']} changes nothing ({change})"
            say += f" off {change:.2f}"
    print(say, flush=True)
    stored = [[[round(v, 5) for v in row[p].tolist()] for p in positions] for row, positions in zip(logits, POSITIONS)]
    return {**case, "ids": ids, "positions": POSITIONS, "logits": stored, "greedy": new}


def main(chosen):
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    failed = []
    for model_type in chosen or cases.CASES:
        made = []
        for name in cases.CASES[model_type]:
            try:
                made.append(make(model_type, name))
            except Exception as error:  # the other cases are still wanted; the exit status tells
                failed.append(f"{model_type} {name}: {type(error).__name__}: {str(error)[:600]}")
                print("FAILED", failed[-1], flush=True)
        if made:
            ROOT.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dict(transformers=transformers.__version__, cases=made), separators=(",", ":"))
            (ROOT / f"{model_type}.json").write_text(text + "\n")
    sys.exit("\n".join(["failed:"] + failed) if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
