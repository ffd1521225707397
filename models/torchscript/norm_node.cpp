#include "models/torchscript/norm_node.h"

#include <string>

#include "models/torchscript/script_text.h"

namespace salient::models {

ScriptNode norm_node(const Norm& norm) {
  const bool rms = norm.kind == NormKind::kRms || norm.kind == NormKind::kRmsOnePlus;
  const bool has_weight = norm.weight.defined();
  const bool has_bias = norm.bias.defined();
  const std::string eps = real_literal(norm.eps);
  // Only kRms multiplies by its weight in the type of x; see models/decoder/norm.h.
  const bool in_x_type = norm.kind == NormKind::kRms;
  const std::string to = in_x_type ? "x.dtype" : "6";

  ScriptNode node;
  node.kind = rms ? "RmsNorm" : "LayerNorm";
  if (has_weight) node.buffers.emplace_back("weight", norm.weight);
  if (has_bias) node.buffers.emplace_back("bias", norm.bias);
  std::string& text = node.source;
  add_line(text, "def forward(self, x: Tensor) -> Tensor:");
  add_line(text, "  y = x.to(6)");
  if (rms) {
    add_line(text, "  y = y * torch.rsqrt(torch.mean(torch.square(y), [-1], True) + {})", eps);
    if (in_x_type) add_line(text, "  y = y.to(x.dtype)");
  } else {
    add_line(text, "  y = torch.layer_norm(y, [x.size(-1)], None, None, {})", eps);
  }
  if (has_weight) {
    const double offset = stored_weight_offset(norm.kind);
    const std::string weight = fmt::format("self.weight.to({})", to);
    add_line(text, "  y = {} * y", offset == 0.0 ? weight : fmt::format("({} + {})", real_literal(offset), weight));
  }
  if (has_bias) add_line(text, "  y = y + self.bias.to({})", to);
  add_line(text, "  return y.to(x.dtype)");
  return node;
}

}  // namespace salient::models
