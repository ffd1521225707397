// Every architecture gives the same bits for every number of threads, in float32 on the CPU.
#include "support/thread_count.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "models/decoder/decoder.h"
#include "models/io/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

// Long enough that products, attention and activations are shared out.
constexpr int64_t kRows = 12;
constexpr int64_t kTokens = 61;

at::Tensor some_ids(int64_t vocab_size) {
  at::Tensor ids = at::empty({kRows, kTokens}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.data_ptr<int64_t>()[i] =
        static_cast<int64_t>(test::splitmix64(static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocab_size));
  return ids;
}

class ThreadCounts : public ::testing::TestWithParam<test::GoldenCase> {};

TEST_P(ThreadCounts, LogitsHaveTheSameBits) {
  const at::NoGradGuard no_grad;
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(GetParam().golden, folder.path());
  const Checkpoint checkpoint(folder.path());
  const Decoder decoder = Decoder::load(checkpoint, {});
  const at::Tensor ids = some_ids(decoder.config().vocab_size);
  at::Tensor first;
  for (const int threads : test::kThreadCounts) {
    const test::ThreadCount count(threads);
    const at::Tensor logits = decoder.logits(decoder.hidden_states(ids));
    if (!first.defined()) first = logits;
    EXPECT_TRUE(first.equal(logits)) << threads << " threads, off by " << (first - logits).abs().max().item<float>();
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, ThreadCounts, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& one) { return test::golden_test_name(one.param); });

}  // namespace
}  // namespace salient::models
