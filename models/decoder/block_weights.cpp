#include "models/decoder/block_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include <set>
#include <vector>

#include "common/error.h"
#include "models/io/compressed_config.h"
#include "models/io/packed_layout.h"
#include "quant/awq_gemm.h"
#include "quant/pack_quantized.h"

namespace salient::models {
namespace {

constexpr int64_t kCodesPerWord = 8;  // 4-bit codes of an int32

Linear load_packed(const Checkpoint& checkpoint, const LinearSpec& spec, const at::Tensor& bias, at::ScalarType dtype) {
  const std::string& name = spec.name;
  const int64_t out = spec.out_features;
  const int64_t in = spec.in_features;
  const std::vector<int64_t> scale_shape = checkpoint.info(name + ".scales").shape;
  const int64_t groups = scale_shape.size() == 2 ? scale_shape[0] : 0;
  if (checkpoint.contains(name + ".g_idx")) {
    fail(ErrorKind::kUnsupported, "{}: '{}' has a .g_idx tensor: GPTQ weights are not supported, only AutoAWQ's GEMM format",
         checkpoint.folder().string(), name);
  }
  if (groups < 1 || in % groups != 0) {
    fail(ErrorKind::kCorruption, "{}: '{}.scales' has {} groups, which do not divide its {} input features",
         checkpoint.folder().string(), name, groups, in);
  }
  if (out % kCodesPerWord != 0) {
    fail(ErrorKind::kCorruption, "{}: '{}' has {} output features, expected a multiple of {} for packed weights",
         checkpoint.folder().string(), name, out, kCodesPerWord);
  }
  const at::Tensor qweight = checkpoint.load(name + ".qweight", {in, out / kCodesPerWord}, at::kInt);
  const at::Tensor qzeros = checkpoint.load(name + ".qzeros", {groups, out / kCodesPerWord}, at::kInt);
  const at::Tensor scales = checkpoint.load(name + ".scales", {groups, out}, at::kFloat);
  const auto unpacked = quant::unpack_awq_gemm(qweight, qzeros, scales);
  return with_context(
      name, [&] { return make_packed_linear(unpacked.codes, unpacked.zeros, unpacked.scales, bias, in / groups, dtype); });
}

// The bits of a linear in compressed-tensors. Its shapes say them; where they leave a choice, the configuration does.
int bits_of(const Checkpoint& checkpoint, const LinearSpec& spec, int64_t words, int64_t zero_words) {
  std::set<int> claimed;
  if (const auto it = checkpoint.config().find("quantization_config"); it != checkpoint.config().end() && it->is_object()) {
    claimed = read_compressed_config(*it, (checkpoint.folder() / "config.json").string() + ": quantization_config").bits;
  }
  const auto bits = choose_bits(words, spec.in_features, zero_words, spec.out_features, claimed);
  if (!bits) {
    fail(ErrorKind::kCorruption,
         "{}: '{}.weight_packed' has rows of {} words{}: no number of bits, or more than one, makes that of {} input and {} output "
         "features",
         checkpoint.folder().string(), spec.name, words,
         zero_words == 0 ? "" : fmt::format(" and {} rows of zero points", zero_words), spec.in_features, spec.out_features);
  }
  return *bits;
}

Linear load_compressed(const Checkpoint& checkpoint, const LinearSpec& spec, const at::Tensor& bias, at::ScalarType dtype) {
  const std::string& name = spec.name;
  const std::string where = checkpoint.folder().string();
  const TensorInfo& packed = checkpoint.info(name + ".weight_packed");
  const std::vector<int64_t> scale_shape = checkpoint.info(name + ".weight_scale").shape;
  if (packed.dtype != at::kInt) {
    fail(ErrorKind::kUnsupported, "{}: '{}.weight_packed' is {}, only integer codes in words of 32 bits can be read", where, name,
         safetensors_dtype_name(packed.dtype));
  }
  const int64_t groups = scale_shape.size() == 2 ? scale_shape[1] : 0;
  if (packed.shape.size() != 2 || groups < 1 || spec.in_features % groups != 0) {
    fail(ErrorKind::kCorruption,
         "{}: '{}.weight_scale' is [{}], expected [{}, groups] with groups that divide the {} input features", where, name,
         fmt::join(scale_shape, ", "), spec.out_features, spec.in_features);
  }
  if (const std::string shape = name + ".weight_shape"; checkpoint.contains(shape)) {
    const at::Tensor stored = checkpoint.load(shape, {2}, at::kLong);
    const auto* size = stored.const_data_ptr<int64_t>();
    if (size[0] != spec.out_features || size[1] != spec.in_features) {
      fail(ErrorKind::kCorruption, "{}: '{}' says [{}, {}], expected [{}, {}] from config.json", where, shape, size[0], size[1],
           spec.out_features, spec.in_features);
    }
  }
  quant::PackQuantized tensors;
  int64_t zero_words = 0;
  if (const std::string zeros = name + ".weight_zero_point"; checkpoint.contains(zeros)) {
    const std::vector<int64_t>& shape = checkpoint.info(zeros).shape;
    zero_words = shape.empty() ? 0 : shape.front();
    tensors.zero_point = checkpoint.load(zeros, {zero_words, groups}, at::kInt);
  }
  const int bits = bits_of(checkpoint, spec, packed.shape[1], zero_words);
  tensors.packed = checkpoint.load(name + ".weight_packed", {spec.out_features, packed.shape[1]}, at::kInt);
  tensors.scale = checkpoint.load(name + ".weight_scale", {spec.out_features, groups}, at::kFloat);
  return with_context(name, [&]() -> Linear {
    const quant::QuantizedWeight weight = quant::unpack_quantized(tensors, spec.in_features, bits);
    const std::string order = name + ".weight_g_idx";
    if (!checkpoint.contains(order)) {
      return make_quantized_linear(weight.codes, weight.zeros, weight.scales, bias, spec.in_features / groups, dtype);
    }
    // GPTQ's "group" order: the channels of a group do not lie together.
    const at::Tensor group = checkpoint.load(order, {spec.in_features}, at::kLong);
    if (group.lt(0).any().item<bool>() || group.ge(groups).any().item<bool>()) {
      fail(ErrorKind::kCorruption, "{}: '{}' names groups beyond the {} that there are", where, order, groups);
    }
    const at::Tensor zeros = weight.zeros.to(at::kFloat).index_select(1, group);
    return FloatLinear{((weight.codes.to(at::kFloat) - zeros) * weight.scales.index_select(1, group)).to(dtype), bias};
  });
}

// One expert's rows of a tensor that holds all experts.
Linear load_fused(const Checkpoint& checkpoint, const LinearSpec& spec, at::ScalarType dtype) {
  const FusedPart& part = *spec.fused;
  const std::vector<int64_t> shape = part.transposed ? std::vector<int64_t>{part.experts, spec.in_features, part.rows}
                                                     : std::vector<int64_t>{part.experts, part.rows, spec.in_features};
  const int64_t end = part.row_begin + (spec.out_features - 1) * part.row_step + 1;
  const auto rows_of = [&](const at::Tensor& matrix) { return matrix.slice(0, part.row_begin, end, part.row_step); };
  at::Tensor weight = checkpoint.load_part(part.tensor, shape, part.expert, dtype);
  weight = rows_of(part.transposed ? weight.t() : weight).contiguous();
  at::Tensor bias;
  if (!part.bias.empty())
    bias = rows_of(checkpoint.load_part(part.bias, {part.experts, part.rows}, part.expert, dtype)).contiguous();
  return FloatLinear{weight, bias};
}

// Weights in a few bits with scales of their own: read as they are they would be other numbers.
void refuse_scaled(const Checkpoint& checkpoint, const LinearSpec& spec) {
  const auto refuse = [&](const std::string& tensor, std::string_view format) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: tensor '{}': weights in {} cannot be read, only float32, bfloat16 and float16",
                            checkpoint.folder().string(), tensor, format))
        .with_hint("dequantize the model first, or use a copy that is published in bfloat16");
  };
  if (spec.fused) {
    for (const char* part : {"_blocks", "_scales"}) {
      if (const std::string tensor = spec.fused->tensor + part; checkpoint.contains(tensor)) refuse(tensor, "MXFP4");
    }
  }
  for (const char* part : {".weight_scale_inv", ".weight_scale"}) {
    if (const std::string tensor = spec.name + part; checkpoint.contains(tensor)) refuse(tensor, "FP8 or another scaled format");
  }
}

at::Tensor moved(const at::Tensor& tensor, at::Device device) { return tensor.defined() ? tensor.to(device) : tensor; }

uint64_t bytes_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.nbytes() : 0; }

uint64_t mlp_bytes(const MlpWeights& mlp) {
  return memory_bytes(mlp.gate) + memory_bytes(mlp.up) + memory_bytes(mlp.gate_up) + memory_bytes(mlp.down) +
         bytes_of(mlp.activation_scales);
}

}  // namespace

const Linear& MlpWeights::at(LinearSlot slot) const {
  switch (slot) {
    case LinearSlot::kGateProj: return gate;
    case LinearSlot::kUpProj: return up;
    case LinearSlot::kGateUpProj: return gate_up;
    case LinearSlot::kDownProj: return down;
    default: fail(ErrorKind::kInternal, "linear slot {} is not of an MLP", static_cast<int>(slot));
  }
}

Linear& MlpWeights::at(LinearSlot slot) { return const_cast<Linear&>(std::as_const(*this).at(slot)); }

const Linear& BlockWeights::at(LinearId id) const {
  if (id.mlp >= 0) return experts.at(static_cast<size_t>(id.mlp)).at(id.slot);
  if (id.mlp == kSharedExpert) return shared_expert.at(id.slot);
  return id.slot >= LinearSlot::kGateProj ? mlp.at(id.slot) : linears[static_cast<size_t>(id.slot)];
}

const Linear& BlockWeights::at(LinearSlot slot) const {
  if (slot >= LinearSlot::kGateProj) fail(ErrorKind::kInternal, "linear slot {} is of an MLP", static_cast<int>(slot));
  return linears[static_cast<size_t>(slot)];
}

Linear& BlockWeights::at(LinearId id) { return const_cast<Linear&>(std::as_const(*this).at(id)); }

bool has_weight(const Linear& linear) {
  const auto* plain = std::get_if<FloatLinear>(&linear);
  return plain == nullptr || plain->weight.defined();
}

Linear load_linear(const Checkpoint& checkpoint, const LinearSpec& spec, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const bool compressed = checkpoint.contains(spec.name + ".weight_packed");
  if (!compressed) refuse_scaled(checkpoint, spec);
  if (spec.fused && checkpoint.contains(spec.fused->tensor)) return load_fused(checkpoint, spec, dtype);
  at::Tensor bias;
  if (spec.bias) bias = checkpoint.load(spec.name + ".bias", {spec.out_features}, dtype);
  if (compressed) return load_compressed(checkpoint, spec, bias, dtype);
  if (checkpoint.contains(spec.name + ".qweight")) return load_packed(checkpoint, spec, bias, dtype);
  return FloatLinear{checkpoint.load(spec.name + ".weight", {spec.out_features, spec.in_features}, dtype), bias};
}

Norm load_norm(const Checkpoint& checkpoint, const NormSpec& spec, at::ScalarType dtype, at::Device device) {
  Norm norm;
  norm.present = true;
  norm.kind = spec.kind;
  norm.eps = spec.eps;
  if (!spec.affine) return norm;
  const auto load = [&](const char* part) {
    if (spec.names.size() == 1) {
      const std::vector<int64_t> shape =
          spec.heads > 0 ? std::vector<int64_t>{spec.heads, spec.features} : std::vector<int64_t>{spec.features};
      return checkpoint.load(spec.names.front() + part, shape, dtype, device);
    }
    std::vector<at::Tensor> heads;
    for (const std::string& name : spec.names) heads.push_back(checkpoint.load(name + part, {spec.features}, dtype, device));
    return at::stack(heads);
  };
  norm.weight = load(".weight");
  if (spec.bias) norm.bias = load(".bias");
  return norm;
}

BlockWeights load_block(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, at::ScalarType dtype,
                        at::Device device, LoadExperts experts) {
  const at::NoGradGuard no_grad;
  const BlockLayout layout = block_layout(config, block);
  BlockWeights weights;
  for (const LinearSpec& spec : layout.linears) {
    // Routers in float32 whatever the rest is: close scores must not change places.
    const at::ScalarType stored = spec.id.slot == LinearSlot::kRouter ? at::kFloat : dtype;
    weights.at(spec.id) = to_device(load_linear(checkpoint, spec, stored), device);
  }
  for (const NormSpec& spec : layout.norms) weights.at(spec.slot) = load_norm(checkpoint, spec, dtype, device);
  for (const ParameterSpec& spec : layout.parameters) {
    if (spec.optional && !checkpoint.contains(spec.name)) continue;
    // In float32 whatever the rest is: small tensors that steer choices and decays.
    weights.at(spec.slot) = checkpoint.load(spec.name, spec.shape, at::kFloat, device);
  }
  if (const at::Tensor& scales = weights.at(ParameterSlot::kActivationScales); scales.defined())
    weights.mlp.activation_scales = scales.to(dtype);
  weights.mlp.xielu = {weights.at(ParameterSlot::kXieluAlphaP), weights.at(ParameterSlot::kXieluAlphaN),
                       weights.at(ParameterSlot::kXieluBeta), weights.at(ParameterSlot::kXieluEps)};
  for (int64_t expert = 0; expert < layout.experts && experts == LoadExperts::kYes; ++expert) {
    weights.experts.push_back(load_expert(checkpoint, config, block, expert, dtype, device));
  }
  return weights;
}

MlpWeights load_expert(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, int64_t expert,
                       at::ScalarType dtype, at::Device device) {
  const at::NoGradGuard no_grad;
  MlpWeights weights;
  for (const LinearSpec& spec : expert_layout(config, block, expert)) {
    weights.at(spec.id.slot) = to_device(load_linear(checkpoint, spec, dtype), device);
  }
  return weights;
}

MlpWeights to_device(MlpWeights weights, at::Device device) {
  for (Linear* linear : {&weights.gate, &weights.up, &weights.gate_up, &weights.down}) *linear = to_device(*linear, device);
  weights.activation_scales = moved(weights.activation_scales, device);
  for (at::Tensor* parameter : {&weights.xielu.alpha_p, &weights.xielu.alpha_n, &weights.xielu.beta, &weights.xielu.eps})
    *parameter = moved(*parameter, device);
  return weights;
}

BlockWeights to_device(BlockWeights weights, at::Device device) {
  for (Linear& linear : weights.linears) linear = to_device(linear, device);
  for (Norm& norm : weights.norms) {
    norm.weight = moved(norm.weight, device);
    norm.bias = moved(norm.bias, device);
  }
  for (at::Tensor& parameter : weights.parameters) parameter = moved(parameter, device);
  weights.mlp = to_device(std::move(weights.mlp), device);
  weights.shared_expert = to_device(std::move(weights.shared_expert), device);
  for (MlpWeights& expert : weights.experts) expert = to_device(std::move(expert), device);
  return weights;
}

uint64_t memory_bytes(const BlockWeights& weights) {
  uint64_t total = mlp_bytes(weights.mlp) + mlp_bytes(weights.shared_expert);
  for (const Linear& linear : weights.linears) total += memory_bytes(linear);
  for (const Norm& norm : weights.norms) total += bytes_of(norm.weight) + bytes_of(norm.bias);
  for (const at::Tensor& parameter : weights.parameters) total += bytes_of(parameter);
  for (const MlpWeights& expert : weights.experts) total += mlp_bytes(expert);
  return total;
}

}  // namespace salient::models
