#include "models/decoder/ragged_batch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <map>

#include "common/error.h"
#include "models/decoder/attention_context.h"

namespace salient::models {
namespace {

// Tokens in front of those of this call.
int64_t past_of(const RaggedBatch& batch, const RaggedRow& row) { return row.slot >= 0 ? row.past : batch.prefix_tokens; }

std::vector<RaggedBlock> split_rows(const RaggedBatch& batch) {
  std::vector<RaggedBlock> blocks;
  int64_t begin = 0;
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    const RaggedRow& row = batch.rows[r];
    const int64_t past = past_of(batch, row);
    if (row.slot < 0) {  // its shape is its own
      blocks.push_back({r, begin, row.tokens, past + row.tokens});
    } else {
      for (int64_t at = 0; at < row.tokens;) {
        const int64_t end = std::min(row.tokens, ((past + at) / kQueryBlock + 1) * kQueryBlock - past);
        blocks.push_back({r, begin + at, end - at, past + end});
        at = end;
      }
    }
    begin += row.tokens;
  }
  return blocks;
}

// int64 [keys]: the places of what a block sees.
at::Tensor key_positions(const RaggedBatch& batch, const RaggedBlock& block) {
  const RaggedRow& row = batch.rows[block.row];
  if (!row.visible.defined()) return at::arange(block.keys);
  return at::cat({at::arange(past_of(batch, row)), batch.positions.narrow(0, block.begin, block.queries)});
}

// bool [queries, keys]
at::Tensor visible_keys(const RaggedBatch& batch, const RaggedBlock& block, const RaggedMasks& kind) {
  const RaggedRow& row = batch.rows[block.row];
  const at::Tensor query = batch.positions.narrow(0, block.begin, block.queries).unsqueeze(1);
  const at::Tensor key = key_positions(batch, block).unsqueeze(0);
  at::Tensor visible = key <= query;
  if (row.visible.defined()) visible.narrow(1, past_of(batch, row), row.tokens).logical_and_(row.visible);
  if (kind.window > 0) visible.logical_and_(key > query - kind.window);
  if (kind.chunk > 0) visible.logical_and_(key.floor_divide(kind.chunk) == query.floor_divide(kind.chunk));
  return visible;
}

// One query that sees every key, or as many queries as keys in plain order.
bool needs_none(const RaggedBatch& batch, const RaggedBlock& block, const RaggedMasks& kind) {
  const auto reaches = [&](int64_t length) { return length > 0 && block.keys > length; };
  return (block.queries == 1 || block.queries == block.keys) && !batch.rows[block.row].visible.defined() && !reaches(kind.window) &&
         !reaches(kind.chunk);
}

// Blocks of the same shape at the same place share a mask.
class MaskMaker {
 public:
  MaskMaker(const DecoderConfig& config, const RaggedBatch& batch, const RaggedMasks& kind, at::ScalarType dtype, at::Device device)
      : config_(config), batch_(batch), kind_(kind), dtype_(dtype), device_(device) {}

  at::Tensor of(const RaggedBlock& block) {
    const bool biased = config_.position == PositionKind::kAlibi;
    if (!biased && needs_none(batch_, block, kind_)) return {};
    if (batch_.rows[block.row].visible.defined()) return make(block);
    at::Tensor& known = known_[{block.queries, block.keys}];
    if (!known.defined()) known = make(block);
    return known;
  }

 private:
  at::Tensor make(const RaggedBlock& block) const {
    const at::Tensor visible = visible_keys(batch_, block, kind_);
    at::Tensor mask = additive_mask(visible, dtype_).unsqueeze(0).unsqueeze(0);
    if (config_.position == PositionKind::kAlibi) {
      mask = mask + alibi_bias(config_, key_positions(batch_, block).unsqueeze(0), dtype_);
    }
    return mask.to(device_);
  }

  const DecoderConfig& config_;
  const RaggedBatch& batch_;
  const RaggedMasks& kind_;
  at::ScalarType dtype_;
  at::Device device_;
  std::map<std::pair<int64_t, int64_t>, at::Tensor> known_;
};

}  // namespace

const std::vector<at::Tensor>& RaggedLayout::masks_of(const LayerConfig& layer) const {
  const auto found = std::find_if(masks.begin(), masks.end(), [&](const RaggedMasks& kind) {
    return kind.window == layer.sliding_window && kind.chunk == layer.attention_chunk;
  });
  if (found == masks.end()) fail(ErrorKind::kInternal, "a ragged batch has no masks for windows of {}", layer.sliding_window);
  return found->of_block;
}

RaggedLayout make_ragged_layout(const DecoderConfig& config, const RaggedBatch& batch, at::ScalarType dtype, at::Device device) {
  RaggedLayout layout{&batch, split_rows(batch), {}};
  for (const LayerConfig& layer : config.layers) {
    const bool known = std::any_of(layout.masks.begin(), layout.masks.end(), [&](const RaggedMasks& kind) {
      return kind.window == layer.sliding_window && kind.chunk == layer.attention_chunk;
    });
    if (known) continue;
    RaggedMasks kind{layer.sliding_window, layer.attention_chunk, {}};
    MaskMaker maker(config, batch, kind, dtype, device);
    std::vector<at::Tensor> masks;
    for (const RaggedBlock& block : layout.blocks) masks.push_back(maker.of(block));
    kind.of_block = std::move(masks);
    layout.masks.push_back(std::move(kind));
  }
  return layout;
}

}  // namespace salient::models
