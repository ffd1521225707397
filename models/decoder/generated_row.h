// One row of a generation: which token comes next, and whether the row goes on.
#pragma once

#include <random>
#include <span>

#include "models/decoder/generation.h"

namespace salient::models {

// Errors: invalid argument for options out of range, an empty prompt, or one that leaves no room in `room` tokens.
void check_generation(const GenerationOptions& options, const std::vector<std::vector<TokenId>>& prompts, size_t room);

class GeneratedRow {
 public:
  // `row`: its number, for the draws. `room`: tokens that prompt and result may have together. `options` outlives the row.
  GeneratedRow(const GenerationOptions& options, size_t row, size_t prompt_tokens, size_t room);

  // Takes the next token by its logits, [vocab_size], of which `likeliest` is the first of the largest. False: the row has ended.
  bool advance(std::span<const float> logits, TokenId likeliest);
  const GenerationResult& result() const { return result_; }
  GenerationResult take() { return std::move(result_); }

 private:
  const GenerationOptions* options_;
  size_t row_;
  size_t prompt_tokens_;
  size_t room_;
  std::mt19937_64 random_;
  GenerationResult result_;
};

}  // namespace salient::models
