#include "eval/generation_comparison.h"

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "eval/statistics.h"
#include "eval/unicode_text.h"

namespace salient::eval {

std::optional<GenerationComparison> compare_generations(std::span<const DocumentRecord> documents,
                                                        std::span<const DocumentRecord> base) {
  if (documents.size() != base.size()) {
    fail(ErrorKind::kInvalidArgument, "generations: {} documents on one side, {} on the other", documents.size(), base.size());
  }
  if (documents.empty()) return std::nullopt;
  int64_t same = 0;
  std::vector<double> length_changes;
  std::vector<double> first_differences;
  std::vector<double> common_starts;
  for (size_t i = 0; i < documents.size(); ++i) {
    const std::vector<char32_t> text = to_code_points(documents[i].response.text);
    const std::vector<char32_t> other = to_code_points(base[i].response.text);
    const auto length = static_cast<double>(text.size());
    const auto base_length = static_cast<double>(other.size());
    if (base_length > 0) length_changes.push_back((length - base_length) / base_length);
    if (text == other) {
      ++same;
      common_starts.push_back(1);
      continue;
    }
    const auto common =
        static_cast<double>(std::mismatch(text.begin(), text.end(), other.begin(), other.end()).first - text.begin());
    first_differences.push_back(common);
    common_starts.push_back(common / std::max(length, base_length));
  }
  GenerationComparison out;
  out.n = static_cast<int64_t>(documents.size());
  out.same = static_cast<double>(same) / static_cast<double>(documents.size());
  if (!length_changes.empty()) out.length_change = mean(length_changes).value;
  if (!first_differences.empty()) out.first_difference = quantile(first_differences, 0.5);
  out.common_start = mean(common_starts).value;
  return out;
}

}  // namespace salient::eval
