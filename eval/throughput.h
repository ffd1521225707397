// Speed and memory of a model on this machine.
#pragma once

#include <cstdint>

#include "eval/language_model.h"

namespace salient::eval {

struct ThroughputOptions {
  int64_t prompt_tokens = 256;     // of one prompt; at most max_length is taken
  int64_t generated_tokens = 32;   // one at a time after a short prompt, with KV cache
  int repeats = 3;                 // the median counts; one more run before them warms up
};

struct Throughput {
  double prompt_tokens_per_second = 0;
  double generation_tokens_per_second = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int repeats = 0;
  int threads = 0;
  uint64_t disk_bytes = 0;      // weights in the checkpoint
  uint64_t memory_bytes = 0;    // weights as loaded
  uint64_t peak_rss_bytes = 0;  // of the process so far
};

// Batch size 1. Errors: those of the decoder.
Throughput measure_throughput(const LanguageModel& model, const ThroughputOptions& options = {});

}  // namespace salient::eval
