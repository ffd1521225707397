// Repacking from AutoAWQ's GEMM layout in pieces against unpacking it as a whole, which goldens of AutoAWQ check
// (awq_gemm_test.cpp).
#include "quant/gemm_pieces.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <atomic>

#include "quant/awq_gemm.h"
#include "quant/kernels/interleaved_weight.h"

namespace salient::quant {
namespace {

at::Tensor random_words(int64_t positions, int64_t words) {
  return at::randint(-(int64_t{1} << 31), int64_t{1} << 31, {positions, words}, at::kLong).to(at::kInt);
}

TEST(GemmPieces, CoverEveryCodeOnce) {
  for (const auto& [positions, words] : {std::pair<int64_t, int64_t>{1, 1}, {128, 16}, {300, 37}, {129, 16}, {64, 100}}) {
    at::manual_seed(positions * 1000 + words);
    const at::Tensor packed = random_words(positions, words);
    const at::Tensor expected = unpack_awq_codes(packed);
    at::Tensor found = at::full({words * 8, positions}, 99, at::kByte);
    std::atomic<int64_t> codes = 0;
    std::atomic<bool> padded = true;
    auto* const to = found.data_ptr<uint8_t>();
    each_gemm_piece(packed, [&](const GemmPiece& piece) {
      codes += piece.positions * piece.channels;
      for (int64_t i = 0; i < piece.positions; ++i) {
        const uint8_t* const row = piece.codes + i * kPieceChannels;
        for (int64_t c = 0; c < piece.channels; ++c) to[(piece.channel + c) * positions + piece.position + i] = row[c];
        for (int64_t c = piece.channels; c < kPieceChannels; ++c) padded = padded && row[c] == 0;
      }
    });
    EXPECT_TRUE(at::equal(found, expected)) << positions << " x " << words;
    EXPECT_EQ(codes, positions * words * 8);
    EXPECT_TRUE(padded) << positions << " x " << words;
  }
}

TEST(GemmPieces, InterleaveGivesTheSameBytesAsFromNaturalCodes) {
  struct Shape {
    int64_t out, in, group_size;
  };
  // Tiles and pieces that are not full, groups that are filled up (20), and one group in all.
  for (const Shape& shape :
       {Shape{256, 512, 128}, {8, 64, 32}, {24, 384, 384}, {136, 320, 64}, {1000, 160, 16}, {40, 100, 20}, {16, 136, 8}}) {
    at::manual_seed(shape.out + shape.in);
    const int64_t groups = shape.in / shape.group_size;
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      // In bfloat16 too small for float16, which they would be kept in.
      const at::Tensor scales = ((at::rand({groups, shape.out}) + 0.01) * (type == at::kHalf ? 1.0 : 1e-9)).to(type);
      const PackedGemm packed{random_words(shape.in, shape.out / 8), random_words(groups, shape.out / 8), scales};
      const QuantizedWeight natural = unpack_awq_gemm(packed.qweight, packed.qzeros, packed.scales);
      const InterleavedWeight expected = interleave(natural.codes, natural.zeros, natural.scales, shape.group_size);
      const InterleavedWeight found = interleave(packed);
      EXPECT_EQ(found.in_features, shape.in);
      EXPECT_EQ(found.out_features, shape.out);
      EXPECT_EQ(found.group_size, shape.group_size);
      EXPECT_EQ(found.bits, 4);
      EXPECT_TRUE(at::equal(found.codes, expected.codes)) << shape.out << " x " << shape.in;
      EXPECT_TRUE(at::equal(found.zeros, expected.zeros)) << shape.out << " x " << shape.in;
      EXPECT_EQ(found.scales.scalar_type(), type);
      EXPECT_TRUE(at::equal(found.scales, expected.scales)) << shape.out << " x " << shape.in;
      EXPECT_TRUE(at::equal(natural_codes(found), natural.codes));
    }
  }
}

}  // namespace
}  // namespace salient::quant
