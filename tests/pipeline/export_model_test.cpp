#include "pipeline/export_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "models/io/checkpoint.h"
#include "models/io/detect.h"
#include "models/io/gguf.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

TEST(ExportModel, WritesATorchscriptFolder) {
  const test::TemporaryFolder folder;
  const ExportResult result = export_model({kDemo, folder.path() / "out", ""}, "torchscript");
  ASSERT_EQ(result.files.size(), 1u);
  EXPECT_EQ(fs::file_size(folder.path() / "out" / result.files.front()), result.bytes);
  EXPECT_TRUE(fs::exists(folder.path() / "out/tokenizer.json"));
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
  EXPECT_EQ(models::detect_model(folder.path() / "out").format, "torchscript");
}

TEST(ExportModel, WritesGgufFiles) {
  const test::TemporaryFolder folder;
  const ExportResult floats = export_model({kDemo, folder.path() / "f16", ""}, "gguf-f16");
  const models::GgufFile file(folder.path() / "f16" / floats.files.front());
  EXPECT_EQ(models::gguf_value<std::string>(file.header(), "general.architecture"), "qwen3");
  const models::Checkpoint checkpoint(kDemo);
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const at::Tensor expected = checkpoint.load(name, checkpoint.info(name).shape, at::kFloat);
  EXPECT_TRUE(at::allclose(file.read("blk.1.ffn_down.weight"), expected, 1e-3, 1e-6));
  const ExportResult mixture = export_model({kDemo, folder.path() / "q4", ""}, "gguf-q4_k_m");
  EXPECT_LT(mixture.bytes, floats.bytes / 2);
  const models::GgufFile small(folder.path() / "q4" / mixture.files.front());
  const at::Tensor error = small.read("blk.1.ffn_up.weight") - file.read("blk.1.ffn_up.weight");
  EXPECT_LT(error.abs().max().item<float>(), 0.2f * file.read("blk.1.ffn_up.weight").abs().max().item<float>());
  EXPECT_GT(error.abs().max().item<float>(), 0.0f);
}

TEST(ExportModel, RefusesWhatIsThereAndWhatItDoesNotKnow) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder.path() / "out");
  EXPECT_NE(test::message_of(
                [&] {
                  export_model({kDemo, folder.path() / "out", ""}, "torchscript");
                },
                ErrorKind::kInvalidArgument)
                .find("exists already"),
            std::string::npos);
  EXPECT_NE(test::message_of(
                [&] {
                  export_model({kDemo, folder.path() / "new", ""}, "torchscrip");
                },
                ErrorKind::kInvalidArgument)
                .find("torchscript"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "new"));
}

// The work of a stopped quantization with the same output, say.
TEST(ExportModel, LeavesTheWorkOfAnotherJobAlone) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder.path() / "out.partial");
  write_file(folder.path() / "out.partial/progress.json", "{}");
  for (const char* format : {"torchscript", "gguf-f16"}) {
    EXPECT_NE(test::message_of(
                  [&] {
                    export_model({kDemo, folder.path() / "out", ""}, format);
                  },
                  ErrorKind::kInvalidArgument)
                  .find("progress.json"),
              std::string::npos);
    EXPECT_EQ(read_text_file(folder.path() / "out.partial/progress.json"), "{}");
    EXPECT_FALSE(fs::exists(folder.path() / "out"));
  }
}

// What a killed export left is of no use and in nobody's way.
TEST(ExportModel, BeginsAnewAfterAKilledOne) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "out.partial/export/model-F16.gguf", "half a file");
  write_file(folder.path() / "out.partial/export/rest", "");
  export_model({kDemo, folder.path() / "out", ""}, "gguf-f16");
  EXPECT_TRUE(fs::exists(folder.path() / "out/model-F16.gguf"));
  EXPECT_FALSE(fs::exists(folder.path() / "out/rest"));
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
}

TEST(ExportModel, LeavesNothingBehindWhenItFails) {
  const test::TemporaryFolder folder;
  EXPECT_THROW(export_model({folder.path() / "missing", folder.path() / "out", ""}, "torchscript"), Error);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace salient::pipeline
