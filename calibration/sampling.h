// Which rows of a data set become calibration data: how many, and which, the same on every platform for the same seed.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string_view>
#include <unordered_map>

namespace salient::calibration {

// Bounds of the size `auto`.
inline constexpr int64_t kAutoPercent = 15;
inline constexpr int64_t kAutoMinimum = 8;
inline constexpr int64_t kAutoMaximum = 128;

// "auto" (nothing), or a number of rows. Errors: invalid argument unless `auto` or an integer of at least 1.
std::optional<int64_t> parse_sample_size(std::string_view text);

// How many of `rows` rows to take. Auto: 15 % of the rows, rounded half up, at least 8 and at most 128. Either way no more than
// there are.
int64_t sample_size(std::optional<int64_t> wanted, int64_t rows);

// Draws row numbers 0 .. rows-1 without replacement, each order equally likely (Fisher-Yates, kept sparse: memory grows with the
// draws, not with the rows). Built on the raw outputs of std::mt19937_64, which the standard fixes; the standard's distributions
// and std::shuffle differ between libraries. The draws of a smaller sample are the beginning of those of a larger one with the same
// seed.
class RowSampler {
 public:
  // Draws from the sub-seed derive_seed(seed, "calibration/rows").
  RowSampler(int64_t rows, uint64_t seed);

  // The next row number in draw order, or nothing when every row was drawn.
  std::optional<int64_t> next();

 private:
  uint64_t below(uint64_t bound);

  std::mt19937_64 engine_;
  int64_t rows_;
  int64_t drawn_ = 0;
  std::unordered_map<int64_t, int64_t> moved_;  // position -> row number, where it is not the position itself
};

}  // namespace salient::calibration
