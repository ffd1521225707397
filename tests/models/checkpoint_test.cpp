#include "models/io/checkpoint.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <limits>

#include "common/error.h"
#include "common/file.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void expect_error(const std::function<void()>& body, ErrorKind kind, const ::testing::Matcher<std::string>& text) {
  try {
    body();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_THAT(error.message(), text);
  }
}

class CheckpointFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("salient_checkpoint_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    write_file(folder_ / "config.json", R"({"model_type": "llama"})");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void single(const std::vector<NamedTensor>& tensors) const { write_safetensors(folder_ / "model.safetensors", tensors); }
  void shards() const {
    write_safetensors(folder_ / "model-00001-of-00002.safetensors", {{"a.weight", at::ones({2, 2})}});
    write_safetensors(folder_ / "model-00002-of-00002.safetensors", {{"b.weight", at::zeros({3})}});
    index(R"({"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"})");
  }
  void index(const std::string& map) const {
    write_file(folder_ / "model.safetensors.index.json", R"({"metadata": {}, "weight_map": )" + map + "}");
  }
  void expect_open_error(ErrorKind kind, const ::testing::Matcher<std::string>& text) const {
    expect_error([&] { const Checkpoint checkpoint(folder_); }, kind, text);
  }

  fs::path folder_;
};

TEST_F(CheckpointFolder, ReadsOneFile) {
  single({{"w", at::arange(6, at::kFloat).view({2, 3})}});
  const Checkpoint checkpoint(folder_);
  EXPECT_EQ(checkpoint.config()["model_type"], "llama");
  EXPECT_THAT(checkpoint.names(), ElementsAre("w"));
  EXPECT_EQ(checkpoint.total_bytes(), 24u);
  const at::Tensor loaded = checkpoint.load("w", {2, 3}, at::kBFloat16);
  EXPECT_EQ(loaded.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(loaded.to(at::kFloat), at::arange(6, at::kFloat).view({2, 3})));
  at::Tensor copy = checkpoint.load("w", {2, 3}, at::kFloat);
  copy.fill_(7);  // a copy, not the mapping
  EXPECT_EQ(checkpoint.view("w")[0][1].item<float>(), 1.0F);
}

TEST_F(CheckpointFolder, ReadsShards) {
  shards();
  const Checkpoint checkpoint(folder_);
  EXPECT_THAT(checkpoint.names(), ElementsAre("a.weight", "b.weight"));
  EXPECT_EQ(checkpoint.file_of("b.weight").filename(), "model-00002-of-00002.safetensors");
  EXPECT_EQ(checkpoint.total_bytes(), 28u);
  EXPECT_TRUE(at::equal(checkpoint.view("a.weight"), at::ones({2, 2})));
}

TEST_F(CheckpointFolder, NamesWhatIsMissing) {
  expect_error([] { const Checkpoint checkpoint("/no/such/folder"); }, ErrorKind::kNotFound, HasSubstr("/no/such/folder"));
  expect_open_error(ErrorKind::kNotFound, HasSubstr("no .safetensors file"));
  write_file(folder_ / "pytorch_model.bin", "x");
  expect_open_error(ErrorKind::kUnsupported, HasSubstr("pytorch_model.bin"));
  shards();
  fs::remove(folder_ / "model-00001-of-00002.safetensors");
  fs::remove(folder_ / "model-00002-of-00002.safetensors");
  expect_open_error(ErrorKind::kNotFound,
                    AllOf(HasSubstr("2 of 2"), HasSubstr("model-00001-of-00002"), HasSubstr("model-00002-of-00002")));
  fs::remove(folder_ / "config.json");
  expect_open_error(ErrorKind::kNotFound, HasSubstr("config.json"));
}

TEST_F(CheckpointFolder, RefusesBrokenIndexes) {
  shards();
  index(R"({"a.weight": "model-00001-of-00002.safetensors", "c.weight": "model-00002-of-00002.safetensors"})");
  expect_open_error(ErrorKind::kCorruption, HasSubstr("c.weight (should be in model-00002-of-00002.safetensors)"));
  index(R"({"a.weight": "../model-00001-of-00002.safetensors"})");
  expect_open_error(ErrorKind::kCorruption, HasSubstr("without folders"));
  index(R"({"a.weight": ")" + std::string(300, 'x') + R"("})");
  expect_open_error(ErrorKind::kNotFound, HasSubstr("1 of 1 shards"));
  index("{}");
  expect_open_error(ErrorKind::kCorruption, HasSubstr("empty"));
  index(R"({"a.weight": 3})");
  expect_open_error(ErrorKind::kCorruption, HasSubstr("a.weight"));
  write_file(folder_ / "model.safetensors.index.json", "{\"weight_map\": ");
  expect_open_error(ErrorKind::kCorruption, HasSubstr("not valid JSON"));
  shards();
  write_safetensors(folder_ / "model-00002-of-00002.safetensors", {{"a.weight", at::ones(1)}, {"b.weight", at::zeros({3})}});
  expect_open_error(ErrorKind::kCorruption, HasSubstr("'a.weight' is in two shards"));
  write_file(folder_ / "config.json", "[]");
  expect_open_error(ErrorKind::kCorruption, HasSubstr("expected a JSON object"));
}

TEST_F(CheckpointFolder, SuggestsTheNearestNames) {
  single({{"model.layers.0.self_attn.q_proj.weight", at::ones(1)},
          {"model.layers.0.mlp.up_proj.weight", at::ones(1)},
          {"lm_head.weight", at::ones(1)}});
  const Checkpoint checkpoint(folder_);
  expect_error([&] { static_cast<void>(checkpoint.view("model.layers.0.self_attn.qproj.weight")); }, ErrorKind::kNotFound,
               HasSubstr("names: model.layers.0.self_attn.q_proj.weight"));
}

TEST_F(CheckpointFolder, LoadChecksShapeAndKind) {
  single({{"w", at::ones({2, 3})}, {"i", at::ones({2}, at::kInt)}});
  const Checkpoint checkpoint(folder_);
  expect_error(
      [&] {
        checkpoint.load("w", {3, 2}, at::kFloat);
      },
      ErrorKind::kCorruption, HasSubstr("shape is [2, 3], expected [3, 2]"));
  expect_error([&] { checkpoint.load("i", {2}, at::kFloat); }, ErrorKind::kCorruption,
               HasSubstr("dtype is I32, expected a floating-point type"));
  expect_error(
      [&] {
        checkpoint.load("w", {2, 3}, at::kInt);
      },
      ErrorKind::kCorruption, HasSubstr("dtype is F32, expected an integer"));
  EXPECT_TRUE(at::equal(checkpoint.load("i", {2}, at::kInt), at::ones({2}, at::kInt)));
}

TEST_F(CheckpointFolder, LoadNamesTheFirstValueThatIsNotFinite) {
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
      at::Tensor w = at::randn({90, 101}, at::kDouble).to(dtype);  // more than one block of the search
      w.view(-1)[8200] = bad;
      w.view(-1)[8300] = bad;
      single({{"some.weight", w}});
      const Checkpoint checkpoint(folder_);
      expect_error(
          [&] {
            checkpoint.load("some.weight", {90, 101}, at::kFloat);
          },
          ErrorKind::kCorruption,
          AllOf(HasSubstr("'some.weight'"), HasSubstr("element 8200 (of 9090)"),
                HasSubstr(std::isnan(bad) ? "nan"
                          : bad > 0       ? " inf"
                                          : "-inf")));
    }
  }
  single({{"w", at::full({3}, 1e30)}});
  expect_error([&] { Checkpoint(folder_).load("w", {3}, at::kHalf); }, ErrorKind::kUnsupported,
               AllOf(HasSubstr("element 0 is 1.0"), HasSubstr("e+30, which does not fit into Half")));
}

}  // namespace
}  // namespace salient::models
