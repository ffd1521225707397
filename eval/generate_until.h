// Text generated from prompts up to a stop string: the measure behind worked answers. Truncation, stop rules and cutting follow
// lm-evaluation-harness 0.4.13.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/language_model.h"
#include "eval/progress.h"
#include "eval/request_journal.h"
#include "eval/run_observer.h"

namespace salient::eval {

struct GenerationRequest {
  std::string prompt;
  std::string document;  // names the document in errors
};

struct GenerateUntilOptions {
  std::vector<std::string> stop;  // the model's EOS text is always added
  int64_t max_new_tokens = 256;
  double temperature = 0;  // 0: greedy. Else each request draws from a stream of its own, by its number and the seed
  double top_p = 1;        // 1: off
  int64_t top_k = 0;       // 0: off
  uint64_t seed = 0;
  int64_t cache_bytes = int64_t{1} << 30;  // of keys and values of one batch: decides how many prompts run together
  int64_t max_rows = 64;
  ProgressCallback progress = {};
  RunWatch watch;                           // sees each prompt with the answer, as far as the model has read it
  const RequestJournal* journal = nullptr;  // what it has is not run again
};

struct Generated {
  std::string text;    // special tokens left out, cut before the first stop string
  std::string turn;    // the same, but ended by the first special token: a chat model that opens a new turn has finished its answer
  int64_t tokens = 0;  // generated ones, those after the stop string included
  bool hit_limit = false;  // max_new_tokens came before an end
  bool truncated = false;  // the prompt lost tokens on the left to leave room
};

// Results in the order of the requests. Prompts keep their last max_length - max_new_tokens tokens. Errors: invalid argument when
// max_new_tokens leaves no room for a prompt; check failed for NaN logits, naming model and document.
std::vector<Generated> generate_until(const LanguageModel& model, const std::vector<GenerationRequest>& requests,
                                      const GenerateUntilOptions& options = {});

// `text` before the first occurrence of each stop string in turn; empty ones are ignored.
std::string cut_at_stops(std::string text, const std::vector<std::string>& stops);

}  // namespace salient::eval
