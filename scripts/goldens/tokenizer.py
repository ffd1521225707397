#!/usr/bin/env python3
"""usage: tokenizer.py MODEL_DEMO_TOKENIZER_JSON OUT.json  -- ids and decoded text of the `tokenizers` library (written with 0.23.3), for tests/models/tokenizer_test.cpp.

Trains two tiny vocabularies and wraps them in the configurations of published models. OUT holds the configurations, the texts and what the library makes of them;
"decoded" is null where it equals the text, "skipped" (special tokens left out) null where it equals "decoded".
"""
import json
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CORPUS = ["the quick brown fox jumps over the lazy dog, it's the thing", "def return self.value for the in range", "hello world hello there", "    the    ", "été naïve"] * 3

TEXTS = [
    "Hello world, it's the thing I'LL say.", "", " ", "the  the   the    ", "\n\n\r\n \n\t x", "don'T WE'VE it'S it'\u017f", "1234567 3.14 1e-5 x2",
    "def f(self):\n    return self.value  # the\n", "naïve été e\u0301te\u0301 a\u0323\u0301 a\u0301\u0323 \u1e9b\u0323 \u212b \ufb01", "日本語の漢字、中文 한국어 각 \u1100\u1161\u11a8 \uac00\u11a7",
    "Привет мир مرحبا שלום สวัสดี नमस्ते", "👨\u200d👩\u200d👧 🇩🇪🏳\ufe0f\u200d🌈 👍🏽 1\ufe0f\u20e3", "a\u180eb\u180e \u0085\u2028\u2029\u00a0\u3000\u200b\u202f", "\u0000\u0001\u007f\u00ad\ufeff\ufffd",
    "\u0378 \ue000 \ufdd0 \U0010ffff \U000f0000", "x\U00010d50\U00010d70 \u1c89 \U00031350\U0002ebf0 \U000323b0 \U00011de3 \U0001fae9", "\U00011935\U00011930 \U00011938 \u32ff \ua7f2 \u1cf2 \u061d \u2e52 \u166d",
    "\u00b2\u00b3\u00b9\u00bc \u2167 \u2460 \u0663\u0664", "<s>the</s> <unk><mask> x<mask>", "<|im_start|>user\nthe<|im_end|>\n<|endoftext|>", "<|x|>  foo foobar foo_ xfoo foo. \t<|x|>\n\n<|end|>   the", "[INST] the [/INST]the[INST]",
    "▁the ▁▁ ▁▁▁the▁", "<0x41><0xE2><0x82> \u20ac", "ĠtheĊ Ã©", "-the--final-countdown---", "İstanbul ISTANBUL Σίσυφος ΟΔΟΣ ß ẞ", "foo 漢字foo foo漢字 éfoo", "\t\tthe\t \t", "$5.00 + 10% <= #tag @user a_b-c/d\\e",
]


def train(pre, size, alphabet):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet))
    return json.loads(tokenizer.to_str())["model"]


def byte_tokens(model):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += sorted((t for t in model["vocab"] if t not in tokens), key=model["vocab"].get)
    return {**model, "vocab": {t: i for i, t in enumerate(tokens)}}


BYTES = train(pre_tokenizers.ByteLevel(add_prefix_space=False), 310, pre_tokenizers.ByteLevel.alphabet())
PIECES = train(pre_tokenizers.Metaspace(), 80, [])
FALLBACK = byte_tokens(PIECES)
N = len(BYTES["vocab"])

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
HAN = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lo}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}|\s+(?!\S)|\s+"
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTE_LEVEL, "use_regex": True}
BYTE_DECODER = {**GPT2, "add_prefix_space": True}
MARK_DECODER = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
LLAMA2_DECODER = {"type": "Sequence", "decoders": [*MARK_DECODER, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
LLAMA2_NORMALIZER = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def bos(token, token_id):
    item = {"SpecialToken": {"id": token, "type_id": 0}}
    a, b = ({"Sequence": {"id": n, "type_id": i}} for i, n in enumerate("AB"))
    special = {token: {"id": token, "ids": [token_id], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": [item, a], "pair": [item, a, b], "special_tokens": special}


def token(content, special=True, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special, **flags}


def config(model, added=(), normalizer=None, pre=None, post=None, decoder=None, **options):
    added_tokens, next_id = [], len(model["vocab"])
    for item in added:
        known = model["vocab"].get(item["content"])
        added_tokens.append({"id": next_id if known is None else known, **item})
        next_id += known is None
    return {"version": "1.0", "added_tokens": added_tokens, "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": {**model, **options}}


SPM = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
UNK = [token("<unk>"), token("<s>"), token("</s>")]


def metaspace(scheme, split_words):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split_words}


CONFIGS = {
    "llama3": config(BYTES, [token("<|endoftext|>"), token("<|im_start|>")], pre=sequence(split(LLAMA3), BYTE_LEVEL), decoder=BYTE_DECODER, ignore_merges=True,
                     post={"type": "Sequence", "processors": [GPT2, bos("<|endoftext|>", N)]}),
    "qwen": config(BYTES, [token("<|endoftext|>"), token("<|im_start|>"), token("<|im_end|>")], {"type": "NFC"}, sequence(split(QWEN), BYTE_LEVEL), GPT2, BYTE_DECODER),
    "roberta": config(BYTES, [token("<s>"), token("</s>"), token("<mask>", lstrip=True)], pre={**GPT2, "add_prefix_space": True}, decoder=BYTE_DECODER,
                      post={"type": "RobertaProcessing", "sep": ["</s>", N + 1], "cls": ["<s>", N], "trim_offsets": True, "add_prefix_space": True}),
    "phi": config(BYTES, [token("<|x|>", lstrip=True, rstrip=True), token("<|end|>", rstrip=True), token("  ", False), token("\t\t", False), token("foo", False, single_word=True)], pre=GPT2, decoder=BYTE_DECODER),
    "cl100k": config(BYTES, pre=sequence(split(CL100K), BYTE_LEVEL), decoder=BYTE_DECODER),
    "deepseek": config(BYTES, pre=sequence(*map(split, DEEPSEEK), BYTE_LEVEL), decoder=BYTE_DECODER),
    "falcon": config(BYTES, pre=sequence({"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")), decoder=BYTE_DECODER),
    "han": config(BYTES, pre=sequence(split(HAN, "Removed", True), BYTE_LEVEL), decoder=BYTE_DECODER),
    "words": config(BYTES, [token("foo é", False)], {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]},
                    sequence(split(r"\w+|\b[[:punct:]]+\B|\h+", "MergedWithNext"), split(r"^.|.$|[[:upper:]\d]{2,}?", "Contiguous"), {"type": "Split", "pattern": {"String": "e"}, "behavior": "MergedWithPrevious", "invert": False}, BYTE_LEVEL), decoder=BYTE_DECODER),
    "llama2": config(FALLBACK, UNK, LLAMA2_NORMALIZER, post=bos("<s>", 1), decoder=LLAMA2_DECODER, **SPM),
    "llama2_normalized": config(FALLBACK, [token("<s>", normalized=True), token("foo", False, single_word=True)], LLAMA2_NORMALIZER, decoder=LLAMA2_DECODER, **SPM),
    "mistral": config(FALLBACK, [*UNK, token("[INST]"), token("[/INST]")], pre=metaspace("first", False), post=bos("<s>", 1), decoder=LLAMA2_DECODER, **SPM),
    "metaspace": config(PIECES, pre=metaspace("always", True), decoder=metaspace("always", True)),
    "gemma": config(FALLBACK, [*UNK, token("\n\n", False, normalized=False), token("▁▁▁", False, normalized=False)], {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                    {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}, bos("<s>", 1), {"type": "Sequence", "decoders": MARK_DECODER}, **SPM),
    "spaces": config(FALLBACK, [], {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Strip", "strip_left": True, "strip_right": True}]},
                     sequence({"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}), decoder={"type": "BPEDecoder", "suffix": "e"}, unk_token="<unk>", fuse_unk=False),
}


def measure(tokenizer):
    ids, special, decoded, skipped = [], [], [], []
    for text in TEXTS:
        ids.append(tokenizer.encode(text, add_special_tokens=False).ids)
        special.append(tokenizer.encode(text).ids)
        plain = tokenizer.decode(special[-1], skip_special_tokens=False)
        short = tokenizer.decode(special[-1])
        decoded.append(None if plain == text else plain)
        skipped.append(None if short == plain else short)
    same = special == ids
    return {"ids": ids, "with_special": None if same else special[:6], "decoded": decoded, "skipped": skipped}


def main():
    demo, out = sys.argv[1:]
    result = {"texts": TEXTS, "tokenizers": {}}
    result["demo"] = measure(Tokenizer.from_file(demo))
    for name, value in CONFIGS.items():
        text = json.dumps(value, ensure_ascii=False)
        result["tokenizers"][name] = {"file": value, **measure(Tokenizer.from_str(text))}
    # Shared vocabularies are stored once.
    result["models"] = {"bytes": BYTES, "pieces": PIECES, "fallback": FALLBACK}
    for value in result["tokenizers"].values():
        model = value["file"]["model"]
        for key, base in result["models"].items():
            if model["vocab"] == base["vocab"]:
                model = {k: v for k, v in model.items() if k not in ("vocab", "merges")} | {"base": key}
                break
        value["file"]["model"] = model
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
