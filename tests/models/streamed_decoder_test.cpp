#include "models/decoder/streamed_decoder.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/decoder/decoder.h"
#include "models/decoder/decoder_config.h"
#include "support/counting_allocator.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
constexpr double kTolerance = 1e-5;  // of a logit, relative to the largest one where that is above 1

// Counted from the start: no tensor may come from another allocator.
test::CountingAllocator& counter = test::CountingAllocator::install();

std::vector<uint64_t> some_budgets(const Decoder& decoder) { return {0, decoder.weight_bytes() / 2, kUnlimited}; }

// int64 [rows, tokens]: the rows of a golden case, cut to the shortest.
at::Tensor batch_of(const Json& golden) {
  const auto rows = golden.at("ids").get<std::vector<std::vector<int64_t>>>();
  size_t tokens = rows[0].size();
  for (const auto& row : rows) tokens = std::min(tokens, row.size());
  std::vector<at::Tensor> cut;
  for (const auto& row : rows) cut.push_back(at::tensor(row, at::kLong).narrow(0, 0, static_cast<int64_t>(tokens)));
  return at::stack(cut);
}

// Both decoders are given the same pieces of `ids`, the first with `first` tokens, then one at a time.
void expect_same_logits(const Decoder& decoder, StreamedDecoder& streamed, const at::Tensor& ids, int64_t first) {
  KvCache cache = decoder.make_cache(ids.size(0), ids.size(1));
  streamed.start(ids.size(0), ids.size(1));
  for (int64_t begin = 0; begin < ids.size(1);) {
    const int64_t count = begin == 0 ? first : 1;
    const at::Tensor piece = ids.narrow(1, begin, count);
    const at::Tensor expected = decoder.logits(decoder.hidden_states(piece, {}, &cache).select(1, count - 1));
    const at::Tensor found = streamed.next_logits(piece);
    ASSERT_EQ(found.sizes(), expected.sizes());
    ASSERT_EQ(found.scalar_type(), at::kFloat);
    const double scale = std::max(1.0, expected.abs().max().item<double>());
    EXPECT_TRUE((found - expected).abs().max().item<double>() < kTolerance * scale)
        << "token " << begin << ": " << (found - expected).abs().max().item<double>();
    begin += count;
  }
}

class StreamedDecoderGolden : public ::testing::TestWithParam<test::GoldenCase> {};

TEST_P(StreamedDecoderGolden, LogitsAreThoseOfTheDecoder) {
  at::set_num_threads(1);  // the models are so small that threads cost more than they bring
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(GetParam().golden, folder.path() / "model");
  const Checkpoint checkpoint(folder.path() / "model");
  const Decoder decoder = Decoder::load(checkpoint, {});
  const at::Tensor ids = batch_of(GetParam().golden);
  for (const uint64_t budget : some_budgets(decoder)) {
    SCOPED_TRACE(budget);
    StreamedDecoder streamed(checkpoint, decoder.config(), budget);
    expect_same_logits(decoder, streamed, ids, 1);
    expect_same_logits(decoder, streamed, ids.narrow(0, 0, 1), 4);  // again, with what the first rows left in memory
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, StreamedDecoderGolden, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& param_info) { return test::golden_test_name(param_info.param); });

// bfloat16 on disk, a head of its own and one that is the embedding.
TEST(StreamedDecoder, ReadsBfloat16) {
  for (const char* name : {"llama", "qwen3", "llama_old_tied_bias"}) {
    SCOPED_TRACE(name);
    const Checkpoint checkpoint(kData + name);
    const Decoder decoder = Decoder::load(checkpoint, {});
    const at::Tensor ids = at::tensor({3, 1, 4, 1, 5, 9, 2, 6}, at::kLong).view({2, 4});
    for (const uint64_t budget : some_budgets(decoder)) {
      StreamedDecoder streamed(checkpoint, decoder.config(), budget);
      expect_same_logits(decoder, streamed, ids, 2);
    }
  }
}

// A golden case with `layers` blocks and `vocabulary` tokens, all like the first.
Json deeper(const std::string& model_type, int64_t layers, int64_t vocabulary) {
  Json golden = read_json_file(test::golden_file(model_type)).at("cases").at(0);
  golden["config"]["num_hidden_layers"] = layers;
  golden["config"].erase("layer_types");
  const int64_t before = golden["config"]["vocab_size"].get<int64_t>();
  golden["config"]["vocab_size"] = vocabulary;
  Json tensors = Json::array();
  const std::string prefix = "model.layers.";
  for (Json tensor : golden.at("tensors")) {
    const auto name = tensor[0].get<std::string>();
    if (tensor[1][0].get<int64_t>() == before && !name.starts_with(prefix)) tensor[1][0] = vocabulary;
    if (!name.starts_with(prefix)) tensors.push_back(tensor);
    if (!name.starts_with(prefix + "0.")) continue;
    for (int64_t layer = 0; layer < layers; ++layer) {
      tensor[0] = prefix + std::to_string(layer) + name.substr(prefix.size() + 1);
      tensors.push_back(tensor);
    }
  }
  golden["tensors"] = tensors;
  return golden;
}

struct Measured {
  uint64_t kept = 0;     // after a few tokens, beside the cache
  uint64_t running = 0;  // the most at a time while a token runs, beyond what is kept
};

Measured measure(const Checkpoint& checkpoint, const DecoderConfig& config, uint64_t budget) {
  const uint64_t before = counter.live();
  StreamedDecoder streamed(checkpoint, config, budget);
  streamed.start(1, 4);
  for (int64_t token = 0; token < 3; ++token) streamed.next_logits(at::full({1, 1}, token, at::kLong));
  Measured measured;
  const uint64_t kept = counter.live();
  measured.kept = kept - before - 4 * cache_bytes_per_token(config, at::kFloat);
  counter.reset_peak();
  streamed.next_logits(at::full({1, 1}, 3, at::kLong));
  EXPECT_EQ(counter.live(), kept);
  measured.running = counter.peak() - kept;
  return measured;
}

class StreamedDecoderMemory : public ::testing::Test {
 protected:
  void write(const std::string& model_type, int64_t layers, int64_t vocabulary) {
    test::write_golden_checkpoint(deeper(model_type, layers, vocabulary), folder_.path() / "model");
    checkpoint_.emplace(folder_.path() / "model");
    config_ = load_decoder_config(*checkpoint_);
    block_ = memory_bytes(load_block(*checkpoint_, config_, 0, at::kFloat, at::kCPU));
    head_ = static_cast<uint64_t>(config_.vocab_size * config_.hidden_size) * sizeof(float);
  }
  test::TemporaryFolder folder_;
  std::optional<Checkpoint> checkpoint_;
  DecoderConfig config_;
  uint64_t block_ = 0;  // bytes
  uint64_t head_ = 0;
};

TEST_F(StreamedDecoderMemory, StaysWithinTheBudgetAndUsesIt) {
  write("llama", 8, 96);
  const uint64_t least = measure(*checkpoint_, config_, 0).kept;
  EXPECT_LT(least, block_ / 10);  // the last norm
  const auto kept = [&](uint64_t budget) { return measure(*checkpoint_, config_, budget).kept - least; };
  EXPECT_EQ(kept(head_ - 1), 0u);
  EXPECT_EQ(kept(head_), head_);
  EXPECT_EQ(kept(block_), head_);  // it goes first
  EXPECT_EQ(kept(head_ + 3 * block_), head_ + 3 * block_);
  EXPECT_EQ(kept(head_ + 4 * block_ - 1), head_ + 3 * block_);
  EXPECT_EQ(kept(head_ + 8 * block_), head_ + 8 * block_);
  EXPECT_EQ(kept(kUnlimited), head_ + 8 * block_);
}

TEST_F(StreamedDecoderMemory, HoldsOneBlockAtATime) {
  write("llama", 8, 96);
  const Measured measured = measure(*checkpoint_, config_, 0);
  EXPECT_GE(measured.running, block_);
  EXPECT_LT(measured.running, 2 * block_);
}

TEST_F(StreamedDecoderMemory, OfAMixtureOneExpertAtATime) {
  write("mixtral", 3, 96);
  const uint64_t rest = memory_bytes(load_block(*checkpoint_, config_, 0, at::kFloat, at::kCPU, LoadExperts::kNo));
  const uint64_t expert = (block_ - rest) / static_cast<uint64_t>(block_layout(config_, 0).experts);
  const uint64_t least = measure(*checkpoint_, config_, 0).kept;
  const Measured all = measure(*checkpoint_, config_, kUnlimited);
  EXPECT_EQ(all.kept - least, head_ + 3 * rest);  // experts are not kept
  const Measured none = measure(*checkpoint_, config_, 0);
  EXPECT_LT(none.running, rest + 2 * expert);
  EXPECT_GE(none.running, rest);
}

// Bytes of a mapped file that are in this process's memory.
uint64_t resident_bytes(const fs::path& file) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  uint64_t total = 0;
  while (std::getline(maps, line)) {
    if (line.find('-') != std::string::npos && line.find(" r") != std::string::npos) inside = line.ends_with(file.string());
    if (inside && line.starts_with("Rss:")) total += std::stoull(line.substr(4)) * 1024;
  }
  return total;
}

// A head that is read from the file each time leaves no pages behind, whatever it is stored in.
TEST_F(StreamedDecoderMemory, LetsGoOfTheMappedHead) {
  if (!fs::exists("/proc/self/smaps")) GTEST_SKIP() << "needs Linux' /proc";
  write("llama", 1, 16384);  // a head of 4 MiB
  for (const uint64_t budget : {uint64_t{0}, kUnlimited}) {
    const fs::path file = fs::canonical(folder_.path() / "model" / "model.safetensors");
    StreamedDecoder streamed(*checkpoint_, config_, budget);
    streamed.start(1, 2);
    streamed.next_logits(at::zeros({1, 1}, at::kLong));
    streamed.next_logits(at::ones({1, 1}, at::kLong));
    EXPECT_LT(resident_bytes(file), head_ / 4) << budget;
    EXPECT_EQ(checkpoint_->view("lm_head.weight").size(0), 16384);
    checkpoint_->view("lm_head.weight").sum();
    EXPECT_GT(resident_bytes(file), head_ / 2);  // it can be seen
    checkpoint_->release("lm_head.weight");
  }
}

}  // namespace
}  // namespace salient::models
