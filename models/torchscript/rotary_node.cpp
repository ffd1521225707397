#include "models/torchscript/rotary_node.h"

#include "models/torchscript/script_text.h"

namespace salient::models {
namespace {

// Leaves `frequencies` for a row of `total` tokens.
void add_frequencies(ScriptNode& node, const RopeConfig& rope) {
  const int64_t limit = angles_change_after(rope);
  std::string& text = node.source;
  node.buffers.emplace_back("inv_freq", inverse_frequencies(rope, 0));
  add_line(text, "  frequencies = self.inv_freq.to(6)");
  if (limit == 0) return;
  add_line(text, "  if total > {}:", limit);
  if (rope.kind == RopeKind::kLongRope) {
    node.buffers.emplace_back("inv_freq_long", inverse_frequencies(rope, limit + 1));
    add_line(text, "    frequencies = self.inv_freq_long.to(6)");
    return;
  }
  const int64_t dim = rope.frequency_dim == 0 ? rope.dim : rope.frequency_dim;
  add_line(text, "    stretch = torch.scalar_tensor(total, dtype=4, device=positions.device) * {} / {} - {}",
           real_literal(rope.factor), real_literal(static_cast<double>(limit)), real_literal(rope.factor - 1.0));
  add_line(text, "    base = torch.pow(stretch, {}) * {}",
           real_literal(static_cast<double>(dim) / (static_cast<double>(dim) - 2.0)), real_literal(rope.theta));
  add_line(text, "    exponents = torch.arange(0, {}, 2, device=positions.device).to(6) / {}", dim,
           real_literal(static_cast<double>(dim)));
  add_line(text, "    frequencies = torch.reciprocal(torch.pow(base, exponents))");
}

}  // namespace

ScriptNode rotary_node(const RopeConfig& rope, at::ScalarType dtype) {
  ScriptNode node;
  node.kind = "Rotary";
  std::string& text = node.source;
  add_line(text, "def forward(self, positions: Tensor, total: int) -> Tuple[Tensor, Tensor]:");
  add_frequencies(node, rope);
  add_line(text, "  angles = positions.to(6).unsqueeze(-1) * frequencies");
  if (rope.pairs == RopePairs::kHalves) {
    add_line(text, "  twice = torch.cat([angles, angles], -1).unsqueeze(1)");
  } else {
    add_line(text, "  twice = torch.repeat_interleave(angles, 2, -1).unsqueeze(1)");
  }
  const std::string factor = real_literal(rope.attention_factor);
  const std::string to = dtype_literal(dtype);
  add_line(text, "  return ((torch.cos(twice) * {}).to({}), (torch.sin(twice) * {}).to({}))", factor, to, factor, to);
  return node;
}

std::string rotate_source(const RopeConfig& rope, int64_t head_dim) {
  const int64_t dim = rope.dim;
  std::string text;
  add_line(text, "def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:");
  add_line(text, "  part = x.narrow(3, 0, {})", dim);
  if (rope.pairs == RopePairs::kHalves) {
    add_line(text, "  turned = torch.cat([-part.narrow(3, {}, {}), part.narrow(3, 0, {})], 3)", dim / 2, dim / 2, dim / 2);
  } else {
    add_line(text, "  couples = part.reshape([x.size(0), x.size(1), x.size(2), {}, 2])", dim / 2);
    add_line(text, "  turned = torch.stack([-couples.select(4, 1), couples.select(4, 0)], 4).flatten(3)");
  }
  add_line(text, "  turned = part * cos + turned * sin");
  if (dim == head_dim) {
    add_line(text, "  return turned");
  } else {
    add_line(text, "  return torch.cat([turned, x.narrow(3, {}, {})], 3)", dim, head_dim - dim);
  }
  return text;
}

}  // namespace salient::models
