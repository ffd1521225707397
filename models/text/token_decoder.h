// The "decoder" of a tokenizer.json: turns the strings of tokens back into text.
// Kinds: https://huggingface.co/docs/tokenizers/api/decoders
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::models {

class TokenDecoder {
 public:
  using Step = std::function<void(std::vector<std::string>&)>;

  // `part`: the object, or null for none (the tokens are then joined with spaces). Errors: corruption, unsupported.
  static TokenDecoder from_json(const Json& part, std::string_view where);

  std::string decode(std::vector<std::string> tokens) const;

 private:
  std::vector<Step> steps_;
  bool present_ = false;
};

}  // namespace salient::models
