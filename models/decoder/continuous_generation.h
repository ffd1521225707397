// Generation where a row that ends makes room for the next prompt at once, so that the batch stays full (Yu et al., "Orca", OSDI
// 2022), and where a prompt takes over the keys and values of a beginning that another one has already read.
#pragma once

#include <functional>
#include <span>

#include "models/decoder/generation.h"

namespace salient::models {

struct ContinuousOptions {
  int64_t cache_bytes = int64_t{1} << 30;  // keys and values: decides how many rows run together, at least one
  int64_t max_rows = 64;
  int64_t prompt_tokens = 2048;  // of prompts that are read in one forward pass: bounds the memory of activations
  // Told of the rows that ended in a step, by the numbers of their prompts.
  std::function<void(std::span<const size_t> prompts, std::span<const GenerationResult> results)> on_results = {};
};

struct ContinuousResult {
  std::vector<GenerationResult> rows;  // of each prompt
  int64_t prompt_tokens = 0;           // that were read
  int64_t shared_tokens = 0;           // that were taken over instead
  int64_t steps = 0;                   // forward passes
};

// As generate(), to the same options but for `observer`. A row's result does not depend on the others or on their number, to the
// bit where Decoder::hidden_states(RaggedBatch) does not. Prompts start in their order. Errors: those of generate(); unsupported
// where the decoder does not run ragged rows of that length.
ContinuousResult generate_continuously(const Decoder& decoder, const std::vector<std::vector<TokenId>>& prompts,
                                       const GenerationOptions& options, const ContinuousOptions& continuous = {});

}  // namespace salient::models
