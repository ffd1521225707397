// What an evaluation tells an observer: exactly the rows that the model ran, and the inputs of its linears for exactly those
// tokens.
#include "eval/run_observer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "eval/evaluate.h"
#include "eval/generate_until.h"
#include "eval/loglikelihood.h"
#include "eval/perplexity.h"
#include "eval/report.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::eval {
namespace {

using models::TokenId;
using Row = std::vector<TokenId>;

const std::string kModel = std::string(SALIENT_SOURCE_DIR) + "/models/demo";

const LanguageModel& demo() {
  static const LanguageModel model = load_language_model(kModel);
  return model;
}

struct Told {
  Row row;
  std::string source;
  int64_t response_begin;
  bool operator==(const Told&) const = default;
};

struct Watcher {
  struct Sums {
    int64_t tokens = 0;
    at::Tensor abs_sum;
    at::Tensor square_sum;
  };
  std::vector<Told> told;
  std::map<std::pair<int64_t, models::InputId>, Sums> sums;
  RunObserver observer;

  Watcher() {
    observer.row = [this](std::span<const TokenId> row, std::string_view source, int64_t response_begin) {
      told.push_back({{row.begin(), row.end()}, std::string(source), response_begin});
    };
    observer.inputs = [this](int64_t block, models::InputId input, const at::Tensor& x) {
      Sums& s = sums[{block, input}];
      const at::Tensor values = x.to(at::kDouble);
      s.abs_sum = s.tokens == 0 ? values.abs().sum(0) : s.abs_sum + values.abs().sum(0);
      s.square_sum = s.tokens == 0 ? values.square().sum(0) : s.square_sum + values.square().sum(0);
      s.tokens += x.size(0);
    };
  }
  std::vector<Row> rows() const {
    std::vector<Row> all;
    for (const Told& one : told) all.push_back(one.row);
    return all;
  }
};

// The told rows, run one by one by the plain decoder, give the same sums: nothing was seen that was not told, and nothing twice.
void expect_sums_of_told_rows(const LanguageModel& model, const Watcher& watcher) {
  Watcher again;
  for (const Told& told : watcher.told) {
    const at::Tensor ids = at::tensor(std::vector<int64_t>(told.row.begin(), told.row.end()), at::kLong).unsqueeze(0);
    model.decoder.hidden_states(ids, {}, nullptr, {&again.observer.inputs, {}});
  }
  ASSERT_EQ(watcher.sums.size(), again.sums.size());
  ASSERT_FALSE(again.sums.empty());
  for (const auto& [place, expected] : again.sums) {
    const auto& found = watcher.sums.at(place);
    EXPECT_EQ(found.tokens, expected.tokens);
    EXPECT_TRUE(at::allclose(found.abs_sum, expected.abs_sum, 1e-4, 1e-4))
        << place.first << " " << static_cast<int>(place.second.slot);
    EXPECT_TRUE(at::allclose(found.square_sum, expected.square_sum, 1e-4, 1e-4))
        << place.first << " " << static_cast<int>(place.second.slot);
  }
}

TEST(RunObserver, PerplexityTellsTheWindowsOnce) {
  Watcher watcher;
  EvaluationOptions options{.throughput = false};
  options.run_observer = &watcher.observer;
  const std::vector<TaskRequest> requests = {{"perplexity", kModel + "/data/heldout.txt", 3, 50}};
  const Evaluation watched = evaluate(demo(), &demo(), requests, options);  // the base runs, too, and is not told of
  std::ifstream in(kModel + "/data/heldout.txt");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const Row ids = demo().tokenizer.encode(text, false);
  std::vector<Told> expected;
  for (int64_t w = 0; w < 3; ++w) expected.push_back({Row(ids.begin() + w * 50, ids.begin() + (w + 1) * 50), "perplexity", -1});
  EXPECT_EQ(watcher.told, expected);
  expect_sums_of_told_rows(demo(), watcher);

  options.run_observer = nullptr;
  const Evaluation unwatched = evaluate(demo(), &demo(), requests, options);
  for (size_t i = 0; i < watched.model.tasks[0].metrics.size(); ++i) {
    EXPECT_EQ(watched.model.tasks[0].metrics[i].value.value, unwatched.model.tasks[0].metrics[i].value.value);
  }
}

// The same without a base: another code path.
TEST(RunObserver, PerplexityWithoutABase) {
  Watcher watcher;
  EvaluationOptions options{.throughput = true};  // which is not told
  options.run_observer = &watcher.observer;
  evaluate(demo(), nullptr, {{"perplexity", kModel + "/data/heldout.txt", 2, 40}}, options);
  ASSERT_EQ(watcher.told.size(), 2u);
  EXPECT_EQ(watcher.told[1].row.size(), 40u);
  expect_sums_of_told_rows(demo(), watcher);
}

TEST(RunObserver, LikelihoodsTellEachDistinctInput) {
  Watcher watcher;
  LikelihoodOptions options{.batch_tokens = 64, .watch = {&watcher.observer, "arc"}};
  const std::vector<LikelihoodRequest> requests = {{"Question: which is a metal?\nAnswer:", " iron", "1"},
                                                   {"Question: which is a metal?\nAnswer:", " the leaf of a tree", "1"},
                                                   {"5 + 5 =", " 10", "2"},
                                                   {"5 + 5 =", " 10", "3"}};
  loglikelihood(demo(), requests, options);
  std::vector<Row> expected;
  for (const LikelihoodRequest& request : requests) {
    TokenPair pair = encode_pair(demo(), request.context, request.continuation);
    pair.context.insert(pair.context.end(), pair.continuation.begin(), pair.continuation.end() - 1);
    if (std::find(expected.begin(), expected.end(), pair.context) == expected.end()) expected.push_back(pair.context);
  }
  ASSERT_EQ(expected.size(), 3u);
  EXPECT_THAT(watcher.rows(), ::testing::UnorderedElementsAreArray(expected));
  expect_sums_of_told_rows(demo(), watcher);
}

TEST(RunObserver, GenerationsTellPromptAndAnswer) {
  Watcher watcher;
  const std::vector<GenerationRequest> requests = {{"Question: Iris has 7 pens and buys 3 more. How many has she?\nAnswer:", "1"},
                                                   {"5 + 5 =", "2"}};
  const auto texts =
      generate_until(demo(), requests, {.stop = {"Question:"}, .max_new_tokens = 12, .watch = {&watcher.observer, "openmath"}});
  ASSERT_EQ(watcher.told.size(), 2u);
  for (const Told& told : watcher.told) {
    const auto which =
        static_cast<size_t>(told.row.size() < 15 + 12 && demo().tokenizer.decode(told.row, true).starts_with("5 + 5"));
    const Row prompt = encode_text(demo(), requests[which].prompt);
    ASSERT_EQ(told.response_begin, static_cast<int64_t>(prompt.size()));
    EXPECT_EQ(Row(told.row.begin(), told.row.begin() + told.response_begin), prompt);
    EXPECT_EQ(told.source, "openmath");
    const std::string answer = demo().tokenizer.decode(Row(told.row.begin() + told.response_begin, told.row.end()), true);
    EXPECT_FALSE(answer.empty());
    EXPECT_TRUE(texts[which].text.starts_with(cut_at_stops(answer, {"Question:"}))) << answer << " | " << texts[which].text;
    // The last id is never read by the model, unless a stop id came after it.
    EXPECT_GE(static_cast<int64_t>(told.row.size()) - told.response_begin, texts[which].tokens - 1);
  }
  expect_sums_of_told_rows(demo(), watcher);
}

TEST(RunObserver, TasksNameTheirRows) {
  Watcher watcher;
  EvaluationOptions options{.max_new_tokens = 4, .throughput = false};
  options.run_observer = &watcher.observer;
  evaluate(demo(), nullptr, {{"arc", kModel + "/data/arc_test.jsonl", 3, 0}, {"squad_v2", kModel + "/data/squad_test.jsonl", 2, 0}},
           options);
  std::map<std::string, int> sources;
  for (const Told& told : watcher.told) ++sources[told.source];
  EXPECT_EQ(sources.size(), 2u);
  EXPECT_GE(sources["arc"], 3);
  EXPECT_EQ(sources["squad_v2"], 2);  // the probe for "no answer" runs the same prompts again and is not told
  expect_sums_of_told_rows(demo(), watcher);
}

// Rows of different lengths, which a mixture may not run together while it is watched; the figures stay.
TEST(RunObserver, MixturesRunRowsOfOneLength) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("qwen3_moe")).at("cases").at(0), folder.path());
  LanguageModel model{.name = "mixture",
                      .folder = folder.path(),
                      .decoder = models::Decoder::load(models::Checkpoint(folder.path()), {}),
                      .tokenizer = models::Tokenizer::from_folder(kModel),
                      .chat_template = std::nullopt,
                      .max_length = 32,
                      .bos_text = {},
                      .eos_text = {},
                      .pad_text = {},
                      .bos_id = std::nullopt,
                      .eos_id = std::nullopt,
                      .stop_ids = {},
                      .quantization = nullptr};
  const auto in_vocabulary = [&](const std::string& text) {
    for (const TokenId id : model.tokenizer.encode(text, false)) {
      if (id >= model.decoder.config().vocab_size) return false;
    }
    return true;
  };
  std::vector<LikelihoodRequest> requests;
  for (const std::string text : {"!\"!\"!\"", "#$!", "$!\"#!\"#!", "!#\"", "#!$\"#$"}) {
    ASSERT_TRUE(in_vocabulary(text)) << text;
    requests.push_back({text, "!", text});
  }
  Watcher watcher;
  const auto watched = loglikelihood(model, requests, {.watch = {&watcher.observer, "arc"}});
  EXPECT_EQ(watcher.told.size(), requests.size());
  expect_sums_of_told_rows(model, watcher);
  const auto plain = loglikelihood(model, requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_NEAR(watched[i].log_prob, plain[i].log_prob, 1e-4);
}

}  // namespace
}  // namespace salient::eval
