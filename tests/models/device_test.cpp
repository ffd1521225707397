// The decoder on a device against the processor: on a CUDA one, skipped where there is none, and on one that stands in for it.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "models/decoder/decoder.h"
#include "support/stand_in_int4.h"

namespace salient::models {
namespace {

const std::filesystem::path kData = std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data";

struct DeviceCase {
  const char* name;
  const char* folder;
  std::optional<int> activation_bits;
  std::optional<int> kv_bits;
  double bound;  // of the largest difference of a logit; rounding to 8 bits turns the last bit of a float into a step, now and
                 // then, and bfloat16 takes the logits of both 0.05 away from float32's
  at::ScalarType dtype = at::kFloat;
};

class DeviceTest : public ::testing::TestWithParam<std::tuple<c10::DeviceType, DeviceCase>> {
 protected:
  void SetUp() override {
    if (device().is_cuda() && !at::hasCUDA()) GTEST_SKIP() << "this libtorch was built without CUDA, or no CUDA device is there";
  }
  static at::Device device() { return at::Device(std::get<0>(GetParam()), 0); }
};

TEST_P(DeviceTest, LogitsAreThoseOfTheProcessor) {
  const DeviceCase& test = std::get<1>(GetParam());
  const Checkpoint checkpoint(kData / test.folder);
  const auto logits = [&](at::Device place) {
    const Decoder decoder = Decoder::load(checkpoint, {test.dtype, place, test.activation_bits, test.kv_bits});
    const bool faster = std::holds_alternative<OperatorLinear>(decoder.block_weights(0).at(LinearSlot::kOProj));
    EXPECT_EQ(faster, test.dtype == at::kBFloat16 && has_int4_operator(place));
    const at::Tensor ids = at::arange(3, 3 + 2 * 9, at::kLong).remainder(decoder.config().vocab_size).view({2, 9});
    KvCache cache = decoder.make_cache(2, 9);
    const at::Tensor prompt = decoder.logits(decoder.hidden_states(ids.narrow(1, 0, 8), {}, &cache));
    return at::cat({prompt, decoder.logits(decoder.hidden_states(ids.narrow(1, 8, 1), {}, &cache))}, 1).cpu();
  };
  const at::Tensor difference = (logits(device()) - logits(at::kCPU)).abs();
  EXPECT_LT(difference.max().item<double>(), test.bound);
  EXPECT_LT(difference.mean().item<double>(), test.bound / 10);
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceTest,
                         ::testing::Combine(::testing::Values(test::kStandIn, c10::DeviceType::CUDA),
                                            ::testing::Values(DeviceCase{"float", "decoder/qwen3", {}, {}, 1e-4},
                                                              DeviceCase{"window", "decoder/mistral_window", {}, {}, 1e-4},
                                                              DeviceCase{"kv8", "decoder/qwen3", {}, 8, 2e-2},
                                                              DeviceCase{"packed", "compressed/w4_a8_kv8", 16, 16, 1e-4},
                                                              DeviceCase{"packed_a8_kv8", "compressed/w4_a8_kv8", 8, 8, 0.1},
                                                              DeviceCase{"operator", "compressed/w4_a8_kv8", 16, 16, 0.2,
                                                                         at::kBFloat16})),
                         [](const auto& param_info) {
                           const bool cuda = std::get<0>(param_info.param) == c10::DeviceType::CUDA;
                           return std::string(cuda ? "cuda_" : "stand_in_") + std::get<1>(param_info.param).name;
                         });

}  // namespace
}  // namespace salient::models
