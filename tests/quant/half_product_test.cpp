#include "quant/kernels/half_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/random_matrix.h"
#include "support/thrown_error.h"

namespace salient::quant {
namespace {

TEST(HalfProduct, IsTheFloatProductOfWhatIsStored) {
  for (const InstructionSet set : available_instruction_sets()) {
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      for (const auto& [out, in] : {std::pair{64, 128}, {37, 200}, {3, 7}, {1, 16}, {6, 33}}) {
        const at::Tensor weight = test::random_matrix(out, in, 3).to(type);
        for (const int64_t rows : {1, 2, 3, 4, 5, 11}) {
          const at::Tensor x = test::random_matrix(rows, in, 4);
          const at::Tensor exact = at::mm(x.to(at::kDouble), weight.to(at::kDouble).t());
          // A sum of `in` products in float32, each rounded by half an ulp and each sum by another.
          const at::Tensor bound = 6e-8 * (in + 1) * at::mm(x.abs().to(at::kDouble), weight.abs().to(at::kDouble).t());
          EXPECT_TRUE((half_product(weight, x, set).to(at::kDouble) - exact).abs().le(bound).all().item<bool>())
              << name(set) << type << out << "x" << in << rows;
        }
      }
    }
  }
}

// Including infinities, numbers below the smallest normal one, and signed zeros.
TEST(HalfProduct, ReadsEveryHalf) {
  at::Tensor bits = at::arange(1 << 16).to(at::kShort).view({-1, 16});
  for (const InstructionSet set : available_instruction_sets()) {
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      const at::Tensor weight = bits.view(type);
      const at::Tensor plain = weight.to(at::kFloat).nan_to_num(0.0, 0.0, 0.0);
      const at::Tensor finite = weight.isfinite().all(1);
      const at::Tensor y = half_product(weight, at::eye(16), set).t();
      EXPECT_TRUE(at::equal(y.index({finite}), plain.index({finite}))) << name(set) << type;
      EXPECT_FALSE(y.index({finite.logical_not()}).isfinite().all(1).any().item<bool>());
    }
  }
}

TEST(HalfProduct, RowsDoNotDependOnEachOther) {
  const at::Tensor weight = test::random_matrix(21, 50, 5).to(at::kHalf);
  const at::Tensor x = test::random_matrix(7, 50, 6);
  const at::Tensor together = half_product(weight, x);
  for (int64_t row = 0; row < 7; ++row) EXPECT_TRUE(at::equal(half_product(weight, x.narrow(0, row, 1))[0], together[row]));
}

TEST(HalfProduct, RefusesOtherTypes) {
  EXPECT_THAT(salient::test::message_of(
                  [] {
                    half_product(at::ones({2, 4}), at::ones({1, 4}));
                  },
                  ErrorKind::kInternal),
              ::testing::HasSubstr("expected float16"));
}

}  // namespace
}  // namespace salient::quant
