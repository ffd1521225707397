#include "pipeline/quantize_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "calibration/token_blocks.h"
#include "common/error.h"
#include "common/file.h"
#include "models/io/checkpoint.h"
#include "models/io/detect.h"
#include "pipeline/quantize_progress.h"
#include "support/demo_tokens.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;

const fs::path kModel = SALIENT_SOURCE_DIR "/models/demo";

QuantizeModelOptions demo_options(const fs::path& output) {
  QuantizeModelOptions options;
  options.model_folder = kModel;
  options.output = output;
  options.awq.scale_search.grid = 4;
  options.awq.clip_search.steps = 3;
  return options;
}

TEST(QuantizeModel, StoppedAfterAnyBlockItGivesTheSameBytes) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "whole");
  options.max_shard_bytes = 1'000'000;  // several shards
  const QuantizeModelResult whole = quantize_model(options, tokens);
  const auto expected = test::folder_bytes(whole.folder);
  EXPECT_GT(expected.size(), 6U);
  EXPECT_TRUE(expected.contains("model.safetensors.index.json"));

  options.output = folder.path() / "stopped";
  test::expect_same_bytes_when_stopped(options, tokens, {0, 1, 2, 3, 4}, expected);
}

// Between the last file and the rename the progress is gone already.
TEST(QuantizeModel, StoppedBeforeTheRenameItOnlyRenames) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  const QuantizeModelOptions options = demo_options(folder.path() / "out");
  const size_t linears = quantize_model(options, tokens).reports.size();
  const auto expected = test::folder_bytes(options.output);
  fs::rename(options.output, folder.path() / "out.partial");
  const QuantizeModelResult again = quantize_model(options, tokens);
  EXPECT_EQ(again.resumed_blocks, 4);
  EXPECT_EQ(again.reports.size(), linears);
  EXPECT_TRUE(test::folder_bytes(options.output) == expected);
}

TEST(QuantizeModel, NoLinearIsWorseThanRoundToNearestAndMostAreFarBetter) {
  const test::TemporaryFolder folder;
  const QuantizeModelResult result = quantize_model(demo_options(folder.path() / "out"), test::demo_tokens(24, 128));
  ASSERT_EQ(result.reports.size(), 28U);
  double rtn = 0;
  double stored = 0;
  for (const LinearReport& report : result.reports) {
    rtn += report.rtn_error;
    stored += report.error;
  }
  EXPECT_LT(stored, 0.6 * rtn);
  const models::Checkpoint artifact(result.folder);
  EXPECT_TRUE(artifact.contains("model.layers.3.mlp.down_proj.qweight"));
  EXPECT_FALSE(artifact.contains("model.layers.3.mlp.down_proj.weight"));
  EXPECT_FALSE(artifact.contains("lm_head.weight"));  // tied
  EXPECT_EQ(artifact.info("model.embed_tokens.weight").dtype, at::kHalf);
}

TEST(QuantizeModel, AnOutputThatExistsIsRefusedUnlessItIsThisJobs) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  quantize_model(options, tokens);
  EXPECT_THROW(quantize_model(options, tokens), Error);
  options.reuse_output = true;
  EXPECT_EQ(quantize_model(options, tokens).reports.size(), 28U);
  options.awq.clip = false;
  EXPECT_THROW(quantize_model(options, tokens), Error);
}

TEST(QuantizeModel, ADamagedArtifactIsNotReused) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  quantize_model(options, tokens);
  const auto expected = test::folder_bytes(options.output);
  write_file(options.output / "tokenizer.json", "{}");
  options.reuse_output = true;
  try {
    quantize_model(options, tokens);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
    EXPECT_THAT(error.message(), testing::HasSubstr("tokenizer.json"));
  }
  options.replace_output = true;
  quantize_model(options, tokens);
  EXPECT_TRUE(test::folder_bytes(options.output) == expected);
}

TEST(QuantizeModel, AnotherJobsArtifactIsReplacedOnlyWhenAskedFor) {
  const test::TemporaryFolder folder;
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  quantize_model(options, test::demo_tokens(12, 128));
  const auto old = test::folder_bytes(options.output);
  options.reuse_output = true;
  EXPECT_THROW(quantize_model(options, test::demo_tokens(13, 128)), Error);
  EXPECT_TRUE(test::folder_bytes(options.output) == old);
  options.replace_output = true;
  quantize_model(options, test::demo_tokens(13, 128));
  EXPECT_FALSE(test::folder_bytes(options.output) == old);
  EXPECT_FALSE(fs::exists(folder.path() / "out.replaced"));
}

TEST(QuantizeModel, AFolderOfSomebodyElseIsNeverTouched) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "out.partial/notes.txt", "mine");
  EXPECT_THROW(quantize_model(demo_options(folder.path() / "out"), test::demo_tokens(12, 128)), Error);
  EXPECT_EQ(read_text_file(folder.path() / "out.partial/notes.txt"), "mine");
  write_file(folder.path() / "there/file", "mine");
  QuantizeModelOptions options = demo_options(folder.path() / "there");
  options.replace_output = true;
  EXPECT_THROW(quantize_model(options, test::demo_tokens(12, 128)), Error);
  EXPECT_EQ(read_text_file(folder.path() / "there/file"), "mine");
}

TEST(QuantizeModel, ATrailingSlashNamesTheSameFolder) {
  const test::TemporaryFolder folder;
  const QuantizeModelResult result = quantize_model(demo_options(folder.path() / "out/"), test::demo_tokens(12, 128));
  EXPECT_TRUE(fs::exists(folder.path() / "out/config.json"));
  EXPECT_EQ(result.folder, folder.path() / "out");
}

// A bias that config.json does not speak of would be lost silently.
TEST(QuantizeModel, ATensorThatTheConfigDoesNotSpeakOfIsRefused) {
  const test::TemporaryFolder folder;
  fs::copy(kModel, folder.path() / "model");
  fs::remove(folder.path() / "model/model.safetensors");
  const models::SafetensorsFile source(kModel / "model.safetensors");
  std::vector<models::NamedTensor> tensors;
  for (const auto& [name, info] : source.tensors()) tensors.push_back({name, source.view(name)});
  tensors.push_back({"model.layers.1.self_attn.o_proj.bias", source.view("model.norm.weight")});
  models::write_safetensors(folder.path() / "model/model.safetensors", tensors);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.model_folder = folder.path() / "model";
  try {
    quantize_model(options, test::demo_tokens(12, 128));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(error.message(), testing::HasSubstr("model.layers.1.self_attn.o_proj.bias"));
  }
}

TEST(QuantizeModel, AGroupSizeThatDoesNotDivideNamesTheLayerAndWhatDoes) {
  const test::TemporaryFolder folder;
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.awq.spec.group_size = 96;
  try {
    quantize_model(options, test::demo_tokens(12, 128));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), testing::AllOf(testing::HasSubstr("model.layers.0.self_attn.q_proj"), testing::HasSubstr("128")));
  }
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
}

TEST(QuantizeModel, AnArtifactIsNotQuantizedAgain) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  quantize_model(options, tokens);
  options.model_folder = folder.path() / "out";
  options.output = folder.path() / "again";
  EXPECT_THROW(quantize_model(options, tokens), Error);
}

// Two jobs with the same --out: the second is refused from the moment on at which the first looks at its work, also while that
// still chooses bits.
TEST(QuantizeModel, ASecondJobInTheSameWorkFolderIsRefused) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.awq.format = WeightFormat::kCompressedTensors;
  options.awq.target_bits = 3.5;
  const QuantizeModelOptions second = options;
  int64_t refused = 0;
  const auto try_second = [&](int64_t, int64_t) {
    const auto before = test::folder_bytes(folder.path() / "out.partial");
    try {
      quantize_model(second, tokens);
      ADD_FAILURE() << "two jobs at once";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      EXPECT_THAT(error.message(), testing::AllOf(testing::HasSubstr("out.partial"), testing::HasSubstr("another process")));
      EXPECT_THAT(error.hint(), testing::HasSubstr("wait for it"));
      ++refused;
    }
    EXPECT_TRUE(test::folder_bytes(folder.path() / "out.partial") == before);
  };
  options.on_planning = try_second;
  options.on_progress = try_second;
  quantize_model(options, tokens);
  EXPECT_EQ(refused, 10);  // before and after the four blocks, twice
  EXPECT_TRUE(fs::exists(options.output / "config.json"));
}

// A job that comes to the lock when another has just finished takes that one's result, or is refused, and leaves nothing.
TEST(QuantizeModel, AnOutputThatCameMeanwhileIsSeen) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  const QuantizeModelOptions faster = options;
  bool done = false;
  int64_t blocks = 0;
  options.on_message = [&](const std::string& line) {
    if (done || !line.starts_with("needs at most")) return;
    done = true;
    quantize_model(faster, tokens);
  };
  options.on_progress = [&](int64_t, int64_t) { ++blocks; };
  EXPECT_THROW(quantize_model(options, tokens), Error);
  EXPECT_TRUE(done);
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));

  fs::remove_all(options.output);
  done = false;
  options.reuse_output = true;
  EXPECT_EQ(quantize_model(options, tokens).resumed_blocks, 4);
  EXPECT_TRUE(done);
  EXPECT_EQ(blocks, 0);
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
}

// What gets the output's name while a job is at work is not ours to replace.
TEST(QuantizeModel, AFolderThatCameMeanwhileIsNotReplaced) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.on_progress = [&](int64_t done, int64_t) {
    if (done == 4) write_file(options.output / "file", "mine");
  };
  EXPECT_THROW(quantize_model(options, tokens), Error);
  EXPECT_EQ(read_text_file(options.output / "file"), "mine");
  fs::remove_all(options.output);
  options.on_progress = nullptr;
  EXPECT_EQ(quantize_model(options, tokens).resumed_blocks, 4);  // the work was kept
}

// Bits by budget: the mean is kept, modules differ, the measurement is not repeated by a job that goes on, and the bytes are the
// same.
TEST(QuantizeModel, TargetBitsChoosesBitsByModule) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "whole");
  options.awq.format = WeightFormat::kCompressedTensors;
  options.awq.target_bits = 3.5;
  const QuantizeModelResult whole = quantize_model(options, tokens);
  std::map<int, int64_t> counts;
  for (const LinearReport& report : whole.reports) {
    ++counts[report.bits];
    EXPECT_FALSE(report.sensitivity.empty()) << report.name;
  }
  EXPECT_GE(counts.size(), 2u);
  const Json metadata = read_json_file(whole.folder / "quantization_metadata.json");
  EXPECT_LE(metadata.at("mean_bits").get<double>(), 3.5);
  EXPECT_GT(metadata.at("mean_bits").get<double>(), 3.3);
  EXPECT_EQ(metadata.at("search").at("target_bits"), 3.5);
  EXPECT_TRUE(metadata.at("search").at("overrides").empty()) << "what was asked for, not what came of it";
  EXPECT_EQ(models::detect_model(whole.folder).format, "compressed-tensors");

  options.output = folder.path() / "stopped";
  int64_t planned = 0;
  options.on_planning = [&](int64_t, int64_t) { ++planned; };
  options.on_progress = [](int64_t done, int64_t) {
    if (done == 2) throw test::Stopped{};
  };
  EXPECT_THROW(quantize_model(options, tokens), test::Stopped);
  EXPECT_GT(planned, 0);
  planned = 0;
  options.on_progress = {};
  quantize_model(options, tokens);
  EXPECT_EQ(planned, 0) << "measured again";
  EXPECT_EQ(test::folder_bytes(options.output), test::folder_bytes(whole.folder));

  options.output = folder.path() / "packed4";
  options.awq.format = WeightFormat::kAwqGemm;
  EXPECT_THROW(quantize_model(options, tokens), Error);
}

// The bound is one block, not the model: more blocks do not raise the estimate.
TEST(QuantizeModel, EstimatedMemoryDoesNotGrowWithTheNumberOfBlocks) {
  models::DecoderConfig config = models::parse_decoder_config(models::Checkpoint(kModel).config(), "demo");
  const AwqOptions awq;
  const uint64_t few = estimate_quantize(config, awq, 8192, 4096).peak_memory_bytes;
  config.num_hidden_layers = 80;
  config.layers.resize(80);
  const uint64_t many = estimate_quantize(config, awq, 8192, 4096).peak_memory_bytes;
  EXPECT_EQ(few, many);
}

}  // namespace
}  // namespace salient::pipeline
