// The "post_processor" of a tokenizer.json: puts special tokens around the ids of one text.
// Kinds: https://huggingface.co/docs/tokenizers/api/post-processors
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/text/tokenizer.h"

namespace salient::models {

class PostProcessor {
 public:
  // The ids as a list of runs: a template makes each of its items a run of its own, which matters only where processors follow one
  // another.
  using Runs = std::vector<std::vector<TokenId>>;
  using Step = std::function<void(Runs&, bool add_special_tokens)>;

  PostProcessor() = default;  // changes nothing
  // `part`: the object, or null for none. Errors: corruption, unsupported.
  static PostProcessor from_json(const Json& part, std::string_view where);

  std::vector<TokenId> apply(std::vector<TokenId> ids, bool add_special_tokens) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace salient::models
