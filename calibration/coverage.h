// What calibration showed to the model: tokens, domains, vocabulary; and, once a model ran over it, what it never reached.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "common/json.h"

namespace salient::calibration {

struct DomainCoverage {
  std::string name;
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t counted_tokens = 0;  // those that the statistics are taken over
};

// Input channels of one linear (or of several that share their input).
struct ChannelCoverage {
  std::string name;  // "model.layers.3.mlp.down_proj"
  int64_t channels = 0;
  int64_t inactive = 0;  // zero for every counted token
};

// Experts of one block.
struct ExpertCoverage {
  std::string name;  // "model.layers.3.mlp"
  int64_t experts = 0;
  std::vector<int64_t> never_reached;  // numbers, from 0
};

struct CoverageReport {
  int64_t rows = 0;  // looked at
  int64_t blocks = 0;
  int64_t tokens = 0;  // in blocks
  int64_t counted_tokens = 0;
  int64_t masked_tokens = 0;  // run through the model, but not counted
  int64_t longest_row = 0;    // tokens, before it was cut or split
  int64_t truncated = 0;      // rows
  int64_t split = 0;          // rows
  int64_t dropped = 0;        // rows
  int64_t dropped_tokens = 0;
  int64_t duplicates = 0;  // rows
  int64_t vocab_size = 0;
  int64_t distinct_tokens = 0;  // ids of the vocabulary among the counted tokens
  std::vector<DomainCoverage> domains;
  std::vector<ChannelCoverage> channels;  // filled in by the pipeline; only those with inactive channels
  std::vector<ExpertCoverage> experts;    // filled in by the pipeline; only those with experts that were never reached
};

// All but `channels` and `experts`. Errors: invalid argument: an id outside of the vocabulary.
CoverageReport coverage_of(const TokenBlocks& blocks, int64_t vocab_size);

// Keys as the fields' names; "experts" and "channels" are there also when empty. And back. Errors: corruption.
Json to_json(const CoverageReport& report);
CoverageReport coverage_from_json(const Json& json, std::string_view where);

// For the terminal: a few lines and a table of the domains; what was never reached, where there is something.
std::string coverage_text(const CoverageReport& report);

}  // namespace salient::calibration
