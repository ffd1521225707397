#include "models/torchscript/linear_node.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <c10/core/ScalarType.h>

#include <string>
#include <string_view>
#include <variant>

#include "common/error.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/linear.h"
#include "models/decoder/packed_kernel.h"
#include "models/torchscript/script_text.h"

namespace salient::models {
namespace {

bool is_small_float(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf; }

// The type in which a tensor lies in the checkpoint, where it is one that weights may have.
at::ScalarType stored_dtype(const Checkpoint& checkpoint, const std::string& name, at::ScalarType otherwise) {
  if (!checkpoint.contains(name)) return otherwise;
  const at::ScalarType dtype = checkpoint.info(name).dtype;
  return is_small_float(dtype) ? dtype : otherwise;
}

// uint8 [out, in], in their natural order.
at::Tensor codes_of(const PackedLinear& linear) {
  const int64_t out = linear.out_features;
  std::vector<at::Tensor> parts;
  if (is_wide(linear.in_features, linear.group_size)) {
    // A word's eight codes lie kWideLanes channels apart; byte b of it holds the codes 2b and 2b + 1.
    const at::Tensor bytes = linear.packed.view({out, -1, kWideLanes, 4});
    for (int64_t byte = 0; byte < 4; ++byte) {
      parts.push_back(bytes.select(3, byte).bitwise_and(15));
      parts.push_back(bytes.select(3, byte).__rshift__(4));
    }
  } else {
    parts = {linear.packed.bitwise_and(15), linear.packed.__rshift__(4)};
  }
  return at::stack(parts, 2).reshape({out, linear.in_features});
}

at::Tensor pack_halves(const at::Tensor& codes, int64_t group_size) {
  const at::Tensor groups = codes.view({codes.size(0), -1, 2, group_size / 2});
  return groups.select(2, 0).bitwise_or(groups.select(2, 1).__lshift__(4)).reshape({codes.size(0), -1});
}

constexpr std::string_view kFloatKind = "FloatLinear";
constexpr std::string_view kPackedKind = "PackedLinear";
constexpr std::string_view kByteKind = "ByteLinear";

// One linear as it goes into the file, in memory.
struct Tensors {
  std::string_view kind;
  std::vector<std::pair<std::string, at::Tensor>> buffers;
};

template <typename Codes>
void add_codes(Tensors& tensors, const at::Tensor& codes, const Codes& linear, at::ScalarType scales) {
  tensors.buffers = {{"codes", codes}, {"scales", linear.scales.to(scales)}, {"zeros", linear.zeros}};
  if (linear.bias.defined()) tensors.buffers.emplace_back("bias", linear.bias);
}

Tensors load_tensors(const NodeSource& source, const LinearSpec& spec) {
  const Checkpoint& checkpoint = source.checkpoint;
  const bool fused = spec.fused && checkpoint.contains(spec.fused->tensor);
  at::ScalarType stored = stored_dtype(checkpoint, fused ? spec.fused->tensor : spec.name + ".weight", at::kFloat);
  const std::string bias = fused ? spec.fused->bias : spec.name + ".bias";
  stored = c10::promoteTypes(stored, stored_dtype(checkpoint, bias, stored));
  const Linear linear = load_linear(checkpoint, spec, stored);
  const at::ScalarType scales =
      stored_dtype(checkpoint, spec.name + ".scales", stored_dtype(checkpoint, spec.name + ".weight_scale", at::kFloat));
  Tensors tensors;
  if (const auto* plain = std::get_if<FloatLinear>(&linear)) {
    tensors.kind = kFloatKind;
    tensors.buffers = {{"weight", plain->weight}};
    if (plain->bias.defined()) tensors.buffers.emplace_back("bias", plain->bias);
  } else if (const auto* packed = std::get_if<PackedLinear>(&linear)) {
    tensors.kind = kPackedKind;
    add_codes(tensors, pack_halves(codes_of(*packed), packed->group_size), *packed, scales);
  } else {
    const auto& bytes = std::get<ByteLinear>(linear);
    tensors.kind = kByteKind;
    add_codes(tensors, bytes.codes, bytes, scales);
  }
  return tensors;
}

// dense(begin, count), for experts dense(expert, begin, count): rows of the weight, float ones as stored, quantized ones in
// float32.
std::string dense_method(std::string_view kind, bool experts) {
  const auto rows = [&](std::string_view buffer) {
    return fmt::format("self.{}{}.narrow(0, begin, count)", buffer, experts ? ".select(0, expert)" : "");
  };
  std::string text;
  add_line(text, "def dense(self, {}begin: int, count: int) -> Tensor:", experts ? "expert: int, " : "");
  if (kind == kFloatKind) {
    add_line(text, "  return {}", rows("weight"));
    return text;
  }
  add_line(text, "  scales = {}.unsqueeze(2).to(6)", rows("scales"));
  add_line(text, "  zeros = {}.unsqueeze(2).to(6)", rows("zeros"));
  add_line(text, "  codes = {}.reshape([count, scales.size(1), -1])", rows("codes"));
  if (kind == kPackedKind)
    add_line(text, "  codes = torch.cat([torch.bitwise_and(codes, 15), torch.bitwise_right_shift(codes, 4)], 2)");
  add_line(text, "  return ((codes.to(6) - zeros) * scales).reshape([count, -1])");
  return text;
}

std::string linear_source(std::string_view kind, bool bias, bool experts) {
  const std::string_view counted = kind == kFloatKind ? "weight" : "codes";
  const std::string_view index = experts ? "expert, " : "";
  std::string text = dense_method(kind, experts);
  add_line(text, "def forward(self, x: Tensor{}) -> Tensor:", experts ? ", expert: int" : "");
  add_line(text, "  out = self.{}.size({})", counted, experts ? 1 : 0);
  add_line(text, "  step = max(16, {} // max(1, x.size(-1)))", kBlockElements);
  if (kind == kFloatKind) {  // nothing to convert: all at once
    add_line(text, "  if self.weight.dtype == x.dtype:");
    add_line(text, "    step = out");
  }
  add_line(text, "  if step >= out:");
  add_line(text, "    y = torch.linear(x, self.dense({}0, out).to(x.dtype))", index);
  add_line(text, "  else:");
  add_line(text, "    rows = x.reshape([-1, x.size(-1)])");
  add_line(text, "    z = torch.empty([rows.size(0), out], dtype=x.dtype, device=x.device)");
  add_line(text, "    for begin in range(0, out, step):");
  add_line(text, "      count = min(step, out - begin)");
  add_line(text, "      z.narrow(1, begin, count).copy_(torch.linear(rows, self.dense({}begin, count).to(x.dtype)))", index);
  add_line(text, "    y = z.view(x.size()[:-1] + [out])");
  if (bias) add_line(text, "  y = y + self.bias{}.to(x.dtype)", experts ? ".select(0, expert)" : "");
  add_line(text, "  return y");
  return text;
}

ScriptNode make_node(std::string_view kind, std::vector<std::pair<std::string, at::Tensor>> buffers, bool experts) {
  const bool bias = buffers.back().first == "bias";
  return {fmt::format("{}{}", experts ? "Experts" : "", kind), linear_source(kind, bias, experts), std::move(buffers), {}};
}

std::string describe(const Tensors& tensors) {
  std::string text(tensors.kind);
  for (const auto& [name, tensor] : tensors.buffers)
    text += fmt::format(", {} {} [{}]", name, c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "));
  return text;
}

}  // namespace

ScriptNode linear_node(const NodeSource& source, const LinearSpec& spec) {
  const at::NoGradGuard no_grad;
  Tensors tensors = load_tensors(source, spec);
  for (auto& [name, tensor] : tensors.buffers) {
    const std::string whole = spec.name + ".weight";
    const bool is_stored = name == "weight" && source.checkpoint.contains(whole) &&
                           tensor.scalar_type() == source.checkpoint.info(whole).dtype &&
                           tensor.sizes() == source.checkpoint.info(whole).shape;
    tensor = is_stored ? source.checkpoint.view(whole) : source.scratch.keep(tensor);
  }
  return make_node(tensors.kind, std::move(tensors.buffers), false);
}

ScriptNode experts_linear_node(const NodeSource& source, const std::vector<LinearSpec>& experts) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<std::string, at::Tensor>> stacked;
  std::string_view kind;
  std::string expected;
  for (size_t expert = 0; expert < experts.size(); ++expert) {
    const Tensors tensors = load_tensors(source, experts[expert]);
    if (expert == 0) {
      kind = tensors.kind;
      expected = describe(tensors);
      for (const auto& [name, tensor] : tensors.buffers) {
        std::vector<int64_t> sizes = tensor.sizes().vec();
        sizes.insert(sizes.begin(), static_cast<int64_t>(experts.size()));
        stacked.emplace_back(name, source.scratch.make(sizes, tensor.scalar_type()));
      }
    } else if (const std::string found = describe(tensors); found != expected) {
      fail(ErrorKind::kUnsupported, "'{}' is {}, '{}' is {}: TorchScript export needs all experts of a block in one format",
           experts[expert].name, found, experts.front().name, expected);
    }
    for (size_t i = 0; i < stacked.size(); ++i) {
      const at::Tensor place = stacked[i].second.select(0, static_cast<int64_t>(expert));
      place.copy_(tensors.buffers[i].second);
    }
  }
  for (const auto& [name, tensor] : stacked) release_pages(tensor);
  return make_node(kind, std::move(stacked), true);
}

ScriptNode float_linear_node(const at::Tensor& weight, const at::Tensor& bias) {
  std::vector<std::pair<std::string, at::Tensor>> buffers = {{"weight", weight}};
  if (bias.defined()) buffers.emplace_back("bias", bias);
  return make_node(kFloatKind, std::move(buffers), false);
}

}  // namespace salient::models
