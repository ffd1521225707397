#include "pipeline/post_train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class PostTrain : public ::testing::Test {
 protected:
  PostTrain() : checkpoint_(folder_.path() / "outputs" / "checkpoint-7") { fs::create_directories(checkpoint_ / "data"); }

  void write(const Json& metadata) { write_file(checkpoint_ / "training_metadata.json", dump_json(metadata)); }
  RunConfig load(const Json& metadata, const std::vector<std::string>& overrides = {}) {
    write(metadata);
    return load_post_train_config(checkpoint_, overrides).value();
  }
  std::string message(const Json& metadata, ErrorKind kind, const std::vector<std::string>& overrides = {}) {
    write(metadata);
    return test::message_of([&] { load_post_train_config(checkpoint_, overrides); }, kind);
  }

  test::TemporaryFolder folder_;
  fs::path checkpoint_;
};

TEST_F(PostTrain, ThePlanBecomesARunBesideTheCheckpoint) {
  write_file(checkpoint_ / "heldout.txt", "x");
  write_file(checkpoint_ / "data" / "rows.jsonl", "x");
  const RunConfig config = load(
      {{"quantization", {{"method", "GPTQ"}, {"bits", 3}, {"group_size", 32}, {"extras", {{"who", "platform"}}}}},
       {"calibration", {{"samples", 9}, {"seed", 3}, {"sources", {{{"file", "rows.jsonl"}, {"weight", 2}}, "elsewhere.jsonl"}}}},
       {"evaluation",
        {{"tasks",
          {{{"name", "perplexity"}, {"file", "heldout.txt"}},
           "arc_easy",
           {{"name", "gsm8k"}, {"splits", {{"train", "rows.jsonl"}}}}}},
         {"max_retention_loss", 0.05}}}});
  EXPECT_EQ(config.name, "post-train checkpoint-7");
  EXPECT_EQ(config.model, checkpoint_.string());
  EXPECT_EQ(config.quantization.awq.method, "gptq");
  EXPECT_EQ(config.quantization.awq.spec.weight_bits, 3);
  EXPECT_EQ(config.quantization.awq.spec.group_size, 32);
  EXPECT_EQ(config.calibration.samples, 9);
  EXPECT_EQ(config.calibration.sources.at(0).file, checkpoint_ / "data" / "rows.jsonl");
  EXPECT_EQ(config.calibration.sources.at(1).file, "elsewhere.jsonl");
  ASSERT_EQ(config.evaluation.tasks.size(), 3u);
  EXPECT_EQ(config.evaluation.tasks[0].file, checkpoint_ / "heldout.txt");
  EXPECT_EQ(config.evaluation.tasks[1].name, "arc_easy");
  EXPECT_EQ(config.evaluation.tasks[2].splits.at("train"), checkpoint_ / "data" / "rows.jsonl");
  EXPECT_EQ(config.evaluation.max_retention_loss, 0.05);
  EXPECT_EQ(config.output_folder, checkpoint_.parent_path());
  EXPECT_EQ(config.store, checkpoint_.parent_path() / "runs" / "salient.db");
}

TEST_F(PostTrain, KeysAsPlatformsWriteThem) {
  const RunConfig config = load({{"quantization",
                                  {{"method", "AWQ"},
                                   {"weights_bits", 8},
                                   {"activations_bits", 16},
                                   {"kv_cache_bits", 16},
                                   {"group_size", 64},
                                   {"lm_head_dtype", "fp16"},
                                   {"backend", "compressed-tensors"},
                                   {"extras", {{"ptq_planned", true}}}}}});
  EXPECT_EQ(config.quantization.awq.spec.weight_bits, 8);
  EXPECT_EQ(config.quantization.awq.spec.activation_bits, 16);
  EXPECT_EQ(config.quantization.awq.spec.kv_cache_bits, 16);
  EXPECT_EQ(config.quantization.awq.format, WeightFormat::kCompressedTensors);
  EXPECT_EQ(load({{"quantization", {{"backend", "autoawq"}, {"format", "awq-gemv"}}}}).quantization.awq.format,
            WeightFormat::kAwqGemv);
  EXPECT_EQ(load({{"quantization", Json::object()}}).quantization.awq.spec.group_size, 128);
}

TEST_F(PostTrain, TheDemosMetadataIsAPlan) {
  const RunConfig config =
      load_post_train_config(fs::path(SALIENT_SOURCE_DIR) / "models/demo/", {"output.folder=" + folder_.path().string()}).value();
  EXPECT_EQ(config.quantization.awq.spec.weight_bits, 4);
  EXPECT_EQ(config.output_folder, folder_.path());
  EXPECT_EQ(config.store, fs::path(SALIENT_SOURCE_DIR) / "models/runs/salient.db");
}

TEST_F(PostTrain, NothingPlannedIsNoError) {
  for (const Json& off : {Json(false), Json(), Json({{"bits", 4}, {"extras", {{"ptq_planned", false}}}})}) {
    write({{"quantization", off}});
    EXPECT_FALSE(post_train_config(checkpoint_).has_value()) << off;
    EXPECT_FALSE(load_post_train_config(checkpoint_, {"calibration.samples=3"}).has_value()) << off;
    EXPECT_TRUE(load_post_train_config(checkpoint_, {"quantization.bits=3"}).has_value()) << off;
  }
}

TEST_F(PostTrain, OverridesGoLast) {
  const RunConfig config = load({{"quantization", {{"bits", 4}}}}, {"quantization.bits=3", "output.store=elsewhere.db"});
  EXPECT_EQ(config.quantization.awq.spec.weight_bits, 3);
  EXPECT_EQ(config.store, "elsewhere.db");
  EXPECT_EQ(load({{"base_model", "x"}}, {"quantization.group_size=32"}).quantization.awq.spec.group_size, 32);
}

TEST_F(PostTrain, ErrorsNameTheKeyAndWhatToDo) {
  const std::string where = (checkpoint_ / "training_metadata.json").string();
  const auto invalid = ErrorKind::kInvalidArgument;
  EXPECT_THAT(message({{"base_model", "x"}}, invalid),
              AllOf(HasSubstr(where + ": key 'quantization' is missing"), HasSubstr("\"bits\": 4"), HasSubstr("--set")));
  EXPECT_THAT(message({{"quantization", 4}}, invalid), AllOf(HasSubstr("key 'quantization': found 4"), HasSubstr("an object")));
  EXPECT_THAT(message({{"quantization", {{"group_sise", 64}}}}, invalid),
              AllOf(HasSubstr(where), HasSubstr("quantization.group_sise"), HasSubstr("group_size")));
  EXPECT_THAT(message({{"quantization", {{"weights_bits", 7}}}}, invalid),
              AllOf(HasSubstr(where), HasSubstr("quantization.bits"), HasSubstr("7")));
  EXPECT_THAT(message({{"quantization", {{"weights_bits", 4}, {"bits", 4}}}}, invalid),
              HasSubstr("'quantization.weights_bits' and 'quantization.bits' say the same"));
  EXPECT_THAT(message({{"quantization", {{"backend", "onnx"}}}}, invalid),
              AllOf(HasSubstr("key 'quantization.backend': found \"onnx\""), HasSubstr("autoawq")));
  EXPECT_THAT(message({{"quantization", {{"backend", "llama.cpp"}}}}, invalid),
              AllOf(HasSubstr("key 'quantization.format' is missing"), HasSubstr("gguf-q4_k_m")));
  EXPECT_THAT(message({{"quantization", {{"extras", 1}}}}, invalid), HasSubstr("key 'quantization.extras': found 1"));
  EXPECT_THAT(message({{"quantization", Json::object()}, {"evaluation", {{"task", "arc"}}}}, invalid),
              AllOf(HasSubstr("evaluation.task"), HasSubstr("tasks")));
  EXPECT_THAT(message({{"quantization", Json::object()}, {"calibration", 3}}, invalid), HasSubstr("key 'calibration': found 3"));
  EXPECT_THAT(message({{"quantization", {{"bits", 4}}}}, invalid, {"output.folder=" + (checkpoint_ / "q").string()}),
              AllOf(HasSubstr("output.folder"), HasSubstr("inside the checkpoint")));
  EXPECT_THAT(message({{"quantization", {{"bits", 4}}}}, invalid, {"output.store=" + (checkpoint_ / "x.db").string()}),
              HasSubstr("output.store"));
  write_file(checkpoint_ / "training_metadata.json", "{\"quantization\": {");
  EXPECT_THAT(test::message_of([&] { post_train_config(checkpoint_); }, ErrorKind::kCorruption),
              HasSubstr("training_metadata.json"));
  fs::remove(checkpoint_ / "training_metadata.json");
  EXPECT_THAT(test::message_of([&] { post_train_config(checkpoint_); }, ErrorKind::kNotFound),
              AllOf(HasSubstr(where), HasSubstr("docs/hook.md")));
  EXPECT_THAT(test::message_of([&] { post_train_config(checkpoint_ / "no"); }, ErrorKind::kNotFound), HasSubstr("no such folder"));
}

}  // namespace
}  // namespace salient::pipeline
