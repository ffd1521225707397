"""What peer_autoawq.py and peer_llmcompressor.py have in common: the command line and what is written."""
import json
import pathlib
import sys
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from dense_checkpoint import write_dense


class PeerRun(NamedTuple):
    source: str
    out: str
    calibration: str
    rows: int
    block_tokens: int
    group_size: int
    bits: int

    def tokenizer(self):
        return PreTrainedTokenizerFast(tokenizer_file=str(pathlib.Path(self.source) / "tokenizer.json"))


def run_peer(usage, quantize):
    """`quantize(PeerRun)` gives the dequantized tensors by their Hugging Face names, and the figures to print."""
    if len(sys.argv) != 9:
        sys.exit(usage)
    *numbers, threads = map(int, sys.argv[4:])
    torch.set_num_threads(threads)
    run = PeerRun(*sys.argv[1:4], *numbers)
    tensors, figures = quantize(run)
    write_dense(run.source, run.out, tensors)
    print(json.dumps(figures))
