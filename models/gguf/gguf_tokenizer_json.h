// A GGUF file's tokenizer as the files of a Hugging Face folder: what models/text/tokenizer.h and models/text/chat_template.h read.
#pragma once

#include <filesystem>
#include <string>

#include "common/json.h"
#include "models/io/gguf_header.h"

namespace salient::models {

struct GgufTokenizerFiles {
  Json tokenizer;         // tokenizer.json
  Json tokenizer_config;  // bos_token, eos_token, unk_token, pad_token, chat_template (a list where there are several)
};

// tokenizer.huggingface.json as it is, where the file has it; else rebuilt from tokens, types and merges (model "gpt2") or scores
// ("llama"). Errors, with `where`: not found (no tokenizer in the file); corruption (keys of other types or lengths, broken JSON);
// unsupported (other models, a tokenizer.ggml.pre that is not in models/gguf/gguf_pre_tokenizers.h).
GgufTokenizerFiles tokenizer_from_gguf(const GgufHeader& header, const std::string& where);

// Of a file, whose data are not looked at. Errors: those of parse_gguf_header, too.
GgufTokenizerFiles read_gguf_tokenizer(const std::filesystem::path& file);
// The second part alone, which is there without a tokenizer, too: values are null then.
Json read_gguf_tokenizer_config(const std::filesystem::path& file);

}  // namespace salient::models
