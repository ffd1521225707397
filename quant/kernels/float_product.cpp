#include "quant/kernels/float_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int64_t kGrainProducts = 1 << 18;  // that a thread should have at least: a few microseconds

int64_t parts_of(int64_t size, int64_t most) { return (size + most - 1) / most; }

// How the result is cut. Where does not matter to its bits.
struct Cut {
  int64_t rows;      // of a tile
  int64_t channels;  // the same
  int64_t down;
  int64_t across;

  Cut(int64_t all_rows, int64_t all_channels, int64_t in_features, int64_t wanted) {
    down = parts_of(all_rows, kFloatTileRows);
    across = in_features <= kFloatInputs ? 1 : parts_of(all_channels, kFloatTileChannels);
    // Each cut of the rows has the weights turned once more.
    const int64_t most_across = parts_of(all_channels, 2 * kTileChannels);
    while (down * across % wanted != 0 && down * across < 4 * wanted && across < most_across) ++across;
    rows = parts_of(all_rows, down);
    channels = parts_of(parts_of(all_channels, across), 2 * kTileChannels) * 2 * kTileChannels;
    across = parts_of(all_channels, channels);
  }
};

float* scratch_of_thread() {
  static thread_local std::vector<float> scratch(static_cast<size_t>(kFloatScratch));
  return scratch.data();
}

}  // namespace

at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, InstructionSet set) {
  const at::NoGradGuard no_grad;
  if (x.dim() != 2 || weight.dim() != 2 || x.size(1) != weight.size(1) || x.scalar_type() != at::kFloat ||
      weight.scalar_type() != at::kFloat || !x.is_cpu() || !weight.is_cpu()) {
    fail(ErrorKind::kInternal, "float product: input [{}] and weight [{}], expected float32 [rows, in] and [out, in] on the CPU",
         fmt::join(x.sizes(), ", "), fmt::join(weight.sizes(), ", "));
  }
  const int64_t rows = x.size(0);
  const int64_t in_features = x.size(1);
  const int64_t channels = weight.size(0);
  if (in_features == 0) return at::zeros({rows, channels}, at::kFloat);
  at::Tensor result = at::empty({rows, channels}, at::kFloat);
  if (result.numel() == 0) return result;
  const at::Tensor input = x.contiguous();
  const at::Tensor numbers = weight.stride(1) == 1 ? weight : weight.contiguous();
  const auto* from = input.const_data_ptr<float>();
  const auto* weights = numbers.const_data_ptr<float>();
  auto* to = result.data_ptr<float>();
  const int64_t stride = numbers.stride(0);
  const TileKernels& kernels = tile_kernels(set);

  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const Cut cut(rows, channels, in_features, std::clamp(rows * channels * in_features / kGrainProducts, int64_t{1}, threads));
  const int64_t grain = std::max<int64_t>(1, kGrainProducts / (cut.rows * cut.channels * in_features));
  at::parallel_for(0, cut.down * cut.across, grain, [&](int64_t begin, int64_t end) {
    float* scratch = scratch_of_thread();
    for (int64_t at = begin; at < end; ++at) {
      const int64_t row = at / cut.across * cut.rows;
      const int64_t channel = at % cut.across * cut.channels;
      FloatTile tile;
      tile.x = from + row * in_features;
      tile.rows = std::min(cut.rows, rows - row);
      tile.in_features = in_features;
      tile.weight = weights + channel * stride;
      tile.weight_stride = stride;
      tile.channels = std::min(cut.channels, channels - channel);
      tile.y = to + row * channels + channel;
      tile.y_stride = channels;
      kernels.float_tile(tile, scratch);
    }
  });
  return result;
}

}  // namespace salient::quant
