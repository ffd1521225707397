#include "quant/kernels/float_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

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

// `whole`: the result as one tile, of any size.
void multiply_tiles(const FloatTile& whole, const TileKernels& kernels) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t products = whole.rows * whole.channels * whole.in_features;
  const Cut cut(whole.rows, whole.channels, whole.in_features, std::clamp(products / kGrainProducts, int64_t{1}, threads));
  const int64_t grain = std::max<int64_t>(1, kGrainProducts / (cut.rows * cut.channels * whole.in_features));
  at::parallel_for(0, cut.down * cut.across, grain, [&](int64_t begin, int64_t end) {
    float* scratch = float_scratch_of_thread();
    for (int64_t at = begin; at < end; ++at) {
      const int64_t row = at / cut.across * cut.rows;
      const int64_t channel = at % cut.across * cut.channels;
      FloatTile tile = whole;
      tile.x += row * (whole.x_turned ? 1 : whole.x_stride);
      tile.rows = std::min(cut.rows, whole.rows - row);
      tile.weight += channel * (whole.weight_turned ? 1 : whole.weight_stride);
      tile.channels = std::min(cut.channels, whole.channels - channel);
      tile.y += row * whole.y_stride + channel;
      kernels.float_tile(tile, scratch);
    }
  });
}

// A matrix as the kernels read it: number (i, j) at data[i * stride + j], or where it is turned at data[j * stride + i].
struct FloatMatrix {
  at::Tensor owner;  // of the numbers
  const float* data = nullptr;
  int64_t stride = 0;
  bool turned = false;

  // matrix: float32 [rows, columns] on the CPU; copied where neither rows nor columns lie together.
  explicit FloatMatrix(const at::Tensor& matrix) : owner(matrix), turned(matrix.size(1) > 1 && matrix.stride(1) != 1) {
    if (turned && matrix.size(0) > 1 && matrix.stride(0) != 1) {
      owner = matrix.contiguous();
      turned = false;
    }
    data = owner.const_data_ptr<float>();
    stride = owner.stride(turned ? 1 : 0);
  }
};

bool is_float_matrix(const at::Tensor& x) { return x.dim() == 2 && x.scalar_type() == at::kFloat && x.is_cpu(); }

}  // namespace

float* float_scratch_of_thread() {
  static thread_local std::vector<float> scratch(static_cast<size_t>(kFloatScratch));
  return scratch.data();
}

at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, InstructionSet set) {
  const at::NoGradGuard no_grad;
  if (!is_float_matrix(x) || !is_float_matrix(weight) || x.size(1) != weight.size(1)) {
    fail(ErrorKind::kInternal, "float product: input [{}] and weight [{}], expected float32 [rows, in] and [out, in] on the CPU",
         fmt::join(x.sizes(), ", "), fmt::join(weight.sizes(), ", "));
  }
  const at::Tensor result = at::empty({x.size(0), weight.size(0)}, at::kFloat);
  multiply_floats(result, x, weight.t(), {}, set);
  return result;
}

void multiply_floats(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, const FloatProductOptions& options,
                     InstructionSet set) {
  const at::NoGradGuard no_grad;
  if (!is_float_matrix(to) || !is_float_matrix(a) || !is_float_matrix(b) || a.size(1) != b.size(0) || to.size(0) != a.size(0) ||
      to.size(1) != b.size(1)) {
    fail(ErrorKind::kInternal, "float product: [{}] x [{}] into [{}], expected float32 [m, k], [k, n] and [m, n] on the CPU",
         fmt::join(a.sizes(), ", "), fmt::join(b.sizes(), ", "), fmt::join(to.sizes(), ", "));
  }
  if (to.numel() == 0) return;
  if (to.stride(0) != 1 && to.stride(1) != 1 && to.size(1) > 1) {
    fail(ErrorKind::kInternal, "float product: neither rows nor columns of the result lie together, its strides are {}",
         fmt::join(to.strides(), ", "));
  }
  if (a.size(1) == 0) {
    if (!options.adds) to.zero_();
    return;
  }
  if (to.size(1) > 1 && to.stride(1) != 1) {  // columns that lie together are rows of the transposed product
    FloatProductOptions turned = options;
    if (options.wanted != Triangle::kWhole)
      turned.wanted = options.wanted == Triangle::kUpper ? Triangle::kLower : Triangle::kUpper;
    return multiply_floats(to.t(), b.t(), a.t(), turned, set);
  }
  const FloatMatrix left(a);
  const FloatMatrix right(b);
  FloatTile whole;
  whole.x = left.data;
  whole.x_stride = left.stride;
  whole.x_turned = left.turned;
  whole.rows = to.size(0);
  whole.in_features = a.size(1);
  whole.weight = right.data;
  whole.weight_stride = right.stride;
  whole.weight_turned = !right.turned;
  whole.channels = to.size(1);
  whole.adds = options.adds;
  whole.share = options.share;
  whole.y = to.data_ptr<float>();
  whole.y_stride = to.stride(0);
  const TileKernels& kernels = tile_kernels(set);
  if (options.wanted == Triangle::kWhole) return multiply_tiles(whole, kernels);
  if (whole.rows != whole.channels || whole.rows > kFloatTileChannels) {
    fail(ErrorKind::kInternal, "float product: a triangle of [{}], expected a square of at most {} rows",
         fmt::join(to.sizes(), ", "), kFloatTileChannels);
  }
  whole.wanted = options.wanted;
  kernels.float_tile(whole, float_scratch_of_thread());
}

}  // namespace salient::quant
