#include "quant/code_descent.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/cancellation.h"
#include "common/error.h"
#include "quant/fixed_product.h"
#include "quant/vector_loops.h"

namespace salient::quant {
namespace {

// Bounds the temporaries to two matrices of kDescentRows x in_features floats.
constexpr int64_t kDescentRows = 2048;
// Columns whose changes reach the rest of the gradient together. kPanel x kColumnBlock floats of the Gram matrix stay in a core's
// cache.
constexpr int64_t kPanel = 128;
constexpr int64_t kColumnBlock = 512;
// Passes over a panel before the next one: they cost little, because only the panel's own block is read.
constexpr int kPanelPasses = 4;
// A change must gain this share of what moving the code by one costs by itself, so that float32 noise never looks like a gain.
constexpr float kLeastGain = 1e-3f;

struct Change {
  int32_t column;  // within the panel
  float amount;    // of the dequantized weight
};

// One row's view of everything that a sweep reads and writes.
struct Row {
  uint8_t* codes;
  const float* zeros;
  const float* scales;
  const float* weight;
  float* error;     // d
  float* gradient;  // g = G d
};

struct Panel {
  int64_t begin;
  int64_t width;
  std::vector<float> gram;              // [width, width]
  std::vector<float> inverse_diagonal;  // 0 where the diagonal is not positive
  std::vector<int32_t> group;           // of each column
};

Panel make_panel(const float* gram, int64_t columns, int64_t begin, int64_t group_size) {
  const int64_t width = std::min(kPanel, columns - begin);
  Panel panel{begin,
              width,
              std::vector<float>(static_cast<size_t>(width * width)),
              std::vector<float>(static_cast<size_t>(width), 0.0f),
              {}};
  for (int64_t i = 0; i < width; ++i) {
    const float* source = gram + (begin + i) * columns + begin;
    std::copy(source, source + width, panel.gram.data() + i * width);
    const float inverse = 1.0f / source[i];
    if (source[i] > 0.0f && std::isfinite(inverse)) panel.inverse_diagonal[static_cast<size_t>(i)] = inverse;
    panel.group.push_back(static_cast<int32_t>((begin + i) / group_size));
  }
  return panel;
}

// Appends to `changes`; leaves error and the panel's part of the gradient up to date.
void descend_panel(const Row& row, const Panel& panel, float levels, std::vector<Change>& changes) {
  const float* inverse_diagonal = panel.inverse_diagonal.data();
  const int32_t* groups = panel.group.data();
  float* gradient = row.gradient + panel.begin;
  for (int pass = 0; pass < kPanelPasses; ++pass) {
    bool changed = false;
    for (int64_t j = 0; j < panel.width; ++j) {
      // Where the weight would like to be, relative to where it is. Most stay within half a code.
      const float move = -gradient[j] * inverse_diagonal[j];
      const int32_t group = groups[j];
      const float scale = row.scales[group];
      if (!(std::fabs(move) > 0.5f * std::fabs(scale))) continue;  // NaN never moves anything
      const int64_t column = panel.begin + j;
      const float wish = move / scale;
      const float code = row.codes[column];
      const float moved = std::clamp(std::nearbyint(code + wish), 0.0f, levels);
      const float delta = moved - code;
      if (!(2.0f * delta * wish - delta * delta > kLeastGain)) continue;
      const float zero = row.zeros[group];
      const float error = (moved - zero) * scale - row.weight[column];
      const float amount = error - row.error[column];
      row.codes[column] = static_cast<uint8_t>(moved);
      row.error[column] = error;
      add_multiple(gradient, panel.gram.data() + j * panel.width, amount, panel.width);
      changes.push_back({static_cast<int32_t>(j), amount});
      changed = true;
    }
    if (!changed) break;
  }
}

// gradient[outside the panel] += sum of amount * G[column, :], for rows begin .. end-1.
void spread_changes(const std::vector<std::vector<Change>>& changes, const Panel& panel, const float* gram, int64_t columns,
                    float* gradients) {
  const auto spread = [&](int64_t from, int64_t to) {
    for (int64_t block = from; block < to; block += kColumnBlock) {
      const int64_t width = std::min(kColumnBlock, to - block);
      for (size_t row = 0; row < changes.size(); ++row) {
        float* gradient = gradients + static_cast<int64_t>(row) * columns + block;
        for (const Change& change : changes[row]) {
          add_multiple(gradient, gram + (panel.begin + change.column) * columns + block, change.amount, width);
        }
      }
    }
  };
  spread(0, panel.begin);
  spread(panel.begin + panel.width, columns);
}

// quantized, weight: rows of one chunk.
void descend_chunk(const QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, float levels, int sweeps) {
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t groups = quantized.scales.size(1);
  at::Tensor error = at::sub(dequantize(quantized), weight);
  at::Tensor gradient = product(error, gram);
  const float* g = gram.const_data_ptr<float>();
  const at::Tensor zeros = quantized.zeros.to(at::kFloat).contiguous();
  const Row first{quantized.codes.data_ptr<uint8_t>(), zeros.const_data_ptr<float>(), quantized.scales.const_data_ptr<float>(),
                  weight.const_data_ptr<float>(),      error.data_ptr<float>(),       gradient.data_ptr<float>()};
  const at::Tensor codes_before = quantized.codes.clone();
  const uint8_t* before = codes_before.const_data_ptr<uint8_t>();
  const auto row_at = [&](int64_t row) {
    return Row{first.codes + row * columns,  first.zeros + row * groups,  first.scales + row * groups,
               first.weight + row * columns, first.error + row * columns, first.gradient + row * columns};
  };
  std::vector<double> objective(static_cast<size_t>(rows));
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      objective[static_cast<size_t>(row)] = dot(first.error + row * columns, first.gradient + row * columns, columns);
    }
  });
  std::vector<Panel> panels;
  for (int64_t begin = 0; begin < columns; begin += kPanel) panels.push_back(make_panel(g, columns, begin, columns / groups));

  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    std::vector<std::vector<Change>> changes(static_cast<size_t>(end - begin));
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      bool changed = false;
      for (const Panel& panel : panels) {
        for (int64_t row = begin; row < end; ++row) {
          std::vector<Change>& of_row = changes[static_cast<size_t>(row - begin)];
          of_row.clear();
          descend_panel(row_at(row), panel, levels, of_row);
          changed = changed || !of_row.empty();
        }
        spread_changes(changes, panel, g, columns, first.gradient + begin * columns);
      }
      if (!changed) break;
    }
    // What is left of rounding in the gradient is judged here: a row that did not gain keeps its codes.
    for (int64_t row = begin; row < end; ++row) {
      const double after = dot(first.error + row * columns, first.gradient + row * columns, columns);
      if (after <= objective[static_cast<size_t>(row)]) continue;
      std::copy(before + row * columns, before + (row + 1) * columns, first.codes + row * columns);
    }
  });
}

void check_code_descent(const QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram) {
  const bool fits = weight.dim() == 2 && weight.scalar_type() == at::kFloat && weight.is_contiguous() &&
                    gram.scalar_type() == at::kFloat && gram.is_contiguous() && gram.dim() == 2 && gram.size(0) == weight.size(1) &&
                    gram.size(1) == weight.size(1) && quantized.codes.sizes() == weight.sizes() &&
                    quantized.codes.is_contiguous() && quantized.zeros.is_contiguous() && quantized.scales.is_contiguous() &&
                    quantized.zeros.sizes() == quantized.scales.sizes();
  if (!fits) fail(ErrorKind::kInternal, "descend_codes: weight, codes, scales, zeros and Gram matrix do not fit together");
}

// descend_chunk with libtorch's operators, for tensors of other devices than the CPU: a column of all rows at a time. What is
// worked on lies transposed, so that a column's numbers lie together.
void descend_with_operators(const QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, float levels,
                            int sweeps) {
  const int64_t columns = weight.size(1);
  const int64_t groups = quantized.scales.size(1);
  const at::Tensor w = weight.t().contiguous();
  const at::Tensor codes = quantized.codes.t().to(at::kFloat).contiguous();
  const at::Tensor scales = quantized.scales.t().contiguous();
  const at::Tensor zeros = quantized.zeros.to(at::kFloat).t().contiguous();
  const at::Tensor error = dequantize(quantized).sub_(weight).t().contiguous();
  const at::Tensor gradient = at::mm(gram, error);
  const at::Tensor objective = (error * gradient).sum(0, /*keepdim=*/false, at::kDouble);
  const at::Tensor inverse = gram.diagonal().reciprocal();
  const at::Tensor usable = at::where((gram.diagonal() > 0).logical_and(inverse.isfinite()), inverse, at::zeros_like(inverse));
  const at::Tensor amounts = at::empty({std::min(kPanel, columns), weight.size(0)}, weight.options());
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    const at::Tensor before = codes.clone();
    for (int64_t begin = 0; begin < columns; begin += kPanel) {
      check_cancelled();
      const int64_t width = std::min(kPanel, columns - begin);
      const at::Tensor changed = amounts.narrow(0, 0, width).zero_();
      const at::Tensor local = gradient.narrow(0, begin, width);
      const at::Tensor rows = gram.narrow(0, begin, width);
      for (int64_t at = 0; at < width * kPanelPasses; ++at) {
        const int64_t j = at % width;
        const int64_t column = begin + j;
        const at::Tensor scale = scales[column / (columns / groups)];
        const at::Tensor zero = zeros[column / (columns / groups)];
        const at::Tensor move = -local[j] * usable[column];
        const at::Tensor wish = move / scale;
        const at::Tensor delta = (codes[column] + wish).round_().clamp_(0.0, levels).sub_(codes[column]);
        const at::Tensor gains = (move.abs() > 0.5 * scale.abs()).logical_and(2.0 * delta * wish - delta * delta > kLeastGain);
        const at::Tensor moved = at::where(gains, codes[column] + delta, codes[column]);
        const at::Tensor after = at::where(gains, (moved - zero).mul_(scale).sub_(w[column]), error[column]);
        const at::Tensor amount = after - error[column];
        codes[column].copy_(moved);
        error[column].copy_(after);
        local.addr_(rows[j].narrow(0, begin, width), amount);
        changed[j].add_(amount);
      }
      if (begin > 0) gradient.narrow(0, 0, begin).addmm_(rows.narrow(1, 0, begin).t(), changed);
      if (const int64_t rest = columns - begin - width; rest > 0)
        gradient.narrow(0, begin + width, rest).addmm_(rows.narrow(1, begin + width, rest).t(), changed);
    }
    if (at::equal(codes, before)) break;
  }
  const at::Tensor lost = (error * gradient).sum(0, /*keepdim=*/false, at::kDouble) > objective;
  quantized.codes.copy_(at::where(lost.unsqueeze(1), quantized.codes, codes.t().to(at::kByte)));
}

}  // namespace

void descend_codes(QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, const AffineOptions& options,
                   int sweeps) {
  check_code_descent(quantized, weight, gram);
  if (sweeps <= 0) return;
  const float levels = static_cast<float>((1 << options.bits) - 1);
  for (int64_t begin = 0; begin < weight.size(0); begin += kDescentRows) {
    const int64_t count = std::min(kDescentRows, weight.size(0) - begin);
    const QuantizedWeight part{quantized.codes.narrow(0, begin, count), quantized.zeros.narrow(0, begin, count),
                               quantized.scales.narrow(0, begin, count)};
    const auto descend = weight.is_cpu() ? descend_chunk : descend_with_operators;
    descend(part, weight.narrow(0, begin, count), gram, levels, sweeps);
  }
}

}  // namespace salient::quant
