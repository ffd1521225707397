"""Every GGUF format in llama.cpp: token ids, logits, perplexity and greedy text of `salient` on the same file.

llama.cpp multiplies blocks by activations that it has rounded to 8 bits (F16 and BF16 weights by activations of that type), Salient by float ones. So
two things are compared: Salient's logits with those of the float weights that the package gguf reads from the file, and llama.cpp's with those of
the same weights when activations are rounded as llama.cpp rounds them. The latter agree to 1e-5 until one activation lies so near to the middle of two
codes that float32 sums in another order put it on the other side; hence single tokens, and a share of them.

A greedy text may part only at a near-tie, where Salient prefers its token by less than rounding activations was seen to move logits elsewhere; and nine of
ten texts must be equal or part as the rounded reference does.
"""
import functools
import json
import math
import sys

import llama_cpp
import numpy as np
import torch
from transformers import AutoTokenizer

import artifacts
import rows
from gguf_reference import Reference

sys.path.insert(0, str(rows.ROOT / "scripts/checks"))
from llama_engine import Engine  # noqa: E402

WINDOW, WINDOWS = 256, 20
PROMPTS, NEW_TOKENS, EXPLAINED_TEXTS = 32, 40, 0.9
TOKENS, EXACT, EXACT_TOKENS = 64, 1e-3, 0.7  # single tokens, the difference of logits that is none, the share of tokens that must have none
TEXTS = ["Question: 12 + 30 = ?\nAnswer:", "Hello, world! It's 3.50.", "two  spaces\n\n\tand a tab", "Grüße aus 東京 🙂", *rows.prompts(4)]


@functools.cache
def tokenizer():
    return AutoTokenizer.from_pretrained(artifacts.DEMO, model_max_length=10 ** 9)


def ids_of(text):
    return tokenizer()(text, add_special_tokens=False).input_ids


@functools.cache
def heldout_ids():
    return ids_of((artifacts.DEMO / "data/heldout.txt").read_text(encoding="utf-8"))


def window(index, size=WINDOW):
    return heldout_ids()[index * size:(index + 1) * size]


def farthest(found, expected):
    """The largest difference at each position."""
    return np.abs(found - expected).max(-1)


class Checks:
    def __init__(self, table, name):
        self.table, self.path = table, table.artifacts.path(name)
        self.engine, self.reference = Engine(self.path, 512, table.threads), Reference(self.path)

    def token_ids(self):
        wrong = [text for text in TEXTS if self.engine.encode(text) != ids_of(text)]
        return (f"{len(wrong)} of {len(TEXTS)} differ" + (f", such as {wrong[0]!r}" if wrong else "")), not wrong

    def salient_logits(self):
        expected = self.reference.logits(window(0))
        return farthest(self.table.logits(self.path, window(0)), expected).max() / np.abs(expected).max()

    def llama_logits(self):
        """Of single tokens: how many have the rounded reference's logits, and the distances to both references."""
        tokens = sorted(set(heldout_ids()))[:TOKENS]
        rounded, plain = (np.concatenate([farthest(self.engine.logits([token]), self.reference.logits([token], how)) for token in tokens]) for how in (True, False))
        share = float((rounded < EXACT).mean())
        return (f"median {np.median(rounded):.1e}, {100 * share:.0f} % of {TOKENS} tokens below {EXACT:g} (at least {100 * EXACT_TOKENS:.0f} %); "
                f"without rounding {np.median(plain):.1e}", share >= EXACT_TOKENS)

    def perplexity(self):
        loss = 0.0
        for ids in map(window, range(WINDOWS)):
            log_probabilities = torch.from_numpy(self.engine.logits(ids)).double().log_softmax(-1)
            loss -= log_probabilities[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum().item()
        theirs = math.exp(loss / (WINDOWS * (WINDOW - 1)))
        text = self.table.salient("eval", self.path, "--tasks", "perplexity", "--data", f"perplexity={artifacts.DEMO / 'data/heldout.txt'}", "--window",
                                  WINDOW, "--limit", WINDOWS, "--no-throughput", "--no-store", "--json")
        (task,) = json.loads(text)["model"]["tasks"]
        ours = next(metric["value"] for metric in task["metrics"] if metric["metric"] == "perplexity")
        return f"{theirs:.5f} against {ours:.5f}: {100 * (theirs / ours - 1):+.3f} % (bound 0.5 %)", abs(theirs / ours - 1) < 0.005

    def greedy_texts(self):
        texts = rows.prompts(PROMPTS)
        words = [word for text in texts for word in ("--prompt", text)]
        answers = json.loads(self.table.salient("generate", self.path, *words, "--max-new-tokens", NEW_TOKENS, "--json"))
        moved = max(farthest(self.engine.logits(window(i, 128)), self.reference.logits(window(i, 128))).max() for i in range(4))
        parted = []
        for text, answer in zip(texts, answers):
            prompt = ids_of(text)
            theirs = self.engine.greedy(prompt, answer["new_tokens"])
            if tokenizer().decode(theirs[len(prompt):], skip_special_tokens=True) != answer["text"]:
                parted.append(self.parting(prompt, ids_of(answer["text"]), theirs[len(prompt):]))
        equal, tokens = PROMPTS - len(parted), sum(answer["new_tokens"] for answer in answers)
        followed = sum(follows for _, _, follows in parted)
        figures = f"{equal} of {PROMPTS} texts equal, {tokens} tokens"
        if parted:
            figures += "; parted after " + ", ".join(f"{at} (margin {margin:.3f})" for at, margin, _ in parted)
            figures += f", {followed} of them as the rounded reference does; rounding moves logits by up to {moved:.2f}"
        fine = equal + followed >= EXPLAINED_TEXTS * PROMPTS and all(margin < moved for _, margin, _ in parted)
        return figures, fine and tokens > 8 * PROMPTS

    def parting(self, prompt, ours, theirs):
        """After how many tokens two answers part, by how much Salient prefers its token there, and whether the rounded reference prefers the other."""
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
        if at is None:
            raise RuntimeError(f"one answer is the beginning of the other: {tokenizer().decode(ours)!r}, {tokenizer().decode(theirs)!r}")
        ids = prompt + theirs[:at]
        logits, rounded = self.table.logits(self.path, ids)[-1], self.reference.logits(ids, rounded=True)[-1]
        return at, float(logits[ours[at]] - logits[theirs[at]]), bool(rounded[theirs[at]] >= rounded[ours[at]])


def main():
    table = rows.Rows(__doc__, llama_cpp.__version__)
    torch.set_num_threads(table.threads)
    for name in (*artifacts.GGUF_FORMATS, "gguf-q4_k_m-plain"):
        checks = Checks(table, name)
        table.check(name, "token ids of texts against tokenizers", checks.token_ids)
        table.below(name, "Salient's logits against the package gguf's float weights in transformers", 1e-4, checks.salient_logits)
        table.check(name, "llama.cpp's logits against the same weights with activations rounded", checks.llama_logits)
        table.check(name, "perplexity", checks.perplexity)
        table.check(name, "greedy text", checks.greedy_texts)
        checks.engine.close()
    sys.exit(table.exit_status())


main()
