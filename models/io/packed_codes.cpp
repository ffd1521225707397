#include "models/io/packed_codes.h"

#include <c10/core/ScalarType.h>

#include <map>
#include <set>
#include <vector>

#include "common/error.h"
#include "models/io/compressed_config.h"
#include "quant/pack_quantized.h"

namespace salient::models {
namespace {

constexpr const char* kAwqWeight = ".qweight";
constexpr const char* kAwqZeros = ".qzeros";
constexpr const char* kAwqScales = ".scales";
constexpr const char* kCompressedWeight = ".weight_packed";

std::map<std::string, TensorInfo> awq_tensors(const Checkpoint& checkpoint, const std::string& module) {
  std::map<std::string, TensorInfo> tensors;
  for (const char* part : {kAwqWeight, kAwqZeros, ".scaled_zeros", kAwqScales, ".g_idx"}) {
    if (checkpoint.contains(module + part)) tensors.emplace(module + part, checkpoint.info(module + part));
  }
  return tensors;
}

PackedLayout awq_layout(const Checkpoint& checkpoint, const std::string& module, const std::map<std::string, TensorInfo>& tensors,
                        int64_t out, int64_t in) {
  const std::string folder = checkpoint.folder().string();
  PackedLayout layout = *with_context(folder, [&] { return read_packed_layout(module + kAwqWeight, tensors); });
  if (layout.out_features != out || layout.in_features != in) {
    fail(ErrorKind::kCorruption, "{}: '{}' is [{}, {}] in the layout {} ({}), expected [{}, {}] from config.json", folder, module,
         layout.out_features, layout.in_features, layout.format, layout.shapes, out, in);
  }
  return layout;
}

StoredCodes load_awq(const Checkpoint& checkpoint, const std::string& module, int64_t out, int64_t in) {
  const std::map<std::string, TensorInfo> tensors = awq_tensors(checkpoint, module);
  StoredCodes stored{awq_layout(checkpoint, module, tensors, out, in), {}, {}};
  const std::string zeros = module + (tensors.contains(module + kAwqZeros) ? kAwqZeros : ".scaled_zeros");
  const auto load = [&](const std::string& name) {
    const TensorInfo& info = tensors.at(name);
    return checkpoint.load(name, info.shape, c10::isFloatingType(info.dtype) ? at::kFloat : info.dtype);
  };
  PackedTensors packed{load(module + kAwqWeight), {}, load(module + kAwqScales)};
  if (tensors.contains(zeros)) packed.zeros = load(zeros);
  stored.weight = with_context(checkpoint.folder().string(), [&] { return unpack_codes(stored.layout, packed); });
  return stored;
}

// The bits of a linear in compressed-tensors. Its shapes say them; where they leave a choice, the configuration does.
int bits_of(const Checkpoint& checkpoint, const PackedLayout& layout) {
  std::set<int> claimed;
  if (const auto it = checkpoint.config().find("quantization_config"); it != checkpoint.config().end() && it->is_object()) {
    claimed = read_compressed_config(*it, (checkpoint.folder() / "config.json").string() + ": quantization_config").bits;
  }
  const auto bits = choose_bits(layout.words_per_row, layout.in_features, layout.zero_words, layout.out_features, claimed);
  if (!bits) {
    fail(ErrorKind::kCorruption,
         "{}: '{}.weight_packed' has rows of {} words{}: no number of bits, or more than one, makes that of {} input and {} output "
         "features",
         checkpoint.folder().string(), layout.name, layout.words_per_row,
         layout.zero_words == 0 ? "" : fmt::format(" and {} rows of zero points", layout.zero_words), layout.in_features,
         layout.out_features);
  }
  return *bits;
}

// What weight_shape says, where it is there, must be what config.json does.
void check_stored_shape(const Checkpoint& checkpoint, const std::string& module, int64_t out, int64_t in) {
  const std::string name = module + ".weight_shape";
  if (!checkpoint.contains(name)) return;
  const at::Tensor stored = checkpoint.load(name, {2}, at::kLong);
  const auto* size = stored.const_data_ptr<int64_t>();
  if (size[0] == out && size[1] == in) return;
  fail(ErrorKind::kCorruption, "{}: '{}' says [{}, {}], expected [{}, {}] from config.json", checkpoint.folder().string(), name,
       size[0], size[1], out, in);
}

StoredCodes load_compressed(const Checkpoint& checkpoint, const std::string& module, int64_t out, int64_t in) {
  const std::string where = checkpoint.folder().string();
  const TensorInfo& packed = checkpoint.info(module + kCompressedWeight);
  const std::vector<int64_t> scale_shape = checkpoint.info(module + ".weight_scale").shape;
  if (packed.dtype != at::kInt) {
    fail(ErrorKind::kUnsupported, "{}: '{}.weight_packed' is {}, only integer codes in words of 32 bits can be read", where, module,
         safetensors_dtype_name(packed.dtype));
  }
  const int64_t groups = scale_shape.size() == 2 ? scale_shape[1] : 0;
  if (packed.shape.size() != 2 || groups < 1 || in % groups != 0) {
    fail(ErrorKind::kCorruption,
         "{}: '{}.weight_scale' is [{}], expected [{}, groups] with groups that divide the {} input features", where, module,
         fmt::join(scale_shape, ", "), out, in);
  }
  check_stored_shape(checkpoint, module, out, in);
  StoredCodes stored;
  PackedLayout& layout = stored.layout;
  layout.name = module;
  layout.format = "compressed-tensors";
  layout.out_features = out;
  layout.in_features = in;
  layout.groups = groups;
  layout.group_size = in / groups;
  layout.words_per_row = packed.shape[1];
  quant::PackQuantized tensors;
  if (const std::string zeros = module + ".weight_zero_point"; checkpoint.contains(zeros)) {
    const std::vector<int64_t>& shape = checkpoint.info(zeros).shape;
    layout.zero_words = shape.empty() ? 0 : shape.front();
    layout.zero_point = true;
    tensors.zero_point = checkpoint.load(zeros, {layout.zero_words, groups}, at::kInt);
  }
  layout.bits = bits_of(checkpoint, layout);
  tensors.packed = checkpoint.load(module + kCompressedWeight, {out, layout.words_per_row}, at::kInt);
  tensors.scale = checkpoint.load(module + ".weight_scale", {out, groups}, at::kFloat);
  stored.weight = with_context(module, [&] { return quant::unpack_quantized(tensors, in, layout.bits); });
  if (const std::string order = module + ".weight_g_idx"; checkpoint.contains(order)) {
    stored.channel_groups = checkpoint.load(order, {in}, at::kLong);
    if (stored.channel_groups.lt(0).any().item<bool>() || stored.channel_groups.ge(groups).any().item<bool>()) {
      fail(ErrorKind::kCorruption, "{}: '{}' names groups beyond the {} that there are", where, order, groups);
    }
  }
  return stored;
}

}  // namespace

bool has_codes(const Checkpoint& checkpoint, const std::string& module) {
  return checkpoint.contains(module + kAwqWeight) || checkpoint.contains(module + kCompressedWeight);
}

StoredCodes load_codes(const Checkpoint& checkpoint, const std::string& module, int64_t out_features, int64_t in_features) {
  const bool compressed = checkpoint.contains(module + kCompressedWeight);
  return compressed ? load_compressed(checkpoint, module, out_features, in_features)
                    : load_awq(checkpoint, module, out_features, in_features);
}

std::optional<quant::PackedGemm> view_awq_gemm(const Checkpoint& checkpoint, const std::string& module, int64_t out_features,
                                               int64_t in_features) {
  if (!checkpoint.contains(module + kAwqWeight)) return std::nullopt;
  const std::map<std::string, TensorInfo> tensors = awq_tensors(checkpoint, module);
  const PackedLayout layout = awq_layout(checkpoint, module, tensors, out_features, in_features);
  if (layout.format != "awq-gemm" || layout.bits != 4) return std::nullopt;
  const TensorInfo& zeros = tensors.at(module + kAwqZeros);
  const TensorInfo& scales = tensors.at(module + kAwqScales);
  return quant::PackedGemm{checkpoint.view(module + kAwqWeight), checkpoint.load(module + kAwqZeros, zeros.shape, zeros.dtype),
                           checkpoint.load(module + kAwqScales, scales.shape, scales.dtype)};
}

void release_awq_gemm(const Checkpoint& checkpoint, const std::string& module) { checkpoint.release(module + kAwqWeight); }

}  // namespace salient::models
