// The "pre_tokenizer" of a tokenizer.json: splits normalized text into words, over whose borders nothing merges.
// Kinds: https://huggingface.co/docs/tokenizers/api/pre-tokenizers
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/text/piece.h"

namespace salient::models {

class PreTokenizer {
 public:
  using Step = std::function<void(std::vector<Piece>&)>;

  PreTokenizer() = default;  // changes nothing
  // `part`: the object, or null for none. Errors: corruption, unsupported.
  static PreTokenizer from_json(const Json& part, std::string_view where);

  // Splits every piece that has no id yet. Empty pieces vanish.
  void apply(std::vector<Piece>& pieces) const;

 private:
  std::vector<Step> steps_;
};

// The text with each of the `matches` replaced by `content`.
void replace_all(Piece& piece, std::span<const TextRange> matches, std::string_view content);

// Each byte as the visible character that GPT-2 writes for it (byte_level.h).
void to_byte_characters(Piece& piece);

}  // namespace salient::models
