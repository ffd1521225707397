#include "quant/fixed_product.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "support/thread_count.h"

namespace salient::quant {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed)).to(dtype);
}

at::Tensor of_any_threads(const std::function<at::Tensor()>& work) {
  at::Tensor first;
  for (const int threads : test::kThreadCounts) {
    const test::ThreadCount count(threads);
    const at::Tensor found = work();
    if (!first.defined()) first = found;
    EXPECT_TRUE(first.equal(found)) << threads << " threads";
  }
  return first;
}

// A sum of `terms` products of normal numbers, in float32.
void expect_near(const at::Tensor& found, const at::Tensor& expected, int64_t terms) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  if (found.numel() == 0) return;
  EXPECT_LT((found.to(at::kDouble) - expected).abs().max().item<double>(), 2e-6 * static_cast<double>(terms));
}

struct Shape {
  int64_t m;
  int64_t k;
  int64_t n;
};

// Sides of tiles and what is beside them, sizes at which MKL's own bits follow the threads (1333 x 32 x 35), and random ones.
std::vector<Shape> shapes() {
  std::vector<Shape> all = {{1, 1, 1},      {1, 300, 2000}, {64, 64, 64},    {65, 17, 129}, {1333, 32, 35},
                            {284, 344, 36}, {96, 903, 21},  {600, 700, 800}, {3, 1500, 1}};
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    const auto size = [&] { return static_cast<int64_t>(1 + random() % (random() % 2 == 0 ? 40 : 700)); };
    all.push_back({size(), size(), size()});
  }
  return all;
}

TEST(FixedProduct, IsTheProductWithTheSameBits) {
  for (const auto& [m, k, n] : shapes()) {
    SCOPED_TRACE(testing::Message() << m << " x " << k << " x " << n);
    const at::Tensor a = random_tensor({m, k}, 1);
    const at::Tensor b = random_tensor({n, k}, 2);
    const at::Tensor expected = at::matmul(a.to(at::kDouble), b.to(at::kDouble).t());
    expect_near(of_any_threads([&] { return product(a, b.t()); }), expected, k);
    expect_near(of_any_threads([&] { return product(a, b.t().contiguous()); }), expected, k);
    const at::Tensor begin = random_tensor({m, n}, 3);
    expect_near(of_any_threads([&] {
                  at::Tensor to = begin.clone();
                  add_product(to, a, b.t(), -0.5);
                  return to;
                }),
                begin.to(at::kDouble) - 0.5 * expected, k);
  }
}

TEST(FixedProduct, OfManyMatrices) {
  for (const auto& [m, k, n] : {Shape{1, 64, 70}, {33, 100, 33}, {300, 16, 65}}) {
    for (const int64_t count : {1, 2, 5}) {
      const at::Tensor a = random_tensor({count, 3, m, k}, 1);
      const at::Tensor b = random_tensor({count, 3, n, k}, 2).transpose(2, 3);
      expect_near(of_any_threads([&] { return product(a, b); }), at::matmul(a.to(at::kDouble), b.to(at::kDouble)), k);
    }
  }
}

TEST(FixedProduct, OfNothingAndOfOtherTypes) {
  EXPECT_EQ(product(at::zeros({0, 4}), at::zeros({4, 3})).sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_TRUE(product(at::zeros({2, 0}), at::zeros({0, 3})).equal(at::zeros({2, 3})));
  const at::Tensor a = random_tensor({70, 33}, 1, at::kDouble);
  const at::Tensor b = random_tensor({33, 90}, 2, at::kDouble);
  EXPECT_LT((product(a, b) - at::matmul(a, b)).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(product(a.to(at::kBFloat16), b.to(at::kBFloat16)).scalar_type(), at::kBFloat16);
}

TEST(FixedProduct, GramAndOuterTriangles) {
  for (const int64_t n : {1, 40, 64, 65, 200, 500}) {
    for (const int64_t k : {1, 37, 300}) {
      SCOPED_TRACE(testing::Message() << n << ", " << k);
      const at::Tensor rows = random_tensor({k, n}, 1);
      const at::Tensor begin = random_tensor({n, n}, 2);
      const at::Tensor wide = rows.to(at::kDouble);
      const at::Tensor gram = at::matmul(wide.t(), wide);
      const at::Tensor upper = of_any_threads([&] {
        at::Tensor to = begin.clone();
        add_upper_gram(to, rows, {k});
        return to.triu();
      });
      expect_near(upper, (begin.to(at::kDouble) + gram).triu(), k);
      at::Tensor both = upper + begin.tril(-1);
      mirror_upper(both);
      EXPECT_TRUE(both.equal(upper + upper.triu(1).t()));
      const at::Tensor lower = of_any_threads([&] {
        at::Tensor to = begin.clone();
        subtract_lower_outer(to, rows.t());
        return to.tril();
      });
      expect_near(lower, (begin.to(at::kDouble) - gram).tril(), k);
    }
  }
}

// The same pieces in one call or in several.
TEST(FixedProduct, PiecesOfAGramMatrixMayComeOneByOne) {
  const at::Tensor rows = random_tensor({300, 130}, 1);
  const std::vector<int64_t> pieces = {70, 0, 1, 100, 129};
  const at::Tensor together = at::zeros({130, 130});
  add_upper_gram(together, rows, pieces);
  const at::Tensor one_by_one = at::zeros({130, 130});
  int64_t begin = 0;
  for (const int64_t count : pieces) {
    add_upper_gram(one_by_one, rows.narrow(0, begin, count), {count});
    begin += count;
  }
  EXPECT_TRUE(together.triu().equal(one_by_one.triu()));
}

}  // namespace
}  // namespace salient::quant
