// Flags of broken runs: from made-up documents, and of a copy of the demo model with NaN in one row of its embedding.
#include "eval/run_health.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/file.h"
#include "eval/evaluate.h"
#include "eval/read_report.h"
#include "eval/report.h"
#include "eval/task_metrics.h"
#include "eval/verdict.h"
#include "models/io/safetensors.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

TaskDefinition choices() {
  TaskDefinition task;
  task.name = "made";
  task.output_type = OutputType::kMultipleChoice;
  task.metrics = {{.name = "acc", .headline = true, .exact_match = {}}};
  task.filters = {{"none", {}}};
  return task;
}

TaskDefinition texts() {
  TaskDefinition task;
  task.name = "made";
  task.output_type = OutputType::kGenerateUntil;
  task.metrics = {{.name = "exact_match", .headline = true, .exact_match = {}}};
  task.filters = {{"strict", {{"regex", {{"regex_pattern", "#### ([0-9]+)"}}}}}};
  return task;
}

DocumentRecord choice(int64_t line, int64_t gold, int64_t chosen) {
  DocumentRecord document;
  document.line = line;
  document.response.log_probs = {-3, -3, -3, -3};
  document.response.log_probs[static_cast<size_t>(chosen)] = -1;
  document.gold_choices = {gold};
  document.chance = 0.25;
  document.scores = {{.metric = "acc", .value = gold == chosen ? 1.0 : 0.0, .chosen = chosen}};
  return document;
}

DocumentRecord text(int64_t line, const std::string& text, const std::string& extracted, const std::string& answer,
                    bool cut = false) {
  DocumentRecord document;
  document.line = line;
  document.answer = answer;
  document.response.text = text;
  document.response.hit_limit = cut;
  document.extracted = {{"strict", extracted}};
  document.scores = {{.metric = "exact_match,strict", .value = extracted == answer ? 1.0 : 0.0}};
  return document;
}

TaskResult scored(const TaskDefinition& task, std::vector<DocumentRecord> documents) {
  TaskResult result;
  result.task = task.name;
  result.documents = std::move(documents);
  add_metrics(task, 0, result);
  return result;
}

const HealthFlag* find(const std::vector<HealthFlag>& flags, FlagKind kind) {
  for (const HealthFlag& flag : flags) {
    if (flag.kind == kind) return &flag;
  }
  return nullptr;
}

TEST(Flags, ConstantChoices) {
  std::vector<DocumentRecord> documents;
  std::vector<DocumentRecord> good;
  for (int64_t i = 0; i < 40; ++i) {
    documents.push_back(choice(i + 3, i % 4, i == 0 ? 1 : 2));
    good.push_back(choice(i + 3, i % 4, i % 4));
  }
  const TaskResult base = scored(choices(), good);
  const auto flags = find_flags(choices(), scored(choices(), documents), &base);
  const HealthFlag* constant = find(flags, FlagKind::kConstantAnswers);
  ASSERT_NE(constant, nullptr);
  EXPECT_DOUBLE_EQ(constant->share, 39.0 / 40);
  EXPECT_EQ(constant->document, 4);
  EXPECT_THAT(constant->text, AllOf(HasSubstr("choice 3"), HasSubstr("98 %"), HasSubstr("has 25 %")));
  const HealthFlag* chance = find(flags, FlagKind::kChanceLevel);
  ASSERT_NE(chance, nullptr);
  EXPECT_THAT(chance->text, HasSubstr("the base has 1"));
  EXPECT_TRUE(find_flags(choices(), base, nullptr).empty());

  documents[1] = choice(5, 1, 1);  // 38 of 40: still
  EXPECT_NE(find(find_flags(choices(), scored(choices(), documents), nullptr), FlagKind::kConstantAnswers), nullptr);
  documents[2] = choice(6, 2, 3);  // 37: not any more
  EXPECT_EQ(find(find_flags(choices(), scored(choices(), documents), nullptr), FlagKind::kConstantAnswers), nullptr);
}

TEST(Flags, ConstantAnswersThatAreRightAreNone) {
  std::vector<DocumentRecord> documents;
  for (int64_t i = 0; i < 40; ++i) documents.push_back(choice(i + 1, i < 30 ? 2 : 0, 2));
  EXPECT_EQ(find(find_flags(choices(), scored(choices(), documents), nullptr), FlagKind::kConstantAnswers), nullptr);
  documents[0] = choice(1, 0, 2);
  EXPECT_NE(find(find_flags(choices(), scored(choices(), documents), nullptr), FlagKind::kConstantAnswers), nullptr);
}

TEST(Flags, FewDocumentsShowNothing) {
  std::vector<DocumentRecord> documents;
  for (int64_t i = 0; i < 9; ++i) documents.push_back(choice(i + 1, i % 4, 2));
  EXPECT_TRUE(find_flags(choices(), scored(choices(), documents), nullptr).empty());
  documents.push_back(choice(10, 1, 2));
  EXPECT_EQ(find_flags(choices(), scored(choices(), documents), nullptr).size(), 2U);  // constant, at chance
}

TEST(Flags, ChanceLevelOfBothSaysThatNothingCanBeLost) {
  std::vector<DocumentRecord> documents;
  for (int64_t i = 0; i < 40; ++i) documents.push_back(choice(i + 1, i % 4, i / 10));  // 10 of 40 right
  const TaskResult base = scored(choices(), documents);
  const auto flags = find_flags(choices(), base, &base);
  ASSERT_EQ(flags.size(), 1U);
  EXPECT_EQ(flags[0].kind, FlagKind::kChanceLevel);
  EXPECT_THAT(flags[0].text, AllOf(HasSubstr("0.25"), HasSubstr("cannot show a loss")));
}

TEST(Flags, OfTexts) {
  std::vector<DocumentRecord> looping;
  std::vector<DocumentRecord> good;
  for (int64_t i = 0; i < 20; ++i) {
    const std::string number = std::to_string(i);
    const std::string loop = "So " + number + " and so on and so on and so on and so on and so on and so on and so on and so on";
    looping.push_back(i % 2 == 0 ? text(i + 1, loop, "[invalid]", number, true)
                                 : text(i + 1, "#### " + number, number, number, true));
    good.push_back(text(i + 1, "It is clear. #### " + number, number, number));
  }
  const TaskResult base = scored(texts(), good);
  EXPECT_TRUE(find_flags(texts(), base, nullptr).empty());
  const auto flags = find_flags(texts(), scored(texts(), looping), &base);
  ASSERT_EQ(flags.size(), 3U);
  EXPECT_EQ(flags[0].kind, FlagKind::kRepetition);
  EXPECT_DOUBLE_EQ(flags[0].share, 0.5);
  EXPECT_EQ(flags[0].document, 1);
  EXPECT_EQ(flags[1].kind, FlagKind::kUnparsed);
  EXPECT_THAT(flags[1].text, AllOf(HasSubstr("50 %"), HasSubstr("strict"), HasSubstr("of the base 0 %")));
  EXPECT_EQ(flags[2].kind, FlagKind::kCutByLength);
  EXPECT_DOUBLE_EQ(flags[2].share, 1);

  // Nothing parses: that is one flag beside the score of 0, not a constant answer as well.
  for (DocumentRecord& document : looping) document = text(document.line, "I do not know", "[invalid]", document.answer);
  const auto silent = find_flags(texts(), scored(texts(), looping), nullptr);
  EXPECT_EQ(find(silent, FlagKind::kConstantAnswers), nullptr);
  EXPECT_NE(find(silent, FlagKind::kUnparsed), nullptr);
  EXPECT_NE(find(silent, FlagKind::kChanceLevel), nullptr);
}

TEST(Flags, Loops) {
  EXPECT_TRUE(is_loop("The answer is 5.\nThe answer is 5.\nThe answer is 5.\nThe answer is 5.\n"));
  EXPECT_TRUE(is_loop("Let us see. 111111111111111111111111111111"));
  EXPECT_TRUE(is_loop("a start, abcabcabcabcabcabcabcabcabcab"));  // ends inside the part
  EXPECT_FALSE(is_loop("0000000000000000"));                       // too short to tell
  EXPECT_FALSE(is_loop("The answer is 5.\nThe answer is 5.\nThe answer is 5.\n"));
  EXPECT_FALSE(is_loop("A long text that is no loop at all, and then some dots, which is fine ........................"));
  EXPECT_FALSE(is_loop("There are 48 / 2 = 24 clips in May. Altogether 48 + 24 = 72 clips. #### 72"));
  EXPECT_FALSE(is_loop(""));
}

TEST(Flags, NamesGoBothWays) {
  for (const FlagKind kind : {FlagKind::kNanLogits, FlagKind::kConstantAnswers, FlagKind::kRepetition, FlagKind::kChanceLevel,
                              FlagKind::kUnparsed, FlagKind::kCutByLength}) {
    EXPECT_EQ(find_flag_kind(to_string(kind)), kind);
  }
  EXPECT_FALSE(find_flag_kind("tired"));
}

// The demo model whose logits overflow at "@", which the demo's rows do not hold: its embedding is far away in one direction, in
// which the head is so large that only a hidden state of length 1, as others have at most, stays finite. NaN itself is refused when
// a model is loaded.
class BrokenModel {
 public:
  BrokenModel() {
    for (const auto& entry : fs::directory_iterator(kDemo)) {
      if (entry.is_regular_file()) fs::copy_file(entry.path(), folder_.path() / entry.path().filename());
    }
    Json config = read_json_file(folder_.path() / "config.json");
    config["tie_word_embeddings"] = false;
    write_file(folder_.path() / "config.json", dump_json(config));
    std::map<std::string, at::Tensor> tensors;
    const models::SafetensorsFile file(kDemo / "model.safetensors");
    for (const auto& [name, info] : file.tensors()) tensors[name] = file.view(name).clone();
    const auto at_sign = load_language_model(kDemo).tokenizer.encode("@", false);
    EXPECT_EQ(at_sign.size(), 1U);
    at::Tensor& embedding = tensors["model.embed_tokens.weight"];
    at::Tensor& head = tensors["lm_head.weight"];
    head = embedding.clone();
    head.select(1, 0).fill_(2.5e37);
    head.select(1, 0).slice(0, 0, head.size(0) / 2).fill_(-2.5e37);
    embedding.select(0, at_sign.front()).fill_(0);
    embedding.select(0, at_sign.front()).select(0, 0).fill_(1e6);
    tensors["model.norm.weight"].select(0, 0).fill_(1);
    std::vector<models::NamedTensor> list;
    for (const auto& [name, tensor] : tensors) list.push_back({name, tensor});
    write_safetensors(folder_.path() / "model.safetensors", list);

    std::string text;
    for (int i = 0; i < 60; ++i) text += "A letter to someone@somewhere. ";
    write_file(folder_.path() / "text.txt", text);
    std::string rows;
    for (const char* name : {"a", "b"}) {
      rows += dump_json(Json{{"id", name},
                             {"question", "What is it?"},
                             {"choices", {{"text", {std::string(name) + "@one", "two"}}, {"label", {"A", "B"}}}},
                             {"answerKey", "A"}}) +
              "\n";
    }
    write_file(folder_.path() / "rows.jsonl", rows);
  }
  const fs::path& path() const { return folder_.path(); }

 private:
  test::TemporaryFolder folder_;
};

TEST(BrokenTask, CostsItsOwnFiguresOnly) {
  const BrokenModel folder;
  const LanguageModel broken = load_language_model(folder.path());
  const LanguageModel base = load_language_model(kDemo);
  const std::vector<TaskRequest> requests = {{.task = "arc", .file = kDemo / "data/arc_test.jsonl", .limit = 12},
                                             {.task = "arc_easy", .file = folder.path() / "rows.jsonl"},
                                             {.task = "perplexity", .file = folder.path() / "text.txt", .limit = 2, .window = 64},
                                             {.task = "openmath", .file = kDemo / "data/openmath_test.jsonl", .limit = 2}};
  EvaluationOptions options;
  options.throughput = false;
  options.max_new_tokens = 4;
  const Evaluation evaluation = evaluate(broken, &base, requests, options);
  ASSERT_EQ(evaluation.model.tasks.size(), 4U);
  const std::vector<TaskResult>& tasks = evaluation.model.tasks;
  EXPECT_FALSE(tasks[0].is_broken());
  EXPECT_TRUE(tasks[0].find("acc")->base);
  for (const size_t i : {size_t{1}, size_t{2}}) {
    EXPECT_TRUE(tasks[i].is_broken());
    EXPECT_TRUE(tasks[i].metrics.empty()) << "absent, not 0";
    EXPECT_THAT(tasks[i].flags.front().text, HasSubstr("NaN"));
    EXPECT_FALSE(tasks[i].data_sha256.empty());
  }
  EXPECT_FALSE(tasks[3].is_broken());
  EXPECT_NE(evaluation.base->tasks[1].find("acc"), nullptr) << "the base is not broken";
  EXPECT_NE(evaluation.base->tasks[2].find("perplexity"), nullptr);
  EXPECT_FALSE(evaluation.base->tasks[2].is_broken());
  EXPECT_THAT(verdict(evaluation), HasSubstr(": broken, NaN or infinite logits and no figures: arc_easy, perplexity;"));
  EXPECT_THAT(verdict_lines(evaluation)[1], StartsWith("arc_easy: broken: "));
  EXPECT_THAT(to_table(evaluation), AllOf(HasSubstr("broken"), HasSubstr("! perplexity: nan_logits: ")));
  const auto error = broken_error(evaluation);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind(), ErrorKind::kCheckFailed);
  EXPECT_THAT(error->message(), HasSubstr("has no scores for arc_easy, perplexity: NaN"));
  const Evaluation read = evaluation_from_json(to_json(evaluation), "test");
  EXPECT_TRUE(broken_error(read));
  EXPECT_EQ(verdict(read), verdict(evaluation));

  // The other way round the base is the broken one: the model keeps its own figures.
  const Evaluation turned = evaluate(base, &broken, {requests[1], requests[2]}, options);
  EXPECT_NE(turned.model.tasks[0].find("acc"), nullptr);
  EXPECT_FALSE(turned.model.tasks[0].find("acc")->base);
  EXPECT_NE(turned.model.tasks[1].find("perplexity"), nullptr);
  EXPECT_THAT(verdict(turned), HasSubstr("the base is broken: arc_easy, perplexity"));
  EXPECT_TRUE(broken_error(turned));
  EXPECT_FALSE(broken_error(evaluate(base, nullptr, {requests[1]}, options)));
}

TEST(BrokenTask, TakesTheFiguresOfItsGroup) {
  TaskResult good = scored(choices(), {choice(1, 0, 0), choice(2, 1, 1)});
  good.task = "good";
  TaskResult broken;
  broken.task = "bad";
  broken.flags = {{FlagKind::kNanLogits, 1, std::nullopt, "NaN"}};
  const TaskResult group = group_result({"all", {"good", "bad"}, {{"acc", {}, true}}}, {good, broken});
  EXPECT_TRUE(group.is_broken());
  EXPECT_TRUE(group.metrics.empty());
  EXPECT_THAT(group.flags.front().text, HasSubstr("bad"));
}

}  // namespace
}  // namespace salient::eval
