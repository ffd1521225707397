#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/error.h"
#include "models/io/npz.h"
#include "models/io/safetensors.h"
#include "pipeline/commands/metal_marlin_commands.h"
#include "pipeline/metal_marlin.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::metal_marlin {
namespace {

using test::message_of;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr const char* kUp = "model.layers.0.mlp.up_proj.weight";
constexpr const char* kDown = "model.layers.0.mlp.down_proj.weight";

at::Tensor normal(std::vector<int64_t> shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

// A model of two matrices in two files, [out, in] as Hugging Face stores them; what must stay; and activations with outliers.
class Model : public testing::Test {
 protected:
  void SetUp() override {
    up_ = (normal({48, 64}, 1) * 0.1).to(at::kBFloat16);
    down_ = normal({64, 128}, 2) * 0.1;
    norm_ = normal({64}, 3);
    models::write_safetensors(
        model() / "model-00001.safetensors",
        {{kUp, up_}, {"model.embed_tokens.weight", normal({32, 64}, 4)}, {"model.layers.0.input_layernorm.weight", norm_}});
    models::write_safetensors(model() / "model-00002.safetensors",
                              {{kDown, down_}, {"lm_head.weight", normal({32, 64}, 5)}, {"odd.weight", normal({7, 64}, 6)}});
    up_inputs_ = normal({2, 40, 64}, 7);
    up_inputs_.select(2, 5).mul_(30);
    down_inputs_ = normal({80, 128}, 8);
    down_inputs_.select(1, 100).mul_(20);
    models::NpzWriter writer(activations(), true);
    writer.add(kUp, up_inputs_.to(at::kHalf));
    writer.add("model.layers.0.mlp.down_proj", down_inputs_);  // without ".weight"
    writer.commit();
  }
  fs::path model() const { return folder_.path() / "model"; }
  fs::path activations() const { return folder_.path() / "activations.npz"; }
  fs::path out(const char* name) const { return folder_.path() / name; }

  test::TemporaryFolder folder_;
  at::Tensor up_, down_, norm_, up_inputs_, down_inputs_;
};

AwqModelOptions quiet(int64_t group_size = 32) {
  AwqModelOptions options;
  options.quantize.group_size = group_size;
  options.quantize.salient_ratio = 0.02;
  options.verbose = false;
  return options;
}

bool same(const at::Tensor& a, const at::Tensor& b) {
  const auto plain = [](const at::Tensor& t) {
    return t.scalar_type() == at::kUInt32 ? t.contiguous().view(at::kInt) : t.contiguous();
  };
  return a.scalar_type() == b.scalar_type() && at::equal(plain(a), plain(b));
}

TEST_F(Model, BecomesFilesOfMetalMarlinsNames) {
  const Json stats = awq_quantize_model(model(), out("q"), activations(), quiet());
  EXPECT_EQ(stats["quantized_count"], 2);
  EXPECT_EQ(stats["skipped_count"], 4);
  EXPECT_EQ(stats["quant_type"], "awq_int4");
  EXPECT_EQ(stats["original_bytes"], 48 * 64 * 2 + 64 * 128 * 4);
  EXPECT_EQ(stats["quantized_bytes"], 48 * 32 + 2 * 2 * 48 * 2 + 64 * 2 + 64 * 64 + 2 * 4 * 64 * 2 + 128 * 2);

  const models::SafetensorsFile first(out("q") / "model-00001.awq.safetensors");
  const models::SafetensorsFile second(out("q") / "model-00002.awq.safetensors");
  EXPECT_EQ(first.metadata().at("weight_layout"), "out_in");
  EXPECT_TRUE(at::equal(first.view("model.layers.0.input_layernorm.weight"), norm_));
  EXPECT_TRUE(second.tensors().contains("odd.weight"));
  // Each tensor as awq_quantize gives it alone.
  const AwqResult up = awq_quantize(up_.t(), up_inputs_.to(at::kHalf), quiet().quantize);
  const AwqResult down = awq_quantize(down_.t(), down_inputs_, quiet().quantize);
  const std::string up_name = kUp, down_name = kDown;
  EXPECT_TRUE(same(first.view(up_name), up.Q));
  EXPECT_TRUE(same(first.view(up_name + ".scales"), up.scales));
  EXPECT_TRUE(same(first.view(up_name + ".zeros"), up.zeros));
  EXPECT_TRUE(same(first.view(up_name + ".q_scale"), up.q_scale));
  EXPECT_TRUE(same(second.view(down_name), down.Q));
  EXPECT_TRUE(same(second.view(down_name + ".q_scale"), down.q_scale));
  EXPECT_GT(up.q_scale[5].item<float>(), 1);
  for (const Json& layer : stats["layers"]) {
    EXPECT_LT(layer["output_error"].get<double>(), layer["rtn_output_error"].get<double>()) << layer;
  }
}

TEST_F(Model, ComesBackInItsOwnLayout) {
  awq_quantize_model(model(), out("q"), activations(), quiet());
  const Json stats = awq_dequantize_model(out("q"), out("restored"), at::kFloat);
  EXPECT_EQ(stats["dequantized_count"], 2);
  const models::SafetensorsFile file(out("restored") / "model-00001.safetensors");
  ASSERT_EQ(file.view(kUp).sizes(), up_.sizes());
  EXPECT_LT(((file.view(kUp) - up_.to(at::kFloat)).norm() / up_.to(at::kFloat).norm()).item<float>(), 0.2);
  EXPECT_TRUE(at::equal(file.view("model.layers.0.input_layernorm.weight"), norm_));
  EXPECT_THAT(message_of([&] { awq_dequantize_model(out("q"), out("restored")); }, ErrorKind::kInvalidArgument),
              HasSubstr("there already"));
}

TEST_F(Model, AndItsNpzFormHoldTheSame) {
  {
    models::NpzWriter writer(out("w.npz"));
    writer.add(kUp, up_.to(at::kFloat).t());  // [in, out]
    writer.add("bias", normal({48}, 9));
    writer.commit();
  }
  awq_quantize_model(model(), out("q"), activations(), quiet());
  AwqModelOptions options = quiet();
  options.compressed = true;
  awq_quantize_model(out("w.npz"), out("q.npz"), activations(), options);
  const models::NpzFile npz(out("q.npz"));
  const models::SafetensorsFile tensors(out("q") / "model-00001.awq.safetensors");
  EXPECT_THAT(npz.names(), testing::ElementsAre(kUp, std::string(kUp) + ".scales", std::string(kUp) + ".zeros",
                                                std::string(kUp) + ".q_scale", "bias", "awq_metadata"));
  for (const char* part : {"", ".scales", ".zeros", ".q_scale"}) {
    EXPECT_TRUE(same(npz.read(std::string(kUp) + part), tensors.view(std::string(kUp) + part))) << part;
  }
  awq_dequantize_model(out("q.npz"), out("restored"), at::kFloat);
  EXPECT_EQ(models::NpzFile(out("restored") / "q.npz").read(kUp).sizes(), (std::vector<int64_t>{64, 48}));
}

// "Slightly larger": deflated, a q_scale that holds more factors takes more bytes.
TEST(ModelSize, GrowsSlightlyWithTheRatio) {
  const test::TemporaryFolder folder;
  {
    models::NpzWriter weights(folder.path() / "w.npz"), inputs(folder.path() / "a.npz");
    weights.add("weight", normal({1024, 8}, 1));
    inputs.add("weight", normal({64, 1024}, 2) * at::linspace(1, 8, 1024).square());
    weights.commit();
    inputs.commit();
  }
  uint64_t last = 0, last_whole = 0;
  for (const double ratio : {0.005, 0.01, 0.02}) {
    AwqModelOptions options = quiet();
    options.quantize.salient_ratio = ratio;
    options.compressed = true;
    awq_quantize_model(folder.path() / "w.npz", folder.path() / "q.npz", folder.path() / "a.npz", options);
    const models::NpzFile file(folder.path() / "q.npz");
    EXPECT_GT(file.stored_bytes("weight.q_scale"), last) << ratio;
    last = file.stored_bytes("weight.q_scale");
    const uint64_t whole = fs::file_size(folder.path() / "q.npz");
    EXPECT_TRUE(last_whole == 0 || whole < last_whole * 102 / 100) << whole << " after " << last_whole;
    last_whole = whole;
  }
}

TEST_F(Model, WhatIsMissingOrWrongIsSaidBeforeAnythingIsWritten) {
  {
    models::NpzWriter writer(out("few.npz"));
    writer.add(kUp, up_inputs_);
    writer.commit();
    models::NpzWriter narrow(out("narrow.npz"));
    narrow.add(kUp, normal({4, 48}, 1));
    narrow.add(kDown, down_inputs_);
    narrow.commit();
  }
  EXPECT_THAT(message_of([&] { awq_quantize_model(model(), out("q"), out("few.npz"), quiet()); }, ErrorKind::kNotFound),
              testing::AllOf(HasSubstr(kDown), HasSubstr("--allow-missing")));
  EXPECT_THAT(message_of([&] { awq_quantize_model(model(), out("q"), out("narrow.npz"), quiet()); }, ErrorKind::kInvalidArgument),
              testing::AllOf(HasSubstr("64 input channels"), HasSubstr("--weight-layout")));
  EXPECT_THAT(message_of([&] { awq_quantize_model(out("none"), out("q"), activations(), quiet()); }, ErrorKind::kNotFound),
              HasSubstr("none"));
  EXPECT_FALSE(fs::exists(out("q")));
  AwqModelOptions options = quiet();
  options.dry_run = true;
  EXPECT_EQ(awq_quantize_model(model(), out("q"), activations(), options)["quantized_count"], 2);
  EXPECT_FALSE(fs::exists(out("q")));
  options.dry_run = false;
  options.allow_missing = true;
  EXPECT_EQ(awq_quantize_model(model(), out("q"), out("few.npz"), options)["rounded_to_nearest"], 1);
}

TEST_F(Model, CommandsDoTheSame) {
  testing::internal::CaptureStdout();
  pipeline::awq_quantize_command({"--model-path", model().string(), "--output-path", out("q").string(), "--activations-path",
                                  activations().string(), "--group-size", "32", "--salient-ratio", "0.02", "--activation-method",
                                  "rms", "--json"});
  const Json stats = parse_json(testing::internal::GetCapturedStdout(), "awq-quantize");
  EXPECT_EQ(stats["quantized_count"], 2);
  EXPECT_TRUE(same(models::SafetensorsFile(out("q") / "model-00001.awq.safetensors").view(kUp),
                   awq_quantize(up_.t(), up_inputs_.to(at::kHalf), quiet().quantize).Q));

  testing::internal::CaptureStdout();
  pipeline::awq_dequantize_command({"--weights", out("q").string(), "--out", out("r").string(), "--dtype", "bfloat16"});
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("2 matrices dequantized, 4 tensors kept"));

  testing::internal::CaptureStdout();
  pipeline::activation_stats_command(
      {"--activations", activations().string(), "--method", "max", "--out", out("stats.npz").string()});
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("down_proj"));
  EXPECT_TRUE(
      at::equal(models::NpzFile(out("stats.npz")).read("model.layers.0.mlp.down_proj"), std::get<0>(down_inputs_.abs().max(0))));

  testing::internal::CaptureStdout();
  pipeline::salient_weights_command({"--model", model().string(), "--activations", activations().string(), "--salient-ratio",
                                     "0.01", "--out", out("masks.npz").string(), "--json"});
  const Json salient = parse_json(testing::internal::GetCapturedStdout(), "salient-weights");
  // 1 % of 48 x 64, and those that bfloat16 makes equal to the last of them.
  const auto count = salient["layers"][0]["salient_weights"].get<int64_t>();
  EXPECT_GE(count, 30);
  EXPECT_LE(count, 33);
  EXPECT_EQ(salient["layers"][0]["top_channels"][0], 5);
  EXPECT_EQ(models::NpzFile(out("masks.npz")).read(std::string(kUp) + ".salient_mask").sum().item<int64_t>(), count);
  const auto median = [&] { pipeline::activation_stats_command({"--activations", activations().string(), "--method", "median"}); };
  EXPECT_THAT(message_of(median, ErrorKind::kInvalidArgument), HasSubstr("rms"));
}

}  // namespace
}  // namespace salient::metal_marlin
