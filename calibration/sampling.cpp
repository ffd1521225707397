#include "calibration/sampling.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "common/error.h"
#include "common/hash.h"

namespace salient::calibration {

std::optional<int64_t> parse_sample_size(std::string_view text) {
  if (text == "auto") return std::nullopt;
  int64_t rows = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), rows);
  if (code != std::errc() || end != text.data() + text.size() || rows < 1) {
    fail(ErrorKind::kInvalidArgument, "calibration samples: found '{}', expected 'auto' or a number of rows of at least 1", text);
  }
  return rows;
}

int64_t sample_size(std::optional<int64_t> wanted, int64_t rows) {
  if (wanted) return std::min(*wanted, rows);
  const int64_t share = (rows / 100) * kAutoPercent + ((rows % 100) * kAutoPercent + 50) / 100;
  return std::min(std::clamp(share, kAutoMinimum, kAutoMaximum), rows);
}

RowSampler::RowSampler(int64_t rows, uint64_t seed) : engine_(derive_seed(seed, "calibration/rows")), rows_(rows) {
  if (rows < 0) fail(ErrorKind::kInternal, "cannot draw from {} rows", rows);
}

// Outputs past the largest multiple of `bound` are thrown away, so that every value is equally likely.
uint64_t RowSampler::below(uint64_t bound) {
  constexpr uint64_t kLast = std::numeric_limits<uint64_t>::max();
  const uint64_t excess = (kLast % bound + 1) % bound;
  uint64_t value = engine_();
  while (value > kLast - excess) value = engine_();
  return value % bound;
}

std::optional<int64_t> RowSampler::next() {
  if (drawn_ == rows_) return std::nullopt;
  const auto at = [&](int64_t position) {
    const auto found = moved_.find(position);
    return found == moved_.end() ? position : found->second;
  };
  const int64_t chosen = drawn_ + static_cast<int64_t>(below(static_cast<uint64_t>(rows_ - drawn_)));
  const int64_t row = at(chosen);
  moved_[chosen] = at(drawn_);
  moved_.erase(drawn_);
  ++drawn_;
  return row;
}

}  // namespace salient::calibration
