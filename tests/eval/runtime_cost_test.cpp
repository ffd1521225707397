// What rounding while a model runs costs: measured on the demo model, and through the JSON form of a report.
#include "eval/runtime_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "eval/read_report.h"
#include "eval/report.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

using ::testing::HasSubstr;
const std::filesystem::path kDemo = std::filesystem::path(SALIENT_SOURCE_DIR) / "models/demo";

LanguageModel demo(int activation_bits, int kv_bits) {
  LanguageModelOptions options;
  options.decoder.activation_bits = activation_bits;
  options.decoder.kv_bits = kv_bits;
  return load_language_model(kDemo, options);
}

TEST(RuntimeCost, OfAFloatModelIsThatOfTheCache) {
  const TaskRequest text{.task = "perplexity", .file = kDemo / "data/heldout.txt", .limit = 2, .window = 128};
  Evaluation evaluation;
  evaluation.model.model = "demo";
  evaluation.runtime_costs = measure_runtime_costs(demo, text, {});
  ASSERT_EQ(evaluation.runtime_costs.size(), 1u);
  const RuntimeCost& cost = evaluation.runtime_costs.front();
  EXPECT_EQ(cost.activation_bits, 16);
  EXPECT_EQ(cost.kv_bits, 8);
  EXPECT_GT(cost.find("kl_divergence")->value.value, 1e-7);  // it is rounded
  EXPECT_LT(cost.find("kl_divergence")->value.value, 1e-3);
  EXPECT_GT(cost.find("top1_agreement")->value.value, 0.95);
  EXPECT_THAT(to_table(evaluation), HasSubstr("a16 kv8"));

  const Evaluation read = evaluation_from_json(to_json(evaluation), "test");
  ASSERT_EQ(read.runtime_costs.size(), 1u);
  EXPECT_EQ(read.runtime_costs.front().kv_bits, 8);
  EXPECT_EQ(read.runtime_costs.front().find("kl_divergence")->value.value, cost.find("kl_divergence")->value.value);
  EXPECT_EQ(to_table(read), to_table(evaluation));
  Evaluation all;
  append(all, read);
  append(all, read);
  EXPECT_EQ(all.runtime_costs.size(), 2u);
}

TEST(ThroughputReport, IsReadAsItWasWritten) {
  const LanguageModel model = demo(16, 16);
  Evaluation evaluation;
  evaluation.model.model = "demo";
  evaluation.model.description = describe(model);
  evaluation.model.throughput = measure_throughput(model, {.prompt_tokens = 16, .generated_tokens = 8, .repeats = 2});
  const Throughput& found = *evaluation.model.throughput;
  EXPECT_EQ(found.latency_tokens, 16);
  EXPECT_GT(found.first_token_seconds, 0);
  EXPECT_GT(found.latency_median_seconds, 0);
  EXPECT_LE(found.latency_median_seconds, found.latency_p95_seconds);
  EXPECT_LE(found.latency_p95_seconds, found.latency_p99_seconds);
  EXPECT_GT(found.read_bandwidth, 0);
  EXPECT_EQ(found.bytes_per_token, model.decoder.weight_bytes() + 4 * model.decoder.cache_bytes_per_token());
  const Json json = to_json(evaluation);
  const Evaluation read = evaluation_from_json(json, "test");
  EXPECT_EQ(to_json(read), json);
  EXPECT_EQ(to_table(read), to_table(evaluation));
  EXPECT_THAT(to_table(read), HasSubstr("first token, ms"));
  Json earlier = json;  // of a version that did not measure latencies
  for (const char* key :
       {"first_token_seconds", "token_latency_median_seconds", "token_latency_p95_seconds", "token_latency_p99_seconds",
        "token_latencies", "read_bandwidth_bytes_per_second", "bytes_per_token", "bandwidth_share", "no_token_step"}) {
    EXPECT_EQ(earlier.at("model").at("throughput").erase(key), 1U) << key;
  }
  EXPECT_EQ(evaluation_from_json(earlier, "test").model.throughput->latency_tokens, 0);
}

TEST(RuntimeCost, NeedsATaskWithADivergence) {
  const TaskRequest questions{.task = "arc", .file = kDemo / "data/arc_test.jsonl", .limit = 1};
  EXPECT_THAT(test::message_of([&] { measure_runtime_costs(demo, questions, {}); }, ErrorKind::kInvalidArgument),
              HasSubstr("no divergence"));
}

}  // namespace
}  // namespace salient::eval
