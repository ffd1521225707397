// What a quantization that was stopped left behind, and what changed since: nothing of it is lost without a word, nothing of it is
// taken for something else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "models/io/detect.h"
#include "pipeline/quantize_model.h"
#include "pipeline/work_folder.h"
#include "support/demo_tokens.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class UnfinishedWork : public testing::Test {
 protected:
  UnfinishedWork() {
    options_.model_folder = test::kDemo;
    options_.output = folder_.path() / "out";
    options_.awq.scale_search.grid = 2;
    options_.awq.clip = false;
    options_.exists_hint = "--overwrite";
    options_.on_message = [this](const std::string& line) { messages_ += line + "\n"; };
  }

  // Runs until `blocks` of the demo's four are done.
  void stop_after(int64_t blocks) {
    QuantizeModelOptions options = options_;
    options.on_progress = [&](int64_t done, int64_t) {
      if (done == blocks) throw test::Stopped{};
    };
    EXPECT_THROW(quantize_model(options, tokens_), test::Stopped);
  }

  // A copy of the demo's files that may be changed.
  void copy_source() {
    options_.model_folder = folder_.path() / "model";
    fs::create_directory(options_.model_folder);
    for (const auto& entry : fs::directory_iterator(test::kDemo)) {
      if (entry.is_regular_file()) fs::copy_file(entry.path(), options_.model_folder / entry.path().filename());
    }
  }

  Error refused() {
    return test::error_of([&] { quantize_model(options_, tokens_); });
  }

  fs::path work() const { return options_.output.string() + ".partial"; }

  test::TemporaryFolder folder_;
  calibration::TokenBlocks tokens_ = test::demo_tokens(8, 128);
  QuantizeModelOptions options_;
  std::string messages_;
};

TEST_F(UnfinishedWork, OfOtherSettingsIsKeptUntilSomebodySaysOtherwise) {
  stop_after(2);
  options_.awq.spec.group_size = 64;
  options_.seed = 3;
  const Error error = refused();
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr("out.partial"), HasSubstr("2 of 4 blocks"), HasSubstr("seed"), HasSubstr("group_size")));
  EXPECT_THAT(error.message(), Not(HasSubstr("sha256")));
  EXPECT_THAT(error.hint(), HasSubstr("--overwrite"));

  QuantizeModelOptions others = options_;
  others.awq.spec.group_size = quant::QuantizationSpec{}.group_size;
  others.seed = 0;
  EXPECT_EQ(quantize_model(others, tokens_).resumed_blocks, 2);  // nothing was lost
  fs::remove_all(options_.output);

  options_ = others;
  stop_after(2);
  options_.awq.spec.group_size = 64;
  options_.replace_output = true;
  EXPECT_EQ(quantize_model(options_, tokens_).resumed_blocks, 0);
  EXPECT_THAT(messages_, HasSubstr("beginning again"));
  EXPECT_EQ(models::detect_model(options_.output).spec->group_size, 64);
}

// What an error about memory advises must not cost what is done.
TEST_F(UnfinishedWork, GoesOnWithFewerTokensAtATime) {
  QuantizeModelOptions whole = options_;
  whole.output = folder_.path() / "whole";
  quantize_model(whole, tokens_);
  stop_after(2);
  options_.batch_tokens = 128;
  EXPECT_EQ(quantize_model(options_, tokens_).resumed_blocks, 2);
  auto expected = test::folder_bytes(whole.output);
  auto found = test::folder_bytes(options_.output);
  for (auto* files : {&expected, &found}) {  // which say how many tokens there were at a time
    files->erase(kMetadataFile);
    files->erase("README.md");
  }
  EXPECT_TRUE(found == expected);
}

TEST_F(UnfinishedWork, OfAModelThatWasReplacedBeginsAgain) {
  copy_source();
  stop_after(2);
  write_file(options_.model_folder / "generation_config.json", R"({"max_length": 77})");
  EXPECT_EQ(quantize_model(options_, tokens_).resumed_blocks, 0);
  EXPECT_THAT(messages_, AllOf(HasSubstr("2 of 4 blocks"), HasSubstr("beginning again")));
}

TEST_F(UnfinishedWork, ASourceThatChangesMeanwhileIsFoundAndTheBlocksAreKept) {
  copy_source();
  const fs::path file = options_.model_folder / "generation_config.json";
  write_file(file, R"({"max_length": 77})");
  QuantizeModelOptions whole = options_;
  whole.output = folder_.path() / "whole";
  quantize_model(whole, tokens_);
  options_.on_progress = [&](int64_t done, int64_t) {
    if (done == 3) write_file(file, R"({"max_length": 78})");
  };
  const Error error = refused();
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error.message(), HasSubstr("generation_config.json was changed while the model was quantized"));
  EXPECT_FALSE(fs::exists(options_.output));

  options_.on_progress = nullptr;
  write_file(file, R"({"max_length": 77})");
  EXPECT_EQ(quantize_model(options_, tokens_).resumed_blocks, 4);
  EXPECT_TRUE(test::folder_bytes(options_.output) == test::folder_bytes(whole.output));
}

// Another date is no other file.
TEST_F(UnfinishedWork, ASourceThatIsOnlyTouchedIsTheSame) {
  copy_source();
  options_.on_progress = [&](int64_t done, int64_t) {
    if (done == 3) fs::last_write_time(options_.model_folder / "config.json", fs::file_time_type::clock::now());
  };
  EXPECT_NO_THROW(quantize_model(options_, tokens_));
}

TEST_F(UnfinishedWork, TensorsThatChangedOnTheDiskDoNotGetAHash) {
  options_.on_progress = [&](int64_t done, int64_t) {
    if (done != 4) return;
    for (const auto& entry : fs::directory_iterator(work())) {
      if (entry.path().string().find(".safetensors") == std::string::npos) continue;
      std::string bytes = read_text_file(entry.path());
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
  };
  const Error error = refused();
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error.message(), HasSubstr("is not as it was written"));
  EXPECT_FALSE(fs::exists(options_.output));
}

// Of a job that was killed after its last tensor, whose model had files that this one has not.
TEST_F(UnfinishedWork, FilesOfAnEarlierModelDoNotGetIntoTheArtifact) {
  copy_source();
  stop_after(2);
  write_file(work() / "added_tokens.json", R"({"<stale>": 1})");
  write_file(options_.model_folder / "generation_config.json", R"({"max_length": 78})");
  quantize_model(options_, tokens_);
  EXPECT_FALSE(fs::exists(options_.output / "added_tokens.json"));
}

TEST_F(UnfinishedWork, AFolderThatIsCalledReplacedIsLeftAlone) {
  quantize_model(options_, tokens_);
  fs::create_directory(folder_.path() / "out.replaced");
  write_file(folder_.path() / "out.replaced/notes.txt", "mine");
  options_.replace_output = true;
  options_.seed = 5;
  quantize_model(options_, tokens_);
  EXPECT_EQ(read_text_file(folder_.path() / "out.replaced/notes.txt"), "mine");
  EXPECT_FALSE(fs::exists(folder_.path() / "out.replaced-2"));
}

}  // namespace
}  // namespace salient::pipeline
