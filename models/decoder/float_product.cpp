#include "models/decoder/float_product.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "quant/fixed_parts.h"
#include "quant/fixed_product.h"

namespace salient::models {
namespace {

// Below, the product is bound by reading the weights, which oneDNN would only copy first, and MKL has kernels of their own for a
// few rows.
constexpr int64_t kLeastRows = 16;
constexpr int64_t kTileColumns = 64;  // and multiples: what is left over at the end is the same for every cut
constexpr int64_t kManyRows = 64;     // of a thread: as fast as more

using OneDnnLinear = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                std::string_view attribute, c10::List<std::optional<at::Scalar>> scalars,
                                std::optional<std::string_view> algorithm);

// Nothing in a libtorch without oneDNN, or with another signature of the operator, which is not part of its documented interface.
std::optional<c10::TypedOperatorHandle<OneDnnLinear>> find_onednn_linear() {
  if (!at::globalContext().hasMKLDNN()) return std::nullopt;
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found) return std::nullopt;
  try {
    return found->typed<OneDnnLinear>();
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

int64_t cut(int64_t size, int64_t step, int64_t parts, int64_t index) {
  return index == parts ? size : size / step * index / parts * step;
}

// x: [rows, in]. MKL in one thread for each tile: bits of an element depend on its row and its column alone.
at::Tensor tiled_product(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t rows = x.size(0);
  const int64_t columns = weight.size(0);
  at::Tensor result = at::empty({rows, columns}, x.options());
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const bool by_rows = rows >= threads * kManyRows;
  const int64_t parts = by_rows ? threads : std::clamp<int64_t>(columns / kTileColumns, 1, threads);
  const at::Tensor transposed = weight.t();
  const auto multiply = [&](int64_t part, int64_t) {
    const int64_t dimension = by_rows ? 0 : 1;
    const int64_t step = by_rows ? kLeastRows : kTileColumns;
    const int64_t begin = cut(result.size(dimension), step, parts, part);
    const int64_t size = cut(result.size(dimension), step, parts, part + 1) - begin;
    at::Tensor tile = result.narrow(dimension, begin, size);
    at::mm_out(tile, by_rows ? x.narrow(0, begin, size) : x, by_rows ? transposed : transposed.narrow(1, begin, size));
  };
  quant::in_fixed_parts(parts, 1, multiply);
  return result;
}

}  // namespace

at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool plain = x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && x.numel() > 0;
  if (!plain) return at::linear(x, weight, bias);
  const int64_t rows = x.numel() / x.size(-1);
  static const auto onednn = at::cpu::is_avx512_vnni_supported() ? find_onednn_linear() : std::nullopt;
  if (rows >= kLeastRows && onednn && weight.is_contiguous() && at::globalContext().userEnabledMkldnn()) {
    return onednn->call(x.contiguous(), weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, "none",
                        c10::List<std::optional<at::Scalar>>(), std::nullopt);
  }
  const at::Tensor flat = x.reshape({-1, x.size(-1)});
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  at::Tensor result = (rows >= kLeastRows ? tiled_product(flat, weight) : quant::product(flat, weight.t())).view(shape);
  return bias.defined() ? result.add_(bias) : result;
}

}  // namespace salient::models
