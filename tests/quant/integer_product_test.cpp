#include "quant/kernels/integer_product.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "quant/random_matrix.h"
#include "support/thrown_error.h"

namespace salient::quant {
namespace {

struct Quantized {
  at::Tensor codes;
  at::Tensor zeros;
  at::Tensor scales;  // exact in float16
};
Quantized make(int64_t out, int64_t in, int64_t group_size, int levels) {
  at::manual_seed(out * 1000 + in);
  return {at::randint(0, levels, {out, in}, at::kByte), at::randint(0, levels, {out, in / group_size}, at::kByte),
          (at::rand({out, in / group_size}) * 0.1 + 0.001).to(at::kHalf).to(at::kFloat)};
}

// Sums of (code - zero) * code_x within each group, in 64 bits: [rows, out, groups].
at::Tensor exact_sums(const Quantized& q, const at::Tensor& x_codes, int64_t group_size) {
  const int64_t out = q.codes.size(0);
  const at::Tensor w = (q.codes.to(at::kLong).view({out, -1, group_size}) - q.zeros.to(at::kLong).unsqueeze(2)).permute({1, 0, 2});
  const at::Tensor x = x_codes.to(at::kLong).view({x_codes.size(0), -1, group_size}).permute({1, 2, 0});
  return at::stack(
      [&] {
        std::vector<at::Tensor> groups;
        for (int64_t g = 0; g < w.size(0); ++g) groups.push_back(at::mm(w[g], x[g]).t());
        return groups;
      }(),
      2);
}

// The definition: groups in order, each product rounded, then each sum.
at::Tensor defined_product(const at::Tensor& sums, const at::Tensor& scales, const at::Tensor& x_scales) {
  at::Tensor total = at::zeros({sums.size(0), sums.size(1)});
  for (int64_t g = 0; g < sums.size(2); ++g) total = total + sums.select(2, g).to(at::kFloat) * scales.select(1, g).unsqueeze(0);
  return total * x_scales.unsqueeze(1);
}

at::Tensor x_codes(const QuantizedRows& rows) { return rows.codes.narrow(2, 0, rows.group_size).reshape({-1, rows.in_features}); }

struct Shape {
  int64_t out, in, group_size;
  int levels;
};
class Product : public ::testing::TestWithParam<std::tuple<InstructionSet, Shape>> {};

TEST_P(Product, HasTheDefinitionsBits) {
  const auto& [set, shape] = GetParam();
  const Quantized q = make(shape.out, shape.in, shape.group_size, shape.levels);
  const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, shape.group_size);
  EXPECT_EQ(weight.bits, shape.levels > 16 ? 8 : 4);
  for (const int64_t rows : {1, 2, 3, 4, 5, 8, 9, 17, 131}) {
    const QuantizedRows x = quantize_rows(test::random_matrix(rows, shape.in, static_cast<uint64_t>(rows), true), shape.group_size);
    const at::Tensor sums = exact_sums(q, x_codes(x), shape.group_size);
    EXPECT_TRUE(at::equal(integer_product(weight, x, set), defined_product(sums, q.scales, x.scales))) << rows;
  }
}

// Scales of 0 but for one group, and 1 there, leave that group's integer alone in the result.
TEST_P(Product, HasTheExactIntegersOfEachGroup) {
  const auto& [set, shape] = GetParam();
  const Quantized q = make(shape.out, shape.in, shape.group_size, shape.levels);
  for (const int64_t rows : {3, 21}) {
    QuantizedRows x = quantize_rows(test::random_matrix(rows, shape.in, 7), shape.group_size);
    x.scales.fill_(1.0F);
    const at::Tensor sums = exact_sums(q, x_codes(x), shape.group_size);
    ASSERT_LT(sums.abs().max().item<int64_t>(), 1 << 24);  // a whole number in float32
    for (int64_t g = 0; g < sums.size(2); g += 3) {
      at::Tensor scales = at::zeros_like(q.scales);
      scales.select(1, g).fill_(1.0F);
      const at::Tensor y = integer_product(interleave(q.codes, q.zeros, scales, shape.group_size), x, set);
      EXPECT_TRUE(at::equal(y.to(at::kLong), sums.select(2, g))) << rows << " rows, group " << g;
    }
  }
}

// What float32 misses of the sum over groups: each of the group's products is rounded three times, each sum once.
TEST_P(Product, IsNearTheFloatProduct) {
  const auto& [set, shape] = GetParam();
  const Quantized q = make(shape.out, shape.in, shape.group_size, shape.levels);
  const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, shape.group_size);
  const at::Tensor dense =
      ((q.codes.to(at::kDouble).view({shape.out, -1, shape.group_size}) - q.zeros.to(at::kDouble).unsqueeze(2)) *
       q.scales.to(at::kDouble).unsqueeze(2))
          .view({shape.out, shape.in});
  for (const int64_t rows : {1, 37}) {
    const at::Tensor x = test::random_matrix(rows, shape.in, 11);
    const QuantizedRows quantized = quantize_rows(x, shape.group_size);
    const at::Tensor y = integer_product(weight, quantized, set).to(at::kDouble);
    const at::Tensor exact = at::mm(x_codes(quantized).to(at::kDouble) * quantized.scales.to(at::kDouble).unsqueeze(1), dense.t());
    const double groups = static_cast<double>(shape.in / shape.group_size);
    const at::Tensor bound =
        (groups + 3) * 6e-8 * at::mm(x.abs().to(at::kDouble) + quantized.scales.to(at::kDouble).unsqueeze(1), dense.abs().t());
    EXPECT_TRUE((y - exact).abs().le(bound).all().item<bool>()) << rows;
    // And the codes of x are within half a step, or one at the lower end of the range.
    const at::Tensor steps = at::outer(quantized.scales.to(at::kDouble), dense.abs().sum(1));
    EXPECT_TRUE((y - at::mm(x.to(at::kDouble), dense.t())).abs().le(0.51 * steps + bound).all().item<bool>()) << rows;
  }
}

std::string label(const Shape& s) {
  return std::to_string(s.out) + "x" + std::to_string(s.in) + "g" + std::to_string(s.group_size) + "l" + std::to_string(s.levels);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Product,
    ::testing::Combine(::testing::ValuesIn(available_instruction_sets()),
                       ::testing::Values(Shape{64, 256, 128, 16}, Shape{40, 256, 64, 16}, Shape{16, 256, 32, 16},
                                         Shape{33, 512, 256, 16}, Shape{7, 384, 384, 16}, Shape{1, 128, 128, 16},
                                         Shape{50, 96, 16, 8}, Shape{17, 640, 40, 16}, Shape{19, 24, 4, 16}, Shape{5, 10, 2, 16},
                                         Shape{70, 90, 18, 16}, Shape{3, 21, 7, 16}, Shape{64, 256, 128, 256},
                                         Shape{40, 256, 64, 64}, Shape{18, 96, 32, 256}, Shape{33, 256, 256, 256},
                                         Shape{7, 360, 360, 128}, Shape{21, 36, 6, 32}, Shape{20, 45, 9, 256})),
    [](const auto& param_info) {
      std::string set(name(std::get<0>(param_info.param)));
      std::erase(set, '-');
      return set + "_" + label(std::get<1>(param_info.param));
    });

// All codes at their ends, where 16-bit sums of pairs saturate if they are used beyond their range.
TEST(Product, EndsOfTheRangeDoNotSaturate) {
  for (const InstructionSet set : available_instruction_sets()) {
    for (const int level : {15, 255}) {
      for (const int zero : {0, level}) {
        for (const int64_t group_size : {64, 1024}) {
          const Quantized q{at::full({20, 1024}, zero == 0 ? level : 0, at::kByte),
                            at::full({20, 1024 / group_size}, zero, at::kByte), at::ones({20, 1024 / group_size})};
          const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, group_size);
          for (const int code : {-128, 127}) {
            for (const int64_t rows : {1, 4, 12}) {
              const QuantizedRows x{1024, group_size, at::full({rows, 1024 / group_size, group_size}, code, at::kChar),
                                    at::ones({rows}), at::full({rows, 1024 / group_size}, code * group_size, at::kInt)};
              const at::Tensor y = integer_product(weight, x, set);
              const auto expected = static_cast<float>(1024 * (zero == 0 ? level : -level) * code);
              EXPECT_TRUE(y.eq(expected).all().item<bool>())
                  << name(set) << " " << level << " " << zero << " " << code << " " << rows;
            }
          }
        }
      }
    }
  }
}

TEST(Product, TheLargestGroupFitsInto32Bits) {
  const Quantized q{at::full({1, kMaxIntegerGroup}, 255, at::kByte), at::zeros({1, 1}, at::kByte), at::ones({1, 1})};
  const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, kMaxIntegerGroup);
  const QuantizedRows x{kMaxIntegerGroup, kMaxIntegerGroup, at::full({1, 1, kMaxIntegerGroup}, -128, at::kChar), at::ones({1}),
                        at::full({1, 1}, -128 * kMaxIntegerGroup, at::kInt)};
  for (const InstructionSet set : available_instruction_sets()) {
    EXPECT_EQ(integer_product(weight, x, set).item<float>(), -128.0F * 255.0F * static_cast<float>(kMaxIntegerGroup)) << name(set);
  }
  const at::Tensor large = at::zeros({1, kMaxIntegerGroup + 2}, at::kByte);
  EXPECT_THAT(
      salient::test::message_of([&] { interleave(large, q.zeros, q.scales, kMaxIntegerGroup + 2); }, ErrorKind::kInvalidArgument),
      ::testing::HasSubstr("at most 65536"));
}

TEST(Product, ScalesKeepTheirValueInTheSmallestTypeThatHoldsThem) {
  const Quantized q = make(20, 64, 32, 16);
  const QuantizedRows x = quantize_rows(test::random_matrix(6, 64, 3), 32);
  const at::Tensor sums = exact_sums(q, x_codes(x), 32);
  const at::Tensor tiny = q.scales.to(at::kBFloat16).to(at::kFloat) * 0x1p-40;
  const at::Tensor odd = q.scales * (1.0F + 0x1p-20F);
  for (const auto& [scales, type] : {std::pair{q.scales, at::kHalf}, {tiny, at::kBFloat16}, {odd, at::kFloat}}) {
    const InterleavedWeight weight = interleave(q.codes, q.zeros, scales, 32);
    EXPECT_EQ(weight.scales.scalar_type(), type);
    EXPECT_TRUE(at::equal(natural_scales(weight), scales));
    for (const InstructionSet set : available_instruction_sets()) {
      EXPECT_TRUE(at::equal(integer_product(weight, x, set), defined_product(sums, scales, x.scales))) << name(set) << " " << type;
    }
  }
}

TEST(Product, RowsAndThreadsDoNotChangeTheBits) {
  const Quantized q = make(150, 256, 64, 16);
  const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, 64);
  const at::Tensor x = test::random_matrix(20, 256, 5);
  const at::Tensor together = integer_product(weight, quantize_rows(x, 64));
  for (int64_t row = 0; row < 20; ++row)
    EXPECT_TRUE(at::equal(integer_product(weight, quantize_rows(x.narrow(0, row, 1), 64))[0], together[row])) << row;
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  EXPECT_TRUE(at::equal(integer_product(weight, quantize_rows(x, 64)), together));
  EXPECT_TRUE(at::equal(integer_product(weight, quantize_rows(x.narrow(0, 0, 2), 64)), together.narrow(0, 0, 2)));
  at::set_num_threads(before);
  EXPECT_EQ(integer_product(weight, quantize_rows(x.narrow(0, 0, 0), 64)).sizes(), at::IntArrayRef({0, 150}));
}

TEST(Product, RefusesRowsOfAnotherWeight) {
  const Quantized q = make(16, 64, 32, 16);
  const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, 32);
  EXPECT_THAT(salient::test::message_of(
                  [&] {
                    integer_product(weight, quantize_rows(at::ones({1, 64}), 64));
                  },
                  ErrorKind::kInternal),
              ::testing::HasSubstr("groups of 64"));
}

TEST(InterleavedWeight, GivesBackWhatWentIn) {
  for (const auto& [out, in, group_size, levels] :
       {std::tuple{33, 256, 128, 16}, {5, 21, 7, 16}, {20, 90, 18, 256}, {16, 8, 8, 32}}) {
    const Quantized q = make(out, in, group_size, levels);
    const InterleavedWeight weight = interleave(q.codes, q.zeros, q.scales, group_size);
    EXPECT_TRUE(at::equal(natural_codes(weight), q.codes));
    EXPECT_TRUE(at::equal(natural_zeros(weight), q.zeros));
    EXPECT_TRUE(at::equal(natural_scales(weight), q.scales));
  }
}

TEST(InterleavedWeight, LayoutAndSizeAreTheDocumentedOnes) {
  const at::Tensor codes = at::arange(1, 9).to(at::kByte).view({1, 8});
  const InterleavedWeight four = interleave(codes, at::zeros({1, 1}, at::kByte), at::ones({1, 1}), 8);
  const auto* bytes = four.codes.const_data_ptr<uint8_t>();
  EXPECT_THAT(std::vector<uint8_t>(bytes, bytes + 5), ::testing::ElementsAre(0x51, 0x62, 0x73, 0x84, 0));
  const InterleavedWeight eight = interleave(codes * 20, at::zeros({1, 1}, at::kByte), at::ones({1, 1}), 8);
  bytes = eight.codes.const_data_ptr<uint8_t>();
  EXPECT_THAT(std::vector<uint8_t>(bytes, bytes + 5), ::testing::ElementsAre(20, 40, 60, 80, 0));
  EXPECT_EQ(bytes[64], 100);
  const Quantized q = make(64, 256, 128, 16);
  EXPECT_EQ(memory_bytes(interleave(q.codes, q.zeros, q.scales, 128)), 64U * 256 / 2 + 64 * 2 * 3);
}

TEST(InterleavedWeight, ShapesThatDoNotFitAreErrors) {
  const Quantized q = make(16, 64, 32, 16);
  EXPECT_THAT(salient::test::message_of([&] { interleave(q.codes, q.zeros, q.scales, 48); }, ErrorKind::kInvalidArgument),
              ::testing::HasSubstr("does not divide"));
  EXPECT_THAT(salient::test::message_of([&] { interleave(q.codes, q.zeros, q.scales, 64); }, ErrorKind::kInvalidArgument),
              ::testing::HasSubstr("expected [16, 1]"));
}

}  // namespace
}  // namespace salient::quant
