// Text generation: batches of prompts, greedy or sampled, with a KV cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/decoder/decoder.h"
#include "models/text/tokenizer.h"

namespace salient::models {

struct GenerationOptions {
  int64_t max_new_tokens = 256;
  double temperature = 0.0;            // 0 = greedy
  int64_t top_k = 0;                   // 0 = off
  double top_p = 1.0;                  // 1 = off
  uint64_t seed = 0;                   // row n draws from mt19937_64(derive_seed(seed, "row/<n>"))
  std::vector<uint64_t> rows = {};     // numbers of the prompts, for a caller that generates some of many; empty = 0, 1, ...
  std::vector<TokenId> stop_ids = {};  // ends a row; not part of the result
  // Ends a row as soon as its decoded text (special tokens included) contains one; the ids that hold it are part of the result, so
  // cut the text after decoding. Needs `tokenizer`.
  std::vector<std::string> stop_strings = {};
  const Tokenizer* tokenizer = nullptr;
  std::function<void(size_t prompt, TokenId id)> on_token = {};  // each id of a result as soon as it is there
  const InputObserver* observer = nullptr;                       // sees every token of prompts and results that is run, once
};

struct GenerationResult {
  std::vector<TokenId> ids;  // new tokens only, without the stop id
  bool stopped = false;      // false: max_new_tokens was reached
  bool broken = false;       // the row came to logits that are not finite, and ended
  size_t ran = 0;            // ids that the model has read itself: all, or all but the last, after which nothing was wanted
};

// Prompts of different lengths are left-padded into one batch; rows that end are removed from the batch. The result of a row does
// not depend on the others up to float rounding. Greedy: the lowest id among equal logits. Sampled: temperature, then top_k, then
// top_p (the smallest set of likeliest ids whose probabilities reach it), in float64. A row also ends, not stopped, where its ids
// fill max_position_embeddings. Errors: invalid argument for options out of range, an empty prompt or one that leaves no room in
// max_position_embeddings; an observer on a mixture of experts when the prompts are not of one length (see Decoder::hidden_states).
std::vector<GenerationResult> generate(const Decoder& decoder, const std::vector<std::vector<TokenId>>& prompts,
                                       const GenerationOptions& options);

}  // namespace salient::models
