// Runs a block over all calibration tokens, batch by batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

#include "calibration/token_blocks.h"
#include "common/ranks.h"
#include "common/shares.h"
#include "models/decoder/block.h"
#include "pipeline/activation_file.h"
#include "pipeline/awq_block.h"

namespace salient::pipeline {

inline constexpr int64_t kHoldBackEvery = 4;

class CalibrationPass {
 public:
  // `config` and `tokens` must outlive the pass. At most `batch_tokens` tokens (but at least one row of them) are run at a time.
  // Every kHoldBackEvery-th token block is held back where `hold_back` says so and there are enough of them.
  // `rows_curve`: statistics also keep Gram matrices of the first eighth, quarter and half of the blocks that are not held back.
  CalibrationPass(const models::DecoderConfig& config, const calibration::TokenBlocks& tokens, at::Device device,
                  int64_t batch_tokens, bool hold_back = false, bool rows_curve = false);

  struct Batch {
    int64_t begin = 0;  // rows of the token blocks
    int64_t count = 0;
    // int64: places in the flattened batch, on the device.
    at::Tensor counted;    // of the tokens that statistics count; undefined = all of them
    at::Tensor fit;        // of those that are not held back; undefined = the same as `counted`
    at::Tensor held_back;  // of those that are; undefined = none
    // How many places each block has in them: sums over tokens are made block by block, so that they do not depend on
    // `batch_tokens`.
    quant::RowPieces counted_pieces;
    quant::RowPieces fit_pieces;
    quant::RowPieces held_back_pieces;
    // Parts of `fit` for the curve, one after the other from its first block; `ends` > 0 where a point of the curve ends: its
    // blocks.
    struct CurvePart {
      int64_t blocks = 0;  // of the batch
      int64_t ends = 0;
    };
    std::vector<CurvePart> curve;
    int64_t all_blocks = 0;  // in the last batch, where there is a curve: those that are not held back
  };
  int64_t batches() const { return (own_.count + batch_ - 1) / batch_; }
  // From now on the pass is this rank's part of the rows alone, and finish() sums over the ranks. There must be a row for each. Not
  // with `rows_curve`.
  void share_over(Ranks& ranks);
  // The ranks that share it, or null.
  Ranks* ranks() const { return ranks_; }
  // `index`: from 0 to batches().
  Batch batch(int64_t index) const;
  void for_each_batch(const std::function<void(const Batch& batch)>& work) const;

  // `weights` and `observer` must outlive the call.
  models::AttentionCall call(const models::BlockWeights& weights, int64_t block, const models::BlockObserver& observer) const;
  // finish_statistics of what was added up over the batches: of all ranks' batches, where ranks share the pass.
  void finish(quant::InputStatistics& statistics, at::Device to = at::kCPU) const;
  at::Device device() const { return device_; }
  int64_t rows_of_batch() const { return batch_; }  // of all but the last
  // From now on half as many rows at a time; false, and nothing done, where it is one already.
  bool halve_batch();
  const calibration::TokenBlocks& tokens() const { return tokens_; }
  bool holds_back() const { return held_.defined(); }
  bool has_curve() const { return !curve_.empty(); }
  int64_t rows() const { return tokens_.ids.size(0); }  // of all ranks
  const Share& own_rows() const { return own_; }
  int64_t width() const { return tokens_.ids.size(1); }

 private:
  const models::DecoderConfig& config_;
  const calibration::TokenBlocks& tokens_;
  at::Device device_;
  int64_t batch_ = 1;
  Share own_;
  Ranks* ranks_ = nullptr;
  at::Tensor counted_;  // bool [blocks, width], undefined = all
  at::Tensor held_;     // bool [blocks], undefined = none
  std::vector<std::pair<int64_t, int64_t>>
      curve_;               // point of the curve: the block that it ends before, and its blocks that are not held back
  int64_t fit_blocks_ = 0;  // where there is a curve
  models::AttentionContext context_;
};

// Writes the first block's input to `hidden`, [blocks, width, hidden_size]. Rows are looked up in the stored table, so that it is
// never converted as a whole; its pages are let go. `ids`: int64 [blocks, width], of the rows of `hidden`, looked up
// `rows_at_a_time` blocks at a time.
void embed_tokens(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const at::Tensor& ids,
                  int64_t rows_at_a_time, ActivationFile& hidden);

// Adds the counted tokens of x [batch, tokens, features] or [batch * tokens, features].
void add_statistics(quant::InputStatistics& into, const at::Tensor& x, const CalibrationPass::Batch& batch);
// Makes the Gram matrix whole and moves everything to a device.
void finish_statistics(quant::InputStatistics& statistics, at::Device to = at::kCPU);

}  // namespace salient::pipeline
