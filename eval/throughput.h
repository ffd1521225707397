// Speed and memory of a model on this machine.
#pragma once

#include <cstdint>

#include "eval/language_model.h"

namespace salient::eval {

struct ThroughputOptions {
  int64_t prompt_tokens = 256;     // of one prompt; at most max_length is taken
  int64_t generated_tokens = 32;   // one at a time after a short prompt, with KV cache
  int repeats = 3;                 // the median counts; one more run before them warms up
  bool read_bandwidth = false;     // also measure how fast the same threads read memory, before and after each generation: it changes on shared machines
};

struct Throughput {
  double prompt_tokens_per_second = 0;
  double generation_tokens_per_second = 0;
  double read_bandwidth = 0;        // bytes a second, median; 0 where it was not measured
  double tokens_per_byte_read = 0;  // median over the repeats of tokens/s over bytes/s: times the bytes of a token, the share of the bandwidth that was used
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
