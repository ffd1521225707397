// Every pair of packed formats: what conversion writes is what quantization into the other format writes, and back it is the first
// again.
#include "pipeline/convert_codes.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "models/decoder/decoder.h"
#include "models/io/detect.h"
#include "pipeline/export_model.h"
#include "pipeline/quantize_model.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const fs::path kReference = fs::path(SALIENT_SOURCE_DIR) / "tests/data/compressed";

at::Tensor logits_of(const fs::path& folder) {
  const models::Decoder decoder = models::Decoder::load(models::Checkpoint(folder), {});
  EXPECT_TRUE(decoder.is_quantized());
  at::manual_seed(5);
  return decoder.logits(decoder.hidden_states(at::randint(decoder.config().vocab_size, {2, 11}, at::kLong)));
}

// Tensors with their order and places, and what config.json says of them.
void expect_same_files(const fs::path& found, const fs::path& expected) {
  EXPECT_EQ(read_text_file(found / "config.json"), read_text_file(expected / "config.json")) << found << " " << expected;
  EXPECT_TRUE(read_text_file(found / "model.safetensors") == read_text_file(expected / "model.safetensors"))
      << found << " " << expected;
}

fs::path convert(const fs::path& from, WeightFormat to, const fs::path& out) {
  const ConvertResult result = convert_codes(models::Checkpoint(from), to, out);
  EXPECT_GT(result.linears, 0);
  EXPECT_EQ(result.files, (std::vector<fs::path>{"model.safetensors"}));
  return out;
}

// By format: the same codes in all of them.
void expect_every_pair(const std::map<WeightFormat, fs::path>& folders, const fs::path& work) {
  const at::Tensor logits = logits_of(folders.at(WeightFormat::kAwqGemm));
  for (const auto& [from, source] : folders) {
    EXPECT_TRUE(at::equal(logits_of(source), logits)) << to_string(from);
    for (const auto& [to, expected] : folders) {
      if (from == to) continue;
      SCOPED_TRACE(fmt::format("{} to {}", to_string(from), to_string(to)));
      const fs::path out = work / fmt::format("{}-{}", to_string(from), to_string(to));
      expect_same_files(convert(source, to, out), expected);
      expect_same_files(convert(out, from, out.string() + "-back"), source);
    }
  }
}

class ConvertTiny : public ::testing::Test {
 protected:
  static test::TinyQuantization& tiny() {
    static test::TinyQuantization quantization;
    return quantization;
  }
  static fs::path quantized(WeightFormat format, const std::string& settings) {
    return tiny()(fmt::format("method: rtn, format: {}, {}", to_string(format), settings)).folder;
  }
  test::TemporaryFolder folder_;
};

TEST_F(ConvertTiny, EveryPairOfSymmetricCodes) {
  std::map<WeightFormat, fs::path> folders;
  for (const WeightFormatRow& row : weight_formats())
    if (row.convertible()) folders[row.format] = quantized(row.format, "group_size: 64, symmetric: true");
  ASSERT_EQ(folders.size(), 5u);
  expect_every_pair(folders, folder_.path());
}

TEST_F(ConvertTiny, EveryPairWithZeroPointsAndFloatModules) {
  std::map<WeightFormat, fs::path> folders;
  for (const WeightFormatRow& row : weight_formats())
    if (row.convertible() && row.zero_points)
      folders[row.format] = quantized(row.format, "group_size: 32, ignore: [lm_head, k_proj]");
  ASSERT_EQ(folders.size(), 4u);
  expect_every_pair(folders, folder_.path());
}

// What quantize writes is told from the bytes alone, and nothing that files say contradicts them.
TEST_F(ConvertTiny, EveryFormatIsDetected) {
  for (const WeightFormatRow& row : weight_formats()) {
    if (!row.convertible()) continue;
    const fs::path folder = quantized(row.format, "group_size: 64, symmetric: true");
    const models::DetectedModel whole = models::detect_model(folder);
    EXPECT_EQ(whole.format, row.name);
    EXPECT_THAT(whole.contradictions, IsEmpty()) << row.name;
    EXPECT_EQ(whole.quantized_linears, 14);
    const fs::path bare = folder_.path() / row.name;
    fs::create_directories(bare);
    fs::copy_file(folder / "model.safetensors", bare / "model.safetensors");
    const models::DetectedModel bytes = models::detect_model(bare);
    EXPECT_EQ(bytes.format, row.name);
    EXPECT_EQ(bytes.quantized_linears, 14);
    if (row.format == WeightFormat::kCompressedTensors) continue;  // its shapes alone leave bits open
    ASSERT_TRUE(bytes.spec) << row.name;
    EXPECT_EQ(bytes.spec->group_size, 64);
    EXPECT_EQ(bytes.spec->zero_point, row.format != WeightFormat::kAwqMarlin) << "only Marlin's absent zeros say so";
    // and it runs
    Json config = read_json_file(folder / "config.json");
    config.erase("quantization_config");
    write_file(bare / "config.json", dump_json(config));
    EXPECT_TRUE(at::equal(logits_of(bare), logits_of(folder))) << row.name;
  }
}

TEST_F(ConvertTiny, SmallShardsHoldTheSameTensors) {
  const fs::path source = quantized(WeightFormat::kAwqGemm, "group_size: 32");
  const fs::path whole = convert(source, WeightFormat::kAwqGemv, folder_.path() / "whole");
  const ConvertResult result = convert_codes(models::Checkpoint(source), WeightFormat::kAwqGemv, folder_.path() / "shards", 40'000);
  EXPECT_GT(result.files.size(), 3u);
  const models::Checkpoint one(whole), several(folder_.path() / "shards");
  ASSERT_EQ(one.names(), several.names());
  for (const std::string& name : one.names()) EXPECT_TRUE(at::equal(one.view(name), several.view(name))) << name;
  convert_codes(several, WeightFormat::kAwqGemm, folder_.path() / "back");
  const models::Checkpoint back(folder_.path() / "back"), first(source);
  ASSERT_EQ(back.names(), first.names());
  for (const std::string& name : first.names()) EXPECT_TRUE(at::equal(back.view(name), first.view(name))) << name;
}

TEST_F(ConvertTiny, ExportWritesAWholeFolder) {
  const fs::path source = quantized(WeightFormat::kAwqGemm, "group_size: 32");
  const fs::path out = folder_.path() / "out";
  const ExportResult result = export_model({source, out, ""}, "awq-gemv-fast");
  EXPECT_EQ(result.files, (std::vector<fs::path>{"model.safetensors"}));
  ASSERT_FALSE(result.notes.empty());
  EXPECT_THAT(result.notes.front(), HasSubstr("14 linears from awq-gemm"));
  EXPECT_FALSE(fs::exists(out.string() + ".partial"));
  const Json metadata = read_json_file(out / "quantization_metadata.json");
  const Json before = read_json_file(source / "quantization_metadata.json");
  EXPECT_EQ(metadata.at("format"), "awq-gemv-fast");
  EXPECT_EQ(metadata.at("converted_from"), "awq-gemm");
  EXPECT_EQ(metadata.at("layers"), before.at("layers"));
  EXPECT_NE(metadata.at("fingerprint"), before.at("fingerprint")) << "no quantize job may take it for its own";
  EXPECT_EQ(models::detect_model(out).format, "awq-gemv-fast");
  EXPECT_EQ(read_json_file(out / "config.json").at("quantization_config").at("version"), "gemv_fast");
  EXPECT_TRUE(at::equal(logits_of(out), logits_of(source)));
}

TEST_F(ConvertTiny, RefusesWhatWouldLoseSomething) {
  const auto message = [&](const fs::path& from, WeightFormat to, ErrorKind kind) {
    const fs::path out = folder_.path() / "refused";
    const std::string text = test::message_of([&] { convert_codes(models::Checkpoint(from), to, out); }, kind);
    EXPECT_FALSE(fs::exists(out));
    return text;
  };
  const fs::path asymmetric = quantized(WeightFormat::kAwqGemm, "group_size: 32");
  EXPECT_THAT(message(asymmetric, WeightFormat::kAwqMarlin, ErrorKind::kUnsupported),
              AllOf(HasSubstr("model.layers.0.self_attn.q_proj has zero points"), HasSubstr("--symmetric")));
  EXPECT_THAT(message(asymmetric, WeightFormat::kAwqGemm, ErrorKind::kInvalidArgument), HasSubstr("already"));
  EXPECT_THAT(message(tiny().source(), WeightFormat::kAwqGemv, ErrorKind::kInvalidArgument),
              AllOf(HasSubstr("no linear is in codes"), HasSubstr("salient quantize"), HasSubstr("--format awq-gemv")));
  const fs::path three = quantized(WeightFormat::kCompressedTensors, "bits: 3, group_size: 32");
  EXPECT_THAT(message(three, WeightFormat::kAwqGemm, ErrorKind::kUnsupported), HasSubstr("found 3; format awq-gemm stores 4 bits"));
  const fs::path mixed = quantized(WeightFormat::kCompressedTensors, "group_size: 32, overrides: [{pattern: o_proj, bits: 8}]");
  EXPECT_THAT(message(mixed, WeightFormat::kAwqGemm, ErrorKind::kUnsupported), AllOf(HasSubstr("o_proj"), HasSubstr("8")));
  const fs::path head = quantized(WeightFormat::kCompressedTensors, "group_size: 32, lm_head: int8");
  EXPECT_THAT(message(head, WeightFormat::kAwqGemm, ErrorKind::kUnsupported), HasSubstr("lm_head is in codes"));
  const fs::path small = quantized(WeightFormat::kAwqGemm, "group_size: 16");
  EXPECT_THAT(message(small, WeightFormat::kAwqGemv, ErrorKind::kUnsupported), HasSubstr("groups of 32, 64 and 128"));
  const fs::path channel = quantized(WeightFormat::kCompressedTensors, "group_size: -1, symmetric: true");
  EXPECT_THAT(message(channel, WeightFormat::kAwqMarlin, ErrorKind::kUnsupported), HasSubstr("found -1"));
}

// Of compressed-tensors itself: its logits stay. One group in rows of two widths is group_size -1.
TEST(ConvertReference, CompressedTensorsBecomeAutoAwqsAndBack) {
  for (const auto& [name, group_size] : {std::pair{"w4_asym", 32}, {"w4_sym_channel", -1}}) {
    const test::TemporaryFolder folder;
    const fs::path source = kReference / name;
    convert(source, WeightFormat::kAwqGemm, folder.path() / "awq");
    const Json config = read_json_file(folder.path() / "awq/config.json").at("quantization_config");
    EXPECT_EQ(config.at("group_size"), group_size);
    EXPECT_EQ(config.at("modules_to_not_convert"), Json());
    EXPECT_TRUE(at::equal(logits_of(folder.path() / "awq"), logits_of(source))) << name;
    convert(folder.path() / "awq", WeightFormat::kCompressedTensors, folder.path() / "back");
    const models::Checkpoint first(source), back(folder.path() / "back");
    ASSERT_EQ(first.names(), back.names());
    for (const std::string& tensor : first.names()) {
      EXPECT_EQ(first.info(tensor).dtype, back.info(tensor).dtype) << tensor;
      EXPECT_TRUE(at::equal(first.view(tensor), back.view(tensor))) << tensor;
    }
  }
}

// What is said of activations and the KV cache has no place in AutoAWQ's layouts: the codes are the same, the rest is left out and
// said.
TEST(ConvertReference, RuntimeBitsStayBehind) {
  const test::TemporaryFolder folder;
  const models::Checkpoint source(kReference / "w4_a8_kv8");
  const ConvertResult result = convert_codes(source, WeightFormat::kAwqGemm, folder.path() / "awq", uint64_t{1} << 30);
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("kv_cache_scheme")));
  for (const std::string& name : models::Checkpoint(folder.path() / "awq").names())
    EXPECT_THAT(name, ::testing::Not(HasSubstr("_scale"))) << name;
  const at::Tensor ids = at::arange(1, 10, at::kLong).unsqueeze(0);
  const auto logits = [&](const models::Checkpoint& checkpoint) {
    const models::Decoder decoder = models::Decoder::load(checkpoint, {.activation_bits = 16, .kv_bits = 16});
    return decoder.logits(decoder.hidden_states(ids));
  };
  EXPECT_TRUE(at::equal(logits(models::Checkpoint(folder.path() / "awq")), logits(source)));
}

// Biases; experts that the source has fused, routers in float, a vision part.
TEST(ConvertArchitectures, EveryPairThatFits) {
  for (const char* model_type : {"qwen2", "qwen3_vl_moe"}) {
    SCOPED_TRACE(model_type);
    const test::TemporaryFolder folder;
    test::write_golden_checkpoint(read_json_file(test::golden_file(model_type)).at("cases").at(0), folder.path() / "source");
    calibration::TokenBlocks tokens;
    at::manual_seed(11);
    tokens.ids = at::randint(models::load_decoder_config(folder.path() / "source").vocab_size, {4, 12}, at::kLong);
    tokens.lengths = at::full({4}, 12, at::kLong);
    std::map<WeightFormat, fs::path> folders;
    for (const WeightFormat format : {WeightFormat::kAwqGemm, WeightFormat::kAwqGemv, WeightFormat::kCompressedTensors}) {
      QuantizeModelOptions options;
      options.model_folder = folder.path() / "source";
      options.output = folder.path() / to_string(format);
      options.awq.spec.group_size = 32;
      options.awq.format = format;
      options.awq.scale = options.awq.clip = false;
      options.awq.rounding.kind = quant::RoundingKind::kNearest;
      options.awq.propagate_error = false;
      folders[format] = quantize_model(options, tokens).folder;
    }
    expect_every_pair(folders, folder.path() / "work");
  }
}

}  // namespace
}  // namespace salient::pipeline
