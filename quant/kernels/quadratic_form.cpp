#include "quant/kernels/quadratic_form.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "quant/kernels/float_product.h"
#include "quant/kernels/tile_kernels.h"
#include "quant/vector_loops.h"

namespace salient::quant {
namespace {

constexpr int64_t kLeastRows = 24;  // that a thread should have: the Gram matrix is read for each cut of the rows

// d times what is above the diagonal and half of it, [kFloatTileRows, kFloatTileChannels].
float* half_products_of_thread() {
  static thread_local std::vector<float> products(static_cast<size_t>(kFloatTileRows * kFloatTileChannels));
  return products.data();
}

}  // namespace

void find_quadratic_forms(const QuadraticForms& of, InstructionSet set) {
  const TileKernels& kernels = tile_kernels(set);
  FloatTile tile;
  tile.x_stride = of.error_stride;
  tile.weight_stride = of.gram_stride;
  tile.weight_turned = true;
  tile.y = half_products_of_thread();
  tile.y_stride = kFloatTileChannels;
  double sums[kFloatTileRows];
  for (int64_t row = 0; row < of.rows; row += kFloatTileRows) {
    tile.x = of.errors + row * of.error_stride;
    tile.rows = std::min(kFloatTileRows, of.rows - row);
    std::fill_n(sums, tile.rows, 0.0);
    for (int64_t begin = 0; begin < of.features; begin += kFloatTileChannels) {
      tile.channels = std::min(kFloatTileChannels, of.features - begin);
      tile.in_features = begin + tile.channels;
      tile.diagonal = begin;
      tile.weight = of.gram + begin;
      kernels.float_tile(tile, float_scratch_of_thread());
      for (int64_t r = 0; r < tile.rows; ++r)
        sums[r] += dot(tile.y + r * tile.y_stride, tile.x + r * of.error_stride + begin, tile.channels);
    }
    for (int64_t r = 0; r < tile.rows; ++r) of.forms[(row + r) * of.form_stride] = static_cast<float>(2 * sums[r]);
  }
}

at::Tensor quadratic_forms(const at::Tensor& errors, const at::Tensor& gram, InstructionSet set) {
  const at::Tensor d = errors.contiguous();
  const at::Tensor g = gram.contiguous();
  const at::Tensor result = at::empty({d.size(0)}, d.options());
  QuadraticForms all{d.const_data_ptr<float>(), d.size(1), d.size(0), g.const_data_ptr<float>(), g.size(1), g.size(0),
                     result.data_ptr<float>()};
  // As many cuts as there are threads, if each has rows enough.
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t share = std::max(kLeastRows, (all.rows + threads - 1) / threads);
  at::parallel_for(0, (all.rows + share - 1) / share, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      QuadraticForms part = all;
      part.errors += i * share * all.error_stride;
      part.rows = std::min(share, all.rows - i * share);
      part.forms += i * share;
      find_quadratic_forms(part, set);
    }
  });
  return result;
}

}  // namespace salient::quant
