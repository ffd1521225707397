#include "models/decoder/float_product.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "quant/fixed_parts.h"
#include "support/thread_count.h"

namespace salient::models {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions()).to(dtype);
}

// In float64; what float32 may miss of it grows with the root of the number of terms.
void expect_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor found = float_product(x, weight, bias);
  at::Tensor expected = at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t());
  if (bias.defined()) expected = expected + bias.to(at::kDouble);
  ASSERT_EQ(found.sizes(), expected.sizes());
  EXPECT_EQ(found.scalar_type(), x.scalar_type());
  const double tolerance = x.scalar_type() == at::kFloat ? 2e-6 * static_cast<double>(x.size(-1)) : 0.3;
  EXPECT_LT((found.to(at::kDouble) - expected).abs().max().item<double>(), tolerance) << x.sizes() << " x " << weight.sizes();
}

TEST(FloatProduct, IsXTimesWTransposedPlusB) {
  for (const int64_t rows : {1, 15, 16, 17, 300}) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{64, 96}, {96, 31}, {1, 7}}) {
      const at::Tensor weight = random_tensor({out, in}, 2);
      expect_product(random_tensor({rows, in}, 1), weight, {});
      expect_product(random_tensor({rows, in}, 1), weight, random_tensor({out}, 3));
    }
  }
}

TEST(FloatProduct, TakesAnyNumberOfDimensionsAndStrides) {
  expect_product(random_tensor({2, 3, 20, 64}, 1), random_tensor({48, 64}, 2), random_tensor({48}, 3));
  expect_product(random_tensor({64, 40}, 1).t(), random_tensor({48, 64}, 2), {});
  expect_product(random_tensor({40, 64}, 1), random_tensor({64, 48}, 2).t(), {});
  expect_product(random_tensor({40, 128}, 1).narrow(1, 3, 64), random_tensor({80, 64}, 2).narrow(0, 5, 48), {});
}

TEST(FloatProduct, OfNoRowsIsEmpty) {
  const at::Tensor found = float_product(at::empty({0, 64}), random_tensor({48, 64}, 2));
  EXPECT_EQ(found.sizes(), (std::vector<int64_t>{0, 48}));
}

// What lets rows run beside any others (models/decoder/ragged_batch.h), in any number of threads.
TEST(FloatProduct, ARowHasTheSameBitsWhateverTheOthersAre) {
  constexpr int64_t kAll = 700;
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{256, 256}, {256, 768}, {768, 256}, {100, 77}, {333, 1001}}) {
    const at::Tensor weight = random_tensor({out, in}, 2);
    const at::Tensor x = random_tensor({kAll, in}, 1);
    const at::Tensor expected = float_product(x, weight);
    for (const int threads : test::kThreadCounts) {
      const test::ThreadCount count(threads);
      for (const int64_t rows : {1, 2, 7, 16, 17, 31, 33, 48, 64, 65, 127, 128, 200, 383, 511}) {
        for (const int64_t first : {int64_t{0}, int64_t{5}, kAll - rows}) {
          EXPECT_TRUE(float_product(x.narrow(0, first, rows), weight).equal(expected.narrow(0, first, rows)))
              << rows << " rows from " << first << ", " << in << " x " << out << ", " << threads << " threads";
        }
      }
      at::Tensor inside;
      quant::in_one_thread([&] { inside = float_product(x, weight); });
      EXPECT_TRUE(inside.equal(expected));
    }
  }
}

TEST(FloatProduct, KeepsNarrowTypes) {
  expect_product(random_tensor({32, 64}, 1, at::kBFloat16), random_tensor({48, 64}, 2, at::kBFloat16), {});
}

}  // namespace
}  // namespace salient::models
