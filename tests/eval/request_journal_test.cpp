// An evaluation that is stopped after any of its requests goes on to the same result, and asks nothing twice.
#include "eval/request_journal.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "common/file.h"
#include "eval/evaluate.h"
#include "eval/report.h"
#include "support/temporary_folder.h"

namespace salient::eval {
namespace {

const std::filesystem::path kModel = SALIENT_SOURCE_DIR "/models/demo";

struct Stopped {};

// A journal in memory, which stops the evaluation at a given write.
class Memory {
 public:
  explicit Memory(std::string model) {
    journal_.model = std::move(model);
    journal_.find = [this](const std::string& key) -> std::optional<std::string> {
      const auto found = entries_.find(key);
      return found == entries_.end() ? std::nullopt : std::optional(found->second);
    };
    journal_.add = [this](std::span<const JournalEntry> entries) {
      if (writes_left_ == 0) throw Stopped{};
      --writes_left_;
      ++writes_;
      for (const JournalEntry& entry : entries) {
        std::string& value = entries_[entry.key];
        EXPECT_TRUE(value.empty() || value == "damaged") << "asked twice";
        value = entry.value;
      }
    };
  }

  const RequestJournal& journal() const { return journal_; }
  int writes() const { return writes_; }
  size_t size() const { return entries_.size(); }
  void stop_after(int writes) { writes_left_ = writes; }
  std::map<std::string, std::string>& entries() { return entries_; }

 private:
  RequestJournal journal_;
  std::map<std::string, std::string> entries_;
  int writes_ = 0;
  int writes_left_ = -1;
};

class RequestJournalTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model_ = new LanguageModel(load_language_model(kModel)); }
  static void TearDownTestSuite() { delete model_; }

  // Everything but times, every document included.
  static std::string run(const RequestJournal* journal) {
    EvaluationOptions options;
    options.throughput = false;
    options.batch_tokens = 64;  // many batches
    options.max_new_tokens = 12;
    options.generation_cache_bytes = 1 << 20;
    options.journal = journal;
    const std::vector<TaskRequest> requests = {{"arc", kModel / "data/arc_test.jsonl", 14},
                                               {"openmath", kModel / "data/openmath_test.jsonl", 6},
                                               {"squad_v2", kModel / "data/squad_test.jsonl", 5},
                                               {"perplexity", kModel / "data/heldout.txt", 6, 64}};
    const Evaluation evaluation = evaluate(*model_, nullptr, requests, options);
    Json json = to_json(evaluation);
    std::string text;
    for (size_t i = 0; i < evaluation.model.tasks.size(); ++i) {
      json["model"]["tasks"][i].erase("seconds");
      for (const DocumentRecord& document : evaluation.model.tasks[i].documents) {
        text += dump_json({{"text", document.response.text}, {"log_probs", document.response.log_probs}}) + "\n";
      }
    }
    return dump_json(json) + "\n" + text;
  }

  static LanguageModel* model_;
};
LanguageModel* RequestJournalTest::model_ = nullptr;

TEST_F(RequestJournalTest, GoesOnAfterAnyRequest) {
  const std::string expected = run(nullptr);
  Memory whole("demo");
  EXPECT_EQ(run(&whole.journal()), expected);
  ASSERT_GT(whole.writes(), 15);
  EXPECT_EQ(run(&whole.journal()), expected);  // nothing is asked again: that would fail in add

  // One evaluation, stopped at every single write.
  Memory stopped("demo");
  for (int stop = 0; stop < whole.writes(); ++stop) {
    stopped.stop_after(1);
    if (stop + 1 < whole.writes()) {
      EXPECT_THROW(run(&stopped.journal()), Stopped) << stop;
    } else {
      EXPECT_EQ(run(&stopped.journal()), expected);
    }
  }
  EXPECT_EQ(stopped.size(), whole.size());
  EXPECT_EQ(stopped.entries(), whole.entries());
}

TEST_F(RequestJournalTest, AnswersComeFromTheJournal) {
  Memory memory("demo");
  const std::string expected = run(&memory.journal());
  for (auto& [key, value] : memory.entries()) value = "damaged";  // is asked again
  EXPECT_EQ(run(&memory.journal()), expected);
  for (auto& [key, value] : memory.entries()) EXPECT_NE(value, "damaged");
  for (auto& [key, value] : memory.entries()) {
    if (value.find("\"ids\":[") != std::string::npos) value = R"([{"ids":[65,66],"stopped":true}])";
  }
  EXPECT_NE(run(&memory.journal()), expected);
}

// Sampled generations: several for each document, the same in any batch, however often they are stopped.
TEST_F(RequestJournalTest, SampledGenerationsAreDrawnByTheirNumber) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "sampled.yaml",
             "task: sampled\ntest_split: " + (kModel / "data/openmath_test.jsonl").string() +
                 "\ndoc_to_text: \"Question: {{question}}\\nAnswer:\"\ndoc_to_target: \"{{answer}}\"\nrepeats: 3\n"
                 "generation_kwargs: {until: [\"@@@\"], do_sample: true, temperature: 1.5, max_gen_toks: 12}\n"
                 "filter_list: [{name: vote, filter: [{function: majority_vote}, {function: take_first}]}]\n"
                 "metric_list: [{metric: exact_match}]\n");
  const auto texts = [&](int64_t limit, int64_t cache_bytes, uint64_t seed, const RequestJournal* journal) {
    EvaluationOptions options;
    options.throughput = false;
    options.generation_cache_bytes = cache_bytes;
    options.fewshot_seed = seed;
    options.journal = journal;
    std::vector<std::string> out;
    const Evaluation evaluation = evaluate(*model_, nullptr, {{(folder.path() / "sampled.yaml").string(), {}, limit}}, options);
    for (const DocumentRecord& document : evaluation.model.tasks.at(0).documents)
      out.push_back(document.response.text + "|" + document.extracted.at(0).second);
    return out;
  };
  const std::vector<std::string> six = texts(6, 1 << 30, 1, nullptr);
  EXPECT_EQ(std::set<std::string>(six.begin(), six.end()).size(), 6u);
  const std::vector<std::string> four = texts(4, 1, 1, nullptr);  // one row at a time
  EXPECT_EQ(four, std::vector<std::string>(six.begin(), six.begin() + 4));
  EXPECT_NE(texts(6, 1 << 30, 2, nullptr), six);
  Memory memory("demo");
  memory.stop_after(3);
  EXPECT_THROW(texts(6, 1 << 18, 1, &memory.journal()), Stopped);
  memory.stop_after(-1);
  EXPECT_EQ(texts(6, 1 << 18, 1, &memory.journal()), six);
  EXPECT_EQ(memory.size(), 18u);
}

TEST_F(RequestJournalTest, KeysTellModelsMethodsAndTokensApart) {
  const RequestJournal one{"a", {}, {}, {}, {}};
  const RequestJournal other{"b", {}, {}, {}, {}};
  const std::vector<models::TokenId> ids = {1, 2, 3};
  const std::vector<models::TokenId> front = {1, 2};
  std::set<std::string> keys;
  keys.insert(JournalKey(one, "x").add(ids).hex());
  keys.insert(JournalKey(other, "x").add(ids).hex());
  keys.insert(JournalKey(one, "y").add(ids).hex());
  keys.insert(JournalKey(one, "x").add(front).add(std::string_view("3")).hex());
  keys.insert(JournalKey(one, "x").add(front).add(int64_t{3}).hex());
  keys.insert(JournalKey(one, "x").add(std::string_view("ab")).add(std::string_view("c")).hex());
  keys.insert(JournalKey(one, "x").add(std::string_view("a")).add(std::string_view("bc")).hex());
  EXPECT_EQ(keys.size(), 7u);
  EXPECT_EQ(JournalKey(one, "x").add(ids).hex(), JournalKey(one, "x").add(ids).hex());
}

}  // namespace
}  // namespace salient::eval
