#include "models/decoder/block_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include <vector>

#include "common/error.h"
#include "models/io/packed_codes.h"

namespace salient::models {
namespace {

// A linear in codes; GPTQ's order, in which the channels of a group do not lie together, in float. `integers`: for activations in 8
// bits.
Linear load_packed(const Checkpoint& checkpoint, const LinearSpec& spec, const at::Tensor& bias, at::ScalarType dtype,
                   bool integers) {
  const at::Tensor kept_bias = bias.defined() ? bias.to(dtype) : bias;
  const auto fits = [&](int64_t group_size) { return integers && group_size <= quant::kMaxIntegerGroup; };
  if (const auto gemm = view_awq_gemm(checkpoint, spec.name, spec.out_features, spec.in_features)) {
    const auto repacked = [&]() -> Linear {
      if (fits(spec.in_features / gemm->scales.size(0))) return IntegerLinear{quant::interleave(*gemm), kept_bias};
      return make_quantized_linear(*gemm, kept_bias, dtype);
    };
    Linear linear = with_context(spec.name, repacked);
    release_awq_gemm(checkpoint, spec.name);
    return linear;
  }
  const StoredCodes stored = load_codes(checkpoint, spec.name, spec.out_features, spec.in_features);
  const auto& [codes, zeros, scales] = stored.weight;
  if (stored.channel_groups.defined()) {
    const at::Tensor zero = zeros.to(at::kFloat).index_select(1, stored.channel_groups);
    return FloatLinear{((codes.to(at::kFloat) - zero) * scales.index_select(1, stored.channel_groups)).to(dtype), bias,
                       /*from_codes=*/true};
  }
  const int64_t group_size = stored.layout.group_size;
  return with_context(spec.name, [&]() -> Linear {
    if (fits(group_size)) return IntegerLinear{quant::interleave(codes, zeros, scales, group_size), kept_bias};
    return make_quantized_linear(codes, zeros, scales, kept_bias, group_size, dtype);
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

uint64_t mlp_bytes(const MlpWeights& mlp) {
  return memory_bytes(mlp.gate) + memory_bytes(mlp.up) + memory_bytes(mlp.gate_up) + memory_bytes(mlp.down) +
         memory_bytes(mlp.activation_scales);
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

Linear load_linear(const Checkpoint& checkpoint, const LinearSpec& spec, at::ScalarType dtype, int activation_bits) {
  const at::NoGradGuard no_grad;
  const bool packed = has_codes(checkpoint, spec.name);
  if (!packed) refuse_scaled(checkpoint, spec);
  if (spec.fused && checkpoint.contains(spec.fused->tensor)) return load_fused(checkpoint, spec, dtype);
  at::Tensor bias;
  if (spec.bias) bias = checkpoint.load(spec.name + ".bias", {spec.out_features}, dtype);
  if (packed) {
    Linear linear = load_packed(checkpoint, spec, bias, dtype, activation_bits == 8);
    set_activation_bits(linear, activation_bits);
    return linear;
  }
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
                        at::Device device, LoadExperts experts, int activation_bits) {
  const at::NoGradGuard no_grad;
  const BlockLayout layout = block_layout(config, block);
  BlockWeights weights;
  for (const LinearSpec& spec : layout.linears) {
    // Routers in float32 whatever the rest is: close scores must not change places.
    const at::ScalarType stored = spec.id.slot == LinearSlot::kRouter ? at::kFloat : dtype;
    weights.at(spec.id) = place(load_linear(checkpoint, spec, stored, activation_bits), device, stored);
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
    weights.experts.push_back(load_expert(checkpoint, config, block, expert, dtype, device, activation_bits));
  }
  return weights;
}

MlpWeights load_expert(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, int64_t expert,
                       at::ScalarType dtype, at::Device device, int activation_bits) {
  const at::NoGradGuard no_grad;
  MlpWeights weights;
  for (const LinearSpec& spec : expert_layout(config, block, expert)) {
    weights.at(spec.id.slot) = place(load_linear(checkpoint, spec, dtype, activation_bits), device, dtype);
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
  for (const Norm& norm : weights.norms) total += memory_bytes(norm.weight) + memory_bytes(norm.bias);
  for (const at::Tensor& parameter : weights.parameters) total += memory_bytes(parameter);
  for (const MlpWeights& expert : weights.experts) total += mlp_bytes(expert);
  return total;
}

}  // namespace salient::models
