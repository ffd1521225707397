"""Writes tests/data/gguf_tokenizer/: what llama.cpp's converter and sentencepiece make of two tokenizers.

    python gguf_tokenizer.py --llama-cpp CHECKOUT [--out tests/data/gguf_tokenizer]

Needs sentencepiece, protobuf and transformers; CHECKOUT is a source tree of llama.cpp.

  demo.json              hashes of the tokens, types and merges that the converter gives for models/demo
  pieces/tokenizer.json  a small SentencePiece BPE model with byte fallback, converted by transformers
  pieces.json            its pieces, scores and types from sentencepiece itself, and ids of texts
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["Hello world", " two  spaces", "aaaaaa bbb", "Grüße, 東京!", "tab\tand\nline", "", "x = 3.1415 * (y + 1)", "the the theory of theatre"]


def digest(items):
    return hashlib.sha256("\0".join(str(item) for item in items).encode()).hexdigest()


def convert_demo(checkout):
    sys.path[:0] = [str(checkout), str(checkout / "gguf-py")]
    from conversion import get_model_class

    import gguf

    model_class = get_model_class("Qwen3ForCausalLM")
    model_class.get_vocab_base_pre = lambda self, tokenizer: "qwen2"  # the converter knows published vocabularies by their hash only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.gguf"
        model_class(ROOT / "models/demo", gguf.LlamaFileType.MOSTLY_F16, path, dry_run=False).write_vocab()
        fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items() if key.startswith("tokenizer.")}
    lists = {key: value for key, value in fields.items() if isinstance(value, list)}
    return {"scalars": {key: value for key, value in fields.items() if not isinstance(value, list)},
            "lists": {key: {"count": len(value), "sha256": digest(value)} for key, value in lists.items()}}


def make_pieces(out):
    import sentencepiece
    from transformers import LlamaTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")))
        prefix = str(Path(folder) / "tokenizer")
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=prefix, model_type="bpe", vocab_size=480, byte_fallback=True, character_coverage=0.999,
                                                 normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
                                                 minloglevel=2, num_threads=1)
        model = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
        tokenizer = LlamaTokenizerFast.from_pretrained(folder)
        (out / "pieces").mkdir(parents=True, exist_ok=True)
        saved = json.loads(tokenizer.backend_tokenizer.to_str())
    (out / "pieces/tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False) + "\n")
    (out / "pieces/tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}) + "\n")
    pieces = [[model.id_to_piece(i), round(model.get_score(i), 4),
               2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1] for i in range(model.get_piece_size())]
    return {"pieces": pieces, "texts": [[text, model.encode(text)] for text in TEXTS]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/gguf_tokenizer")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "demo.json").write_text(json.dumps(convert_demo(args.llama_cpp), indent=1) + "\n")
    (args.out / "pieces.json").write_text(json.dumps(make_pieces(args.out), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
