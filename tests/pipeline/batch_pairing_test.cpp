// Which base a model is compared with, from every kind of evidence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/hash.h"
#include "common/json.h"
#include "models/io/gguf_writer.h"
#include "pipeline/batch/base_pairing.h"
#include "pipeline/batch/name_words.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using salient::test::TemporaryFolder;
using salient::test::write_text;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(NameWords, QuantizationIsNoPartOfAName) {
  EXPECT_THAT(name_words("Qwen3-0.6B_AWQ.gguf"), ElementsAre("qwen3", "0.6b", "awq", "gguf"));
  const std::vector<std::pair<std::string, std::string>> same = {{"Llama-3-8B-Instruct-AWQ", "Llama-3-8B-Instruct"},
                                                                 {"llama-3-8b-instruct.Q4_K_M.gguf", "Llama-3-8B-Instruct"},
                                                                 {"Qwen3-0.6B-w4a16-g128", "Qwen3-0.6B"},
                                                                 {"Qwen3-0.6B-GPTQ-Int4", "Qwen3-0.6B"},
                                                                 {"demo_compressed-tensors_w4", "demo"},
                                                                 {"demo-IQ3_XXS", "demo-F16"},
                                                                 {"Mistral-7B-v0.3-4bit", "Mistral-7B-v0.3"},
                                                                 {"Qwen3-Demo_AWQ_w4_g128_headfp16_quantized", "Qwen3-Demo"},
                                                                 {"tiny_torchscript", "tiny"}};
  for (const auto& [quantized, base] : same) EXPECT_EQ(model_words(quantized), model_words(base)) << quantized;
  const std::vector<std::pair<std::string, std::string>> other = {{"Llama-3-8B-Instruct-AWQ", "Llama-3-8B"},
                                                                  {"Qwen3-0.6B-AWQ", "Qwen3-6B"},
                                                                  {"gemma-2-9b-it-GGUF", "gemma-2-9b"},
                                                                  {"checkpoint-500-awq", "checkpoint-1000"}};
  for (const auto& [quantized, base] : other) EXPECT_NE(model_words(quantized), model_words(base)) << quantized;
}

// Models as the listing gives them, of which only what a pairing reads is there.
class PairingTest : public testing::Test {
 protected:
  ListedModel& add(const std::string& label, bool original, const std::string& config = "{}") {
    ListedModel model;
    model.path = folder_.path() / label;
    model.label = label;
    model.name = fs::path(label).extension() == ".gguf" ? fs::path(label).stem().string() : fs::path(label).filename().string();
    model.original = original;
    model.wants_base = !original;
    fs::create_directories(model.path);
    write_text(model.path / "config.json", config);
    return models_.emplace_back(std::move(model));
  }
  // A file with a head and no tensors.
  ListedModel& add_gguf(const std::string& label, bool original, std::vector<models::GgufPair> metadata = {}) {
    ListedModel model;
    model.path = folder_.path() / label;
    model.label = label;
    model.name = fs::path(label).stem().string();
    model.kind = ModelKind::kGguf;
    model.original = original;
    metadata.insert(metadata.begin(), models::GgufPair{"general.architecture", std::string("qwen3")});
    models::GgufWriter writer(model.path, std::move(metadata), {});
    writer.finish();
    return models_.emplace_back(std::move(model));
  }
  Pairing pair(const std::string& label) {
    sources_.file_sha256 = [](const fs::path& file) { return sha256_file(file); };
    const std::vector<Pairing> pairings = pair_with_bases(models_, sources_);
    for (size_t i = 0; i < models_.size(); ++i) {
      if (models_[i].label == label) return pairings[i];
    }
    throw std::runtime_error(label);
  }
  void expect_base(const std::string& label, const std::string& base, const std::string& evidence) {
    const Pairing found = pair(label);
    ASSERT_TRUE(found.base) << label << ": " << found.evidence;
    EXPECT_EQ(found.base_label, base) << label;
    EXPECT_THAT(found.evidence, HasSubstr(evidence)) << label;
  }
  void expect_alone(const std::string& label, const std::string& reason) {
    const Pairing found = pair(label);
    EXPECT_FALSE(found.base) << label << ": " << found.base_label;
    EXPECT_THAT(found.evidence, HasSubstr(reason)) << label;
  }

  TemporaryFolder folder_;
  std::vector<ListedModel> models_;
  PairingSources sources_;
};

TEST_F(PairingTest, ByTheHashesOfOurMetadataWhateverTheNames) {
  add("one", true, R"({"hidden_size": 64})");
  add("two", true, R"({"hidden_size": 64, "x": 1})");
  write_text(folder_.path() / "one/model.safetensors", "weights of one");
  write_text(folder_.path() / "two/model.safetensors", "weights of two");
  const auto metadata = [&](const std::string& weights, const std::string& name) {
    return dump_json(
        Json{{"source", {{"name", name}}},
             {"source_sha256",
              {{"config.json", sha256_hex(R"({"hidden_size": 64, "x": 1})")}, {"model.safetensors", sha256_hex(weights)}}}});
  };
  add("one-awq", false);  // its name misleads
  write_text(folder_.path() / "one-awq/quantization_metadata.json", metadata("weights of two", "two"));
  expect_base("one-awq", "two", "hashes");
  // The base has been trained on since.
  add("artifact", false);
  write_text(folder_.path() / "artifact/quantization_metadata.json", metadata("earlier weights of two", "two"));
  expect_alone("artifact", "made from other files than two");
}

TEST_F(PairingTest, ByWhatOtherToolsWrite) {
  add("Tiny-1B", true);
  add("other", true);
  add("by_path", false, dump_json(Json{{"_name_or_path", (folder_.path() / "other").string()}}));
  expect_base("by_path", "other", "_name_or_path");
  add("by_hub_name", false, R"({"_name_or_path": "org/Tiny-1B"})");
  expect_base("by_hub_name", "Tiny-1B", "_name_or_path");
  add("by_card", false);
  write_text(folder_.path() / "by_card/README.md",
             "---\nlicense: mit\nbase_model:\n- org/Tiny-1B\nbase_model_relation: quantized\n---\n# Card\n");
  expect_base("by_card", "Tiny-1B", "model card");
  add("merge", false);
  write_text(folder_.path() / "merge/README.md", "---\nbase_model: [org/Tiny-1B, org/other]\n---\n");
  expect_alone("merge", "no base");
  add("tuned", false);
  write_text(folder_.path() / "tuned/README.md", "---\nbase_model: org/Tiny-1B\nbase_model_relation: finetune\n---\n");
  expect_alone("tuned", "no base");
  add_gguf("x.gguf", false, {{"general.base_model.0.name", std::string("Tiny 1B")}});
  expect_base("x.gguf", "Tiny-1B", "general.base_model.0.name");
  add_gguf("y.gguf", false, {{"general.source.repo_url", std::string("https://huggingface.co/org/Tiny-1B")}});
  expect_base("y.gguf", "Tiny-1B", "general.source.repo_url");
}

TEST_F(PairingTest, ByNameAndByPlace) {
  add("Tiny-1B", true);
  add("Tiny-1B-Instruct", true);
  add("quantized/Tiny-1B-Instruct-AWQ", false);
  expect_base("quantized/Tiny-1B-Instruct-AWQ", "Tiny-1B-Instruct", "by name");
  add("Tiny-1B-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized", false);
  expect_base("Tiny-1B-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized", "Tiny-1B", "base model in its name");
  add("Tiny-1B/small", false);
  expect_base("Tiny-1B/small", "Tiny-1B", "lies in");
  add("Tiny-1B-Chat-AWQ", false);
  expect_alone("Tiny-1B-Chat-AWQ", "no base");
  fs::create_directories(folder_.path() / "Tiny-1B-gguf");
  add_gguf("Tiny-1B-gguf/model-Q4_K_M.gguf", false);  // named by its folder
  expect_base("Tiny-1B-gguf/model-Q4_K_M.gguf", "Tiny-1B", "by name");
}

TEST_F(PairingTest, FloatBlocksStandInWhereThereIsNoCheckpoint) {
  add_gguf("tiny-F16.gguf", true);
  add_gguf("tiny-Q4_K_M.gguf", false);
  expect_base("tiny-Q4_K_M.gguf", "tiny-F16.gguf", "by name");
  expect_alone("tiny-F16.gguf", "");
  add_gguf("tiny-BF16.gguf", true);
  expect_alone("tiny-Q4_K_M.gguf", "ambiguous");
  add("tiny", true);
  expect_base("tiny-Q4_K_M.gguf", "tiny", "by name");
  expect_base("tiny-F16.gguf", "tiny", "by name");
}

TEST_F(PairingTest, TheNearestOfOneNameElseAmbiguous) {
  add("a/demo", true);
  add("b/demo", true);
  add("b/demo-awq", false);
  expect_base("b/demo-awq", "b/demo", "by name");
  add("demo-awq", false);
  expect_alone("demo-awq", "ambiguous base: a/demo, b/demo");
  sources_.rules = {{"demo-awq", folder_.path() / "a/demo"}};
  expect_base("demo-awq", "a/demo", "--base");
  expect_base("b/demo-awq", "a/demo", "--base");  // by its name
  sources_.rules = {{"b/*awq", folder_.path() / "a/demo"}};
  expect_base("b/demo-awq", "a/demo", "--base");  // by its place
  expect_alone("demo-awq", "ambiguous");
  sources_.rules = {{"", folder_.path() / "a/demo"}};
  expect_base("b/demo-awq", "a/demo", "--base");
  expect_alone("b/demo", "");
}

TEST_F(PairingTest, AnotherShapeIsNoBase) {
  add("demo", true, R"({"hidden_size": 256, "num_hidden_layers": 4})");
  add("demo-awq", false, R"({"hidden_size": 256, "num_hidden_layers": 2})");
  expect_alone("demo-awq", "num_hidden_layers is 2, that of demo 4");
}

TEST_F(PairingTest, TheStoreKnowsWhatARunMade) {
  add("demo", true);
  add("elsewhere", false);
  const TemporaryFolder outside;
  sources_.recorded_base = [&](const fs::path& model) {
    return model.filename() == "elsewhere" ? std::optional(outside.path()) : std::nullopt;
  };
  const Pairing found = pair("elsewhere");
  ASSERT_TRUE(found.base);
  EXPECT_EQ(*found.base, outside.path());
  EXPECT_THAT(found.evidence, HasSubstr("the store"));
}

}  // namespace
}  // namespace salient::pipeline
