#include "models/decoder/norm.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace salient::models {
namespace {

at::Tensor rms_definition(const at::Tensor& x, double eps) {
  const at::Tensor wide = x.to(at::kDouble);
  return wide / (wide.pow(2).mean(-1, true) + eps).sqrt();
}

at::Tensor layer_definition(const at::Tensor& x, double eps) {
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor centred = wide - wide.mean(-1, true);
  return centred / (centred.pow(2).mean(-1, true) + eps).sqrt();
}

bool close(const at::Tensor& found, const at::Tensor& expected) {
  return found.sizes() == expected.sizes() && found.to(at::kDouble).allclose(expected, 2e-6, 2e-6);
}

class NormTest : public ::testing::Test {
 protected:
  NormTest() { at::manual_seed(3); }
};

struct Features {
  at::Tensor x = at::randn({2, 5, 16}) * 3 + 1;
  at::Tensor weight = at::randn({16});
  at::Tensor bias = at::randn({16});
};

TEST_F(NormTest, ThatIsNotThereChangesNothing) {
  const Features f;
  EXPECT_TRUE(normalize(Norm{}, f.x).is_same(f.x));
  EXPECT_TRUE(normalize({f.weight, f.bias, NormKind::kLayer, 1e-5, false}, f.x).is_same(f.x));
}

TEST_F(NormTest, Definitions) {
  const Features f;
  const double eps = 0.3;  // large enough to show
  const at::Tensor w = f.weight.to(at::kDouble);
  const at::Tensor b = f.bias.to(at::kDouble);
  EXPECT_TRUE(close(normalize({f.weight, {}, NormKind::kRms, eps, true}, f.x), w * rms_definition(f.x, eps)));
  EXPECT_TRUE(close(normalize({f.weight, f.bias, NormKind::kRms, eps, true}, f.x), w * rms_definition(f.x, eps) + b));
  EXPECT_TRUE(close(normalize({f.weight, {}, NormKind::kRmsOnePlus, eps, true}, f.x), (1.0 + w) * rms_definition(f.x, eps)));
  EXPECT_TRUE(close(normalize({f.weight, {}, NormKind::kLayer, eps, true}, f.x), w * layer_definition(f.x, eps)));
  EXPECT_TRUE(close(normalize({f.weight, f.bias, NormKind::kLayer, eps, true}, f.x), w * layer_definition(f.x, eps) + b));
}

TEST_F(NormTest, WithoutParametersOnlyNormalizes) {
  const Features f;
  EXPECT_TRUE(close(normalize({{}, {}, NormKind::kRms, 1e-6, true}, f.x), rms_definition(f.x, 1e-6)));
  EXPECT_TRUE(close(normalize({{}, {}, NormKind::kRmsOnePlus, 1e-6, true}, f.x), rms_definition(f.x, 1e-6)));
  EXPECT_TRUE(close(normalize({{}, {}, NormKind::kLayer, 1e-6, true}, f.x), layer_definition(f.x, 1e-6)));
}

TEST_F(NormTest, OneForEachHead) {
  const at::Tensor x = at::randn({2, 5, 3, 8}) + 0.5;
  const at::Tensor weight = at::randn({3, 8});
  const at::Tensor bias = at::randn({3, 8});
  const at::Tensor w = weight.to(at::kDouble);
  EXPECT_TRUE(
      close(normalize({weight, bias, NormKind::kLayer, 1e-5, true}, x), w * layer_definition(x, 1e-5) + bias.to(at::kDouble)));
  EXPECT_TRUE(close(normalize({weight, {}, NormKind::kLayer, 1e-5, true}, x), w * layer_definition(x, 1e-5)));
  EXPECT_TRUE(close(normalize({weight, {}, NormKind::kRms, 1e-5, true}, x), w * rms_definition(x, 1e-5)));
  EXPECT_TRUE(close(normalize({weight, {}, NormKind::kRmsOnePlus, 1e-5, true}, x), (1.0 + w) * rms_definition(x, 1e-5)));
}

// bfloat16: one rounding at the end, or, for kRms, one before the weight too.
TEST_F(NormTest, RoundsWhereTransformersDoes) {
  const at::Tensor x = at::randn({64, 32}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({32}).to(at::kBFloat16);
  const at::Tensor wide = weight.to(at::kFloat);
  const at::Tensor rms = rms_definition(x, 1e-6).to(at::kFloat);

  const at::Tensor found = normalize({weight, {}, NormKind::kRms, 1e-6, true}, x);
  EXPECT_EQ(found.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(found.equal(rms.to(at::kBFloat16) * weight));
  EXPECT_FALSE(found.equal((rms * wide).to(at::kBFloat16)));  // the two orders differ somewhere in 2048 values

  // A float32 sum may round to the neighbour of the exact result's bfloat16: none or next to none do.
  const auto differ = [](const at::Tensor& a, const at::Tensor& b) { return a.ne(b.to(at::kBFloat16)).sum().item<int64_t>(); };
  const at::Tensor plus = normalize({weight, {}, NormKind::kRmsOnePlus, 1e-6, true}, x);
  EXPECT_EQ(plus.scalar_type(), at::kBFloat16);
  EXPECT_LE(differ(plus, rms * (1 + wide)), 2);
  const at::Tensor layer = normalize({weight, weight, NormKind::kLayer, 1e-6, true}, x);
  EXPECT_EQ(layer.scalar_type(), at::kBFloat16);
  EXPECT_LE(differ(layer, layer_definition(x, 1e-6).to(at::kFloat) * wide + wide), 2);
}

TEST_F(NormTest, LargeHalfPrecisionInputsDoNotOverflow) {
  const at::Tensor x = at::full({1, 8}, 60000.0, at::kHalf);  // its square is beyond float16
  EXPECT_TRUE(normalize({{}, {}, NormKind::kRms, 1e-6, true}, x).equal(at::ones({1, 8}, at::kHalf)));
}

}  // namespace
}  // namespace salient::models
