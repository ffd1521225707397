// The tokenizer of a Hugging Face folder as GGUF metadata, tokenizer.ggml.*. Keys:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
//
// Byte-level BPE becomes the model "gpt2", BPE with byte fallback that was converted from SentencePiece becomes "llama": its merges
// are sorted by score, so that scores follow from their order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "models/io/gguf_header.h"

namespace salient::models {

enum class GgufTokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct GgufTokenizer {
  std::vector<GgufPair> pairs;
  std::vector<std::string> notes;  // what llama.cpp does otherwise; to be shown to the user
};

// Reads tokenizer.json, tokenizer_config.json and the chat template of `folder`. Tokens are padded to config.vocab_size. The whole
// tokenizer.json goes into tokenizer.huggingface.json, so that nothing is lost. Errors: not found (tokenizer.json); corruption;
// unsupported (models that are not BPE, pre-tokenizers and normalizers that llama.cpp has not, merges without an order by token).
GgufTokenizer gguf_tokenizer(const std::filesystem::path& folder, const DecoderConfig& config);

// For models without a tokenizer: llama.cpp then takes and gives ids only.
std::vector<GgufPair> gguf_no_tokenizer();

}  // namespace salient::models
