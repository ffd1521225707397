#include "quant/fixed_product.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "quant/fixed_parts.h"

namespace salient::quant {
namespace {

// A tile is worth this much work: multiplications, or numbers read where few rows use each of them.
constexpr int64_t kTileProducts = int64_t{1} << 22;
constexpr int64_t kTileNumbers = int64_t{1} << 20;
constexpr int64_t kMostTiles = 32;
constexpr int64_t kLeastSide = 64;  // below, MKL's kernels wait for memory

struct Tile {
  int64_t height;
  int64_t width;
};

// Of a product [m, k] x [k, n]: the larger side is halved until there are tiles enough.
Tile tile_of(int64_t m, int64_t k, int64_t n) {
  const int64_t wanted = std::clamp(std::max(m * k * n / kTileProducts, k * (m + n) / kTileNumbers), int64_t{1}, kMostTiles);
  const auto half = [](int64_t side) { return (side / 2 + 15) / 16 * 16; };
  Tile tile{m, n};
  for (int64_t tiles = 1; tiles < wanted; tiles *= 2) {
    int64_t& larger = tile.height > tile.width ? tile.height : tile.width;
    if (larger < 2 * kLeastSide) break;
    larger = half(larger);
  }
  return tile;
}

int64_t tiles_along(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

bool is_cut(const at::Tensor& x) { return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble); }

at::Tensor part(const at::Tensor& x, int64_t dimension, int64_t index, int64_t tile) {
  return x.narrow(dimension, index * tile, std::min(tile, x.size(dimension) - index * tile));
}

// Of the tiles that a triangle of `size` is cut into. Narrower ones cost more in small products than they save by leaving out the
// other triangle.
int64_t triangle_side(int64_t size) {
  constexpr int64_t kWide = 192;
  const int64_t side = std::max(size / 8, std::min(size / 4, kWide));
  return std::clamp((side + 15) / 16 * 16, kLeastSide, int64_t{512});
}

// work(i, j) for the tiles on and below the diagonal of a triangle of `count` by `count`.
void for_triangle(int64_t count, const std::function<void(int64_t i, int64_t j)>& work) {
  std::vector<std::pair<int64_t, int64_t>> places;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j <= i; ++j) places.emplace_back(i, j);
  }
  in_fixed_parts(static_cast<int64_t>(places.size()), 1, [&](int64_t at, int64_t) {
    const auto [i, j] = places[static_cast<size_t>(at)];
    work(i, j);
  });
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (!is_cut(a) || a.numel() == 0 || b.numel() == 0) return at::matmul(a, b);
  std::vector<int64_t> shape = a.sizes().vec();
  shape.back() = b.size(-1);
  at::Tensor result = at::empty(shape, a.options());
  const int64_t rows = a.size(-2);
  const int64_t columns = b.size(-1);
  const auto matrices = [](const at::Tensor& x) { return x.dim() == 2 ? x.unsqueeze(0) : x.flatten(0, -3); };
  const at::Tensor left = matrices(a);
  const at::Tensor right = matrices(b);
  const at::Tensor to = matrices(result);
  const auto [height, width] = tile_of(rows, a.size(-1), columns);
  const int64_t down = tiles_along(rows, height);
  const int64_t across = tiles_along(columns, width);
  in_fixed_parts(left.size(0) * down * across, 1, [&](int64_t at, int64_t) {
    const int64_t matrix = at / (down * across);
    const int64_t i = at / across % down;
    const int64_t j = at % across;
    at::Tensor tile = part(part(to[matrix], 0, i, height), 1, j, width);
    at::mm_out(tile, part(left[matrix], 0, i, height), part(right[matrix], 1, j, width));
  });
  return result;
}

void add_product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, double share) {
  if (!is_cut(to)) {
    to.addmm_(a, b, 1, share);
    return;
  }
  const auto [height, width] = tile_of(to.size(0), a.size(1), to.size(1));
  const int64_t across = tiles_along(to.size(1), width);
  in_fixed_parts(tiles_along(to.size(0), height) * across, 1, [&](int64_t at, int64_t) {
    part(part(to, 0, at / across, height), 1, at % across, width)
        .addmm_(part(a, 0, at / across, height), part(b, 1, at % across, width), 1, share);
  });
}

void add_upper_gram(const at::Tensor& to, const at::Tensor& rows, const std::vector<int64_t>& pieces) {
  const int64_t tile = triangle_side(to.size(0));
  const auto add = [&](int64_t i, int64_t j) {
    const at::Tensor sum = part(part(to, 0, j, tile), 1, i, tile);
    const at::Tensor left = part(rows, 1, j, tile);
    const at::Tensor right = part(rows, 1, i, tile);
    int64_t begin = 0;
    for (const int64_t count : pieces) {  // inside of a tile, which so stays in the cache
      if (count > 0) sum.addmm_(left.narrow(0, begin, count).t(), right.narrow(0, begin, count));
      begin += count;
    }
  };
  for_triangle(tiles_along(to.size(0), tile), add);
}

void mirror_upper(const at::Tensor& matrix) {
  const int64_t tile = triangle_side(matrix.size(0));
  for_triangle(tiles_along(matrix.size(0), tile), [&](int64_t i, int64_t j) {
    const at::Tensor below = part(part(matrix, 0, i, tile), 1, j, tile);
    const at::Tensor above = part(part(matrix, 0, j, tile), 1, i, tile);
    below.copy_(i == j ? below.triu() + below.triu(1).t() : above.t());
  });
}

void subtract_lower_outer(const at::Tensor& to, const at::Tensor& a) {
  const int64_t tile = triangle_side(to.size(0));
  const auto subtract = [&](int64_t i, int64_t j) {
    part(part(to, 0, i, tile), 1, j, tile).addmm_(part(a, 0, i, tile), part(a, 0, j, tile).t(), 1, -1);
  };
  for_triangle(tiles_along(to.size(0), tile), subtract);
}

}  // namespace salient::quant
