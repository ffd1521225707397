// The demo model as a GGUF file: evaluated, exported again, refused where float weights are wanted.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "eval/language_model.h"
#include "models/gguf/gguf_checkpoint.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/export_model.h"
#include "pipeline/online_calibration.h"
#include "pipeline/quantize_job.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

at::Tensor logits_of(const eval::LanguageModel& model) {
  const std::vector<models::TokenId> row = eval::encode_text(model, "There are three red apples and 17 green ones.");
  const at::Tensor ids = at::tensor(std::vector<int64_t>(row.begin(), row.end())).unsqueeze(0);
  return model.decoder.logits(model.decoder.hidden_states(ids));
}

class GgufModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<test::TemporaryFolder>();
    export_model({kDemo, folder_->path() / "f16.gguf", ""}, "gguf-f16");
    export_model({kDemo, folder_->path() / "small", ""}, "gguf-q4_k_m");
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static fs::path floats() { return folder_->path() / "f16.gguf"; }
  static fs::path small() { return folder_->path() / "small/model-Q4_K_M.gguf"; }
  static inline std::unique_ptr<test::TemporaryFolder> folder_;
};

TEST_F(GgufModel, IsEvaluatedAsItsSourceIs) {
  const eval::LanguageModel source = eval::load_language_model(kDemo);
  const eval::LanguageModel model = eval::load_language_model(floats());
  EXPECT_TRUE(at::allclose(logits_of(model), logits_of(source), 0, 0.02));
  EXPECT_FALSE(at::allclose(logits_of(eval::load_language_model(small())), logits_of(source), 0, 0.02));
  EXPECT_EQ(model.stop_ids, source.stop_ids);
  EXPECT_EQ(model.bos_id, source.bos_id);
  EXPECT_EQ(model.eos_text, source.eos_text);
  EXPECT_EQ(model.max_length, source.max_length);
  EXPECT_EQ(model.chat_template->source(), source.chat_template->source());
  EXPECT_EQ(eval::adds_bos(model), eval::adds_bos(source));
  EXPECT_EQ(model.name, "f16");
  EXPECT_FALSE(eval::describe(model).at("quantized").get<bool>());
  EXPECT_FALSE(eval::describe(source).contains("gguf"));
}

TEST_F(GgufModel, SaysThatItsWeightsAreRounded) {
  for (const fs::path& path : {small(), small().parent_path()}) {
    const eval::LanguageModel model = eval::load_language_model(path);
    EXPECT_EQ(model.name, path == small() ? "model-Q4_K_M" : "small");
    const Json description = eval::describe(model);
    EXPECT_TRUE(description.at("quantized").get<bool>());
    EXPECT_EQ(description.at("gguf").at("file_type"), "Q4_K_M");
    EXPECT_GT(description.at("gguf").at("bits_per_weight").get<double>(), 4.5);
    EXPECT_LT(description.at("gguf").at("bits_per_weight").get<double>(), 6.6);
    EXPECT_LT(model.disk_bytes, fs::file_size(small()));
    EXPECT_GT(model.disk_bytes, fs::file_size(kDemo / "model.safetensors") / 4);
  }
}

TEST_F(GgufModel, BecomesATorchscriptFolder) {
  const fs::path out = folder_->path() / "script";
  export_model({small(), out, ""}, "torchscript");
  EXPECT_THAT(test::message_of([&] { eval::load_language_model(out); }, ErrorKind::kUnsupported),
              HasSubstr("is TorchScript, a program"));
  eval::LanguageModelOptions trusting;
  trusting.trust_torchscript = true;
  const eval::LanguageModel script = eval::load_language_model(out, trusting);
  EXPECT_TRUE(at::allclose(logits_of(script), logits_of(eval::load_language_model(small())), 1e-4, 1e-4));
  EXPECT_EQ(script.chat_template->source(), eval::load_language_model(kDemo).chat_template->source());
}

TEST_F(GgufModel, BecomesAnotherGgufFile) {
  const fs::path out = folder_->path() / "again.gguf";
  const ExportResult result = export_model({small(), out, ""}, "gguf-q8_0");
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("is quantized again")));
  const models::GgufFile again(out);
  const models::GgufFile from(small());
  EXPECT_EQ(models::gguf_value<std::string>(again.header(), "general.name"), "model-Q4_K_M");
  for (const models::GgufPair& pair : from.header().metadata) {
    if (!pair.key.starts_with("tokenizer.")) continue;
    ASSERT_NE(again.header().find(pair.key), nullptr) << pair.key;
    EXPECT_TRUE(*again.header().find(pair.key) == pair.value) << pair.key;
  }
  export_model({floats(), folder_->path() / "same.gguf", "f16"}, "gguf-f16");
  EXPECT_EQ(models::GgufFile(folder_->path() / "same.gguf")
                .view("blk.0.ffn_up.weight")
                .equal(models::GgufFile(floats()).view("blk.0.ffn_up.weight")),
            true);
}

TEST_F(GgufModel, BecomesAFolderOfFloats) {
  const fs::path out = folder_->path() / "float";
  const ExportResult result = export_model({small(), out, ""}, "float");
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("Q4_K_M: ")));
  const eval::LanguageModel folder = eval::load_language_model(out);
  const eval::LanguageModel file = eval::load_language_model(small());
  EXPECT_TRUE(at::equal(logits_of(folder), logits_of(file)));
  EXPECT_FALSE(eval::describe(folder).at("quantized").get<bool>());
  EXPECT_EQ(folder.chat_template->source(), file.chat_template->source());
  EXPECT_EQ(folder.stop_ids, file.stop_ids);
  export_model({floats(), folder_->path() / "half", ""}, "float");
  const models::Checkpoint half(folder_->path() / "half");
  EXPECT_EQ(half.config().at("torch_dtype"), "float16");
  EXPECT_EQ(half.info("model.layers.0.mlp.up_proj.weight").dtype, at::kHalf);
  EXPECT_THAT(test::message_of(
                  [&] {
                    export_model({kDemo, folder_->path() / "not", ""}, "float");
                  },
                  ErrorKind::kInvalidArgument),
              HasSubstr("has safetensors files already"));
  EXPECT_FALSE(fs::exists(folder_->path() / "not.partial"));
}

TEST_F(GgufModel, IsNotQuantizedNorRecorded) {
  QuantizeJob job;
  job.model.output = folder_->path() / "never";
  for (const fs::path& path : {small(), small().parent_path()}) {
    job.model.model_folder = path;
    const std::string message = test::message_of([&] { run_quantize_job(job); }, ErrorKind::kUnsupported);
    EXPECT_THAT(message, ::testing::AllOf(HasSubstr(small().string()), HasSubstr("Q4_K_M: "), HasSubstr("the float checkpoint")));
  }
  const eval::LanguageModel model = eval::load_language_model(small());
  EXPECT_THAT(
      test::message_of([&] { OnlineCalibration recorder({.file = folder_->path() / "r.jsonl"}, model); }, ErrorKind::kUnsupported),
      HasSubstr("GGUF"));
}

TEST_F(GgufModel, IsStoredUnderItsOwnHash) {
  Store store(folder_->path() / "salient.db");
  EXPECT_NE(model_hash(store, small()), model_hash(store, floats()));
  EXPECT_EQ(model_hash(store, small()), model_hash(store, small().parent_path()));
  EXPECT_EQ(model_hash(store, floats()), store.file_sha256(floats()));
}

}  // namespace
}  // namespace salient::pipeline
