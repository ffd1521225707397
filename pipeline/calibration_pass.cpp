#include "pipeline/calibration_pass.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>

namespace salient::pipeline {
namespace {

// bool [blocks, width], undefined when every token counts.
at::Tensor counted_tokens(const calibration::TokenBlocks& tokens) {
  if (tokens.mask.defined()) return tokens.mask;
  const int64_t width = tokens.ids.size(1);
  if ((tokens.lengths == width).all().item<bool>()) return {};
  return at::arange(width, at::kLong).unsqueeze(0) < tokens.lengths.unsqueeze(1);
}

at::Tensor places(const at::Tensor& mask) { return at::nonzero(mask.flatten()).flatten(); }

}  // namespace

CalibrationPass::CalibrationPass(const models::DecoderConfig& config, const calibration::TokenBlocks& tokens, at::Device device,
                                 int64_t batch_tokens, bool hold_back)
    : config_(config),
      tokens_(tokens),
      device_(device),
      batch_(std::max<int64_t>(1, batch_tokens / tokens.ids.size(1))),
      counted_(counted_tokens(tokens)) {
  // Padding is on the right, where no real token sees it: plain causal masks will do.
  const at::Tensor positions = at::arange(width(), at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  context_ = models::make_attention_context(config, positions, 0, {}, at::kFloat);
  if (hold_back && rows() >= kHoldBackEvery) held_ = at::arange(rows(), at::kLong).remainder(kHoldBackEvery) == kHoldBackEvery - 1;
}

void CalibrationPass::for_each_batch(const std::function<void(const Batch& batch)>& work) const {
  for (int64_t begin = 0; begin < rows(); begin += batch_) {
    Batch batch{begin, std::min(batch_, rows() - begin), {}, {}, {}};
    const at::Tensor counted = counted_.defined() ? counted_.narrow(0, begin, batch.count) : at::Tensor();
    if (counted.defined() && !counted.all().item<bool>()) batch.counted = places(counted).to(device_);
    if (held_.defined()) {
      const at::Tensor held = held_.narrow(0, begin, batch.count).unsqueeze(1).expand({batch.count, width()});
      batch.held_back = places(counted.defined() ? held & counted : held).to(device_);
      batch.fit = places(counted.defined() ? held.logical_not() & counted : held.logical_not()).to(device_);
    }
    work(batch);
  }
}

models::AttentionCall CalibrationPass::call(const models::BlockWeights& weights, int64_t block,
                                            const models::BlockObserver& observer) const {
  return {config_, weights, block, context_, nullptr, 0, observer};
}

void add_statistics(quant::InputStatistics& into, const at::Tensor& x, const CalibrationPass::Batch& batch) {
  if (!into.gram.defined()) into = quant::make_input_statistics(x.size(-1), x.device());
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  if (!batch.held_back.defined()) return quant::accumulate(into, batch.counted.defined() ? rows.index_select(0, batch.counted) : rows);
  if (batch.fit.numel() > 0) quant::accumulate(into, rows.index_select(0, batch.fit));
  if (batch.held_back.numel() > 0) quant::accumulate_held_back(into, rows.index_select(0, batch.held_back));
}

void finish_statistics(quant::InputStatistics& statistics) {
  quant::finish(statistics);
  statistics.gram = statistics.gram.cpu();
  if (statistics.held_gram.defined()) statistics.held_gram = statistics.held_gram.cpu();
  statistics.abs_sum = statistics.abs_sum.cpu();
}

}  // namespace salient::pipeline
