// `salient bench` as a user runs it. What is measured differs by machine; how the figures belong together does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Bench : public ::testing::Test {
 protected:
  test::ProgramResult run(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {
        "bench", test::kDemoModel.string(), "--prompt-tokens", "32", "--generation-tokens", "8", "--repeats", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return test::run_program(std::move(arguments), folder_.path());
  }
  test::TemporaryFolder folder_;
};

TEST_F(Bench, FiguresBelongTogether) {
  const test::ProgramResult result = run({"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json found = parse_json(result.out, "output");
  EXPECT_EQ(found.at("prompt_tokens"), 32);
  EXPECT_EQ(found.at("generated_tokens"), 8);
  // The embedding is the head; 4 blocks of 2 key heads of 64, keys and values, float32; half of 8 tokens.
  EXPECT_EQ(found.at("kv_bytes_per_token"), 4 * 2 * 64 * 2 * 4);
  EXPECT_EQ(found.at("bytes_per_token").get<int64_t>(),
            found.at("weight_bytes").get<int64_t>() + 4 * found.at("kv_bytes_per_token").get<int64_t>());
  EXPECT_NEAR(found.at("bandwidth_share").get<double>(),
              found.at("bytes_per_token").get<double>() * found.at("generation_tokens_per_second").get<double>() /
                  found.at("read_bandwidth_bytes_per_second").get<double>(),
              1e-6);
  for (const char* key :
       {"load_seconds", "prompt_tokens_per_second", "generation_tokens_per_second", "read_bandwidth_bytes_per_second"})
    EXPECT_GT(found.at(key).get<double>(), 0) << key;
}

TEST_F(Bench, LatenciesAreOrdered) {
  const Json found = parse_json(run({"--json"}).out, "output");
  EXPECT_EQ(found.at("token_latencies"), 8);
  const auto seconds = [&](const char* key) { return found.at(key).get<double>(); };
  EXPECT_GT(seconds("token_latency_median_seconds"), 0);
  EXPECT_LE(seconds("token_latency_median_seconds"), seconds("token_latency_p95_seconds"));
  EXPECT_LE(seconds("token_latency_p95_seconds"), seconds("token_latency_p99_seconds"));
  EXPECT_NEAR(seconds("first_token_seconds") * seconds("prompt_tokens_per_second"), 32, 1e-6);
  // The demo's linears are floats.
  EXPECT_EQ(found.at("token_step"), false);
  EXPECT_EQ(found.at("no_token_step"), "model.layers.0: q_proj is in float32");
  EXPECT_THAT(run({}).out,
              AllOf(HasSubstr("ms to the first token"), HasSubstr("ms a token: median"), HasSubstr("q_proj is in float32")));
}

TEST_F(Bench, FiguresGoIntoTheStore) {
  const Json found = parse_json(run({"--store", "bench.db", "--json"}).out, "output");
  const test::ProgramResult listed =
      test::run_program({"results", "--store", "bench.db", "--task", "throughput", "--json"}, folder_.path());
  ASSERT_EQ(listed.exit_code, 0) << listed.err;
  std::map<std::string, double> rows;
  const Json list = parse_json(listed.out, "results");
  for (const Json& row : list) rows[row.at("metric").get<std::string>()] = row.at("value").get<double>();
  for (const char* key :
       {"first_token_seconds", "token_latency_median_seconds", "token_latency_p95_seconds", "token_latency_p99_seconds",
        "bytes_per_token", "bandwidth_share", "prompt_tokens_per_second", "generation_tokens_per_second"}) {
    EXPECT_EQ(rows.at(key), found.at(key).get<double>()) << key;
  }
}

TEST_F(Bench, BitsOfTheRuntimeAreNamed) {
  const Json found = parse_json(run({"--kv-bits", "8", "--json"}).out, "output");
  EXPECT_EQ(found.at("model").at("kv_bits"), 8);
  EXPECT_LT(found.at("kv_bytes_per_token").get<int64_t>(), 4 * 2 * 64 * 2 * 4 / 3);
  EXPECT_THAT(run({"--kv-bits", "8"}).out, HasSubstr("kv8"));
}

TEST_F(Bench, WantsOneModel) {
  const test::ProgramResult result = test::run_program({"bench"}, folder_.path());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("expected one"));
}

}  // namespace
}  // namespace salient::pipeline
