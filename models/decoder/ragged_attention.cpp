#include "models/decoder/ragged_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "models/decoder/decode_attention.h"
#include "models/decoder/decoder.h"
#include "quant/int8_rows.h"

namespace salient::models {
namespace {

// What this call's tokens have: as attention sees it, and as it is kept.
struct OwnKeys {
  at::Tensor keys;  // float
  at::Tensor values;
  quant::Int8Rows key_codes;  // with 8 bits
  quant::Int8Rows value_codes;
};

OwnKeys round_keys(const KvScheme& kv, const at::Tensor& keys, const at::Tensor& values) {
  if (kv.bits != 8) return {keys, values, {}, {}};
  OwnKeys own;
  own.key_codes = quant::to_int8_rows(keys, quant::kStableHalfRange, kv.key_scale);
  own.value_codes = quant::to_int8_rows(values, quant::kStableHalfRange, kv.value_scale);
  own.keys = quant::from_int8_rows(own.key_codes, keys.scalar_type());
  own.values = quant::from_int8_rows(own.value_codes, values.scalar_type());
  return own;
}

// from: [1, heads, tokens, ...], of which `count` tokens from `begin` on go to to: [slots, heads, capacity, ...], to token `at` of
// `slot`.
void keep_tokens(const at::Tensor& to, const at::Tensor& from, const RaggedRow& row, int64_t begin) {
  if (!to.defined()) return;
  const bool plain =
      to.is_cpu() && from.scalar_type() == to.scalar_type() && (to.dim() == 3 || (from.stride(3) == 1 && to.stride(3) == 1));
  if (!plain) {
    to.select(0, row.slot).narrow(1, row.past, row.tokens).copy_(from.select(0, 0).narrow(1, begin, row.tokens));
    return;
  }
  const auto bytes = static_cast<int64_t>(to.element_size());
  const int64_t width = to.dim() == 3 ? 1 : to.size(3);
  auto* target = static_cast<char*>(to.mutable_data_ptr()) + row.slot * to.stride(0) * bytes;
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  for (int64_t head = 0; head < to.size(1); ++head) {
    for (int64_t token = 0; token < row.tokens; ++token) {
      std::memcpy(target + (head * to.stride(1) + (row.past + token) * to.stride(2)) * bytes,
                  source + (head * from.stride(1) + (begin + token) * from.stride(2)) * bytes, static_cast<size_t>(width * bytes));
    }
  }
}

void keep_rows(const RaggedBatch& batch, const OwnKeys& own, const KvScheme& kv, const KvCacheLayer& layer) {
  int64_t begin = 0;
  for (const RaggedRow& row : batch.rows) {
    if (row.slot >= 0) {
      keep_tokens(layer.keys, kv.bits == 8 ? own.key_codes.codes : own.keys, row, begin);
      keep_tokens(layer.values, kv.bits == 8 ? own.value_codes.codes : own.values, row, begin);
      if (kv.bits == 8) {
        keep_tokens(layer.key_scales, own.key_codes.scales, row, begin);
        keep_tokens(layer.value_scales, own.value_codes.scales, row, begin);
      }
    }
    begin += row.tokens;
  }
}

// Scales of codes, [slots, heads, capacity]: their own, or the stored one of all tokens.
at::Tensor scales_of(const at::Tensor& own, const at::Tensor& stored, const at::Tensor& codes) {
  return own.defined() ? own : stored.expand({codes.size(0), codes.size(1), codes.size(2)});
}

// All that a layer of a cache keeps.
KeysAndValues kept_in(const KvCacheLayer& layer, const KvScheme& kv) {
  if (kv.bits != 8) return {layer.keys, layer.values};
  return {layer.keys, layer.values, scales_of(layer.key_scales, kv.key_scale, layer.keys),
          scales_of(layer.value_scales, kv.value_scale, layer.values)};
}

KeysAndValues part_of(const KeysAndValues& kept, int64_t slot, int64_t tokens) {
  const auto part = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, slot, 1).narrow(2, 0, tokens) : x; };
  return {part(kept.keys), part(kept.values), part(kept.key_scales), part(kept.value_scales)};
}

// In float: read by many rows.
KeysAndValues prefix_of(const RaggedBatch& batch, const AttentionCall& call, at::ScalarType dtype) {
  if (batch.prefix_tokens == 0) return {};
  const KeysAndValues kept =
      part_of(kept_in(batch.prefix->layers[static_cast<size_t>(call.block)], call.kv), 0, batch.prefix_tokens);
  if (call.kv.bits != 8) return kept;
  return {quant::from_int8_rows({kept.keys, kept.key_scales}, dtype),
          quant::from_int8_rows({kept.values, kept.value_scales}, dtype)};
}

// One new token of each of many rows, without operators: they would cost more than the work.
class TokensAttention {
 public:
  TokensAttention(const AttentionCall& call, const at::Tensor& query, const KeysAndValues& kept, const at::Tensor& output)
      : query_(query), kept_(kept), output_(output), heads_(query.size(1)), scale_(static_cast<float>(call.scale(query.size(3)))) {
    const bool floats = query.scalar_type() == at::kFloat && kept.keys.defined() && query.is_cpu() && query.stride(3) == 1;
    const bool known = floats && (kept.keys.scalar_type() == at::kFloat || kept.keys.scalar_type() == at::kChar);
    applies_ = known && call.config.attention_softcap <= 0.0 && !call.weights.at(ParameterSlot::kSinks).defined();
  }

  bool takes(const RaggedBlock& block, const RaggedRow& row, const at::Tensor& mask) const {
    return applies_ && block.queries == 1 && row.slot >= 0 && !mask.defined();
  }

  // One key head of one block.
  void run(const RaggedBlock& block, const RaggedRow& row, int64_t head, std::vector<float>& shares) const {
    const int64_t group = heads_ / kept_.keys.size(1);
    shares.resize(static_cast<size_t>(std::min(group, quant::kMaxQueries) * block.keys));
    const float* q = query_.const_data_ptr<float>() + head * group * query_.stride(1) + block.begin * query_.stride(2);
    float* out = output_.data_ptr<float>() + block.begin * output_.stride(1) + head * group * kept_.values.size(3);
    attend_to_head(q, query_.stride(1), group, cached_head(kept_.keys, kept_.key_scales, row.slot, head),
                   cached_head(kept_.values, kept_.value_scales, row.slot, head), block.keys, nullptr, scale_, shares.data(), out);
  }

 private:
  const at::Tensor& query_;
  const KeysAndValues& kept_;
  const at::Tensor& output_;
  int64_t heads_;
  float scale_;
  bool applies_ = false;
};

}  // namespace

at::Tensor ragged_attention(const AttentionCall& call, const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values) {
  const RaggedLayout& layout = *call.context.ragged;
  const RaggedBatch& batch = *layout.batch;
  const OwnKeys own = round_keys(call.kv, keys, values);
  KeysAndValues kept;
  if (batch.cache != nullptr) {
    const KvCacheLayer& layer = batch.cache->layers[static_cast<size_t>(call.block)];
    keep_rows(batch, own, call.kv, layer);
    kept = kept_in(layer, call.kv);
  }
  const KeysAndValues prefix = prefix_of(batch, call, keys.scalar_type());
  const std::vector<at::Tensor>& masks = layout.masks_of(call.layer());
  const at::Tensor output = at::empty({1, query.size(2), query.size(1) * values.size(3)}, query.options());
  const TokensAttention tokens(call, query, kept, output);

  const auto attend_block = [&](size_t i) {
    const RaggedBlock& block = layout.blocks[i];
    const RaggedRow& row = batch.rows[block.row];
    KeysAndValues seen;
    if (row.slot >= 0) {
      seen = part_of(kept, row.slot, block.keys);
    } else {
      const auto joined = [&](const at::Tensor& before, const at::Tensor& x) {
        const at::Tensor mine = x.narrow(2, block.begin, block.queries);
        return before.defined() ? at::cat({before, mine}, 2) : mine;
      };
      seen = {joined(prefix.keys, own.keys), joined(prefix.values, own.values)};
    }
    const BlockMask mask{masks[i], !masks[i].defined() && block.queries > 1};
    output.narrow(1, block.begin, block.queries).copy_(attend(call, query.narrow(2, block.begin, block.queries), seen, mask));
  };

  std::vector<size_t> others;  // blocks
  std::vector<size_t> single;
  for (size_t i = 0; i < layout.blocks.size(); ++i) {
    const RaggedBlock& block = layout.blocks[i];
    (tokens.takes(block, batch.rows[block.row], masks[i]) ? single : others).push_back(i);
  }
  const int64_t key_heads = keys.size(1);
  at::parallel_for(0, static_cast<int64_t>(single.size()) * key_heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> shares;
    for (int64_t item = begin; item < end; ++item) {
      const RaggedBlock& block = layout.blocks[single[static_cast<size_t>(item / key_heads)]];
      tokens.run(block, batch.rows[block.row], item % key_heads, shares);
    }
  });
  // Many small calls: side by side, each in one thread. Few: one after the other, each in all threads.
  const bool side_by_side = query.is_cpu() && static_cast<int64_t>(others.size()) >= 2 * at::get_num_threads();
  if (!side_by_side) {
    for (const size_t i : others) attend_block(i);
    return output;
  }
  const at::ThreadLocalState state;
  at::parallel_for(0, static_cast<int64_t>(others.size()), 1, [&](int64_t begin, int64_t end) {
    const at::ThreadLocalStateGuard guard(state);
    for (int64_t i = begin; i < end; ++i) attend_block(others[static_cast<size_t>(i)]);
  });
  return output;
}

}  // namespace salient::models
