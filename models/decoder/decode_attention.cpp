#include "models/decoder/decode_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quant/clones.h"
#include "quant/exponential.h"
#include "quant/kernels/instruction_set.h"

namespace salient::models {
namespace {

constexpr int64_t kParallelElements = 16384;  // of the cache that are worth a thread
constexpr int64_t kLanes = 16;                // independent sums, because the compiler must not reorder one

// logits -> e^(logit - largest), and their sum in independent parts.
SALIENT_CLONES float exponentials(float* logits, int64_t n, float largest) {
  for (int64_t i = 0; i < n; ++i) logits[i] = quant::exponential(logits[i] - largest);
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += logits[i];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  return sum;
}

SALIENT_CLONES void divide(float* x, int64_t n, float by) {
  for (int64_t i = 0; i < n; ++i) x[i] /= by;
}

// Logits become shares of 1. What is masked altogether stays 0, as a row without any key does.
void softmax(float* logits, int64_t n) {
  float largest = logits[0];
  for (int64_t i = 1; i < n; ++i) largest = logits[i] > largest || std::isnan(logits[i]) ? logits[i] : largest;
  if (largest == -std::numeric_limits<float>::infinity()) {
    std::fill_n(logits, n, 0.0f);
    return;
  }
  divide(logits, n, exponentials(logits, n, largest));
}

// Layouts of query and cache.
bool applies(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask) {
  const auto has_rows = [](const at::Tensor& x) { return x.is_cpu() && x.dim() == 4 && x.stride(3) == 1; };
  if (!has_rows(query) || !has_rows(keys) || !has_rows(values)) return false;
  const bool codes = keys.scalar_type() == at::kChar && values.scalar_type() == at::kChar;
  const bool floats = query.scalar_type() == at::kFloat && keys.scalar_type() == at::kFloat && values.scalar_type() == at::kFloat;
  if (!codes && !floats) return false;
  if (query.size(2) != 1 || keys.size(2) == 0 || query.size(3) != keys.size(3) || query.size(1) % keys.size(1) != 0) return false;
  return !mask.defined() ||
         (has_rows(mask) && mask.scalar_type() == query.scalar_type() && mask.size(1) == 1 && mask.size(2) == 1 &&
          mask.size(3) == keys.size(2) && (mask.size(0) == 1 || mask.size(0) == query.size(0)));
}

}  // namespace

quant::CachedHead cached_head(const at::Tensor& cache, const at::Tensor& scales, int64_t row, int64_t head) {
  quant::CachedHead view{.stride = cache.stride(2), .dim = cache.size(3)};
  const int64_t first = row * cache.stride(0) + head * cache.stride(1);
  if (!scales.defined()) {
    view.numbers = cache.const_data_ptr<float>() + first;
    return view;
  }
  view.codes = cache.const_data_ptr<int8_t>() + first;
  view.scales = scales.const_data_ptr<float>() + row * scales.stride(0) + head * scales.stride(1);
  view.scale_stride = scales.stride(2);
  return view;
}

void attend_to_head(const float* queries, int64_t query_stride, int64_t group, const quant::CachedHead& keys,
                    const quant::CachedHead& values, int64_t total, const float* mask, float scale, float* shares, float* out) {
  const quant::TileKernels& kernels = quant::tile_kernels(quant::best_instruction_set());
  for (int64_t first = 0; first < group; first += quant::kMaxQueries) {
    const int64_t count = std::min(quant::kMaxQueries, group - first);
    kernels.find_logits(queries + first * query_stride, query_stride, count, keys, total, scale, shares);
    for (int64_t i = 0; i < count; ++i) {
      float* own = shares + i * total;
      if (mask != nullptr) {
        for (int64_t token = 0; token < total; ++token) own[token] += mask[token];
      }
      softmax(own, total);
    }
    kernels.sum_values(shares, count, values, total, out + first * values.dim);
  }
}

at::Tensor decode_attention(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask,
                            double scale, const at::Tensor& key_scales, const at::Tensor& value_scales) {
  if (!applies(query, keys, values, mask)) return {};
  const at::Tensor wide_query = query.to(at::kFloat);
  const at::Tensor wide_mask = mask.defined() ? mask.to(at::kFloat) : mask;
  const int64_t batch = query.size(0);
  const int64_t heads = query.size(1);
  const int64_t kv_heads = keys.size(1);
  const int64_t group = heads / kv_heads;
  const int64_t total = keys.size(2);
  const int64_t value_dim = values.size(3);
  const at::Tensor result = at::empty({batch, 1, heads * value_dim}, wide_query.options());
  const float* q = wide_query.const_data_ptr<float>();
  const float* added = mask.defined() ? wide_mask.const_data_ptr<float>() : nullptr;
  float* out = result.mutable_data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kParallelElements / (total * (keys.size(3) + value_dim)));
  at::parallel_for(0, batch * kv_heads, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> shares(static_cast<size_t>(std::min(group, quant::kMaxQueries) * total));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / kv_heads;
      const int64_t head = item % kv_heads;
      attend_to_head(q + row * wide_query.stride(0) + head * group * wide_query.stride(1), wide_query.stride(1), group,
                     cached_head(keys, key_scales, row, head), cached_head(values, value_scales, row, head), total,
                     added == nullptr ? nullptr : added + (wide_mask.size(0) == 1 ? 0 : row * wide_mask.stride(0)),
                     static_cast<float>(scale), shares.data(), out + (row * heads + head * group) * value_dim);
    }
  });
  return result.to(query.scalar_type());
}

}  // namespace salient::models
