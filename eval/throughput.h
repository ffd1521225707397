// Speed and memory of a model on this machine.
#pragma once

#include <cstdint>
#include <string>

#include "eval/language_model.h"

namespace salient::eval {

struct ThroughputOptions {
  int64_t prompt_tokens = 256;    // of one prompt; at most max_length is taken
  int64_t generated_tokens = 64;  // one at a time after a short prompt, with KV cache
  int repeats = 3;                // the median counts; one more run before them warms up
  // Also measure how fast the same threads read memory, before and after each generation: it changes on shared machines. Only of a
  // model on the CPU; takes 256 MiB, which peak_rss_bytes of this model does not count.
  bool read_bandwidth = true;
};

struct Throughput {
  double prompt_tokens_per_second = 0;
  double generation_tokens_per_second = 0;
  double first_token_seconds = 0;     // from a prompt of prompt_tokens to the choice of its next token; median
  double latency_median_seconds = 0;  // of one generated token, over those of all repeats
  double latency_p95_seconds = 0;
  double latency_p99_seconds = 0;
  int64_t latency_tokens = 0;  // that these are taken over
  // Weights that a generated token reads, and the KV cache in the middle of the measurement. 0 where that is not known: of a
  // mixture of experts, which reads what its router chooses, of a module of others, and on other devices than the CPU.
  uint64_t bytes_per_token = 0;
  double bandwidth_share = 0;  // bytes_per_token * tokens_per_byte_read; beyond 1 the weights stay in caches
  double read_bandwidth = 0;   // bytes a second, median; 0 where it was not measured
  double tokens_per_byte_read =
      0;  // median over the repeats of tokens/s over bytes/s: times the bytes of a token, the share of the bandwidth that was used
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int repeats = 0;
  int threads = 0;
  uint64_t disk_bytes = 0;      // weights in the checkpoint
  uint64_t memory_bytes = 0;    // weights as loaded
  uint64_t peak_rss_bytes = 0;  // of the process so far: of everything that it has loaded
  std::string no_token_step;    // Decoder::why_no_token_step
};

// Batch size 1. Errors: those of the decoder.
Throughput measure_throughput(const LanguageModel& model, const ThroughputOptions& options = {});

}  // namespace salient::eval
