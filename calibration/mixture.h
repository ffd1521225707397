// Rows of several sources in one stream whose every beginning is near the wanted proportions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "calibration/calibration_rows.h"
#include "calibration/token_rows.h"

namespace salient::calibration {

struct SourceRows {
  CalibrationSource source;
  CalibrationRows rows;
};

struct Mixture {
  TokenRows rows;
  std::vector<std::string> notes;  // worth telling the user
};

// One source without a number of samples gives its rows in file order. Otherwise each source's rows are drawn by a sub-seed of its
// own (derive_seed(seed, "calibration/mix/<domain>")), so that another source beside it changes nothing in its order.
//
// With weights, each next row is of the source that has the fewest tokens for its weight (the first of several): after any number
// of rows the token shares are within one row of each source of the weights. It ends when the source whose turn it is has no more
// rows, or none that is kept. Without weights the same goes by rows, in proportion to their numbers, until all are used.
//
// `tokenizer`: as TokenRowCollector takes it. Errors: those of check_sources and TokenRowCollector.
Mixture mix_rows(const std::vector<SourceRows>& sources, const models::Tokenizer* tokenizer, const TokenRowOptions& options,
                 uint64_t seed);

}  // namespace salient::calibration
