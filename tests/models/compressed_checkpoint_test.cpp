// Checkpoints that compressed-tensors wrote, and the logits that it and transformers compute from them
// (scripts/goldens/compressed_checkpoints.py).
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/decoder.h"
#include "models/io/checkpoint.h"
#include "models/io/detect.h"
#include "models/io/safetensors.h"
#include "quant/pack_quantized.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const fs::path kData = fs::path(SALIENT_SOURCE_DIR) / "tests/data/compressed";

at::Tensor logits_of(const Decoder& decoder, const std::vector<int64_t>& ids) {
  return decoder.logits(decoder.hidden_states(at::tensor(ids, at::kLong).unsqueeze(0))).squeeze(0);
}

struct Expected {
  const char* name;
  const char* spec;
  bool mixed;
};
void PrintTo(const Expected& value, std::ostream* out) { *out << value.name; }

class CompressedCheckpoint : public ::testing::TestWithParam<Expected> {};

TEST_P(CompressedCheckpoint, LogitsEqualTheReference) {
  const fs::path folder = kData / GetParam().name;
  const Json golden = read_json_file(folder / "logits.json");
  const Decoder decoder = Decoder::load(Checkpoint(folder), {});
  EXPECT_TRUE(decoder.is_quantized());
  const at::Tensor logits = logits_of(decoder, golden.at("ids").get<std::vector<int64_t>>());
  ASSERT_EQ(logits.size(0), static_cast<int64_t>(golden.at("logits").size()));
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const at::Tensor reference =
        at::tensor(golden.at("logits").at(static_cast<size_t>(row)).get<std::vector<double>>(), at::kFloat);
    EXPECT_LT((logits[row] - reference).abs().max().item<double>(), 5e-5) << "position " << row;
  }
}

TEST_P(CompressedCheckpoint, IsDetected) {
  const DetectedModel model = detect_model(kData / GetParam().name);
  EXPECT_EQ(model.format, "compressed-tensors");
  ASSERT_TRUE(model.spec);
  EXPECT_EQ(to_string(*model.spec), GetParam().spec);
  EXPECT_THAT(model.contradictions, IsEmpty());
  std::string tensors;
  for (const Evidence& evidence : model.evidence) {
    if (evidence.source == "tensor names and shapes") tensors = evidence.finding;
  }
  if (GetParam().mixed) {
    EXPECT_THAT(tensors, HasSubstr("mixed: 1 of compressed-tensors 2 bits group 96, 8 of compressed-tensors 3 bits group 16, 4 of "
                                   "compressed-tensors 5 bits "
                                   "group 32, 1 of compressed-tensors 6 bits group 48"));
    EXPECT_THAT(tensors, HasSubstr("lm_head"));
  } else {
    EXPECT_THAT(tensors, ::testing::Not(HasSubstr("mixed")));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, CompressedCheckpoint,
                         ::testing::Values(Expected{"w4_asym", "w4 a16 kv16 g32 asym head-fp16", false},
                                           Expected{"w4_sym_channel", "w4 a16 kv16 gpc sym head-fp16", false},
                                           Expected{"w4_a8_kv8", "w4 a8 kv8 g32 sym head-fp16", false},
                                           Expected{"w3_sym", "w3 a16 kv16 g32 sym head-fp16", false},
                                           Expected{"mixed_head", "w3 a16 kv16 g16 asym head-int8", true}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

// A copy of one checkpoint, to be changed.
class ChangedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override { use("w3_sym"); }
  void use(const std::string& name) {
    const SafetensorsFile file(kData / name / "model.safetensors");
    tensors_.clear();
    for (const auto& [tensor, info] : file.tensors()) tensors_.push_back({tensor, file.view(tensor).clone()});
    config_ = read_json_file(kData / name / "config.json");
  }
  at::Tensor& at(const std::string& name) {
    for (NamedTensor& tensor : tensors_) {
      if (tensor.name == name) return tensor.tensor;
    }
    tensors_.push_back({name, {}});
    return tensors_.back().tensor;
  }
  Decoder load() {
    write_safetensors(folder_.path() / "model.safetensors", tensors_);
    write_file(folder_.path() / "config.json", dump_json(config_));
    return Decoder::load(Checkpoint(folder_.path()), {});
  }
  void expect_error(ErrorKind kind, const std::string& text) {
    try {
      load();
      ADD_FAILURE() << "no error, expected " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_THAT(error.message(), HasSubstr(text));
    }
  }

  const std::string q_ = "model.layers.0.self_attn.q_proj";
  test::TemporaryFolder folder_;
  std::vector<NamedTensor> tensors_;
  Json config_;
};

TEST_F(ChangedCheckpoint, ShapesMustFit) {
  const at::Tensor packed = at(q_ + ".weight_packed");
  at(q_ + ".weight_packed") = packed.narrow(1, 0, 5).contiguous();
  expect_error(ErrorKind::kCorruption, q_ + ".weight_packed' has rows of 5 words");
  at(q_ + ".weight_packed") = packed.narrow(0, 0, 32).contiguous();
  expect_error(ErrorKind::kCorruption, q_);
  at(q_ + ".weight_packed") = packed;
  const at::Tensor shape = at(q_ + ".weight_shape");
  at(q_ + ".weight_shape") = at::tensor({64, 96}, at::kLong);
  expect_error(ErrorKind::kCorruption, q_ + ".weight_shape' says [64, 96], expected [64, 64]");
  at(q_ + ".weight_shape") = shape;
  const at::Tensor scale = at(q_ + ".weight_scale");
  at(q_ + ".weight_scale") = at::ones({64, 3}, at::kHalf);
  expect_error(ErrorKind::kCorruption, q_ + ".weight_scale");
  at(q_ + ".weight_scale") = scale;
  at(q_ + ".weight_zero_point") = at::zeros({3, 2}, at::kInt);
  expect_error(ErrorKind::kCorruption, q_ + ".weight_packed' has rows of 6 words and 3 rows of zero points");
  at(q_ + ".weight_zero_point") = at::zeros({6, 2}, at::kInt);
  EXPECT_NO_THROW(load());
}

TEST_F(ChangedCheckpoint, OtherSchemesAreRefused) {
  Json& quantization = config_["quantization_config"];
  const Json before = quantization;
  for (const char* format : {"int-quantized", "float-quantized", "nvfp4-pack-quantized"}) {
    quantization["config_groups"]["group_0"]["format"] = format;
    expect_error(ErrorKind::kUnsupported, format);
  }
  quantization = before;
  quantization["transform_config"] = {{"config_groups", {{"R1", {{"type", "hadamard"}}}}}};
  expect_error(ErrorKind::kUnsupported, "transform_config");
  quantization = before;
  quantization["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
  expect_error(ErrorKind::kUnsupported, "sparsity_config");
  quantization = before;
  at(q_ + ".weight_packed") = at::zeros({64, 32}, at::kByte);
  expect_error(ErrorKind::kUnsupported, q_ + ".weight_packed' is U8");
}

// GPTQ's order: which group each channel is in. A permutation of whole channels of w3_sym is the same linear.
TEST_F(ChangedCheckpoint, ChannelsOfAGroupMayLieApart) {
  const std::vector<int64_t> ids = {1, 40, 7, 13};
  const at::Tensor before = logits_of(load(), ids);
  for (const std::string part : {"weight_g_idx", "scales swapped"}) {
    if (part == "weight_g_idx") at(q_ + ".weight_g_idx") = at::arange(64).floor_divide(32).to(at::kInt);
    if (part == "scales swapped") {
      at(q_ + ".weight_g_idx") = 1 - at(q_ + ".weight_g_idx");
      at(q_ + ".weight_scale") = at(q_ + ".weight_scale").flip(1).contiguous();
    }
    EXPECT_LT((logits_of(load(), ids) - before).abs().max().item<double>(), 1e-5) << part;
  }
  at(q_ + ".weight_g_idx") = at::full({64}, 2, at::kInt);
  expect_error(ErrorKind::kCorruption, "weight_g_idx' names groups beyond the 2 that there are");
}

// Seven bits in words of whole codes take the room of eight: only the configuration can tell.
TEST_F(ChangedCheckpoint, TheConfigurationDecidesWhereShapesDoNot) {
  const at::Tensor codes = at::randint(0, 128, {64, 64}, at::kByte);
  const at::Tensor places = at::tensor({1, 1 << 7, 1 << 14, 1 << 21}, at::kInt);
  at(q_ + ".weight_packed") = (codes.view({64, 16, 4}).to(at::kInt) * places).sum(2, false, at::kInt);
  LinearSpec spec;
  spec.name = q_;
  spec.out_features = spec.in_features = 64;
  const auto weight = [&] {
    load();
    return dense_weight(load_linear(Checkpoint(folder_.path()), spec, at::kFloat));
  };
  const at::Tensor scale = at(q_ + ".weight_scale").to(at::kFloat).repeat_interleave(32, 1);
  const at::Tensor seven = (codes.to(at::kFloat) - 64) * scale;
  EXPECT_FALSE(at::equal(weight(), seven));  // 3 bits are claimed: taken as 8
  config_["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] = 7;
  // the others have 3 bits, which their shapes say
  EXPECT_TRUE(at::equal(weight(), seven));
}

}  // namespace
}  // namespace salient::models
