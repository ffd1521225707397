// How byte-level BPE tokenizers cut text into words, under the names that llama.cpp has for it (tokenizer.ggml.pre).
// Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/json.h"

namespace salient::models {

struct GgufPreTokenizer {
  std::string_view name;       // tokenizer.ggml.pre
  std::string_view regex;      // of tokenizer.json's Split; "" = the words of GPT-2, which ByteLevel itself cuts
  bool digits = false;         // each digit alone, before all else
  bool ignore_merges = false;  // a word that is a token is taken as it is
};

// All rows; the first of several with the same words is what is written.
std::span<const GgufPreTokenizer> gguf_pre_tokenizers();

// The row for a tokenizer.json's "pre_tokenizer". Errors: unsupported, with the regular expressions found and the names that there
// are.
const GgufPreTokenizer& choose_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges, std::string_view where);

// By name. Errors: unsupported, with the names that there are.
const GgufPreTokenizer& find_pre_tokenizer(std::string_view name, std::string_view where);

// The "pre_tokenizer" of a tokenizer.json.
Json make_pre_tokenizer(const GgufPreTokenizer& row);

}  // namespace salient::models
