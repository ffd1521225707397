// The "normalizer" of a tokenizer.json: rewrites text before it is split.
// Kinds: https://huggingface.co/docs/tokenizers/api/normalizers
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/text/piece.h"

namespace salient::models {

class Normalizer {
 public:
  using Step = std::function<void(Piece&)>;

  Normalizer() = default;  // changes nothing
  // `part`: the object, or null for none. Errors: corruption, unsupported.
  static Normalizer from_json(const Json& part, std::string_view where);

  void apply(Piece& piece) const;
  std::string apply(std::string_view text) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace salient::models
