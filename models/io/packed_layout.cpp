#include "models/io/packed_layout.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>
#include <vector>

#include "common/error.h"
#include "quant/awq_gemm.h"
#include "quant/awq_gemv.h"
#include "quant/awq_gemv_fast.h"
#include "quant/awq_marlin.h"
#include "quant/pack_quantized.h"

namespace salient::models {
namespace {

using Tensors = std::map<std::string, TensorInfo>;

const TensorInfo* find(const Tensors& tensors, const std::string& name) {
  const auto it = tensors.find(name);
  return it == tensors.end() ? nullptr : &it->second;
}

// 2-D of this dtype with no dimension of 0; a missing tensor is not.
bool is_matrix(const TensorInfo* tensor, at::ScalarType dtype) {
  return tensor != nullptr && tensor->dtype == dtype && tensor->shape.size() == 2 && tensor->shape[0] > 0 && tensor->shape[1] > 0;
}

bool is_scale(const TensorInfo* tensor) {
  return tensor != nullptr && tensor->shape.size() == 2 && tensor->shape[0] > 0 && tensor->shape[1] > 0 &&
         c10::isFloatingType(tensor->dtype);
}

// The bits per code when `codes` codes fill `words` words of 32 bits exactly, 0 when there is no such number.
int bits_of(int64_t words, int64_t codes) {
  if (codes <= 0 || words > codes || words * 32 % codes != 0) return 0;
  const int64_t bits = words * 32 / codes;
  return bits >= 2 && bits <= 8 ? static_cast<int>(bits) : 0;
}

// Smaller groups do not exist; the bound also keeps a tiny GEMV layer (K = 32) from looking like GEMM with one channel a group.
constexpr int64_t kSmallestGroup = 8;

bool set_groups(PackedLayout& linear, int64_t groups) {
  if (groups <= 0 || linear.in_features % groups != 0 || linear.in_features / groups < kSmallestGroup) return false;
  linear.groups = groups;
  linear.group_size = linear.in_features / groups;
  return true;
}

// The padded width of zero points that the GEMV kernels want tells the group size.
void set_padded_groups(PackedLayout& linear, int64_t zeros_width) {
  const int64_t base = (linear.in_features + 1023) / 1024;
  for (const auto& [multiple, group_size] : {std::pair<int64_t, int64_t>{1, 128}, {2, 64}, {4, 32}}) {
    if (zeros_width == multiple * base && linear.in_features % group_size == 0) set_groups(linear, linear.in_features / group_size);
  }
}

// Of one linear; nullptr = not there.
struct Parts {
  const TensorInfo* weight = nullptr;
  const TensorInfo* zeros = nullptr;
  const TensorInfo* scales = nullptr;
};

bool read_gemm(PackedLayout& linear, const Parts& parts) {
  const auto& [weight, zeros, scales] = parts;
  if (!is_matrix(weight, at::kInt) || !is_matrix(zeros, at::kInt) || !is_scale(scales)) return false;
  linear.in_features = weight->shape[0];
  linear.out_features = scales->shape[1];
  linear.bits = bits_of(weight->shape[1], linear.out_features);
  linear.zero_point = true;
  return linear.bits > 0 && zeros->shape[1] == weight->shape[1] && zeros->shape[0] == scales->shape[0] &&
         set_groups(linear, scales->shape[0]);
}

bool read_gptq(PackedLayout& linear, const Parts& parts) {
  const auto& [weight, zeros, scales] = parts;
  if (!is_matrix(weight, at::kInt) || !is_matrix(zeros, at::kInt) || !is_scale(scales)) return false;
  linear.out_features = scales->shape[1];
  linear.bits = bits_of(zeros->shape[1], linear.out_features);
  linear.zero_point = true;
  if (linear.bits == 0 || weight->shape[1] != linear.out_features || weight->shape[0] * 32 % linear.bits != 0) return false;
  linear.in_features = weight->shape[0] * 32 / linear.bits;
  return zeros->shape[0] == scales->shape[0] && set_groups(linear, scales->shape[0]);
}

bool read_gemv(PackedLayout& linear, const Parts& parts) {
  const auto& [weight, zeros, scales] = parts;
  if (!is_matrix(weight, at::kInt) || !is_matrix(zeros, at::kInt) || !is_scale(scales)) return false;
  linear.bits = 4;
  linear.out_features = weight->shape[0];
  linear.in_features = weight->shape[1] * 8;
  linear.zero_point = true;
  if (zeros->shape[0] != linear.out_features || scales->shape[0] != linear.out_features || scales->shape[1] != zeros->shape[1] * 8)
    return false;
  set_padded_groups(linear, zeros->shape[1]);
  return true;
}

bool read_gemv_fast(PackedLayout& linear, const Parts& parts) {
  const auto& [weight, zeros, scales] = parts;
  if (!is_matrix(weight, at::kShort) || !is_scale(zeros) || !is_scale(scales) || zeros->shape != scales->shape) return false;
  linear.bits = 4;
  linear.out_features = weight->shape[0] * 4;
  linear.in_features = weight->shape[1];
  linear.zero_point = true;
  if (scales->shape[1] != linear.out_features || scales->shape[0] % 8 != 0) return false;
  set_padded_groups(linear, scales->shape[0] / 8);
  return true;
}

bool read_marlin(PackedLayout& linear, const Parts& parts) {
  const auto& [weight, zeros, scales] = parts;
  if (!is_matrix(weight, at::kInt) || zeros != nullptr || !is_scale(scales)) return false;
  linear.bits = 4;
  linear.out_features = scales->shape[1];
  linear.in_features = weight->shape[0] * 16;
  linear.zero_point = false;
  return weight->shape[1] == 2 * linear.out_features && set_groups(linear, scales->shape[0]);
}

bool read_compressed(PackedLayout& linear, const Parts& parts) {
  const auto& [weight, zeros, scales] = parts;
  if (!is_matrix(weight, at::kInt) || !is_scale(scales) || scales->shape[0] != weight->shape[0]) return false;
  linear.out_features = weight->shape[0];
  linear.groups = scales->shape[1];
  linear.words_per_row = weight->shape[1];
  linear.zero_point = zeros != nullptr;
  if (!linear.zero_point) return true;
  if (!is_matrix(zeros, at::kInt) || zeros->shape[1] != linear.groups) return false;
  std::vector<int> fitting;  // several for few output channels
  for (int bits = 2; bits <= 8; ++bits) {
    PackedLayout candidate = linear;
    if (zeros->shape[0] == quant::packed_words(linear.out_features, bits)) resolve_bits(candidate, bits);
    if (candidate.bits != 0) fitting.push_back(bits);
  }
  linear.zero_words = zeros->shape[0];
  if (fitting.size() == 1) resolve_bits(linear, fitting.front());
  return true;
}

quant::QuantizedWeight unpack_gemm(const PackedLayout& linear, const PackedTensors& tensors) {
  if (linear.bits != 4) fail(ErrorKind::kUnsupported, "{} bits in AutoAWQ's GEMM layout cannot be read, only 4", linear.bits);
  return quant::unpack_awq_gemm(tensors.weight, tensors.zeros, tensors.scales);
}

quant::QuantizedWeight unpack_gemv(const PackedLayout& linear, const PackedTensors& tensors) {
  return quant::unpack_awq_gemv(tensors.weight, tensors.zeros, tensors.scales, linear.group_size);
}

quant::QuantizedWeight unpack_gemv_fast(const PackedLayout& linear, const PackedTensors& tensors) {
  return quant::unpack_awq_gemv_fast(tensors.weight, tensors.scales, tensors.zeros, linear.group_size);
}

quant::QuantizedWeight unpack_marlin(const PackedLayout&, const PackedTensors& tensors) {
  return quant::unpack_awq_marlin(tensors.weight, tensors.scales);
}

// Of weights that are named qweight.
struct LayoutRow {
  std::string_view format;
  bool (*read)(PackedLayout& linear, const Parts& parts);                                      // false: another one
  quant::QuantizedWeight (*unpack)(const PackedLayout& linear, const PackedTensors& tensors);  // nullptr: cannot be read
};
// In the order in which they are tried. GEMV before GPTQ: a layer of GEMV can look like GPTQ with groups of 8, which nobody makes.
constexpr std::array<LayoutRow, 5> kLayouts = {{
    {"awq-gemm", read_gemm, unpack_gemm},
    {"awq-gemv", read_gemv, unpack_gemv},
    {"gptq", read_gptq, nullptr},
    {"awq-gemv-fast", read_gemv_fast, unpack_gemv_fast},
    {"awq-marlin", read_marlin, unpack_marlin},
}};

std::string shape_list(const std::string& prefix, const Tensors& tensors) {
  std::string text;
  for (auto it = tensors.lower_bound(prefix); it != tensors.end() && it->first.starts_with(prefix); ++it) {
    text += fmt::format("{}{} {} [{}]", text.empty() ? "" : ", ", it->first.substr(prefix.size()),
                        safetensors_dtype_name(it->second.dtype), fmt::join(it->second.shape, ", "));
  }
  return text;
}

}  // namespace

std::optional<PackedLayout> read_packed_layout(const std::string& tensor_name, const Tensors& tensors) {
  const bool compressed = tensor_name.ends_with(".weight_packed");
  if (!compressed && !tensor_name.ends_with(".qweight")) return std::nullopt;
  const std::string prefix = tensor_name.substr(0, tensor_name.rfind('.') + 1);
  const bool reordered = find(tensors, prefix + "g_idx") != nullptr;
  Parts parts{find(tensors, tensor_name), find(tensors, prefix + (compressed ? "weight_zero_point" : "qzeros")),
              find(tensors, prefix + (compressed ? "weight_scale" : "scales"))};
  if (!compressed && parts.zeros == nullptr) parts.zeros = find(tensors, prefix + "scaled_zeros");  // of llm-awq

  PackedLayout linear;
  linear.name = prefix.substr(0, prefix.size() - 1);
  linear.shapes = shape_list(prefix, tensors);
  const auto attempt = [&](std::string_view format, auto read) {
    PackedLayout candidate = linear;
    candidate.format = format;
    if (!read(candidate, parts)) return false;
    linear = std::move(candidate);
    return true;
  };
  const bool known = compressed ? attempt("compressed-tensors", read_compressed)
                                : std::any_of(kLayouts.begin(), kLayouts.end(), [&](const LayoutRow& row) {
                                    return (!reordered || row.format == "gptq") && attempt(row.format, row.read);
                                  });
  if (!known) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: the shapes fit no known layout of packed weights: {}", linear.name, linear.shapes))
        .with_code("SALIENT_DETECTION_FAILED")
        .with_hint(
            "known are AutoAWQ (gemm, gemv, gemv_fast, marlin), GPTQ and compressed-tensors pack-quantized; look whether the "
            "checkpoint is complete");
  }
  return linear;
}

quant::QuantizedWeight unpack_codes(const PackedLayout& linear, const PackedTensors& tensors) {
  return with_context(linear.name, [&] {
    const auto row =
        std::find_if(kLayouts.begin(), kLayouts.end(), [&](const LayoutRow& one) { return one.format == linear.format; });
    if (row == kLayouts.end() || row->unpack == nullptr)
      fail(ErrorKind::kUnsupported, "weights in the layout {} cannot be read ({})", linear.format, linear.shapes);
    if (linear.group_size == 0) {
      fail(ErrorKind::kUnsupported, "the width of its scales stands for no group size of {}: {}", linear.format, linear.shapes);
    }
    return row->unpack(linear, tensors);
  });
}

void resolve_bits(PackedLayout& linear, int bits) {
  if (linear.bits != 0 || bits <= 0 || linear.words_per_row <= 0 || linear.words_per_row * 32 % bits != 0) return;
  const int64_t in_features = linear.words_per_row * 32 / bits;
  if (linear.groups <= 0 || in_features % linear.groups != 0) return;
  linear.bits = bits;
  linear.in_features = in_features;
  linear.group_size = in_features / linear.groups;
}

std::optional<int> choose_bits(int64_t words, int64_t in_features, int64_t zero_words, int64_t out_features,
                               const std::set<int>& claimed) {
  const std::vector<int> bits = quant::possible_bits(words, in_features, zero_words, out_features);
  if (bits.size() == 1) return bits.front();
  std::vector<int> agreed;
  std::copy_if(bits.begin(), bits.end(), std::back_inserter(agreed), [&](int one) { return claimed.contains(one); });
  if (agreed.size() == 1) return agreed.front();
  // Codes of the older order that could be 8 bits as well: nobody but the claim can say otherwise.
  const bool only_one_dense = bits.size() == 2 && bits.front() == 8 && quant::packed_words(in_features, bits.back()) != words;
  return only_one_dense ? std::optional<int>(bits.front()) : std::nullopt;
}

void resolve_shape(PackedLayout& linear, int64_t in_features, const std::set<int>& claimed) {
  if (linear.bits != 0 || linear.words_per_row <= 0 || linear.groups <= 0 || in_features <= 0 || in_features % linear.groups != 0)
    return;
  const auto bits = choose_bits(linear.words_per_row, in_features, linear.zero_words, linear.out_features, claimed);
  if (!bits) return;
  linear.bits = *bits;
  linear.in_features = in_features;
  linear.group_size = in_features / linear.groups;
}

}  // namespace salient::models
