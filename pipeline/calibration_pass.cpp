#include "pipeline/calibration_pass.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>

namespace salient::pipeline {
namespace {

at::Tensor real_places(const at::Tensor& lengths, int64_t width) {
  if ((lengths == width).all().item<bool>()) return {};
  const at::Tensor mask = at::arange(width, at::kLong).unsqueeze(0) < lengths.unsqueeze(1);
  return at::nonzero(mask.flatten()).flatten();
}

}  // namespace

CalibrationPass::CalibrationPass(const models::DecoderConfig& config, const calibration::TokenBlocks& tokens, at::Device device,
                                 int64_t batch_tokens)
    : config_(config), tokens_(tokens), device_(device), batch_(std::max<int64_t>(1, batch_tokens / tokens.ids.size(1))) {
  // Padding is on the right, where no real token sees it: plain causal masks will do.
  const at::Tensor positions = at::arange(width(), at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  context_ = models::make_attention_context(config, positions, 0, {}, at::kFloat);
}

void CalibrationPass::for_each_batch(const std::function<void(const Batch& batch)>& work) const {
  for (int64_t begin = 0; begin < rows(); begin += batch_) {
    Batch batch{begin, std::min(batch_, rows() - begin), {}};
    batch.real = real_places(tokens_.lengths.narrow(0, begin, batch.count), width());
    if (batch.real.defined()) batch.real = batch.real.to(device_);
    work(batch);
  }
}

models::AttentionCall CalibrationPass::call(const models::BlockWeights& weights, int64_t block,
                                            const models::BlockObserver& observer) const {
  return {config_, weights, block, context_, nullptr, 0, observer};
}

void add_statistics(quant::InputStatistics& into, const at::Tensor& x, const at::Tensor& real) {
  if (!into.gram.defined()) into = quant::make_input_statistics(x.size(-1), x.device());
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  quant::accumulate(into, real.defined() ? rows.index_select(0, real) : rows);
}

void finish_statistics(quant::InputStatistics& statistics) {
  quant::finish(statistics);
  statistics.gram = statistics.gram.cpu();
  statistics.abs_sum = statistics.abs_sum.cpu();
}

}  // namespace salient::pipeline
