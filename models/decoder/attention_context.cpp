#include "models/decoder/attention_context.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

namespace salient::models {
namespace {

// bool [tokens, past + tokens]: which keys a causal query sees; window 0 = all before it.
at::Tensor visible_keys(int64_t tokens, int64_t past_length, int64_t window, at::Device device) {
  const at::Tensor query = at::arange(past_length, past_length + tokens, at::TensorOptions(at::kLong).device(device)).unsqueeze(1);
  const at::Tensor key = at::arange(past_length + tokens, at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  at::Tensor visible = key <= query;
  if (window > 0) visible = visible.logical_and(key > query - window);
  return visible;
}

// Every position sees at least itself.
at::Tensor padding_mask(const at::Tensor& real, int64_t tokens, at::ScalarType dtype) {
  const int64_t total = real.size(1);
  const int64_t past_length = total - tokens;
  const at::Tensor itself = at::eye(total, real.options().dtype(at::kBool)).narrow(0, past_length, tokens);
  const at::Tensor visible =
      visible_keys(tokens, past_length, 0, real.device()).unsqueeze(0).logical_and(real.unsqueeze(1)).logical_or(itself);
  return additive_mask(visible.unsqueeze(1), dtype);
}

// Whether the last query's oldest keys lie outside the window.
bool window_matters(int64_t window, int64_t total) { return window > 0 && total > window; }

at::Tensor with_window(const at::Tensor& mask, int64_t window, int64_t tokens, int64_t past_length, at::ScalarType dtype,
                       at::Device device) {
  const at::Tensor visible = visible_keys(tokens, past_length, window, device).view({1, 1, tokens, past_length + tokens});
  if (!mask.defined()) return additive_mask(visible, dtype);
  return mask.masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
}

// Chunks follow the positions, which padding does not move.
at::Tensor with_chunks(const at::Tensor& mask, int64_t chunk, int64_t past_length, const at::Tensor& positions) {
  const at::Tensor chunks = positions.floor_divide(chunk);
  const at::Tensor same = chunks.narrow(1, past_length, positions.size(1) - past_length).unsqueeze(2) == chunks.unsqueeze(1);
  return mask.masked_fill(same.logical_not().unsqueeze(1), -std::numeric_limits<double>::infinity());
}

// float32 [heads]. A number of heads that is no power of two takes the slopes of the next lower one and fills up with every other
// slope of the next higher one, as the authors' code does.
std::vector<double> alibi_slopes(int64_t heads, double max_bias) {
  const auto power_of_two = [&](int64_t count) {
    std::vector<double> slopes;
    for (int64_t head = 1; head <= count; ++head)
      slopes.push_back(std::exp2(-max_bias * static_cast<double>(head) / static_cast<double>(count)));
    return slopes;
  };
  int64_t lower = 1;
  while (2 * lower <= heads) lower *= 2;
  std::vector<double> slopes = power_of_two(lower);
  if (lower == heads) return slopes;
  const std::vector<double> higher = power_of_two(2 * lower);
  for (size_t i = 0; static_cast<int64_t>(slopes.size()) < heads; i += 2) slopes.push_back(higher[i]);
  return slopes;
}

// int64 [batch or 1, past + tokens]
at::Tensor all_positions(int64_t total, const at::Tensor& real, at::Device device) {
  if (real.defined()) return real.cumsum(1, at::kLong).sub_(1).clamp_min_(0);
  return at::arange(total, at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
}

// As transformers computes it: in float32, then in the activations' type.
at::Tensor query_growth(const QueryGrowth& growth, const at::Tensor& position_ids, at::ScalarType dtype) {
  const at::Tensor periods = ((position_ids + growth.shift).to(at::kFloat) / static_cast<double>(growth.period)).floor();
  return ((1.0 + periods).log() * growth.beta + 1.0).to(dtype).unsqueeze(1).unsqueeze(-1);
}

}  // namespace

at::Tensor additive_mask(const at::Tensor& visible, at::ScalarType dtype) {
  return at::zeros(visible.sizes(), visible.options().dtype(dtype))
      .masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
}

at::Tensor alibi_bias(const DecoderConfig& config, const at::Tensor& key_positions, at::ScalarType dtype) {
  at::Tensor position = key_positions.to(at::kFloat);
  at::Tensor slopes =
      at::tensor(alibi_slopes(config.num_attention_heads, config.alibi_max_bias), at::kDouble).to(at::kFloat).to(position.device());
  const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); };
  if (config.alibi_bfloat16) slopes = rounded(slopes);
  if (config.alibi_bfloat16) position = rounded(position);
  at::Tensor bias = slopes.view({1, -1, 1, 1}) * position.view({position.size(0), 1, 1, position.size(1)});
  if (config.alibi_bfloat16) bias = rounded(bias);
  return (bias * config.alibi_multiplier).to(dtype);
}

at::Tensor causal_mask(int64_t tokens, int64_t past_length, at::ScalarType dtype, at::Device device) {
  return additive_mask(visible_keys(tokens, past_length, 0, device), dtype).view({1, 1, tokens, past_length + tokens});
}

AttentionContext make_position_context(const DecoderConfig& config, const at::Tensor& position_ids, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  AttentionContext context;
  for (const RopeConfig& rope : config.ropes) context.rotary.push_back(make_rotary_table(rope, position_ids, dtype));
  if (config.query_growth.beta != 0.0) context.query_growth = query_growth(config.query_growth, position_ids, dtype);
  return context;
}

AttentionContext make_attention_context(const DecoderConfig& config, const at::Tensor& position_ids, int64_t past_length,
                                        const at::Tensor& real, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t tokens = position_ids.size(1);
  const at::Device device = position_ids.device();
  AttentionContext context = make_position_context(config, position_ids, dtype);
  if (real.defined()) {
    context.mask = padding_mask(real, tokens, dtype);
    context.real = real.narrow(1, past_length, tokens);
  } else if (past_length > 0 && tokens > 1) {
    context.mask = causal_mask(tokens, past_length, dtype, device);
  }
  if (config.position == PositionKind::kAlibi) {
    const at::Tensor bias = alibi_bias(config, all_positions(past_length + tokens, real, device), dtype);
    context.mask = (context.mask.defined() ? context.mask : causal_mask(tokens, past_length, dtype, device)) + bias;
  }
  for (const LayerConfig& layer : config.layers) {
    const int64_t chunk = layer.attention_chunk;
    if (window_matters(chunk, past_length + tokens) && !context.chunk_masks.contains(chunk)) {
      const at::Tensor mask = context.mask.defined() ? context.mask : causal_mask(tokens, past_length, dtype, device);
      context.chunk_masks[chunk] = with_chunks(mask, chunk, past_length, all_positions(past_length + tokens, real, device));
    }
    const int64_t window = layer.sliding_window;
    if (!window_matters(window, past_length + tokens) || context.window_masks.contains(window)) continue;
    context.window_masks[window] = with_window(context.mask, window, tokens, past_length, dtype, device);
  }
  return context;
}

BlockMask select_mask(const AttentionContext& context, const LayerConfig& layer, int64_t tokens, int64_t past_length,
                      at::ScalarType dtype, at::Device device) {
  if (window_matters(layer.attention_chunk, past_length + tokens)) return {context.chunk_masks.at(layer.attention_chunk)};
  const int64_t window = layer.sliding_window;
  if (window_matters(window, past_length + tokens)) {
    const auto it = context.window_masks.find(window);
    return {it != context.window_masks.end() ? it->second : with_window(context.mask, window, tokens, past_length, dtype, device)};
  }
  if (context.mask.defined()) return {context.mask};
  if (tokens == 1) return {};
  if (past_length == 0) return {{}, true};
  return {causal_mask(tokens, past_length, dtype, device)};
}

}  // namespace salient::models
