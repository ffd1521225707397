// Products of a linear with a few rows, in parts that the threads of a team (quant/kernels/thread_team.h) share out.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "models/decoder/linear.h"
#include "models/decoder/packed_kernel.h"
#include "quant/kernels/thread_team.h"
#include "quant/kernels/tile_kernels.h"

namespace salient::models {

class RowProduct;

// A few rows as a product reads them: float32, int8 codes, or what packed_product wants. Memory of one thread.
class RowInput {
 public:
  // Room for up to `rows` rows of `in_features` numbers.
  RowInput(int64_t rows, int64_t in_features);

  float* numbers() { return numbers_.data(); }  // [rows, in_features], to be filled
  // After numbers() were filled. For all products that accept the same input as this one.
  void prepare(int64_t rows, const RowProduct& product);

 private:
  friend class RowProduct;
  int64_t rows_ = 0;
  std::vector<float> numbers_;
  std::vector<int8_t> codes_;
  std::vector<float> scales_;  // of codes
  std::vector<int32_t> sums_;  // of codes
  std::vector<float> packed_numbers_;
  std::vector<float> packed_sums_;
};

class RowProduct {
 public:
  // Most rows at a time.
  static constexpr int64_t kMaxRows = quant::kFewRows;

  // Nothing for linears that have no such product: without a weight, in float32, in codes that are always dequantized; not on the
  // CPU.
  static std::optional<RowProduct> of(const Linear& linear);

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  int64_t tiles() const { return (out_features_ + quant::kTileChannels - 1) / quant::kTileChannels; }
  bool accepts_input_of(const RowProduct& other) const {
    return view_.index() == other.view_.index() && group_size_ == other.group_size_;
  }

  // The weight's bytes from a tile on, at most `most`; empty for weights that are not stored in tiles.
  quant::Ahead bytes_from(int64_t tile, int64_t most) const;

  // The output channels of the tiles [begin, end), bias included, with the bits that models::forward gives. y: float32 [rows,
  // out_features].
  void multiply(const RowInput& x, int64_t begin, int64_t end, float* y) const;

 private:
  friend class RowInput;
  RowProduct() = default;

  Linear linear_;  // keeps the memory
  std::variant<quant::WeightView, quant::HalfView, PackedView> view_;
  const float* bias_ = nullptr;
  int64_t in_features_ = 0;
  int64_t out_features_ = 0;
  int64_t group_size_ = 0;  // 0: the input is read as float32
};

}  // namespace salient::models
