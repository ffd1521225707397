#include "models/decoder/rope.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/error.h"

namespace salient::models {
namespace {

using ::testing::HasSubstr;

// scripts/goldens/rope.py describes it.
const Json& goldens() {
  static const Json json = read_json_file(std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/rope.json");
  return json;
}

at::Tensor matrix(const Json& json) {
  std::vector<at::Tensor> rows;
  for (const Json& row : json)
    rows.push_back(row[0].is_array() ? matrix(row) : at::tensor(row.get<std::vector<double>>(), at::kFloat));
  return at::stack(rows);
}

RopeDefaults defaults_of(const Json& assumed) {
  return {.theta = assumed["theta"],
          .partial_rotary_factor = assumed["partial_rotary_factor"],
          .pairs = assumed["pairs"] == "halves" ? RopePairs::kHalves : RopePairs::kNeighbours,
          .head_dim = assumed["head_dim"]};
}

RopeConfig parse_case(const Json& entry) {
  const ConfigReader config(entry["config"], "config.json");
  const int64_t max = entry["assumed"]["max_position_embeddings"];
  if (entry["object"].is_null()) return parse_rope(config, defaults_of(entry["assumed"]), max);
  const ConfigReader object(entry["config"]["rope_parameters"][entry["object"].get<std::string>()], "config.json: rope_parameters");
  return parse_rope_object(object, config, defaults_of(entry["assumed"]), max);
}

at::Tensor positions_of(const Json& entry) {
  return at::tensor(entry["positions"].get<std::vector<int64_t>>(), at::kLong).unsqueeze(0);
}

// Results may differ in the last digit, and an angle's last digit is that of its size: cosines then differ by as much.
void expect_near(const at::Tensor& found, const at::Tensor& expected, const at::Tensor& positions) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  const at::Tensor bound = 1e-6 + 6e-8 * positions.to(at::kFloat).view({-1, 1});
  const at::Tensor excess = (found - expected).abs() - bound;
  EXPECT_LE(excess.max().item<double>(), 0.0) << found << expected;
}

TEST(Rope, TablesEqualTransformers) {
  ASSERT_GE(goldens()["tables"].size(), 40u);
  for (const Json& entry : goldens()["tables"]) {
    SCOPED_TRACE(entry["name"].get<std::string>());
    const at::Tensor positions = positions_of(entry);
    const RotaryTable table = make_rotary_table(parse_case(entry), positions, at::kFloat);
    expect_near(table.cos[0][0], matrix(entry["cos"]), positions);
    expect_near(table.sin[0][0], matrix(entry["sin"]), positions);
  }
}

TEST(Rope, TurnsHeadsAsTransformersDoes) {
  ASSERT_EQ(goldens()["rotations"].size(), 4u);
  for (const Json& entry : goldens()["rotations"]) {
    SCOPED_TRACE(entry["name"].get<std::string>());
    const RopeConfig rope = parse_case(entry);
    const at::Tensor x = matrix(entry["x"]).unsqueeze(0);
    const at::Tensor turned = rotate(x, make_rotary_table(rope, positions_of(entry), at::kFloat), rope.pairs);
    EXPECT_TRUE(turned.allclose(matrix(entry["turned"]).unsqueeze(0), 1e-6, 5e-6)) << turned;
    EXPECT_FALSE(turned.allclose(x, 1e-2, 1e-2));
  }
}

RopeConfig parse_text(std::string_view text, RopeDefaults defaults = {.head_dim = 8}) {
  const Json json = parse_json(text, "config.json");
  return parse_rope(ConfigReader(json, "config.json"), defaults, 64);
}

TEST(Rope, KindsHaveTheirNames) {
  EXPECT_EQ(to_string(RopeKind::kDefault), "default");
  EXPECT_EQ(to_string(RopeKind::kLinear), "linear");
  EXPECT_EQ(to_string(RopeKind::kDynamic), "dynamic");
  EXPECT_EQ(to_string(RopeKind::kYarn), "yarn");
  EXPECT_EQ(to_string(RopeKind::kLongRope), "longrope");
  EXPECT_EQ(to_string(RopeKind::kLlama3), "llama3");
}

TEST(Rope, MropeIsDefaultForText) {
  const RopeConfig rope = parse_text(R"({"rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}})");
  EXPECT_EQ(rope.kind, RopeKind::kDefault);
  EXPECT_EQ(rope.theta, 1e6);
  EXPECT_EQ(rope.dim, 8);
}

TEST(Rope, OlderNamesOfThePart) {
  EXPECT_EQ(parse_text(R"({"rope_pct": 0.25})").dim, 2);
  EXPECT_EQ(parse_text(R"({"rotary_pct": 0.75})").dim, 6);
  EXPECT_EQ(parse_text(R"({})", {.partial_rotary_factor = 0.5, .head_dim = 8}).dim, 4);
}

TEST(Rope, SuWithTheLengthOutside) {
  const RopeConfig rope = parse_text(R"({"original_max_position_embeddings": 16,
      "rope_scaling": {"type": "su", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2]}})");
  EXPECT_EQ(rope.kind, RopeKind::kLongRope);
  EXPECT_EQ(rope.factor, 4.0);
  EXPECT_DOUBLE_EQ(rope.attention_factor, std::sqrt(1.5));  // 1 + ln 4 / ln 16
}

TEST(Rope, AnObjectForALayerTypeAsksTheConfigForTheRest) {
  const Json config =
      parse_json(R"({"rope_theta": 700, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 16})", "");
  const Json yarn = parse_json(R"({"rope_type": "yarn", "factor": 2})", "");
  const Json own =
      parse_json(R"({"rope_type": "yarn", "factor": 2, "rope_theta": 50, "original_max_position_embeddings": 32})", "");
  const ConfigReader reader(config, "config.json");
  const RopeConfig left_out = parse_rope_object(ConfigReader(yarn, "a"), reader, {.head_dim = 8}, 64);
  EXPECT_EQ(left_out.theta, 700.0);
  EXPECT_EQ(left_out.dim, 4);
  EXPECT_EQ(left_out.original_max_position_embeddings, 16);
  const RopeConfig said = parse_rope_object(ConfigReader(own, "a"), reader, {.head_dim = 8}, 64);
  EXPECT_EQ(said.theta, 50.0);
  EXPECT_EQ(said.original_max_position_embeddings, 32);
}

TEST(Rope, EachSequenceOfABatchHasItsPositions) {
  const RopeConfig rope = parse_text("{}");
  const at::Tensor positions = at::tensor({0, 1, 2, 5, 6, 7}, at::kLong).view({2, 3});
  const RotaryTable table = make_rotary_table(rope, positions, at::kFloat);
  EXPECT_EQ(table.cos.sizes(), (std::vector<int64_t>{2, 1, 3, 8}));
  EXPECT_TRUE(table.sin[1].equal(make_rotary_table(rope, positions.narrow(0, 1, 1), at::kFloat).sin[0]));
}

TEST(Rope, BothKindsOfPairsAreOneRotationReordered) {
  RopeConfig rope = parse_text("{}");
  const at::Tensor positions = at::arange(5, at::kLong).unsqueeze(0);
  at::manual_seed(1);
  const at::Tensor x = at::randn({2, 3, 5, 11});  // 3 channels are not turned
  const at::Tensor halves = rotate(x, make_rotary_table(rope, positions, at::kFloat), RopePairs::kHalves);
  const at::Tensor order = at::tensor({0, 4, 1, 5, 2, 6, 3, 7, 8, 9, 10}, at::kLong);
  rope.pairs = RopePairs::kNeighbours;
  const at::Tensor neighbours =
      rotate(x.index_select(-1, order), make_rotary_table(rope, positions, at::kFloat), RopePairs::kNeighbours);
  EXPECT_TRUE(neighbours.allclose(halves.index_select(-1, order)));
  EXPECT_TRUE(halves.narrow(-1, 8, 3).equal(x.narrow(-1, 8, 3)));
  EXPECT_TRUE(halves.select(2, 0).equal(x.select(2, 0)));
  EXPECT_FALSE(halves.select(2, 1).allclose(x.select(2, 1)));
}

TEST(Rope, HeadsMayLieInAnyOrderAndHavePositionsOfTheirOwn) {
  const RopeConfig rope = parse_text("{}");
  at::manual_seed(2);
  const at::Tensor positions = at::tensor({0, 1, 2, 3, 40, 41, 42, 43}, at::kLong).view({2, 4});
  const RotaryTable table = make_rotary_table(rope, positions, at::kFloat);
  const at::Tensor by_token = at::randn({2, 4, 3, 11});  // tokens before heads; 3 channels are not turned
  const at::Tensor x = by_token.transpose(1, 2);
  // By definition, in float64: (a, b) -> (a cos - b sin, b cos + a sin).
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor a = wide.narrow(-1, 0, 4);
  const at::Tensor b = wide.narrow(-1, 4, 4);
  const at::Tensor cos = table.cos.to(at::kDouble).narrow(-1, 0, 4);
  const at::Tensor sin = table.sin.to(at::kDouble).narrow(-1, 0, 4);
  const at::Tensor expected = at::cat({a * cos - b * sin, b * cos + a * sin, wide.narrow(-1, 8, 3)}, -1);
  EXPECT_LT((rotate(x, table, rope.pairs).to(at::kDouble) - expected).abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(rotate(x.contiguous(), table, rope.pairs).equal(rotate(x, table, rope.pairs)));
}

TEST(Rope, KeepsTheTypeOfTheHeads) {
  const RopeConfig rope = parse_text("{}");
  const at::Tensor positions = at::arange(5, at::kLong).unsqueeze(0);
  const at::Tensor x = at::ones({1, 1, 5, 8}, at::kBFloat16);
  EXPECT_EQ(make_rotary_table(rope, positions, at::kBFloat16).cos.scalar_type(), at::kBFloat16);
  EXPECT_EQ(rotate(x, make_rotary_table(rope, positions, at::kFloat), rope.pairs).scalar_type(), at::kBFloat16);
}

TEST(Rope, NoTokens) {
  const RopeConfig rope = parse_text(R"({"rope_scaling": {"type": "dynamic", "factor": 2}})");
  const RotaryTable table = make_rotary_table(rope, at::empty({1, 0}, at::kLong), at::kFloat);
  EXPECT_EQ(table.cos.sizes(), (std::vector<int64_t>{1, 1, 0, 8}));
}

struct Refusal {
  std::string_view config;
  ErrorKind kind;
  std::string_view text;
};
constexpr Refusal kRefusals[] = {
    {R"({"rope_scaling": {"type": "spiral"}})", ErrorKind::kUnsupported,
     "config.json: rope_scaling: type 'spiral' is not supported"},
    {R"({"rope_parameters": {"rope_type": "axial"}})", ErrorKind::kUnsupported, "rope_parameters: rope_type 'axial'"},
    {R"({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})", ErrorKind::kUnsupported, "differ by layer type"},
    {R"({"rope_scaling": 3})", ErrorKind::kCorruption, "found 3, expected a JSON object"},
    {R"({"rope_scaling": [1]})", ErrorKind::kCorruption, "found [1], expected a JSON object"},
    {R"({"rope_scaling": {"type": 3}})", ErrorKind::kCorruption, "key 'type': found 3, expected a string"},
    {R"({"rope_scaling": {"type": "linear"}})", ErrorKind::kCorruption, "rope_scaling: key 'factor': found nothing"},
    {R"({"rope_scaling": {"type": "linear", "factor": 0}})", ErrorKind::kCorruption, "key 'factor': found 0"},
    {R"({"rope_scaling": {"type": "dynamic", "factor": "2"}})", ErrorKind::kCorruption, "found \"2\""},
    {R"({"rope_theta": -1})", ErrorKind::kCorruption, "key 'rope_theta': found -1"},
    {R"({"rope_scaling": {"type": "llama3", "factor": 8}})", ErrorKind::kCorruption, "low_freq_factor"},
    {R"({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})", ErrorKind::kCorruption,
     "must be larger"},
    {R"({"rope_scaling": {"type": "yarn", "factor": 8, "original_max_position_embeddings": 0}})", ErrorKind::kCorruption,
     "original_max_position_embeddings"},
    {R"({"rope_scaling": {"type": "yarn", "factor": 8, "beta_fast": -1}})", ErrorKind::kCorruption, "beta_fast"},
    {R"({"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 8}})", ErrorKind::kCorruption, "expected more than 1"},
    {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1]}})", ErrorKind::kCorruption,
     "'long_factor' has 3 numbers, expected 4"},
    {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, -1, 1], "long_factor": [1, 1, 1, 1]}})",
     ErrorKind::kCorruption, "'short_factor[2]': found -1"},
    {R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]},
         "original_max_position_embeddings": 1})",
     ErrorKind::kCorruption, "original_max_position_embeddings 1"},
    {R"({"partial_rotary_factor": 1.5})", ErrorKind::kCorruption, "12 of 8 channels"},
    {R"({"partial_rotary_factor": 0.1})", ErrorKind::kCorruption, "0 of 8 channels"},
    {R"({"partial_rotary_factor": 0.25, "rope_scaling": {"type": "dynamic", "factor": 2}})", ErrorKind::kCorruption,
     "dynamic scaling of 2"},
    {R"({"partial_rotary_factor": 0.625, "rope_scaling": {"type": "yarn", "factor": 2}})", ErrorKind::kUnsupported,
     "yarn with 5 rotated channels"},
};

TEST(Rope, RefusesWithAReason) {
  for (const Refusal& refusal : kRefusals) {
    SCOPED_TRACE(refusal.config);
    try {
      parse_text(refusal.config);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), refusal.kind) << error.message();
      EXPECT_THAT(error.message(), HasSubstr(std::string(refusal.text)));
    }
  }
}

TEST(Rope, AnOddHeadCannotBeTurnedWhole) {
  EXPECT_THROW(parse_text("{}", {.head_dim = 7}), Error);
  EXPECT_EQ(parse_text(R"({"partial_rotary_factor": 0.8})", {.head_dim = 7}).dim, 6);
}

TEST(Rope, YarnMagnitude) {
  EXPECT_EQ(yarn_magnitude(0.5, 1.0), 1.0);
  EXPECT_EQ(yarn_magnitude(1.0, 3.0), 1.0);
  EXPECT_DOUBLE_EQ(yarn_magnitude(std::exp(2.0), 0.5), 1.1);
}

}  // namespace
}  // namespace salient::models
