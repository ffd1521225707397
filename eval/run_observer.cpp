#include "eval/run_observer.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

namespace salient::eval {

bool RunWatch::wants_equal_lengths(const models::DecoderConfig& config) const {
  return inputs() != nullptr &&
         std::any_of(config.layers.begin(), config.layers.end(), [](const models::LayerConfig& layer) { return layer.moe; });
}

models::Observation RunWatch::right_padded(const std::vector<std::vector<models::TokenId>>& rows) const {
  if (inputs() == nullptr) return {};
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  const at::Tensor shown = at::zeros({static_cast<int64_t>(rows.size()), static_cast<int64_t>(longest)}, at::kBool);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::fill_n(shown.data_ptr<bool>() + i * longest, rows[i].size(), true);
  }
  return {inputs(), shown};
}

}  // namespace salient::eval
