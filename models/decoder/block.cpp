#include "models/decoder/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "common/error.h"
#include "quant/awq_gemm.h"

namespace salient::models {
namespace {

constexpr int64_t kCodesPerWord = 8;  // 4-bit codes of an int32

Linear load_packed(const Checkpoint& checkpoint, const std::string& name, std::array<int64_t, 2> shape, const at::Tensor& bias,
                   at::ScalarType dtype) {
  const auto [out, in] = shape;
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

Linear load_linear(const Checkpoint& checkpoint, const DecoderConfig& config, const std::string& name, LinearSlot slot,
                   at::ScalarType dtype) {
  const std::array<int64_t, 2> shape = linear_shape(config, slot);
  at::Tensor bias;
  if (linear_has_bias(config, slot)) bias = checkpoint.load(name + ".bias", {shape[0]}, dtype);
  if (checkpoint.contains(name + ".qweight")) return load_packed(checkpoint, name, shape, bias, dtype);
  return FloatLinear{checkpoint.load(name + ".weight", {shape[0], shape[1]}, dtype), bias};
}

// float32 [head_dim / 2]: radians a position, transformers' modeling_rope_utils.
at::Tensor inverse_frequencies(const DecoderConfig& config, at::Device device) {
  const RopeConfig& rope = config.rope;
  const auto dim = static_cast<double>(config.head_dim);
  const at::Tensor exponent = at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) / dim;
  const at::Tensor plain = at::reciprocal(at::pow(rope.theta, exponent));
  switch (rope.kind) {
    case RopeKind::kDefault: return plain.to(device);
    case RopeKind::kLinear: return (plain / rope.factor).to(device);
    case RopeKind::kLlama3: {
      // Long waves are slowed by `factor`, short ones kept, those between interpolated (Llama 3.1).
      const auto context = static_cast<double>(rope.original_max_position_embeddings);
      const at::Tensor wavelength = (2.0 * std::numbers::pi) * at::reciprocal(plain);
      const at::Tensor too_long = wavelength > context / rope.low_freq_factor;
      const at::Tensor short_enough = wavelength < context / rope.high_freq_factor;
      const at::Tensor scaled = at::where(too_long, plain / rope.factor, plain);
      const at::Tensor smooth =
          (context * at::reciprocal(wavelength) - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      const at::Tensor smoothed = (1.0 - smooth) * scaled / rope.factor + smooth * scaled;
      return at::where(short_enough.logical_or(too_long), scaled, smoothed).to(device);
    }
    default: fail(ErrorKind::kUnsupported, "rope_type '{}' is not supported", to_string(rope.kind));
  }
}

// x: [batch, heads, tokens, head_dim]; the two halves of head_dim are the parts of complex numbers.
at::Tensor rotate(const at::Tensor& x, const AttentionContext& context) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor turned = at::cat({-x.narrow(-1, half, half), x.narrow(-1, 0, half)}, -1);
  return x * context.cos + turned * context.sin;
}

at::Tensor activate(const std::string& hidden_act, const at::Tensor& x) {
  if (hidden_act == "silu" || hidden_act == "swish") return at::silu(x);
  return at::gelu(x, hidden_act == "gelu" ? "none" : "tanh");
}

// bool [tokens, past + tokens]: which keys a causal query sees; window 0 = all before it.
at::Tensor visible_keys(int64_t tokens, int64_t past_length, int64_t window, at::Device device) {
  const at::Tensor query = at::arange(past_length, past_length + tokens, at::TensorOptions(at::kLong).device(device)).unsqueeze(1);
  const at::Tensor key = at::arange(past_length + tokens, at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  at::Tensor visible = key <= query;
  if (window > 0) visible = visible.logical_and(key > query - window);
  return visible;
}

// false -> -inf, true -> 0
at::Tensor additive(const at::Tensor& visible, at::ScalarType dtype) {
  return at::zeros(visible.sizes(), visible.options().dtype(dtype))
      .masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
}

// Whether the last query's oldest keys lie outside the window.
bool window_matters(int64_t window, int64_t total) { return window > 0 && total > window; }

at::Tensor with_window(const at::Tensor& mask, int64_t window, int64_t tokens, int64_t past_length, at::ScalarType dtype,
                       at::Device device) {
  const at::Tensor visible = visible_keys(tokens, past_length, window, device).view({1, 1, tokens, past_length + tokens});
  if (!mask.defined()) return additive(visible, dtype);
  if (mask.scalar_type() == at::kBool) return mask.logical_and(visible);
  return mask.masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
}

// The mask of one block, and whether attention should be told "causal" instead.
struct BlockMask {
  at::Tensor mask;
  bool causal = false;
};
BlockMask select_mask(const AttentionContext& context, int64_t window, int64_t tokens, int64_t past_length, at::ScalarType dtype,
                      at::Device device) {
  if (window_matters(window, past_length + tokens)) {
    const auto it = context.window_masks.find(window);
    return {it != context.window_masks.end() ? it->second : with_window(context.mask, window, tokens, past_length, dtype, device)};
  }
  if (context.mask.defined()) return {context.mask};
  if (tokens == 1) return {};
  if (past_length == 0) return {{}, true};
  return {make_causal_mask(tokens, past_length, dtype, device)};
}

at::Tensor attend(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const BlockMask& mask) {
  const std::optional<at::Tensor> given = mask.mask.defined() ? std::optional(mask.mask) : std::nullopt;
  const int64_t group = query.size(1) / keys.size(1);
  if (query.size(2) == 1 && group > 1) {
    // One new token: the query heads of a key head become its queries, which avoids copying the cache for each of them.
    const at::Tensor grouped = query.reshape({query.size(0), keys.size(1), group, query.size(3)});
    return at::scaled_dot_product_attention(grouped, keys, values, given).reshape(query.sizes());
  }
  return at::scaled_dot_product_attention(query, keys, values, given, /*dropout_p=*/0.0, mask.causal, /*scale=*/std::nullopt,
                                          /*enable_gqa=*/group > 1);
}

}  // namespace

BlockWeights load_block(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, at::ScalarType dtype,
                        at::Device device) {
  const at::NoGradGuard no_grad;
  const Architecture& architecture = find_architecture(config.model_type);
  BlockWeights weights;
  for (size_t i = 0; i < kLinearSlots; ++i) {
    const auto slot = static_cast<LinearSlot>(i);
    weights.at(slot) = to_device(load_linear(checkpoint, config, linear_name(architecture, block, slot), slot, dtype), device);
  }
  for (size_t i = 0; i < kNormSlots; ++i) {
    const auto slot = static_cast<NormSlot>(i);
    const std::string name = norm_name(architecture, block, slot);
    if (name.empty()) continue;
    const bool of_heads = slot == NormSlot::kQuery || slot == NormSlot::kKey;
    weights.at(slot) = checkpoint.load(name, {of_heads ? config.head_dim : config.hidden_size}, dtype, device);
  }
  return weights;
}

AttentionContext make_attention_context(const DecoderConfig& config, const at::Tensor& position_ids, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const at::Tensor frequencies = inverse_frequencies(config, position_ids.device());
  const at::Tensor angles = position_ids.to(at::kFloat).unsqueeze(-1) * frequencies;
  const at::Tensor both = at::cat({angles, angles}, -1).unsqueeze(1);
  AttentionContext context;
  context.cos = both.cos().to(dtype);
  context.sin = both.sin().to(dtype);
  return context;
}

at::Tensor make_causal_mask(int64_t tokens, int64_t past_length, at::ScalarType dtype, at::Device device) {
  const at::NoGradGuard no_grad;
  return additive(visible_keys(tokens, past_length, 0, device), dtype).view({1, 1, tokens, past_length + tokens});
}

at::Tensor make_padding_mask(const at::Tensor& real, int64_t tokens, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t total = real.size(1);
  const int64_t past_length = total - tokens;
  const at::Tensor itself = at::eye(total, real.options().dtype(at::kBool)).narrow(0, past_length, tokens);
  const at::Tensor visible =
      visible_keys(tokens, past_length, 0, real.device()).unsqueeze(0).logical_and(real.unsqueeze(1)).logical_or(itself);
  return additive(visible.unsqueeze(1), dtype);
}

void add_window_masks(AttentionContext& context, const DecoderConfig& config, int64_t tokens, int64_t past_length) {
  const at::NoGradGuard no_grad;
  for (const int64_t window : config.layer_sliding_window) {
    if (!window_matters(window, past_length + tokens) || context.window_masks.contains(window)) continue;
    context.window_masks[window] =
        with_window(context.mask, window, tokens, past_length, context.cos.scalar_type(), context.cos.device());
  }
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normalized = wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return weight * normalized.to(x.scalar_type());
}

at::Tensor block_forward(const DecoderConfig& config, const BlockWeights& weights, int64_t block, const at::Tensor& hidden,
                         const AttentionContext& context, KvCacheLayer* cache, int64_t past_length, const BlockObserver& observer) {
  const at::NoGradGuard no_grad;
  const int64_t batch = hidden.size(0);
  const int64_t tokens = hidden.size(1);
  const auto observe = [&](InputSlot slot, const at::Tensor& x) {
    if (observer) observer(slot, x);
  };
  // [batch, tokens, heads * head_dim] -> [batch, heads, tokens, head_dim], with the norm of each head where there is one
  const auto split_heads = [&](const at::Tensor& x, const at::Tensor& norm) {
    const at::Tensor heads = x.view({batch, tokens, -1, config.head_dim});
    return (norm.defined() ? rms_norm(heads, norm, config.rms_norm_eps) : heads).transpose(1, 2);
  };

  const at::Tensor attention_input = rms_norm(hidden, weights.at(NormSlot::kInput), config.rms_norm_eps);
  observe(InputSlot::kAttentionInput, attention_input);
  const at::Tensor query =
      rotate(split_heads(forward(weights.at(LinearSlot::kQProj), attention_input), weights.at(NormSlot::kQuery)), context);
  at::Tensor keys =
      rotate(split_heads(forward(weights.at(LinearSlot::kKProj), attention_input), weights.at(NormSlot::kKey)), context);
  at::Tensor values = split_heads(forward(weights.at(LinearSlot::kVProj), attention_input), {});
  if (cache != nullptr) {
    cache->keys.narrow(2, past_length, tokens).copy_(keys);
    cache->values.narrow(2, past_length, tokens).copy_(values);
    keys = cache->keys.narrow(2, 0, past_length + tokens);
    values = cache->values.narrow(2, 0, past_length + tokens);
  }

  const int64_t window = config.layer_sliding_window[static_cast<size_t>(block)];
  const BlockMask mask =
      select_mask(context, window, tokens, cache != nullptr ? past_length : 0, hidden.scalar_type(), hidden.device());
  const at::Tensor attention = attend(query, keys, values, mask).transpose(1, 2).reshape({batch, tokens, -1});
  observe(InputSlot::kAttentionOutput, attention);
  const at::Tensor middle = hidden + forward(weights.at(LinearSlot::kOProj), attention);

  const at::Tensor mlp_input = rms_norm(middle, weights.at(NormSlot::kPostAttention), config.rms_norm_eps);
  observe(InputSlot::kMlpInput, mlp_input);
  const at::Tensor gate = activate(config.hidden_act, forward(weights.at(LinearSlot::kGateProj), mlp_input));
  const at::Tensor mlp_hidden = gate * forward(weights.at(LinearSlot::kUpProj), mlp_input);
  observe(InputSlot::kMlpHidden, mlp_hidden);
  return middle + forward(weights.at(LinearSlot::kDownProj), mlp_hidden);
}

}  // namespace salient::models
