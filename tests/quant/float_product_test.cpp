#include "quant/kernels/float_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "quant/random_matrix.h"
#include "support/thread_count.h"
#include "support/thrown_error.h"

namespace salient::quant {
namespace {

// One number at a time, in order. `fused`: multiplied and added with one rounding.
at::Tensor products_in_order(const at::Tensor& x, const at::Tensor& weight, bool fused) {
  const at::Tensor rows = x.contiguous();
  const at::Tensor channels = weight.contiguous();
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, at::kFloat);
  for (int64_t r = 0; r < x.size(0); ++r) {
    for (int64_t n = 0; n < weight.size(0); ++n) {
      const auto* a = rows.const_data_ptr<float>() + r * x.size(1);
      const auto* b = channels.const_data_ptr<float>() + n * x.size(1);
      float sum = 0.0F;
      for (int64_t k = 0; k < x.size(1); ++k) {
        const volatile float product = a[k] * b[k];  // never contracted
        sum = fused ? std::fma(a[k], b[k], sum) : sum + product;
      }
      y.data_ptr<float>()[r * weight.size(0) + n] = sum;
    }
  }
  return y;
}

// Also of numbers that are none, which no comparison of values calls equal; which of them it is, is not told.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor numbers = a.isnan().logical_not();
  return at::equal(numbers, b.isnan().logical_not()) &&
         at::equal(a.masked_select(numbers).view(at::kInt), b.masked_select(numbers).view(at::kInt));
}

bool is_fused(InstructionSet set) { return set != InstructionSet::kPortable; }

// Around every size that a tile, a panel or a step has.
TEST(FloatProduct, AddsInOrder) {
  for (const InstructionSet set : available_instruction_sets()) {
    for (const int64_t rows : {1, 2, 5, 6, 7, 12, 13, 29, 241}) {
      for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1}, {16, 16}, {15, 17}, {100, 33}, {257, 193}, {600, 48}}) {
        const at::Tensor weight = test::random_matrix(out, in, 1);
        const at::Tensor x = test::random_matrix(rows, in, 2, /*outliers=*/true);
        EXPECT_TRUE(same_bits(float_product(x, weight, set), products_in_order(x, weight, is_fused(set))))
            << name(set) << " " << rows << " x " << in << " -> " << out;
      }
    }
  }
}

TEST(FloatProduct, IsNearTheExactProduct) {
  const at::Tensor weight = test::random_matrix(70, 3000, 3);
  const at::Tensor x = test::random_matrix(9, 3000, 4);
  const at::Tensor exact = at::mm(x.to(at::kDouble), weight.to(at::kDouble).t());
  for (const InstructionSet set : available_instruction_sets()) {
    // 3000 sums, each rounded by half an ulp of what it has reached.
    const at::Tensor bound = 6e-8 * 3001 * at::mm(x.abs().to(at::kDouble), weight.abs().to(at::kDouble).t());
    EXPECT_TRUE((float_product(x, weight, set).to(at::kDouble) - exact).abs().le(bound).all().item<bool>()) << name(set);
  }
}

TEST(FloatProduct, TakesNumbersThatAreSmallHugeOrNone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float odd[] = {std::numeric_limits<float>::quiet_NaN(),  kInfinity, -kInfinity, std::numeric_limits<float>::max(),
                       std::numeric_limits<float>::denorm_min(), -0.0F};
  for (const InstructionSet set : available_instruction_sets()) {
    for (const float number : odd) {
      at::Tensor x = test::random_matrix(15, 40, 5);
      at::Tensor weight = test::random_matrix(20, 40, 6);
      x[3][39] = number;
      weight[19][7] = number;
      EXPECT_TRUE(same_bits(float_product(x, weight, set), products_in_order(x, weight, is_fused(set)))) << name(set) << number;
      // Nothing of them reaches other rows or channels.
      const at::Tensor other = float_product(x, weight, set).narrow(0, 4, 11).narrow(1, 0, 19);
      EXPECT_TRUE(other.isfinite().all().item<bool>()) << name(set) << number;
    }
  }
}

TEST(FloatProduct, HasTheSameBitsWhateverRunsBesideARowAndInAnyNumberOfThreads) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{256, 768}, {333, 1001}}) {
    const at::Tensor weight = test::random_matrix(out, in, 7);
    const at::Tensor x = test::random_matrix(700, in, 8);
    const at::Tensor expected = float_product(x, weight);
    for (const int threads : salient::test::kThreadCounts) {
      const salient::test::ThreadCount count(threads);
      for (const int64_t rows : {1, 3, 16, 31, 240, 241, 699}) {
        for (const int64_t first : {int64_t{0}, int64_t{1}, 700 - rows}) {
          EXPECT_TRUE(same_bits(float_product(x.narrow(0, first, rows), weight), expected.narrow(0, first, rows)))
              << rows << " rows from " << first << ", " << threads << " threads";
        }
      }
      EXPECT_TRUE(same_bits(float_product(x, weight.narrow(0, 5, 100)), expected.narrow(1, 5, 100)));
    }
  }
}

TEST(FloatProduct, ReadsRowsThatAreApart) {
  const at::Tensor weight = test::random_matrix(50, 90, 9);
  const at::Tensor x = test::random_matrix(20, 90, 10);
  const auto with = [](const at::Tensor& a, const at::Tensor& b) {
    EXPECT_TRUE(same_bits(float_product(a, b), float_product(a.contiguous(), b.contiguous())));
  };
  with(x.narrow(1, 3, 64), weight.narrow(1, 5, 64));
  with(x, weight.t().contiguous().t());
  with(x.t().contiguous().t(), weight);
}

TEST(FloatProduct, OfNothingIsZeroOrEmpty) {
  EXPECT_TRUE(at::equal(float_product(at::empty({2, 0}), at::empty({3, 0})), at::ones({2, 3}) * 0));
  EXPECT_EQ(float_product(at::empty({0, 4}), at::ones({3, 4})).sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(float_product(at::ones({2, 4}), at::empty({0, 4})).sizes(), (std::vector<int64_t>{2, 0}));
}

// Rows or columns of each that lie together, and edges of tiles, panels and steps.
TEST(FloatProduct, MultipliesMatricesHoweverTheyLie) {
  const auto turned = [](const at::Tensor& x) { return x.t().contiguous().t(); };
  for (const InstructionSet set : available_instruction_sets()) {
    for (const auto& [m, k, n] :
         {std::array<int64_t, 3>{1, 1, 1}, {3, 40, 64}, {12, 300, 33}, {13, 17, 200}, {250, 256, 32}, {40, 530, 193}}) {
      const at::Tensor a = test::random_matrix(m, k, 11);
      const at::Tensor b = test::random_matrix(k, n, 12);
      const at::Tensor expected = products_in_order(a, b.t(), is_fused(set));
      for (const at::Tensor& left : {a, turned(a)}) {
        for (const at::Tensor& right : {b, turned(b)}) {
          for (const bool columns : {false, true}) {
            SCOPED_TRACE(testing::Message() << name(set) << " " << m << " x " << k << " x " << n << " " << columns);
            const at::Tensor to = columns ? at::empty({n, m}).t() : at::empty({m, n});
            multiply_floats(to, left, right, {}, set);
            EXPECT_TRUE(same_bits(to, expected));
          }
        }
      }
    }
  }
}

TEST(FloatProduct, AddsAShareOfTheWholeSum) {
  for (const InstructionSet set : available_instruction_sets()) {
    for (const auto& [m, k, n] : {std::array<int64_t, 3>{5, 40, 70}, {30, 300, 40}}) {
      const at::Tensor a = test::random_matrix(m, k, 13);
      const at::Tensor b = test::random_matrix(k, n, 14);
      const at::Tensor begin = test::random_matrix(m, n, 15);
      const at::Tensor products = products_in_order(a, b.t(), is_fused(set));
      for (const float share : {1.0F, -1.0F, 0.3F}) {
        const at::Tensor to = begin.clone();
        multiply_floats(to, a, b, {true, share}, set);
        for (int64_t i = 0; i < m * n; ++i) {
          const float product = products.const_data_ptr<float>()[i];
          const volatile float apart = share * product;  // never contracted
          const float before = begin.const_data_ptr<float>()[i];
          const float expected = is_fused(set) ? std::fma(share, product, before) : before + apart;
          ASSERT_EQ(to.const_data_ptr<float>()[i], expected) << name(set) << " " << i << ", share " << share;
        }
      }
    }
  }
}

TEST(FloatProduct, MakesTheWantedTriangle) {
  for (const InstructionSet set : available_instruction_sets()) {
    for (const int64_t n : {1, 20, 33, 192}) {
      const at::Tensor a = test::random_matrix(n, 70, 16);
      const at::Tensor whole = products_in_order(a, a, is_fused(set));
      for (const bool columns : {false, true}) {
        const at::Tensor to = columns ? at::empty({n, n}).t() : at::empty({n, n});
        multiply_floats(to, a, a.t(), {.wanted = Triangle::kUpper}, set);
        EXPECT_TRUE(same_bits(to.triu(), whole.triu())) << name(set) << " " << n;
        multiply_floats(to, a, a.t(), {.wanted = Triangle::kLower}, set);
        EXPECT_TRUE(same_bits(to.tril(), whole.tril())) << name(set) << " " << n;
      }
    }
  }
}

TEST(FloatProduct, RefusesWhatDoesNotFit) {
  const auto message = [](const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, Triangle wanted) {
    return salient::test::message_of([&] { multiply_floats(to, a, b, {.wanted = wanted}); }, ErrorKind::kInternal);
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(message(at::empty({2, 3}), at::ones({2, 4}), at::ones({5, 3}), Triangle::kWhole),
              HasSubstr("[2, 4] x [5, 3] into [2, 3]"));
  EXPECT_THAT(message(at::empty({4, 6}).slice(1, 0, 6, 2), at::ones({4, 4}), at::ones({4, 3}), Triangle::kWhole),
              HasSubstr("strides are 6, 2"));
  EXPECT_THAT(message(at::empty({200, 200}), at::ones({200, 1}), at::ones({1, 200}), Triangle::kUpper), HasSubstr("at most 192"));
}

TEST(FloatProduct, RefusesOtherTypes) {
  EXPECT_THAT(salient::test::message_of(
                  [] {
                    float_product(at::ones({1, 4}), at::ones({2, 4}, at::kHalf));
                  },
                  ErrorKind::kInternal),
              ::testing::HasSubstr("expected float32"));
}

}  // namespace
}  // namespace salient::quant
