#include "models/decoder/decode_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quant/clones.h"

namespace salient::models {
namespace {

constexpr int64_t kParallelElements = 16384;  // of the cache that are worth a thread
constexpr int64_t kLanes = 16;                // independent sums, because the compiler must not reorder one

SALIENT_CLONES float inner_product(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0.0f;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

SALIENT_CLONES void add_multiple(float* to, const float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * x[i];
}

// Logits become shares of 1. What is masked altogether stays 0, as a row without any key does.
void softmax(float* logits, int64_t n) {
  float largest = logits[0];
  for (int64_t i = 1; i < n; ++i) largest = logits[i] > largest || std::isnan(logits[i]) ? logits[i] : largest;
  if (largest == -std::numeric_limits<float>::infinity()) {
    std::fill_n(logits, n, 0.0f);
    return;
  }
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    logits[i] = std::exp(logits[i] - largest);
    sum += logits[i];
  }
  for (int64_t i = 0; i < n; ++i) logits[i] /= sum;
}

bool applies(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask) {
  const auto rows_of_floats = [](const at::Tensor& x) {
    return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 4 && x.stride(3) == 1;
  };
  if (!rows_of_floats(query) || !rows_of_floats(keys) || !rows_of_floats(values)) return false;
  if (query.size(2) != 1 || keys.size(2) == 0 || query.size(3) != keys.size(3) || query.size(1) % keys.size(1) != 0) return false;
  return !mask.defined() || (rows_of_floats(mask) && mask.size(1) == 1 && mask.size(2) == 1 && mask.size(3) == keys.size(2) &&
                             (mask.size(0) == 1 || mask.size(0) == query.size(0)));
}

}  // namespace

at::Tensor decode_attention(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask, double scale) {
  if (!applies(query, keys, values, mask)) return {};
  const int64_t batch = query.size(0);
  const int64_t heads = query.size(1);
  const int64_t kv_heads = keys.size(1);
  const int64_t group = heads / kv_heads;
  const int64_t total = keys.size(2);
  const int64_t key_dim = keys.size(3);
  const int64_t value_dim = values.size(3);
  const at::Tensor result = at::empty({batch, 1, heads * value_dim}, query.options());
  const float* q = query.const_data_ptr<float>();
  const float* k = keys.const_data_ptr<float>();
  const float* v = values.const_data_ptr<float>();
  const float* added = mask.defined() ? mask.const_data_ptr<float>() : nullptr;
  float* out = result.mutable_data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kParallelElements / (total * (key_dim + value_dim)));
  at::parallel_for(0, batch * kv_heads, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> shares(static_cast<size_t>(group * total));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / kv_heads;
      const int64_t head = item % kv_heads;
      const float* row_mask = added == nullptr ? nullptr : added + (mask.size(0) == 1 ? 0 : row * mask.stride(0));
      for (int64_t token = 0; token < total; ++token) {
        const float* key = k + row * keys.stride(0) + head * keys.stride(1) + token * keys.stride(2);
        for (int64_t i = 0; i < group; ++i) {
          const float* one = q + row * query.stride(0) + (head * group + i) * query.stride(1);
          const float logit = inner_product(one, key, key_dim) * static_cast<float>(scale);
          shares[static_cast<size_t>(i * total + token)] = row_mask == nullptr ? logit : logit + row_mask[token];
        }
      }
      for (int64_t i = 0; i < group; ++i) softmax(shares.data() + i * total, total);
      float* sums = out + (row * heads + head * group) * value_dim;
      std::fill_n(sums, group * value_dim, 0.0f);
      for (int64_t token = 0; token < total; ++token) {
        const float* value = v + row * values.stride(0) + head * values.stride(1) + token * values.stride(2);
        for (int64_t i = 0; i < group; ++i) add_multiple(sums + i * value_dim, value, shares[static_cast<size_t>(i * total + token)], value_dim);
      }
    }
  });
  return result;
}

}  // namespace salient::models
