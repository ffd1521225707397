#include "models/decoder/row_product.h"

#include <algorithm>
#include <utility>

#include "quant/kernels/activations.h"
#include "quant/kernels/half_product.h"
#include "quant/kernels/instruction_set.h"

namespace salient::models {

RowInput::RowInput(int64_t rows, int64_t in_features)
    : numbers_(static_cast<size_t>(rows * in_features)),
      codes_(static_cast<size_t>(rows * in_features * quant::kGroupAlign)),  // groups of one channel are filled up to kGroupAlign
      scales_(static_cast<size_t>(rows)),
      sums_(static_cast<size_t>(rows * in_features)),
      packed_numbers_(static_cast<size_t>(rows * in_features)),
      packed_sums_(static_cast<size_t>(rows * in_features)) {}

void RowInput::prepare(int64_t rows, const RowProduct& product) {
  rows_ = rows;
  const int64_t in_features = product.in_features_;
  if (const auto* packed = std::get_if<PackedView>(&product.view_)) {
    return prepare_packed_input(*packed, numbers_.data(), rows, packed_numbers_.data(), packed_sums_.data());
  }
  if (product.group_size_ == 0) return;
  const int64_t groups = in_features / product.group_size_;
  const int64_t width = groups * quant::padded_group(product.group_size_);
  for (int64_t row = 0; row < rows; ++row) {
    scales_[static_cast<size_t>(row)] = quant::quantize_row(numbers_.data() + row * in_features, in_features, product.group_size_,
                                                            codes_.data() + row * width, sums_.data() + row * groups);
  }
}

std::optional<RowProduct> RowProduct::of(const Linear& linear) {
  RowProduct product;
  product.linear_ = linear;
  at::Tensor bias;
  if (const auto* integer = std::get_if<IntegerLinear>(&linear)) {
    const quant::InterleavedWeight& weight = integer->weight;
    product.view_ = quant::view_of(weight);
    product.in_features_ = weight.in_features;
    product.out_features_ = weight.out_features;
    product.group_size_ = weight.group_size;
    bias = integer->bias;
  } else if (const auto* packed = std::get_if<PackedLinear>(&linear)) {
    if (!packed->packed.is_cpu() || packed->activation_bits != 16) return std::nullopt;
    product.view_ = view_of(*packed);
    product.in_features_ = packed->in_features;
    product.out_features_ = packed->out_features;
    product.group_size_ = packed->group_size;
    bias = packed->bias;
  } else if (const auto* plain = std::get_if<FloatLinear>(&linear)) {
    const at::Tensor& weight = plain->weight;
    if (!weight.defined() || !weight.is_cpu() || !weight.is_contiguous() || plain->activation_bits != 16) return std::nullopt;
    if (weight.scalar_type() != at::kHalf && weight.scalar_type() != at::kBFloat16) return std::nullopt;
    product.view_ = quant::half_view_of(weight);
    product.in_features_ = weight.size(1);
    product.out_features_ = weight.size(0);
    bias = plain->bias;
  } else {
    return std::nullopt;
  }
  if (bias.defined()) {
    if (bias.scalar_type() != at::kFloat || !bias.is_contiguous()) return std::nullopt;
    product.bias_ = bias.const_data_ptr<float>();
  }
  return product;
}

quant::Ahead RowProduct::bytes_from(int64_t tile, int64_t most) const {
  const auto* integer = std::get_if<quant::WeightView>(&view_);
  if (integer == nullptr) return {};
  const int64_t tile_bytes = integer->groups * integer->padded_group * quant::kTileChannels * integer->bits / 8;
  const auto* from = reinterpret_cast<const char*>(integer->codes) + tile * tile_bytes;
  return {from, from + std::min((tiles() - tile) * tile_bytes, most)};
}

void RowProduct::multiply(const RowInput& x, int64_t begin, int64_t end, float* y) const {
  if (begin >= end) return;
  const int64_t first = begin * quant::kTileChannels;
  const int64_t last = std::min(end * quant::kTileChannels, out_features_);
  const quant::TileKernels& kernels = quant::tile_kernels(quant::best_instruction_set());
  if (const auto* integer = std::get_if<quant::WeightView>(&view_)) {
    kernels.few_rows(*integer, {x.rows_, x.codes_.data(), x.scales_.data(), x.sums_.data()}, begin, end, y);
  } else if (const auto* half = std::get_if<quant::HalfView>(&view_)) {
    kernels.half_rows(*half, x.numbers_.data(), x.rows_, first, last, y);
  } else {
    packed_product(std::get<PackedView>(view_), {x.rows_, x.packed_numbers_.data(), x.packed_sums_.data()}, y, out_features_, first,
                   last);
  }
  if (bias_ == nullptr) return;
  for (int64_t row = 0; row < x.rows_; ++row) {
    for (int64_t n = first; n < last; ++n) y[row * out_features_ + n] += bias_[n];
  }
}

}  // namespace salient::models
