// Hugging Face tokenizer.json, BPE family: text to ids and back, equal to the `tokenizers` library on every string.
// Format: https://huggingface.co/docs/tokenizers/api/tokenizer (normalizer -> pre-tokenizer -> model -> post-processor, decoder).
// "truncation" and "padding" of the file are ignored: lengths are the caller's business.
// Not like the library: a pattern in which (?i:...) would match a character that folds to several (ss against U+00DF) does not
// match it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::models {

using TokenId = int32_t;

// Immutable after construction and safe to use from many threads.
class Tokenizer {
 public:
  // Reads <folder>/tokenizer.json; where find_gguf_model (models/gguf/gguf_summary.h) finds a GGUF file, the tokenizer inside it.
  // Errors: not found, corruption (malformed), unsupported (Unigram, WordPiece, unknown parts: named).
  static Tokenizer from_folder(const std::filesystem::path& folder);
  static Tokenizer from_file(const std::filesystem::path& tokenizer_json);
  // The content of a tokenizer.json. `where` opens error texts. Errors: as above.
  static Tokenizer from_json(const Json& content, const std::string& where);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Invalid UTF-8 is replaced by U+FFFD, one for each maximal ill-formed part, before anything else. With `add_special_tokens` the
  // post-processor runs (BOS and the like).
  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const;

  // Ids outside the vocabulary are skipped. The result is valid UTF-8 (broken byte sequences become U+FFFD).
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

  std::optional<TokenId> token_to_id(std::string_view token) const;
  std::optional<std::string> id_to_token(TokenId id) const;
  // Number of ids, added tokens included (largest id + 1).
  int64_t vocab_size() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace salient::models
