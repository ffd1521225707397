// Scores of the bundled demo model against tests/data/eval/demo_model.json, made by scripts/goldens/eval_model.py with
// lm-evaluation-harness and transformers.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <thread>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "eval/divergence.h"
#include "eval/generate_until.h"
#include "eval/loglikelihood.h"
#include "eval/perplexity.h"
#include "models/decoder/side_by_side.h"
#include "support/thread_count.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

const LanguageModel& demo() {
  static const LanguageModel model = load_language_model(SALIENT_SOURCE_DIR "/models/demo");
  return model;
}
const Json& golden() {
  static const Json json = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/demo_model.json");
  return json;
}
std::string heldout() { return read_text_file(SALIENT_SOURCE_DIR "/models/demo/data/heldout.txt"); }

TEST(LanguageModelTest, KnowsItsSpecialTokensAndLimits) {
  EXPECT_EQ(demo().name, "demo");
  EXPECT_EQ(demo().max_length, 1024);
  EXPECT_EQ(demo().eos_text, "<|im_end|>");
  EXPECT_FALSE(demo().bos_id.has_value());
  EXPECT_FALSE(adds_bos(demo()));
  EXPECT_EQ(prefix_token(demo()), demo().eos_id);
  EXPECT_THROW(parse_bos_policy("sometimes"), Error);
}

TEST(Loglikelihood, EqualsTheHarness) {
  for (const int64_t batch_tokens : {64, 4096}) {  // batches must not change a figure beyond rounding
    std::vector<LikelihoodRequest> requests;
    for (const Json& pair : golden()["pairs"]) {
      requests.push_back({pair["context"].get<std::string>(), pair["continuation"].get<std::string>(), "golden"});
    }
    ASSERT_GT(requests.size(), 50u);
    int64_t last = 0;
    LikelihoodOptions options;
    options.batch_tokens = batch_tokens;
    options.progress = [&](int64_t done, int64_t total) {
      EXPECT_GT(done, last);
      EXPECT_EQ(total, static_cast<int64_t>(requests.size()));
      last = done;
    };
    const auto scores = loglikelihood(demo(), requests, options);
    EXPECT_EQ(last, static_cast<int64_t>(requests.size()));
    for (size_t i = 0; i < requests.size(); ++i) {
      const Json& pair = golden()["pairs"][i];
      EXPECT_NEAR(scores[i].log_prob, pair["log_prob"].get<double>(), 1e-3) << dump_json(pair);
      EXPECT_EQ(scores[i].is_greedy, pair["is_greedy"].get<bool>()) << dump_json(pair);
    }
  }
}

// More than one pass for each of several threads.
std::vector<LikelihoodRequest> many_requests() {
  std::vector<LikelihoodRequest> requests;
  for (const std::string lead : {"", "Question: ", "Once more: ", "A riddle: ", "We ask: "}) {
    for (const Json& pair : golden()["pairs"])
      requests.push_back({lead + pair["context"].get<std::string>() + " It is", pair["continuation"].get<std::string>(), "golden"});
  }
  return requests;
}

// With several threads each runs batches of its own.
TEST(Loglikelihood, HasTheSameBitsForEveryNumberOfThreads) {
  const std::vector<LikelihoodRequest> requests = many_requests();
  LikelihoodOptions options;
  options.batch_tokens = 4096;
  std::vector<Likelihood> expected;
  for (const int threads : test::kThreadCounts) {
    const test::ThreadCount count(threads);
    ASSERT_EQ(models::pass_workers(demo().decoder, options.batch_tokens, 512), threads);
    int64_t last = 0;
    const auto caller = std::this_thread::get_id();
    options.progress = [&](int64_t done, int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), caller);
      EXPECT_GT(done, last);
      last = done;
    };
    const std::vector<Likelihood> found = loglikelihood(demo(), requests, options);
    EXPECT_EQ(last, static_cast<int64_t>(requests.size()));
    if (expected.empty()) expected = found;
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(found[i].log_prob, expected[i].log_prob) << threads << " threads, request " << i;
      EXPECT_EQ(found[i].is_greedy, expected[i].is_greedy);
    }
  }
}

TEST(Loglikelihood, StopsInEveryThread) {
  const CancellationToken token;
  const CancellationScope scope(token);
  const test::ThreadCount count(3);
  RequestJournal journal;
  std::atomic<int> writes = 0;
  journal.find = [](const std::string&) { return std::nullopt; };
  journal.add = [&](std::span<const JournalEntry>) {
    ++writes;
    token.request();
  };
  LikelihoodOptions options;
  options.batch_tokens = 1536;
  options.journal = &journal;
  EXPECT_EQ(test::error_of([&] { loglikelihood(demo(), many_requests(), options); }).kind(), ErrorKind::kCancelled);
  EXPECT_GE(writes, 1);
  EXPECT_LE(writes, 3);  // what was under way
}

TEST(Loglikelihood, RefusesWhatHasNoTokens) {
  EXPECT_THROW(loglikelihood(demo(), {{"context", "", "row 1"}}), Error);
  EXPECT_TRUE(loglikelihood(demo(), {}).empty());
}

TEST(GenerateUntil, EqualsTheHarness) {
  for (const auto& [key, stops] :
       {std::pair<const char*, std::vector<std::string>>{"generations", {"Question:", "</s>", "<|im_end|>"}}, {"squad", {"\n"}}}) {
    std::vector<GenerationRequest> requests;
    for (const Json& entry : golden()[key]) requests.push_back({entry["prompt"].get<std::string>(), "golden"});
    ASSERT_FALSE(requests.empty());
    GenerateUntilOptions options;
    options.stop = stops;
    const auto texts = generate_until(demo(), requests, options);
    for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(texts[i].text, golden()[key][i]["text"].get<std::string>());
  }
}

TEST(GenerateUntil, CutsAtEveryStopInTurn) {
  EXPECT_EQ(cut_at_stops("one\ntwo Q: three", {"Q:", "", "\n"}), "one");
  EXPECT_EQ(cut_at_stops("nothing", {"x"}), "nothing");
  GenerateUntilOptions options;
  options.max_new_tokens = 5000;
  EXPECT_THROW(generate_until(demo(), {{"a", "row 1"}}, options), Error);
}

TEST(PerplexityTest, EqualsTransformersUnderBothProtocols) {
  const Json& expected = golden()["windows"];
  WindowOptions options;
  options.window = expected["window"].get<int64_t>();
  options.limit_windows = expected["count"].get<int64_t>();
  const TokenWindows windows = paper_windows(demo(), heldout(), options);
  ASSERT_EQ(windows.count(), options.limit_windows);
  const WindowLosses losses = window_losses(demo(), windows, options);
  const Perplexity paper = paper_perplexity(losses);
  EXPECT_NEAR(paper.value.value, expected["perplexity"].get<double>(), 1e-4);
  EXPECT_EQ(paper.tokens, options.limit_windows * (options.window - 1));
  const Perplexity llama_cpp = llama_cpp_perplexity(losses);
  EXPECT_NEAR(llama_cpp.value.value, expected["second_half"].get<double>(), 1e-4);
  EXPECT_EQ(llama_cpp.tokens, options.limit_windows * (options.window - 1 - options.window / 2));
}

TEST(PerplexityTest, SaysHowManyTokensAreMissing) {
  WindowOptions options;
  options.window = 512;
  try {
    paper_windows(demo(), "too short", options);
    FAIL() << "a text shorter than a window was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(error.message().find("512"), std::string::npos);
  }
  options.window = 1 << 20;
  EXPECT_THROW(paper_windows(demo(), "text", options), Error);
}

TEST(DivergenceTest, OfAModelFromItselfIsNothing) {
  WindowOptions options;
  options.window = 64;
  options.limit_windows = 4;
  const TokenWindows windows = paper_windows(demo(), heldout(), options);
  const PositionComparison comparison = compare_positions(demo(), demo(), windows, options);
  const Divergence divergence = summarize(comparison);
  EXPECT_EQ(divergence.positions, 4 * 64);
  EXPECT_EQ(divergence.kl.value, 0);
  EXPECT_EQ(divergence.kl_max, 0);
  EXPECT_EQ(divergence.same_top.value, 1);
  EXPECT_EQ(divergence.ln_ppl_ratio.value, 0);
  const WindowLosses alone = window_losses(demo(), windows, options);
  ASSERT_EQ(alone.losses.size(), comparison.base.losses.size());
  for (size_t i = 0; i < alone.losses.size(); ++i) ASSERT_NEAR(alone.losses[i], comparison.base.losses[i], 1e-4);
}

// The base's hidden states serve the next model: with the same figures, and without running it.
TEST(DivergenceTest, ABaseRunsOncePerText) {
  std::map<std::string, std::string> kept;
  int64_t found = 0;
  RequestJournal of_base;
  of_base.model = "the base";
  of_base.find = [](const std::string&) { return std::nullopt; };
  of_base.add = [](std::span<const JournalEntry>) {};
  of_base.find_states = [&](const std::string& key) -> std::optional<std::string> {
    const auto at = kept.find(key);
    if (at == kept.end()) return std::nullopt;
    ++found;
    return at->second;
  };
  of_base.keep_states = [&](const std::string& key, std::string_view bytes) { kept[key] = bytes; };
  WindowOptions options;
  options.window = 64;
  options.limit_windows = 4;
  options.batch_tokens = 128;
  const TokenWindows windows = paper_windows(demo(), heldout(), options);
  const PositionComparison alone = compare_positions(demo(), demo(), windows, options);
  options.base_journal = &of_base;
  for (const int64_t finds : {0, 2}) {
    const PositionComparison comparison = compare_positions(demo(), demo(), windows, options);
    EXPECT_EQ(comparison.base.losses, alone.base.losses);
    EXPECT_EQ(comparison.kl, alone.kl);
    EXPECT_EQ(comparison.same_top, alone.same_top);
    EXPECT_EQ(found, finds);
  }
  // They are what is read: others give others.
  for (auto& [key, bytes] : kept) bytes.assign(bytes.size(), '\0');
  EXPECT_NE(compare_positions(demo(), demo(), windows, options).base.losses, alone.base.losses);
  // What is cut off is not.
  for (auto& [key, bytes] : kept) bytes.resize(bytes.size() / 2);
  EXPECT_EQ(compare_positions(demo(), demo(), windows, options).base.losses, alone.base.losses);
}

TEST(DivergenceTest, SummarizesByWindow) {
  PositionComparison comparison{{3, {1, 2, 3, 4}}, {3, {1, 1, 2, 2}}, {0, 1, 2, 3, 4, 8}, {1, 1, 1, 0, 1, 1}};
  const Divergence d = summarize(comparison);
  EXPECT_DOUBLE_EQ(d.kl.value, 3);
  EXPECT_DOUBLE_EQ(*d.kl.stderr_of_mean, 2);  // window means 1 and 5
  EXPECT_DOUBLE_EQ(d.kl_median, 2.5);
  EXPECT_DOUBLE_EQ(d.kl_max, 8);
  EXPECT_NEAR(d.same_top.value, 5.0 / 6.0, 1e-12);
  EXPECT_DOUBLE_EQ(d.ln_ppl_ratio.value, 1);  // window means 1.5 - 1 and 3.5 - 2
  EXPECT_DOUBLE_EQ(*d.ln_ppl_ratio.stderr_of_mean, 0.5);
}

}  // namespace
}  // namespace salient::eval
