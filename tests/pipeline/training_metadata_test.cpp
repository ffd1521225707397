#include "pipeline/training_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "tests/support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

TEST(TrainingMetadata, ReadsTheDemo) {
  const fs::path folder = fs::path(SALIENT_SOURCE_DIR) / "models/demo";
  const TrainingMetadata metadata = read_training_metadata(folder);
  EXPECT_EQ(metadata.base_model, "Qwen3-Demo");
  EXPECT_EQ(metadata.dataset_name, "openmath");
  EXPECT_EQ(metadata.train_file, folder / "data/openmath_train.jsonl");
  EXPECT_EQ(metadata.rows, 2000);
  EXPECT_EQ(metadata.question_field, "question");
  EXPECT_EQ(metadata.answer_field, "answer");
  EXPECT_EQ(metadata.method, "SFT");
  EXPECT_EQ(metadata.peft, "NoPeft");
  EXPECT_EQ(metadata.max_seq_len, 256);
  EXPECT_THAT(metadata.system_prompt, ::testing::StartsWith("You are a careful assistant."));
  for (const auto& [name, origin] : metadata.origins)
    EXPECT_EQ(origin, name == "chat_template" ? "none" : "training_metadata.json") << name;
}

TEST(TrainingMetadata, ConfigurationGoesFirst) {
  const auto metadata =
      read_training_metadata(fs::path(SALIENT_SOURCE_DIR) / "models/demo",
                             {.dataset_name = "mine", .train_file = "x/rows.csv", .peft = "LoRA", .system_prompt = ""});
  EXPECT_EQ(metadata.dataset_name, "mine");
  EXPECT_EQ(metadata.train_file, "x/rows.csv");
  EXPECT_EQ(metadata.rows, std::nullopt);
  EXPECT_EQ(metadata.peft, "LoRA");
  EXPECT_EQ(metadata.system_prompt, "");
  EXPECT_EQ(metadata.base_model, "Qwen3-Demo");
  EXPECT_EQ(metadata.origins.at("dataset_name"), "configuration");
  EXPECT_EQ(metadata.origins.at("system_prompt"), "configuration");
  EXPECT_EQ(metadata.origins.at("base_model"), "training_metadata.json");
}

TEST(TrainingMetadata, AnAdapterSaysItsBaseAndItsMethod) {
  const fs::path adapters = fs::path(SALIENT_SOURCE_DIR) / "tests/data/adapters";
  const auto metadata = read_training_metadata(adapters / "demo");
  EXPECT_EQ(metadata.base_model, "demo");
  EXPECT_EQ(metadata.peft, "LoRA");
  EXPECT_EQ(metadata.origins.at("base_model"), "adapter_config.json");
  EXPECT_EQ(metadata.origins.at("peft"), "adapter_config.json");
  EXPECT_EQ(read_training_metadata(adapters / "dora").peft, "DoRA");
  EXPECT_EQ(read_training_metadata(adapters / "dora", {.base_model = "Llama", .peft = "QLoRA"}).peft, "QLoRA");
}

TEST(TrainingMetadata, FindsTheTemplateOfTheTraining) {
  test::TemporaryFolder folder;
  write_file(folder.path() / "training_metadata.json", R"({"training": {"chat_template": "ours.jinja"}})");
  EXPECT_FALSE(read_training_metadata(folder.path()).chat_template.has_value());
  EXPECT_EQ(read_training_metadata(folder.path()).chat_template_given, "ours.jinja");
  write_file(folder.path() / "ours.jinja", "x");
  EXPECT_EQ(read_training_metadata(folder.path()).chat_template, folder.path() / "ours.jinja");
  EXPECT_EQ(read_training_metadata(folder.path(), {.chat_template = "other.jinja"}).chat_template, "other.jinja");
}

TEST(TrainingMetadata, FallsBackWithoutAFile) {
  test::TemporaryFolder folder;
  const fs::path model = folder.path() / "My-Model";
  fs::create_directories(model);
  for (const fs::path& spelling : {model, model / ""}) {
    const auto metadata = read_training_metadata(spelling, {.train_file = "data/rows.jsonl"});
    EXPECT_EQ(metadata.base_model, "My-Model");
    EXPECT_EQ(metadata.dataset_name, "rows");
    EXPECT_EQ(metadata.method, "SFT");
    EXPECT_EQ(metadata.peft, "NoPeft");
    EXPECT_EQ(metadata.origins.at("base_model"), "folder name");
    EXPECT_EQ(metadata.origins.at("dataset_name"), "training file name");
    EXPECT_EQ(metadata.origins.at("method"), "default");
  }
  EXPECT_EQ(read_training_metadata(model).dataset_name, "unknown");
  const fs::path cached = folder.path() / "models--Qwen--Qwen3-0.6B/snapshots/0123abc";
  fs::create_directories(cached);
  EXPECT_EQ(read_training_metadata(cached).base_model, "Qwen3-0.6B");
}

TEST(TrainingMetadata, RefusesBrokenFiles) {
  test::TemporaryFolder folder;
  for (const char* text : {"{", "[]", R"({"base_model": 3})", R"({"dataset": "openmath"})", R"({"dataset": {"rows": "many"}})",
                           R"({"dataset": {"rows": -1}})", R"({"training": {"peft": ["LoRA"]}})"}) {
    write_file(folder.path() / "training_metadata.json", text);
    try {
      read_training_metadata(folder.path(), {.base_model = "set"});
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption) << text;
      EXPECT_THAT(error.message(), ::testing::HasSubstr("training_metadata.json")) << text;
    }
  }
}

TEST(TrainingMetadata, NamesATrainingFileThatIsNotThere) {
  test::TemporaryFolder folder;
  write_file(folder.path() / "training_metadata.json", R"({"dataset": {"train_file": "gone.jsonl"}, "extra": {"kept": "alone"}})");
  const auto metadata = read_training_metadata(folder.path());
  EXPECT_EQ(metadata.train_file, std::nullopt);
  EXPECT_EQ(metadata.train_file_given, "gone.jsonl");
  EXPECT_EQ(metadata.dataset_name, "gone");
  EXPECT_EQ(to_json(metadata)["origins"]["dataset_name"], "training file name");
}

}  // namespace
}  // namespace salient::pipeline
