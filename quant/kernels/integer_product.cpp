#include "quant/kernels/integer_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int64_t kGrainBytes = 1 << 14;  // of weights a thread should have at least

int64_t aligned(int64_t bytes) { return (bytes + kLineBytes - 1) / kLineBytes * kLineBytes; }
int64_t divided_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Where the parts of the scratch begin: the panels' codes and sums, then two parts for each thread.
struct Scratch {
  int64_t panels, codes_bytes, sums_bytes, totals_bytes, unpacked_bytes;

  Scratch(const WeightView& w, int64_t rows, const TileKernels& kernels)
      : panels(divided_up(rows, kernels.panel_rows)),
        codes_bytes(aligned(panels * kernels.panel_rows * w.groups * w.padded_group)),
        sums_bytes(aligned(panels * kernels.panel_rows * w.groups * static_cast<int64_t>(sizeof(int32_t)))),
        totals_bytes(aligned(kernels.block_rows * kernels.panel_tiles * kTileChannels * static_cast<int64_t>(sizeof(float)))),
        unpacked_bytes(w.bits == 4 ? aligned(w.padded_group * kernels.panel_tiles * kTileChannels) : 0) {}

  int64_t bytes() const { return codes_bytes + sums_bytes + at::get_num_threads() * (totals_bytes + unpacked_bytes); }
};

// Rows [panel * panel_rows, ...) in the order of PanelsView; rows beyond the last are zeros.
void fill_panel(const WeightView& w, const RowsView& x, int64_t panel, int64_t panel_rows, int8_t* codes, int32_t* sums) {
  const int64_t width = w.groups * w.padded_group;
  const int64_t first = panel * panel_rows;
  for (int64_t r = 0; r < panel_rows; ++r) {
    const bool exists = first + r < x.rows;
    const int8_t* from = x.codes + (first + r) * width;
    for (int64_t k = 0; k < width; k += 4) {
      int32_t word = 0;
      if (exists) std::memcpy(&word, from + k, sizeof word);
      std::memcpy(codes + k * panel_rows + r * 4, &word, sizeof word);
    }
    for (int64_t g = 0; g < w.groups; ++g) sums[g * panel_rows + r] = exists ? x.sums[(first + r) * w.groups + g] : 0;
  }
}

}  // namespace

int64_t product_scratch_bytes(const WeightView& weight, int64_t rows, InstructionSet set) {
  return rows <= kFewRows ? 0 : Scratch(weight, rows, tile_kernels(set)).bytes();
}

void integer_product(const WeightView& weight, const RowsView& x, float* y, void* scratch, InstructionSet set) {
  if (x.rows == 0) return;
  const TileKernels& kernels = tile_kernels(set);
  const int64_t tiles = divided_up(weight.out_features, kTileChannels);
  const int64_t tile_bytes = std::max<int64_t>(1, weight.groups * weight.padded_group * kTileChannels * weight.bits / 8);
  if (x.rows <= kFewRows) {
    at::parallel_for(0, tiles, divided_up(kGrainBytes, tile_bytes),
                     [&](int64_t begin, int64_t end) { kernels.few_rows(weight, x, begin, end, y); });
    return;
  }
  const Scratch parts(weight, x.rows, kernels);
  auto* codes = static_cast<int8_t*>(scratch);
  auto* sums = reinterpret_cast<int32_t*>(codes + parts.codes_bytes);
  auto* of_threads = static_cast<uint8_t*>(scratch) + parts.codes_bytes + parts.sums_bytes;
  at::parallel_for(0, parts.panels, 1, [&](int64_t begin, int64_t end) {
    const int64_t panel_groups = weight.groups * kernels.panel_rows;
    for (int64_t panel = begin; panel < end; ++panel) {
      fill_panel(weight, x, panel, kernels.panel_rows, codes + panel * panel_groups * weight.padded_group,
                 sums + panel * panel_groups);
    }
  });
  const PanelsView panels{x.rows, codes, x.scales, sums};
  const int64_t steps = divided_up(tiles, kernels.panel_tiles);
  at::parallel_for(0, steps, 1, [&](int64_t begin, int64_t end) {
    uint8_t* own = of_threads + at::get_thread_num() * (parts.totals_bytes + parts.unpacked_bytes);
    kernels.many_rows(weight, panels, begin * kernels.panel_tiles, std::min(tiles, end * kernels.panel_tiles),
                      reinterpret_cast<float*>(own), own + parts.totals_bytes, y);
  });
}

at::Tensor integer_product(const InterleavedWeight& weight, const QuantizedRows& x, InstructionSet set) {
  const at::NoGradGuard no_grad;
  if (x.in_features != weight.in_features || x.group_size != weight.group_size) {
    fail(ErrorKind::kInternal, "integer product: activations of {} features in groups of {}, weight of {} in groups of {}",
         x.in_features, x.group_size, weight.in_features, weight.group_size);
  }
  const WeightView view = view_of(weight);
  const RowsView rows = view_of(x);
  at::Tensor y = at::empty({rows.rows, weight.out_features}, at::kFloat);
  at::Tensor scratch = at::empty({product_scratch_bytes(view, rows.rows, set)}, at::kByte);
  integer_product(view, rows, y.data_ptr<float>(), scratch.data_ptr(), set);
  return y;
}

}  // namespace salient::quant
