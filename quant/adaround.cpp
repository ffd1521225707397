#include "quant/adaround.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "common/cancellation.h"
#include "common/error.h"
#include "quant/fixed_product.h"
#include "quant/input_statistics.h"

namespace salient::quant {
namespace {

// Bounds the temporaries to seven matrices of kAdaroundRows x in_features floats.
constexpr int64_t kAdaroundRows = 1024;
constexpr float kLow = -0.1f;  // the sigmoid is stretched to [kLow, kHigh] and clipped to [0, 1]
constexpr float kHigh = 1.1f;
constexpr float kMomentum = 0.9f;
constexpr float kVariance = 0.999f;
constexpr float kEpsilon = 1e-8f;
constexpr float kMostCurvature = 1e8f;  // its powers and their squares stay within float32

// The relaxed problem of a chunk of rows. All float32 [rows, in].
struct Relaxation {
  at::Tensor lower;     // the lower of the two codes, minus the zero point
  at::Tensor variable;  // V
  at::Tensor share;     // h(V)
  at::Tensor slope;     // h'(V)
  at::Tensor momentum;  // Adam's first and second moment
  at::Tensor variance;
  at::Tensor error;  // d
};

struct Step {
  float rate;        // with Adam's corrections
  float correction;  // of the second moment
  float regularization;
  float beta;
};

void relax(Relaxation& state, const float* scales, const float* weight, int64_t begin, int64_t end, int64_t columns,
           int64_t group_size) {
  const float* variable = state.variable.const_data_ptr<float>();
  const float* lower = state.lower.const_data_ptr<float>();
  auto* share = state.share.data_ptr<float>();
  auto* slope = state.slope.data_ptr<float>();
  auto* error = state.error.data_ptr<float>();
  for (int64_t i = begin * columns; i < end * columns; ++i) {
    const float sigmoid = 1.0f / (1.0f + std::exp(-variable[i]));
    const float stretched = sigmoid * (kHigh - kLow) + kLow;
    const bool inside = stretched > 0.0f && stretched < 1.0f;
    share[i] = std::clamp(stretched, 0.0f, 1.0f);
    slope[i] = inside ? (kHigh - kLow) * sigmoid * (1.0f - sigmoid) : 0.0f;
    error[i] = scales[i / group_size] * (lower[i] + share[i]) - weight[i];
  }
}

Relaxation make_relaxation(const QuantizedWeight& nearest, const at::Tensor& weight, float levels) {
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t group_size = columns / nearest.scales.size(1);
  const auto like = [&] { return at::empty_like(weight); };
  Relaxation state{like(), like(), like(), like(), at::zeros({rows, columns}), at::zeros({rows, columns}), like()};
  const float* w = weight.const_data_ptr<float>();
  const float* scales = nearest.scales.const_data_ptr<float>();
  const auto* zeros = nearest.zeros.const_data_ptr<uint8_t>();
  auto* lower = state.lower.data_ptr<float>();
  auto* variable = state.variable.data_ptr<float>();
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * columns; i < end * columns; ++i) {
      const int64_t group = i / group_size;
      const float zero = zeros[group];
      const float place = w[i] / scales[group] + zero;  // in codes
      const float code = std::clamp(std::floor(place), 0.0f, levels - 1.0f);
      lower[i] = code - zero;
      // Exactly at a code the sigmoid would start where it is clipped, without a gradient.
      const float fraction = std::clamp(place - code, 0.01f, 0.99f);
      const float sigmoid = (fraction - kLow) / (kHigh - kLow);
      variable[i] = std::log(sigmoid / (1.0f - sigmoid));
    }
    relax(state, scales, w, begin, end, columns, group_size);
  });
  return state;
}

// One Adam step of the rows begin .. end-1. gradient: G d; row_weight: 1 / e of each row; diagonal: of G.
void move(Relaxation& state, const float* gradient, const float* scales, const float* row_weight, const float* diagonal,
          const Step& step, int64_t begin, int64_t end, int64_t columns, int64_t group_size) {
  auto* variable = state.variable.data_ptr<float>();
  auto* momentum = state.momentum.data_ptr<float>();
  auto* variance = state.variance.data_ptr<float>();
  const float* share = state.share.const_data_ptr<float>();
  const float* slope = state.slope.const_data_ptr<float>();
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t i = row * columns; i < (row + 1) * columns; ++i) {
      const float scale = scales[i / group_size];
      float by_share = 2.0f * scale * gradient[i] * row_weight[row];
      if (step.regularization > 0.0f && slope[i] > 0.0f) {
        const float centred = 2.0f * share[i] - 1.0f;
        const float fall = 2.0f * step.beta * std::pow(std::fabs(centred), step.beta - 1.0f);
        const float curvature = std::clamp(scale * scale * diagonal[i - row * columns] * row_weight[row], 0.0f, kMostCurvature);
        by_share -= step.regularization * curvature * std::sqrt(curvature) * std::copysign(fall, centred);
      }
      const float total = by_share * slope[i];
      momentum[i] = kMomentum * momentum[i] + (1.0f - kMomentum) * total;
      variance[i] = kVariance * variance[i] + (1.0f - kVariance) * total * total;
      variable[i] -= step.rate * momentum[i] / (std::sqrt(variance[i] * step.correction) + kEpsilon);
    }
  }
}

Step step_at(int iteration, const AdaroundOptions& options) {
  const double warm_up = options.warm_up * options.iterations;
  const double progress = std::max(0.0, (iteration - warm_up) / std::max(1.0, options.iterations - warm_up));
  const double beta =
      options.beta_end + 0.5 * (options.beta_start - options.beta_end) * (1.0 + std::cos(progress * std::numbers::pi));
  const double grown = std::pow(options.regularization_start, 1.0 - progress) * options.regularization;
  return {static_cast<float>(options.learning_rate / (1.0 - std::pow(static_cast<double>(kMomentum), iteration + 1))),
          static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(kVariance), iteration + 1))),
          iteration < warm_up ? 0.0f : static_cast<float>(grown), static_cast<float>(beta)};
}

// Codes of a chunk: uint8 [rows, in].
at::Tensor round_chunk(const QuantizedWeight& nearest, const at::Tensor& weight, const at::Tensor& gram,
                       const at::Tensor& nearest_error, float levels, const AdaroundOptions& options) {
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t group_size = columns / nearest.scales.size(1);
  const float* scales = nearest.scales.const_data_ptr<float>();
  const float* w = weight.const_data_ptr<float>();
  Relaxation state = make_relaxation(nearest, weight, levels);
  const at::Tensor row_weights =
      nearest_error.reciprocal().mul_(static_cast<double>(columns)).nan_to_num(0.0, 0.0, 0.0).contiguous();
  const float* row_weight = row_weights.const_data_ptr<float>();
  const at::Tensor diagonal = gram.diagonal().contiguous();
  for (int iteration = 0; iteration < options.iterations; ++iteration) {
    check_cancelled();
    const at::Tensor gradient = product(state.error, gram);
    const Step step = step_at(iteration, options);
    at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
      move(state, gradient.const_data_ptr<float>(), scales, row_weight, diagonal.const_data_ptr<float>(), step, begin, end, columns,
           group_size);
      relax(state, scales, w, begin, end, columns, group_size);
    });
  }
  const at::Tensor zeros = nearest.zeros.to(at::kFloat).repeat_interleave(group_size, 1);
  return (state.lower + zeros + (state.share >= 0.5).to(at::kFloat)).clamp_(0.0, levels).to(at::kByte);
}

void check_adaround(const QuantizedWeight& nearest, const at::Tensor& weight, const at::Tensor& gram) {
  const bool fits = weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.is_contiguous() &&
                    gram.scalar_type() == at::kFloat && gram.dim() == 2 && gram.size(0) == weight.size(1) &&
                    gram.size(1) == weight.size(1) && nearest.codes.sizes() == weight.sizes() && nearest.zeros.is_contiguous() &&
                    nearest.scales.is_contiguous() && nearest.zeros.sizes() == nearest.scales.sizes();
  if (!fits) fail(ErrorKind::kInternal, "round_adaptively: weight, codes, scales, zeros and Gram matrix do not fit together");
}

}  // namespace

QuantizedWeight round_adaptively(const QuantizedWeight& nearest, const at::Tensor& weight, const at::Tensor& gram,
                                 const AffineOptions& options, const AdaroundOptions& adaround) {
  check_adaround(nearest, weight, gram);
  const float levels = static_cast<float>((1 << options.bits) - 1);
  QuantizedWeight result{nearest.codes.clone(), nearest.zeros.clone(), nearest.scales.clone()};
  for (int64_t begin = 0; begin < weight.size(0); begin += kAdaroundRows) {
    const int64_t count = std::min(kAdaroundRows, weight.size(0) - begin);
    const auto rows = [&](const at::Tensor& tensor) { return tensor.narrow(0, begin, count); };
    const QuantizedWeight start{rows(nearest.codes), rows(nearest.zeros), rows(nearest.scales)};
    const at::Tensor before = output_error_by_row(at::sub(dequantize(start), rows(weight)), gram, 1);
    const QuantizedWeight found{round_chunk(start, rows(weight), gram, before, levels, adaround), start.zeros, start.scales};
    const at::Tensor after = output_error_by_row(at::sub(dequantize(found), rows(weight)), gram, 1);
    const at::Tensor better = (after < before).unsqueeze(1);
    rows(result.codes).copy_(at::where(better, found.codes, start.codes));
  }
  return result;
}

}  // namespace salient::quant
