// How a model's generated texts differ from its base's, whether they are right or wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "eval/document_record.h"

namespace salient::eval {

struct GenerationComparison {
  int64_t n = 0;
  double same = 0;                      // share of texts that are the same to the letter
  std::optional<double> length_change;  // mean of (length - base length) / base length, over texts of the base that are not empty
  std::optional<double> first_difference;  // median over texts that differ: characters before the first that is another one
  double common_start = 1;                 // mean share of the longer text that both begin with; 1 for equal ones
};

// Lengths and places in Unicode code points. Nothing for no documents. Both must hold the same documents.
std::optional<GenerationComparison> compare_generations(std::span<const DocumentRecord> documents,
                                                        std::span<const DocumentRecord> base);

}  // namespace salient::eval
