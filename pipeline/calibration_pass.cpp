#include "pipeline/calibration_pass.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string>

#include "common/cancellation.h"
#include "common/error.h"
#include "models/decoder/embedding.h"
#include "pipeline/rank_exchange.h"

namespace salient::pipeline {
namespace {

// bool [blocks, width], undefined when every token counts.
at::Tensor counted_tokens(const calibration::TokenBlocks& tokens) {
  if (tokens.mask.defined()) return tokens.mask;
  const int64_t width = tokens.ids.size(1);
  if ((tokens.lengths == width).all().item<bool>()) return {};
  return at::arange(width, at::kLong).unsqueeze(0) < tokens.lengths.unsqueeze(1);
}

// Points of the curve: these parts of the blocks, and all.
constexpr std::array<int64_t, 3> kCurveParts = {8, 4, 2};

at::Tensor places(const at::Tensor& mask) { return at::nonzero(mask.flatten()).flatten(); }

// mask: bool [blocks, width]
quant::RowPieces places_of_blocks(const at::Tensor& mask) {
  const at::Tensor counts = mask.sum(1);
  return {counts.const_data_ptr<int64_t>(), counts.const_data_ptr<int64_t>() + counts.numel()};
}

}  // namespace

CalibrationPass::CalibrationPass(const models::DecoderConfig& config, const calibration::TokenBlocks& tokens, at::Device device,
                                 int64_t batch_tokens, bool hold_back, bool rows_curve)
    : config_(config),
      tokens_(tokens),
      device_(device),
      batch_(std::max<int64_t>(1, batch_tokens / tokens.ids.size(1))),
      own_{0, tokens.ids.size(0)},
      counted_(counted_tokens(tokens)) {
  // Padding is on the right, where no real token sees it: plain causal masks will do.
  const at::Tensor positions = at::arange(width(), at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  context_ = models::make_attention_context(config, positions, 0, {}, at::kFloat);
  if (!hold_back || rows() < kHoldBackEvery) return;
  held_ = at::arange(rows(), at::kLong).remainder(kHoldBackEvery) == kHoldBackEvery - 1;
  if (!rows_curve) return;
  fit_blocks_ = rows() - rows() / kHoldBackEvery;
  std::vector<int64_t> points;
  for (const int64_t part : kCurveParts) points.push_back(std::max<int64_t>(1, fit_blocks_ / part));
  for (int64_t block = 0, fit = 0; block < rows(); ++block) {
    if (block % kHoldBackEvery == kHoldBackEvery - 1) continue;
    ++fit;
    if (fit < fit_blocks_ && std::find(points.begin(), points.end(), fit) != points.end()) curve_.emplace_back(block + 1, fit);
  }
}

void CalibrationPass::share_over(Ranks& ranks) {
  if (rows() < ranks.size()) fail(ErrorKind::kInternal, "{} calibration rows for {} ranks", rows(), ranks.size());
  ranks_ = &ranks;
  own_ = share_of(rows(), ranks.rank(), ranks.size());
}

bool CalibrationPass::halve_batch() {
  if (batch_ == 1) return false;
  batch_ /= 2;
  return true;
}

CalibrationPass::Batch CalibrationPass::batch(int64_t index) const {
  check_cancelled();
  const int64_t begin = own_.begin + index * batch_;
  Batch batch;
  batch.begin = begin;
  batch.count = std::min(batch_, own_.end() - begin);
  const at::Tensor counted = counted_.defined() ? counted_.narrow(0, begin, batch.count) : at::Tensor();
  batch.counted_pieces =
      counted.defined() ? places_of_blocks(counted) : quant::RowPieces(static_cast<size_t>(batch.count), width());
  if (counted.defined() && !counted.all().item<bool>()) batch.counted = places(counted).to(device_);
  if (!held_.defined()) return batch;
  const at::Tensor held = held_.narrow(0, begin, batch.count).unsqueeze(1).expand({batch.count, width()});
  const at::Tensor fit = counted.defined() ? held.logical_not() & counted : held.logical_not();
  const at::Tensor held_back = counted.defined() ? held & counted : held;
  batch.held_back = places(held_back).to(device_);
  batch.held_back_pieces = places_of_blocks(held_back);
  batch.fit = places(fit).to(device_);
  batch.fit_pieces = places_of_blocks(fit);
  int64_t done = 0;  // blocks of the batch
  for (const auto& [end, blocks] : curve_) {
    const int64_t part_end = std::min(end - begin, batch.count);
    if (part_end <= done) continue;
    batch.curve.push_back({part_end - done, end - begin <= batch.count ? blocks : 0});
    done = part_end;
  }
  if (begin + batch.count == rows()) batch.all_blocks = fit_blocks_;
  return batch;
}

void CalibrationPass::for_each_batch(const std::function<void(const Batch& batch)>& work) const {
  for (int64_t index = 0; index < batches(); ++index) work(batch(index));
}

void CalibrationPass::finish(quant::InputStatistics& statistics, at::Device to) const {
  if (ranks_ == nullptr) return finish_statistics(statistics, to);
  statistics = quant::to_device(std::move(statistics), at::kCPU);
  sum_statistics(statistics, holds_back(), *ranks_);
  finish_statistics(statistics, to);
}

models::AttentionCall CalibrationPass::call(const models::BlockWeights& weights, int64_t block,
                                            const models::BlockObserver& observer) const {
  return {config_, weights, block, context_, nullptr, 0, observer};
}

void embed_tokens(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const at::Tensor& ids,
                  int64_t rows_at_a_time, ActivationFile& hidden) {
  const models::EmbeddingWeights weights = models::load_embedding(checkpoint, config, at::kFloat, at::kCPU, /*view_tokens=*/true);
  const at::Tensor positions = at::arange(ids.size(1), at::kLong).unsqueeze(0);
  for (int64_t begin = 0; begin < ids.size(0); begin += rows_at_a_time) {
    const at::Tensor rows = ids.narrow(0, begin, std::min(rows_at_a_time, ids.size(0) - begin));
    hidden.write(hidden.first_row() + begin, models::embed(config, weights, rows, positions, at::kFloat));
  }
  checkpoint.release(std::string(config.names.embedding));
}

void add_statistics(quant::InputStatistics& into, const at::Tensor& x, const CalibrationPass::Batch& batch) {
  if (!into.gram.defined()) into = quant::make_input_statistics(x.size(-1), x.device());
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  if (!batch.held_back.defined())
    return quant::accumulate(into, batch.counted.defined() ? rows.index_select(0, batch.counted) : rows, batch.counted_pieces);
  if (batch.fit.numel() > 0) quant::accumulate(into, rows.index_select(0, batch.fit), batch.fit_pieces);
  int64_t begin = 0;
  auto piece = batch.fit_pieces.begin();
  for (const CalibrationPass::Batch::CurvePart& part : batch.curve) {
    const quant::RowPieces pieces(piece, piece + part.blocks);
    const int64_t places = std::accumulate(pieces.begin(), pieces.end(), int64_t{0});
    quant::accumulate_curve(into, rows.index_select(0, batch.fit.narrow(0, begin, places)), pieces);
    piece += part.blocks;
    begin += places;
    if (part.ends > 0) quant::end_curve_point(into, part.ends);
  }
  if (batch.all_blocks > 0) into.curve.push_back({batch.all_blocks, {}});
  if (batch.held_back.numel() > 0) quant::accumulate_held_back(into, rows.index_select(0, batch.held_back), batch.held_back_pieces);
}

void finish_statistics(quant::InputStatistics& statistics, at::Device to) {
  quant::finish(statistics);
  statistics = quant::to_device(std::move(statistics), to);
}

}  // namespace salient::pipeline
