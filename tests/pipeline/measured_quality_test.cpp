// Measured figures in metadata and model card: where they stand, and that nothing else changes.
#include "pipeline/measured_quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "common/file.h"
#include "common/yaml.h"
#include "pipeline/model_card.h"
#include "pipeline/work_folder.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Json metadata() {
  return {{"format", "awq-gemm"}, {"method", "AWQ"}, {"search", {{"bits", 4}}}, {"source", {{"name", "Qwen3-0.6B"}}}};
}

eval::ModelResult measured() {
  eval::MetricResult perplexity;
  perplexity.metric = "perplexity";
  perplexity.value = {12.3456, 0.02};
  perplexity.n = 20460;
  perplexity.base = eval::BaseComparison{12.25, {}, {}, {}};
  eval::MetricResult kl;
  kl.metric = "kl_divergence";
  kl.value = {0.0125, {}};
  kl.n = 20480;
  eval::MetricResult broken;
  broken.metric = "broken";
  broken.value.value = std::numeric_limits<double>::quiet_NaN();
  eval::TaskResult task;
  task.task = "perplexity";
  task.file = "/home/somebody/heldout.txt";
  task.data_sha256 = "ab12";
  task.settings = {{"window", 256}};
  task.metrics = {perplexity, kl, broken};
  eval::ModelResult result;
  result.model = "anything";
  result.tasks = {task};
  return result;
}

Json header_of(const std::string& card) {
  EXPECT_TRUE(card.starts_with("---\n"));
  return ConfigNode::parse(card.substr(4, card.find("\n---\n") - 3), "card").to_json();
}

TEST(QualityFigures, AreFiniteAndNameNoFolder) {
  const Json figures = quality_figures(measured());
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures[0].at("value"), 12.3456);
  EXPECT_EQ(figures[0].at("base"), 12.25);
  EXPECT_EQ(figures[0].at("stderr"), 0.02);
  EXPECT_EQ(figures[0].at("settings"), Json({{"window", 256}}));
  EXPECT_EQ(figures[1].at("base"), Json());
  EXPECT_THAT(dump_json(figures), Not(HasSubstr("somebody")));
}

TEST(QualityFigures, TakeThePlaceOfEarlierOnes) {
  const Json first = quality_figures(measured());
  eval::ModelResult later = measured();
  later.tasks[0].metrics.resize(1);
  later.tasks[0].metrics[0].value.value = 11;
  const Json merged = merge_figures(first, quality_figures(later));
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(merged[0].at("value"), 11);
  EXPECT_EQ(merged[1], first[1]);
  later.tasks[0].file = "other.txt";  // another text is another figure
  EXPECT_EQ(merge_figures(first, quality_figures(later)).size(), 3u);
  EXPECT_EQ(merge_figures(Json(), first), first);
}

// The hub's format: huggingface_hub 2.4.0 reads it (EvalResult needs exactly these keys).
TEST(ModelIndex, HasTheHeadlineFigures) {
  Json with = metadata();
  with["evaluation"] = quality_figures(measured());
  const Json index = header_of(model_card(with)).at("model-index");
  EXPECT_EQ(index, parse_json(R"([{"name": "Qwen3-0.6B", "results": [{"task": {"type": "text-generation"},
      "dataset": {"type": "perplexity", "name": "heldout.txt"}, "metrics": [{"type": "perplexity", "value": 12.3456}]}]}])",
                              "expected"));
  EXPECT_FALSE(header_of(model_card(metadata())).contains("model-index"));
  with["evaluation"][1]["headline"] = true;
  EXPECT_EQ(header_of(model_card(with)).at("model-index").at(0).at("results").at(0).at("metrics").size(), 2u);
}

TEST(WithFigures, ACardIsTheSameWhetherTheyCameSoonerOrLater) {
  const Json figures = quality_figures(measured());
  Json with = metadata();
  with["evaluation"] = figures;
  const std::string card = model_card(metadata());
  EXPECT_EQ(with_figures(card, "Qwen3-0.6B", figures), model_card(with));
  EXPECT_EQ(with_figures(model_card(with), "Qwen3-0.6B", figures), model_card(with));
  EXPECT_EQ(with_figures(model_card(with), "Qwen3-0.6B", Json::array()), card);
  EXPECT_THAT(model_card(with),
              AllOf(HasSubstr("| perplexity | perplexity | 12.35 | 12.25 | 0.02 | 20460 | heldout.txt |"),
                    HasSubstr("| perplexity | kl\\_divergence | 0.0125 |  |  | 20480 |"), Not(HasSubstr("Not measured"))));
}

TEST(WithFigures, WhatUsersWroteStays) {
  const Json figures = quality_figures(measured());
  std::string card = model_card(metadata());
  card.insert(card.find("## How to load it"), "## My own notes\n\nTrained on apples.\n\n");
  card.insert(4, "widget:\n- text: Once\n");
  const std::string after = with_figures(card, "m", figures);
  EXPECT_THAT(after, AllOf(HasSubstr("## My own notes\n\nTrained on apples.\n\n## How to load it"), HasSubstr("12.35")));
  EXPECT_EQ(header_of(after).at("widget"), parse_json(R"([{"text": "Once"}])", "expected"));
  EXPECT_TRUE(header_of(after).contains("model-index"));
  // An index of their own; a card without the section; one without a header.
  const std::string theirs = "---\nmodel-index:\n- name: theirs\n  results: []\n---\n# T\n";
  EXPECT_EQ(header_of(with_figures(theirs, "m", figures)).at("model-index").at(0).at("name"), "theirs");
  EXPECT_THAT(with_figures(theirs, "m", figures), HasSubstr("# T\n\n## Measured quality\n"));
  EXPECT_EQ(header_of(with_figures("# T\n", "m", figures)).at("model-index").at(0).at("name"), "m");
}

TEST(PublishFigures, WeightsAndTheirHashesStay) {
  test::TinyQuantization tiny;
  const test::TemporaryFolder folder;
  const fs::path artifact = folder.path() / "artifact";
  fs::copy(tiny("format: awq-gemm").folder, artifact);
  const Json before = read_json_file(artifact / kMetadataFile);
  const Json figures = quality_figures(measured());
  publish_figures(artifact, figures);
  Json after = read_json_file(artifact / kMetadataFile);
  EXPECT_EQ(after.at("evaluation"), figures);
  EXPECT_EQ(read_text_file(artifact / kModelCard), model_card(after));
  EXPECT_EQ(find_changed_file(artifact), "");
  ASSERT_TRUE(load_finished(artifact));
  EXPECT_EQ(load_finished(artifact)->fingerprint, before.at("fingerprint").get<std::string>());
  after.erase("evaluation");
  EXPECT_EQ(after, before);
  const std::string card = read_text_file(artifact / kModelCard);
  publish_figures(artifact, figures);
  EXPECT_EQ(read_text_file(artifact / kModelCard), card);
  // Of a folder in another format the card alone.
  fs::remove(artifact / kMetadataFile);
  publish_figures(artifact, Json::array());
  EXPECT_FALSE(fs::exists(artifact / kMetadataFile));
  EXPECT_THAT(read_text_file(artifact / kModelCard), HasSubstr("Not measured yet"));
}

// Evaluations that end at once: each adds its own figure.
TEST(PublishFigures, NoneIsLostWhereSeveralAddThem) {
  test::TinyQuantization tiny;
  const test::TemporaryFolder folder;
  const fs::path artifact = folder.path() / "artifact";
  fs::copy(tiny("format: awq-gemm").folder, artifact);
  constexpr int kWriters = 8;
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    eval::ModelResult result = measured();
    result.tasks[0].file = fmt::format("text{}.txt", i);
    result.tasks[0].metrics.resize(1);
    writers.emplace_back([artifact, figures = quality_figures(result)] { publish_figures(artifact, figures); });
  }
  for (std::thread& writer : writers) writer.join();
  const Json after = read_json_file(artifact / kMetadataFile);
  EXPECT_EQ(after.at("evaluation").size(), static_cast<size_t>(kWriters));
  EXPECT_EQ(read_text_file(artifact / kModelCard), model_card(after));
}

TEST(PublishFigures, AnotherArtifactInTheSamePlaceGetsNone) {
  test::TinyQuantization tiny;
  const test::TemporaryFolder folder;
  const fs::path artifact = folder.path() / "artifact";
  fs::copy(tiny("format: awq-gemm").folder, artifact);
  const Json read = read_json_file(artifact / kMetadataFile);
  const std::string card = read_text_file(artifact / kModelCard);
  for (const char* key : {"fingerprint", "files_sha256"}) {
    Json other = read;
    other[key] = "another one";
    write_file(artifact / kMetadataFile, dump_json(other));
    EXPECT_THAT(test::message_of([&] { write_figures(artifact, read, quality_figures(measured())); }, ErrorKind::kIo),
                AllOf(HasSubstr(key), HasSubstr("another one"), HasSubstr("another artifact")));
    EXPECT_EQ(read_json_file(artifact / kMetadataFile), other);
    EXPECT_EQ(read_text_file(artifact / kModelCard), card);
  }
  Json measured_before = read;  // by somebody else, meanwhile: the same artifact
  measured_before["evaluation"] = Json::array();
  write_file(artifact / kMetadataFile, dump_json(measured_before));
  write_figures(artifact, read, quality_figures(measured()));
  EXPECT_THAT(read_text_file(artifact / kModelCard), HasSubstr("12.35"));
}

TEST(PublishFigures, FoldersWithoutACardAreRefused) {
  const test::TemporaryFolder folder;
  EXPECT_THAT(test::message_of([&] { publish_figures(folder.path(), Json::array()); }, ErrorKind::kInvalidArgument),
              AllOf(HasSubstr("README.md"), HasSubstr("salient quantize")));
}

// Figures of the source are not those of what is exported, unless its codes are the same.
// A base model's card is its owner's, until there is a place for figures in it.
TEST(PublishFigures, CardsOfOthersAreLeftAlone) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "README.md", "# Mine\n");
  EXPECT_THAT(test::message_of([&] { publish_figures(folder.path(), Json::array()); }, ErrorKind::kInvalidArgument),
              HasSubstr("somebody else's"));
  EXPECT_EQ(read_text_file(folder.path() / "README.md"), "# Mine\n");
  write_file(folder.path() / "README.md", "# Mine\n\n## Measured quality\n");
  publish_figures(folder.path(), Json::array());
  EXPECT_THAT(read_text_file(folder.path() / "README.md"), HasSubstr("Not measured yet"));
}

TEST(PublishFigures, ExportsTakeThemOverWhereTheWeightsAreTheSame) {
  const test::TemporaryFolder folder;
  Json with = metadata();
  with["evaluation"] = quality_figures(measured());
  write_file(folder.path() / kMetadataFile, dump_json(with));
  EXPECT_THAT(export_card(folder.path(), "awq-gemv"), HasSubstr("12.35"));
  EXPECT_THAT(export_card(folder.path(), "gguf-q4_k_m"), HasSubstr("Not measured yet"));
  EXPECT_THAT(export_card(folder.path(), "torchscript"), HasSubstr("Not measured yet"));
}

}  // namespace
}  // namespace salient::pipeline
