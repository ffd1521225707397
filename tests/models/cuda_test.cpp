// The decoder on a CUDA device against the processor. Skipped, with the reason, where there is none.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "models/decoder/decoder.h"

namespace salient::models {
namespace {

const std::filesystem::path kData = std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data";

struct CudaCase {
  const char* name;
  const char* folder;
  std::optional<int> activation_bits;
  std::optional<int> kv_bits;
  double bound;  // of the largest difference of a logit; rounding to 8 bits turns the last bit of a float into a step
};

class Cuda : public ::testing::TestWithParam<CudaCase> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "this libtorch was built without CUDA, or no CUDA device is there";
  }
};

TEST_P(Cuda, LogitsAreThoseOfTheProcessor) {
  const CudaCase& test = GetParam();
  const Checkpoint checkpoint(kData / test.folder);
  const auto logits = [&](at::Device device) {
    const Decoder decoder = Decoder::load(checkpoint, {at::kFloat, device, test.activation_bits, test.kv_bits});
    const at::Tensor ids = at::arange(3, 3 + 2 * 9, at::kLong).remainder(decoder.config().vocab_size).view({2, 9});
    KvCache cache = decoder.make_cache(2, 9);
    const at::Tensor prompt = decoder.logits(decoder.hidden_states(ids.narrow(1, 0, 8), {}, &cache));
    return at::cat({prompt, decoder.logits(decoder.hidden_states(ids.narrow(1, 8, 1), {}, &cache))}, 1).cpu();
  };
  EXPECT_LT((logits(at::kCUDA) - logits(at::kCPU)).abs().max().item<double>(), test.bound);
}

INSTANTIATE_TEST_SUITE_P(Models, Cuda,
                         ::testing::Values(CudaCase{"float", "decoder/qwen3", {}, {}, 1e-4},
                                           CudaCase{"window", "decoder/mistral_window", {}, {}, 1e-4},
                                           CudaCase{"kv8", "decoder/qwen3", {}, 8, 2e-2},
                                           CudaCase{"packed", "compressed/w4_a8_kv8", 16, 16, 1e-4},
                                           CudaCase{"packed_a8_kv8", "compressed/w4_a8_kv8", 8, 8, 5e-2}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

}  // namespace
}  // namespace salient::models
