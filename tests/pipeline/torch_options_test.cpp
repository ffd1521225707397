#include "pipeline/torch_options.h"

#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
using ::testing::HasSubstr;

TEST(TorchOptions, NamesOfDevices) {
  EXPECT_EQ(parse_device("cpu"), at::Device(at::kCPU));
  // Before anything is said of devices that are or are not there.
  for (const char* name : {"", "gpu", "cpu:0", "cud", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda: 1", "cuda0", "cudax"}) {
    SCOPED_TRACE(name);
    const Error error = test::error_of([&] { parse_device(name); }, ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), HasSubstr("expected cpu, cuda or cuda:N"));
    EXPECT_FALSE(error.hint().empty());
  }
}

TEST(TorchOptions, DevicesThatAreNotThere) {
  for (const char* name : {"cuda:99", "cuda:300", "cuda:99999999999999999999"}) {
    SCOPED_TRACE(name);
    const ErrorKind kind = at::hasCUDA() ? ErrorKind::kInvalidArgument : ErrorKind::kUnsupported;
    const Error error = test::error_of([&] { parse_device(name); }, kind);
    EXPECT_THAT(error.message(), HasSubstr(name));
    EXPECT_FALSE(error.hint().empty());
    EXPECT_EQ(error.code(), at::hasCUDA() ? "" : "KERNEL_NOT_FOUND");
  }
}

TEST(TorchOptions, DevicesOfThisMachine) {
  if (!at::hasCUDA()) GTEST_SKIP() << "this libtorch was built without CUDA, or no CUDA device is there";
  at::globalContext().setFloat32MatmulPrecision("high");
  EXPECT_EQ(parse_device("cuda"), at::Device(at::kCUDA));
  EXPECT_EQ(at::globalContext().float32MatmulPrecision(), at::Float32MatmulPrecision::HIGHEST);
  EXPECT_EQ(parse_device("cuda:0"), at::Device(at::kCUDA, 0));
}

}  // namespace
}  // namespace salient::pipeline
