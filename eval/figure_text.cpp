#include "eval/figure_text.h"

#include <fmt/format.h>

#include <cmath>

#include "eval/language_model.h"

namespace salient::eval {

std::string number(double value) {
  if (value != 0 && std::abs(value) < 0.01) return fmt::format("{:.3g}", value);
  if (std::abs(value) >= 1000) return fmt::format("{:.1f}", value);
  return fmt::format("{:.4f}", value);
}
std::string number(const std::optional<double>& value) { return value ? number(*value) : ""; }

std::string with_bits(const ModelResult& model) {
  const std::string bits = runtime_text(model.description);
  return bits.empty() ? model.model : fmt::format("{} ({})", model.model, bits);
}

}  // namespace salient::eval
