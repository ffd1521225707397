#include "pipeline/channel_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/error.h"
#include "common/file.h"
#include "models/decoder/config_reader.h"
#include "models/decoder/decoder.h"
#include "models/io/safetensors.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::HasSubstr;

at::Tensor random_rows(int64_t rows, int64_t features, uint64_t seed) {
  const at::Tensor x = test::golden_tensor("x" + std::to_string(seed), {rows, features}, 0.1, 2.0);
  x.select(1, 3).zero_();  // a channel that is never active
  return x;
}

ModelStatistics some_statistics() {
  ModelStatistics statistics{
      "demo", "abc", {{"a.q_proj", "a.input"}, {"a.k_proj", "a.input"}, {"a.experts.0.down_proj", "a.never_reached"}}, {}};
  add_tokens(statistics.inputs["a.input"], random_rows(10, 6, 1));
  add_tokens(statistics.inputs["b.input"], random_rows(4, 5, 2));
  return statistics;
}

TEST(ChannelStatistics, EqualFloat64Sums) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    ChannelStatistics statistics;
    const at::Tensor x = (random_rows(1000, 7, 3) * 300).to(dtype);  // squares overflow float16
    add_tokens(statistics, x.narrow(0, 0, 300));
    add_tokens(statistics, x.narrow(0, 300, 700));
    add_tokens(statistics, x.narrow(0, 0, 0));
    const at::Tensor reference = x.to(at::kDouble);
    EXPECT_EQ(statistics.tokens, 1000);
    EXPECT_TRUE(at::allclose(statistics.abs_sum, reference.abs().sum(0), 1e-12));
    EXPECT_TRUE(at::allclose(statistics.square_sum, reference.square().sum(0), 1e-7));
    EXPECT_TRUE(at::equal(statistics.max_abs.to(at::kDouble), reference.abs().amax(0)));
    EXPECT_EQ(never_active(statistics), 1);
  }
}

TEST(ChannelStatistics, AddedPartsEqualTheWhole) {
  ChannelStatistics whole, first, second;
  const at::Tensor x = random_rows(40, 9, 4), y = random_rows(25, 9, 5);
  add_tokens(whole, at::cat({x, y}));
  add_tokens(first, x);
  add_tokens(second, y);
  add(first, second);
  add(first, {});
  EXPECT_EQ(first.tokens, 65);
  EXPECT_TRUE(at::allclose(first.abs_sum, whole.abs_sum, 1e-14));
  EXPECT_TRUE(at::allclose(first.square_sum, whole.square_sum, 1e-14));
  EXPECT_TRUE(at::equal(first.max_abs, whole.max_abs));
  ChannelStatistics narrow;
  add_tokens(narrow, random_rows(3, 4, 6));
  EXPECT_THROW(add(first, narrow), Error);
}

TEST(ChannelStatistics, FilesKeepEverything) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "x.activations.safetensors";
  const ModelStatistics written = some_statistics();
  write_model_statistics(path, written);
  const ModelStatistics read = read_model_statistics(path);
  EXPECT_EQ(read.model, "demo");
  EXPECT_EQ(read.config_sha256, "abc");
  EXPECT_EQ(read.linears, written.linears);
  ASSERT_EQ(read.inputs.size(), 2u);
  for (const auto& [name, input] : written.inputs) {
    EXPECT_TRUE(at::equal(read.inputs.at(name).abs_sum, input.abs_sum));
    EXPECT_TRUE(at::equal(read.inputs.at(name).square_sum, input.square_sum));
    EXPECT_TRUE(at::equal(read.inputs.at(name).max_abs, input.max_abs));
    EXPECT_EQ(read.inputs.at(name).tokens, input.tokens);
  }
  // What other programs read.
  const models::SafetensorsFile file(path);
  const at::Tensor x = random_rows(10, 6, 1).to(at::kDouble);
  EXPECT_TRUE(at::allclose(file.view("a.input.mean_abs").to(at::kDouble), x.abs().mean(0), 1e-6));
  EXPECT_TRUE(at::allclose(file.view("a.input.rms").to(at::kDouble), x.square().mean(0).sqrt(), 1e-6));
  EXPECT_EQ(file.view("a.input.never_active").item<int64_t>(), 1);
  EXPECT_EQ(file.view("a.input.tokens").item<int64_t>(), 10);
  // The same bytes for the same sums.
  const std::string bytes = read_text_file(path);
  write_model_statistics(path, read);
  EXPECT_EQ(read_text_file(path), bytes);
}

TEST(ChannelStatistics, BrokenActivationsAreNotWritten) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "x.activations.safetensors";
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    ModelStatistics statistics = some_statistics();
    at::Tensor x = random_rows(2, 5, 7);
    x[1][2] = bad;
    add_tokens(statistics.inputs["b.input"], x);
    try {
      write_model_statistics(path, statistics);
      ADD_FAILURE() << "written";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCheckFailed);
      EXPECT_THAT(error.message(), HasSubstr("b.input"));
    }
    EXPECT_FALSE(std::filesystem::exists(path));
  }
}

TEST(ChannelStatistics, HostileFiles) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "x.activations.safetensors";
  const auto refusal = [&](std::vector<models::NamedTensor> tensors, std::map<std::string, std::string> metadata) {
    models::write_safetensors(path, tensors, metadata);
    try {
      read_model_statistics(path);
    } catch (const Error& error) {
      return error;
    }
    return Error(ErrorKind::kInternal, "accepted");
  };
  const std::map<std::string, std::string> good = {{"salient_format", "channel_statistics"},
                                                   {"salient_version", "1"},
                                                   {"model", "m"},
                                                   {"config_sha256", "c"},
                                                   {"linears", "{}"}};
  const at::Tensor sum = at::ones({4}, at::kDouble), most = at::ones({4}), tokens = at::ones({1}, at::kLong);
  const std::vector<models::NamedTensor> whole = {
      {"a.abs_sum", sum}, {"a.square_sum", sum}, {"a.tokens", tokens}, {"a.max_abs", most}};
  EXPECT_EQ(refusal(whole, good).message(), "accepted");
  EXPECT_EQ(refusal(whole, {}).kind(), ErrorKind::kCorruption);
  auto changed = good;
  changed["salient_format"] = "something";
  EXPECT_EQ(refusal(whole, changed).kind(), ErrorKind::kCorruption);
  changed = good;
  changed["salient_version"] = "2";
  EXPECT_EQ(refusal(whole, changed).kind(), ErrorKind::kUnsupported);
  for (const char* linears : {"[1]", "{\"a\": 1}", "{"}) {
    changed = good;
    changed["linears"] = linears;
    EXPECT_EQ(refusal(whole, changed).kind(), ErrorKind::kCorruption) << linears;
  }
  for (size_t missing = 1; missing < whole.size(); ++missing) {
    auto fewer = whole;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(missing));
    EXPECT_EQ(refusal(fewer, good).kind(), ErrorKind::kCorruption) << missing;
  }
  const auto replaced = [&](size_t index, const at::Tensor& tensor) {
    auto tensors = whole;
    tensors[index].tensor = tensor;
    return refusal(tensors, good);
  };
  EXPECT_EQ(replaced(0, most).kind(), ErrorKind::kCorruption);                        // dtype
  EXPECT_EQ(replaced(0, sum.view({2, 2})).kind(), ErrorKind::kCorruption);            // shape
  EXPECT_EQ(replaced(1, at::ones({5}, at::kDouble)).kind(), ErrorKind::kCorruption);  // width
  EXPECT_EQ(replaced(2, at::zeros({1}, at::kLong)).kind(), ErrorKind::kCorruption);   // no tokens
  EXPECT_EQ(replaced(2, at::ones({2}, at::kLong)).kind(), ErrorKind::kCorruption);
  write_model_statistics(path, some_statistics());
  const std::string bytes = read_text_file(path);
  write_file(path, bytes.substr(0, bytes.size() - 8));
  EXPECT_THROW(read_model_statistics(path), Error);
}

TEST(ChannelStatistics, EveryLinearOfAMixtureHasAnInput) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("qwen2_moe")).at("cases").at(0), folder.path());
  const models::Checkpoint checkpoint(folder.path());
  const models::Decoder decoder = models::Decoder::load(checkpoint, {});
  std::set<std::string> seen;
  const models::InputObserver observer = [&](int64_t block, models::InputId input, const at::Tensor&) {
    seen.insert(input_name(decoder.config(), block, input));
  };
  decoder.hidden_states(at::arange(60, at::kLong).view({1, 60}), {}, nullptr, {&observer, {}});
  const auto inputs = linear_inputs(decoder.config());
  std::set<std::string> named;
  for (const auto& [linear, input] : inputs) named.insert(input);
  for (const std::string& input : seen) EXPECT_TRUE(named.contains(input)) << input;
  EXPECT_EQ(inputs.at("model.layers.0.self_attn.q_proj"), inputs.at("model.layers.0.self_attn.v_proj"));
  EXPECT_EQ(inputs.at("model.layers.0.mlp.experts.1.gate_proj"), "model.layers.0.mlp_input");
  EXPECT_EQ(inputs.at("model.layers.0.mlp.experts.1.down_proj"), "model.layers.0.experts.1.mlp_hidden");
  EXPECT_EQ(inputs.at("model.layers.0.mlp.shared_expert.down_proj"), "model.layers.0.shared_expert.mlp_hidden");
  EXPECT_TRUE(seen.contains("model.layers.0.experts.1.mlp_hidden"));
  EXPECT_TRUE(seen.contains("model.layers.0.shared_expert.mlp_hidden"));
}

}  // namespace
}  // namespace salient::pipeline
