#include "quant/kernels/quadratic_form.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "quant/kernels/float_product.h"
#include "quant/random_matrix.h"
#include "support/thread_count.h"

namespace salient::quant {
namespace {

at::Tensor gram_of(int64_t features, int64_t rows, uint64_t seed) {
  const at::Tensor x = test::random_matrix(rows, features, seed, /*outliers=*/true);
  return at::mm(x.t(), x).contiguous();
}

at::Tensor forms_of(const at::Tensor& errors, const at::Tensor& gram, InstructionSet set) {
  const at::Tensor result = at::empty({errors.size(0)}, at::kFloat);
  find_quadratic_forms({errors.const_data_ptr<float>(), errors.stride(0), errors.size(0), gram.const_data_ptr<float>(),
                        gram.stride(0), gram.size(0), result.data_ptr<float>()},
                       set);
  return result;
}

at::Tensor exact_forms(const at::Tensor& errors, const at::Tensor& gram) {
  const at::Tensor d = errors.to(at::kDouble);
  return (at::mm(d, gram.to(at::kDouble)) * d).sum(1);
}

// Sizes around those of panels, tiles and steps.
TEST(QuadraticForm, IsNearTheExactOne) {
  for (const InstructionSet set : available_instruction_sets()) {
    for (const int64_t features : {1, 16, 31, 32, 33, 128, 192, 200, 300, 520}) {
      const at::Tensor gram = gram_of(features, 2 * features, 1);
      for (const int64_t rows : {1, 12, 241}) {
        const at::Tensor errors = test::random_matrix(rows, features, 2);
        const at::Tensor found = forms_of(errors, gram, set).to(at::kDouble);
        // Each product and sum is rounded by half an ulp of what it has reached.
        const at::Tensor bound = 6e-8 * (static_cast<double>(features) + 4) * exact_forms(errors.abs(), gram.abs());
        EXPECT_TRUE((found - exact_forms(errors, gram)).abs().le(bound).all().item<bool>())
            << name(set) << ", " << features << " features, " << rows << " rows";
      }
    }
  }
}

TEST(QuadraticForm, ReadsTheUpperHalfAlone) {
  const at::Tensor errors = test::random_matrix(20, 300, 3);
  const at::Tensor gram = gram_of(300, 400, 4);
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  for (const InstructionSet set : available_instruction_sets()) {
    const at::Tensor half = gram.triu() + at::full({300, 300}, 1e30F).tril(-1);
    EXPECT_TRUE(forms_of(errors, half, set).equal(forms_of(errors, gram, set))) << name(set);
    const at::Tensor odd = errors.clone();
    odd[7][299] = kNone;
    const at::Tensor found = forms_of(odd, gram, set);
    EXPECT_TRUE(std::isnan(found[7].item<float>()));
    EXPECT_EQ(found.isfinite().sum().item<int64_t>(), 19);
  }
}

TEST(QuadraticForm, TakesABlockOfAMatrixAndRowsThatAreApart) {
  const at::Tensor gram = gram_of(200, 300, 5);
  const at::Tensor wide = test::random_matrix(30, 100, 6);
  const at::Tensor block = gram.narrow(0, 70, 64).narrow(1, 70, 64);
  const at::Tensor errors = wide.narrow(1, 11, 64);
  const InstructionSet set = best_instruction_set();
  EXPECT_TRUE(forms_of(errors, block, set).equal(forms_of(errors.contiguous(), block.contiguous(), set)));
  at::Tensor apart = at::full({30, 3}, -1.0F);
  find_quadratic_forms({errors.const_data_ptr<float>(), errors.stride(0), 30, block.const_data_ptr<float>(), block.stride(0), 64,
                        apart.data_ptr<float>() + 1, 3});
  EXPECT_TRUE(apart.select(1, 1).equal(forms_of(errors, block, set)));
  EXPECT_TRUE(apart.select(1, 0).eq(-1).all().item<bool>());
  EXPECT_TRUE(apart.select(1, 2).eq(-1).all().item<bool>());
}

TEST(QuadraticForm, HasTheSameBitsWhateverRunsBesideARowAndInAnyNumberOfThreads) {
  const at::Tensor gram = gram_of(333, 400, 7);
  const at::Tensor errors = test::random_matrix(500, 333, 8);
  const at::Tensor expected = quadratic_forms(errors, gram);
  for (const int threads : salient::test::kThreadCounts) {
    const salient::test::ThreadCount count(threads);
    EXPECT_TRUE(quadratic_forms(errors, gram).equal(expected)) << threads << " threads";
    for (const int64_t rows : {1, 3, 25, 240, 499}) {
      EXPECT_TRUE(quadratic_forms(errors.narrow(0, 500 - rows, rows), gram).equal(expected.narrow(0, 500 - rows, rows))) << rows;
    }
  }
}

}  // namespace
}  // namespace salient::quant
