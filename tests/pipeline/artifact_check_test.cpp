// What a manifest finds changed, and artifacts whose blocks come out again byte for byte.
#include "pipeline/artifact_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/file.h"
#include "common/hash.h"
#include "models/io/safetensors.h"
#include "support/run_program.h"
#include "support/thread_count.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

test::TinyQuantization& tiny() {
  static test::TinyQuantization made;
  return made;
}

// A copy of the artifact that `settings` make, to be damaged.
class ArtifactCheck : public ::testing::Test {
 protected:
  fs::path copy_of(const std::string& settings) {
    const fs::path copy = folder_.path() / ("copy" + std::to_string(copies_++));
    fs::copy(tiny()(settings).folder, copy, fs::copy_options::recursive);
    return copy;
  }
  RederiveOptions options_for(const fs::path& artifact, int64_t blocks = 1) {
    RederiveOptions options;
    options.artifact = artifact;
    options.job.model.model_folder = tiny().source();
    options.job.calibration_file = tiny().calibration() / "train.jsonl";
    options.blocks = blocks;
    options.scratch = folder_.path() / "scratch";
    return options;
  }
  test::TemporaryFolder folder_;
  int copies_ = 0;
};

std::map<std::string, FileState> states(const std::vector<CheckedFile>& files) {
  std::map<std::string, FileState> result;
  for (const CheckedFile& file : files) result[file.name] = file.state;
  return result;
}

void flip_byte(const fs::path& file, uint64_t at) {
  std::string text = read_text_file(file);
  text.at(at) = static_cast<char>(text.at(at) ^ 1);
  write_file(file, text);
}

TEST_F(ArtifactCheck, FilesAreAsRecordedUntilTheyAreChanged) {
  const fs::path artifact = copy_of("");
  EXPECT_EQ(states(check_files(artifact)),
            (std::map<std::string, FileState>{{"config.json", FileState::kSame}, {"model.safetensors", FileState::kSame}}));
  flip_byte(artifact / "model.safetensors", fs::file_size(artifact / "model.safetensors") - 1);
  fs::remove(artifact / "config.json");
  write_file(artifact / "notes.txt", "mine");
  EXPECT_EQ(states(check_files(artifact)), (std::map<std::string, FileState>{{"config.json", FileState::kMissing},
                                                                             {"model.safetensors", FileState::kChanged},
                                                                             {"notes.txt", FileState::kUnrecorded}}));
  for (const CheckedFile& file : check_files(artifact)) {
    if (file.state != FileState::kChanged) continue;
    EXPECT_EQ(file.found, sha256_file(artifact / file.name));
  }
}

TEST_F(ArtifactCheck, WhatIsNoManifestIsSaid) {
  EXPECT_THAT(test::message_of([&] { check_files(tiny().source()); }, ErrorKind::kNotFound),
              HasSubstr("quantization_metadata.json"));
  const fs::path artifact = copy_of("");
  Json metadata = read_json_file(artifact / "quantization_metadata.json");
  // Not a file of the folder: what it names is not even looked at.
  metadata["files_sha256"]["../../etc/passwd"] = "00";
  write_file(artifact / "quantization_metadata.json", dump_json(metadata));
  EXPECT_THAT(test::message_of([&] { check_files(artifact); }, ErrorKind::kCorruption), HasSubstr("../../etc/passwd"));
  metadata.erase("files_sha256");
  write_file(artifact / "quantization_metadata.json", dump_json(metadata));
  test::error_of([&] { check_files(artifact); }, ErrorKind::kUnsupported);
}

TEST_F(ArtifactCheck, TheSourceIsComparedByItsHashes) {
  const fs::path artifact = tiny()("").folder;
  for (const CheckedFile& file : check_source(artifact, tiny().source())) EXPECT_EQ(file.state, FileState::kSame) << file.name;
  const fs::path other = folder_.path() / "other";
  fs::copy(tiny().source(), other);
  flip_byte(other / "model.safetensors", fs::file_size(other / "model.safetensors") - 1);
  EXPECT_EQ(states(check_source(artifact, other)).at("model.safetensors"), FileState::kChanged);
  EXPECT_EQ(states(check_source(artifact, other)).at("config.json"), FileState::kSame);
}

// Settings of every kind, so that a value which the metadata print and the table does not read back is found.
TEST_F(ArtifactCheck, BlocksComeOutAgain) {
  const std::vector<std::string> all = {
      "",
      "format: awq-gemm",
      "format: compressed-tensors, bits: 3, zero_point: false, self_generated: 0.5",
      "format: gguf-q4_k_m, group_size: 32, pad_intermediate: auto",
      "format: smoothed, duo_scaling: false",
      "method: gptq, format: awq-gemv, group_size: 64, clip: false",
      "method: adaround, format: awq-marlin, group_size: 128, pad_intermediate: auto, zero_point: false",
      "method: rtn, propagate_error: true, overrides: [{pattern: down_proj, bits: 8}]",
      "salient_ratio: 0.02, bit_choices: [3, 4, 8], target_bits: 4.5, max_calib_samples: 15, batch_tokens: 100",
      "format: compressed-tensors, max_shard_size: 60KB, lm_head: int8, kv_cache_bits: 16, activation_bits: 16",
  };
  for (const std::string& settings : all) {
    SCOPED_TRACE(settings);
    const fs::path artifact = tiny()(settings).folder;
    const Rederived first = rederive(options_for(artifact));
    EXPECT_THAT(first.different, IsEmpty());
    EXPECT_TRUE(first.same_inputs);
    EXPECT_THAT(first.other_inputs, IsEmpty());
    EXPECT_EQ(first.blocks, 1);
    const Rederived whole = rederive(options_for(artifact, 100));
    EXPECT_THAT(whole.different, IsEmpty());
    EXPECT_EQ(whole.blocks, 2);
    EXPECT_GT(first.tensors, 0);
    EXPECT_GT(whole.tensors, first.tensors);
    EXPECT_GT(whole.bytes, first.bytes);
    EXPECT_TRUE(fs::is_empty(folder_.path() / "scratch")) << "the work is left behind";
  }
}

TEST_F(ArtifactCheck, TheNumberOfThreadsDoesNotMatter) {
  const fs::path artifact = tiny()("format: awq-gemm").folder;
  const test::ThreadCount threads(2);
  EXPECT_THAT(rederive(options_for(artifact, 2)).different, IsEmpty());
}

TEST_F(ArtifactCheck, ATensorThatIsNotTheSourcesIsNamed) {
  const fs::path artifact = copy_of("format: awq-gemm");
  const std::string name = "model.layers.0.mlp.up_proj.qweight";
  const std::string later = "model.layers.1.mlp.up_proj.qweight";
  const models::SafetensorsFile file(artifact / "model.safetensors");
  const uint64_t in_first = file.info(name).begin;
  const uint64_t in_second = file.info(later).begin;
  flip_byte(artifact / "model.safetensors", in_first + 5);
  EXPECT_THAT(rederive(options_for(artifact)).different, ElementsAre(name));
  flip_byte(artifact / "model.safetensors", in_first + 5);
  flip_byte(artifact / "model.safetensors", in_second);
  EXPECT_THAT(rederive(options_for(artifact)).different, IsEmpty());
  EXPECT_THAT(rederive(options_for(artifact, 2)).different, ElementsAre(later));
}

TEST_F(ArtifactCheck, OtherRowsAndOtherSettingsAreSaid) {
  const fs::path artifact = copy_of("format: awq-gemm");
  RederiveOptions options = options_for(artifact);
  options.job.calibration_file = tiny().calibration() / "validation.jsonl";
  const Error error = test::error_of([&] { rederive(options); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("other calibration rows"));
  EXPECT_THAT(error.hint(), HasSubstr("train.jsonl (SHA-256 " + sha256_file(tiny().calibration() / "train.jsonl")));
  options.job.calibration_file.clear();
  EXPECT_THAT(test::message_of([&] { rederive(options); }, ErrorKind::kInvalidArgument), HasSubstr("none are given"));
  // Another file of the name is not taken for it; the same one is found, beside the artifact and where a run keeps it.
  write_file(artifact.parent_path() / "train.jsonl", "{}");
  test::error_of([&] { rederive(options); }, ErrorKind::kInvalidArgument);
  fs::create_directories(artifact.parent_path() / "calibration/0123");
  fs::copy_file(tiny().calibration() / "train.jsonl", artifact.parent_path() / "calibration/0123/train.jsonl");
  EXPECT_THAT(rederive(options).different, IsEmpty());

  Json metadata = read_json_file(artifact / "quantization_metadata.json");
  metadata["versions"]["libtorch"] = "2.0.0";
  metadata["fingerprint"] = "of another build";
  write_file(artifact / "quantization_metadata.json", dump_json(metadata));
  const Rederived other = rederive(options_for(artifact));
  EXPECT_FALSE(other.same_inputs);
  EXPECT_THAT(other.other_inputs, ElementsAre(HasSubstr("made with 2.0.0")));

  metadata["search"]["n_grid"] = "many";
  write_file(artifact / "quantization_metadata.json", dump_json(metadata));
  test::error_of([&] { rederive(options_for(artifact)); }, ErrorKind::kInvalidArgument);
  metadata["search"] = tiny()("format: awq-gemm").metadata["search"];
  metadata["calibration"]["packing"] = 7;
  write_file(artifact / "quantization_metadata.json", dump_json(metadata));
  test::error_of([&] { rederive(options_for(artifact)); }, ErrorKind::kCorruption);
}

TEST_F(ArtifactCheck, TheCommand) {
  const fs::path artifact = copy_of("format: awq-gemm");
  const std::vector<std::string> words = {"verify",           artifact.string(),
                                          "--against-source", tiny().source().string(),
                                          "--calib",          (tiny().calibration() / "train.jsonl").string(),
                                          "--threads",        "1"};
  const test::ProgramResult good = test::run_program({words, folder_.path(), {}, {}});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_THAT(good.out, HasSubstr("files    2 of 2 as recorded"));
  EXPECT_THAT(good.out, HasSubstr("source   2 of 2 as recorded"));
  EXPECT_THAT(good.out, HasSubstr("PASS"));
  flip_byte(artifact / "model.safetensors", fs::file_size(artifact / "model.safetensors") - 1);
  const test::ProgramResult bad = test::run_program({{"verify", artifact.string()}, folder_.path(), {}, {}});
  EXPECT_EQ(bad.exit_code, 7);
  EXPECT_THAT(bad.out, HasSubstr("model.safetensors is changed"));
  EXPECT_THAT(bad.out, HasSubstr("FAIL"));
  const test::ProgramResult lonely = test::run_program({{"verify", artifact.string(), "--blocks", "2"}, folder_.path(), {}, {}});
  EXPECT_EQ(lonely.exit_code, 2);
  EXPECT_THAT(lonely.err, HasSubstr("--against-source"));
}

}  // namespace
}  // namespace salient::pipeline
