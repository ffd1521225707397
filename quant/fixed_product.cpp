#include "quant/fixed_product.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "quant/fixed_parts.h"
#include "quant/kernels/float_product.h"

namespace salient::quant {
namespace {

constexpr int64_t kTriangleSide = 192;  // of the tiles that a triangle is cut into
constexpr int64_t kSummedRows = 256;    // of a Gram matrix that are summed up before they are added to what is there

int64_t tiles_along(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

bool is_ours(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

at::Tensor part(const at::Tensor& x, int64_t dimension, int64_t index, int64_t tile) {
  return x.narrow(dimension, index * tile, std::min(tile, x.size(dimension) - index * tile));
}

// to += share * a b, of which `wanted` is wanted.
void add_tile(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, double share, Triangle wanted) {
  if (!is_ours(to)) {
    to.addmm_(a, b, 1, share);
    return;
  }
  multiply_floats(to, a, b, {true, static_cast<float>(share), wanted});
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
  if (!is_ours(a) || !is_ours(b)) return at::matmul(a, b);
  std::vector<int64_t> shape = a.sizes().vec();
  shape.back() = b.size(-1);
  const at::Tensor result = at::empty(shape, a.options());
  if (result.numel() == 0) return result;
  if (a.dim() == 2) {
    multiply_floats(result, a, b);
    return result;
  }
  const at::Tensor left = a.flatten(0, -3);
  const at::Tensor right = b.flatten(0, -3);
  const at::Tensor to = result.flatten(0, -3);
  const auto multiply = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) multiply_floats(to[i], left[i], right[i]);
  };
  // Matrices side by side, where there is one for each thread; otherwise the threads share each.
  if (to.size(0) < at::get_num_threads()) {
    multiply(0, to.size(0));
  } else {
    in_fixed_parts(to.size(0), 1, multiply);
  }
  return result;
}

void add_product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, double share) {
  add_tile(to, a, b, share, Triangle::kWhole);
}

void add_upper_gram(const at::Tensor& to, const at::Tensor& rows, const std::vector<int64_t>& pieces) {
  if (!to.is_cpu()) {
    int64_t first = 0;
    for (const int64_t count : pieces) {  // whole: a piece is a sequence of tokens, large enough for a GPU
      const at::Tensor piece = rows.narrow(0, first, count);
      if (count > 0) to.addmm_(piece.t(), piece);
      first += count;
    }
    return;
  }
  const auto add = [&](int64_t i, int64_t j) {
    const at::Tensor sum = part(part(to, 0, j, kTriangleSide), 1, i, kTriangleSide);
    const at::Tensor left = part(rows, 1, j, kTriangleSide).t();
    const at::Tensor right = part(rows, 1, i, kTriangleSide);
    int64_t begin = 0;
    for (const int64_t count : pieces) {  // inside of a tile, which so stays in the cache
      for (int64_t at = begin; at < begin + count; at += kSummedRows) {
        const int64_t summed = std::min(kSummedRows, begin + count - at);
        add_tile(sum, left.narrow(1, at, summed), right.narrow(0, at, summed), 1, i == j ? Triangle::kUpper : Triangle::kWhole);
      }
      begin += count;
    }
  };
  for_triangle(tiles_along(to.size(0), kTriangleSide), add);
}

void mirror_upper(const at::Tensor& matrix) {
  if (!matrix.is_cpu()) {
    matrix.copy_(matrix.triu() + matrix.triu(1).t());
    return;
  }
  for_triangle(tiles_along(matrix.size(0), kTriangleSide), [&](int64_t i, int64_t j) {
    const at::Tensor below = part(part(matrix, 0, i, kTriangleSide), 1, j, kTriangleSide);
    const at::Tensor above = part(part(matrix, 0, j, kTriangleSide), 1, i, kTriangleSide);
    below.copy_(i == j ? below.triu() + below.triu(1).t() : above.t());
  });
}

void subtract_lower_outer(const at::Tensor& to, const at::Tensor& a) {
  for_triangle(tiles_along(to.size(0), kTriangleSide), [&](int64_t i, int64_t j) {
    add_tile(part(part(to, 0, i, kTriangleSide), 1, j, kTriangleSide), part(a, 0, i, kTriangleSide),
             part(a, 0, j, kTriangleSide).t(), -1, i == j ? Triangle::kLower : Triangle::kWhole);
  });
}

}  // namespace salient::quant
