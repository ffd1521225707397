#include "eval/block_smoothing.h"

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/thrown_error.h"

namespace salient::eval {
namespace {

// Its codes lie in an order that only their device knows, and could not be moved to where scales are applied.
TEST(BlockSmoothing, ABaseInCodesOfADeviceIsNotSupported) {
  models::OperatorLinear linear;
  linear.packed = at::empty({1}, at::TensorOptions(at::kInt).device(at::kMeta));
  models::BlockWeights base;
  base.linears.front() = linear;
  EXPECT_THAT(test::message_of([&] { smoothed({}, base); }, ErrorKind::kUnsupported), ::testing::HasSubstr("quantized itself"));
}

}  // namespace
}  // namespace salient::eval
