// Quantizing mixtures of experts: coverage, ignored modules, stopping in the middle of a block, fused tensors, memory.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "calibration/token_blocks.h"
#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "models/decoder/decoder.h"
#include "models/decoder/embedding.h"
#include "models/decoder/mlp.h"
#include "models/decoder/router.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/detect.h"
#include "pipeline/quantize_model.h"
#include "quant/affine.h"
#include "quant/awq_gemm.h"
#include "support/folder_bytes.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

constexpr int64_t kGroupSize = 32;
using Edit = std::function<void(const std::string& name, at::Tensor& tensor)>;

// A golden checkpoint whose tensors `edit` may change.
void write_checkpoint(const std::string& model_type, const std::string& golden, const fs::path& folder, const Edit& edit = {},
                      at::ScalarType dtype = at::kFloat) {
  const Json file = read_json_file(test::golden_file(model_type));
  const auto& cases = file.at("cases");
  const auto found = std::find_if(cases.begin(), cases.end(), [&](const Json& entry) { return entry.at("name") == golden; });
  ASSERT_NE(found, cases.end());
  std::vector<models::PlannedTensor> planned;
  for (const Json& tensor : found->at("tensors"))
    planned.push_back({tensor.at(0), dtype, tensor.at(1).get<std::vector<int64_t>>()});
  models::CheckpointWriter writer(folder, models::plan_shards(planned, uint64_t{1} << 30));
  for (const Json& entry : found->at("tensors")) {
    at::Tensor tensor = test::golden_tensor(entry.at(0), entry.at(1).get<std::vector<int64_t>>(), entry.at(2), entry.at(3));
    if (edit) edit(entry.at(0), tensor);
    writer.put(entry.at(0), tensor.to(dtype));
  }
  writer.finish();
  write_file(folder / "config.json", dump_json(found->at("config"), 2));
}

calibration::TokenBlocks random_tokens() {
  at::manual_seed(11);
  calibration::TokenBlocks tokens;
  tokens.ids = at::randint(96, {6, 12}, at::kLong);
  tokens.lengths = at::full({6}, 12, at::kLong);
  tokens.lengths[2] = 7;
  return tokens;
}
constexpr int64_t kRealTokens = 5 * 12 + 7;

at::Tensor packed_weight(const models::Checkpoint& checkpoint, const std::string& module) {
  const auto load = [&](const std::string& part, at::ScalarType dtype) {
    return checkpoint.load(module + part, checkpoint.info(module + part).shape, dtype);
  };
  return quant::dequantize(
      quant::unpack_awq_gemm(load(".qweight", at::kInt), load(".qzeros", at::kInt), load(".scales", at::kFloat)));
}

at::Tensor float_tensor(const models::Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.view(name).to(at::kFloat).clone();
}

at::Tensor rounded_to_nearest(const at::Tensor& weight) {
  return quant::dequantize(quant::quantize_affine(weight.contiguous(), {4, kGroupSize, true}));
}

const LinearReport& report_of(const QuantizeModelResult& result, const std::string& name) {
  const auto it =
      std::find_if(result.reports.begin(), result.reports.end(), [&](const LinearReport& report) { return report.name == name; });
  if (it == result.reports.end()) throw std::runtime_error("no report of " + name);
  return *it;
}

class Mixture : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }  // some tests fork

  void prepare(const std::string& model_type, const std::string& golden = "default", const Edit& edit = {},
               at::ScalarType dtype = at::kFloat) {
    write_checkpoint(model_type, golden, folder_.path() / "source", edit, dtype);
    source_.emplace(folder_.path() / "source");
    options_.model_folder = source_->folder();
    options_.output = folder_.path() / "out";
    options_.awq.spec.group_size = kGroupSize;
    options_.awq.scale_search.grid = 4;
    options_.awq.clip_search.steps = 3;
    options_.batch_tokens = 24;
    options_.on_message = [this](const std::string& line) { messages_.push_back(line); };
  }
  QuantizeModelResult run() {
    QuantizeModelResult result = quantize_model(options_, tokens_);
    artifact_.emplace(options_.output);
    return result;
  }
  // What the norm in front of a mixture was divided by: what the linears behind it were multiplied by.
  at::Tensor norm_scales(const std::string& norm) const { return float_tensor(*source_, norm) / float_tensor(*artifact_, norm); }
  double logit_distance() const {
    const at::Tensor ids = tokens_.ids.narrow(0, 0, 2);
    const auto logits = [&](const models::Checkpoint& checkpoint) {
      const models::Decoder decoder = models::Decoder::load(checkpoint, {});
      return decoder.logits(decoder.hidden_states(ids));
    };
    const at::Tensor expected = logits(*source_);
    return ((logits(*artifact_) - expected).square().mean() / expected.var()).item<double>();
  }

  test::TemporaryFolder folder_;
  std::optional<models::Checkpoint> source_;
  std::optional<models::Checkpoint> artifact_;
  QuantizeModelOptions options_;
  calibration::TokenBlocks tokens_ = random_tokens();
  std::vector<std::string> messages_;
};

// The correction of two experts is so low that the router never takes them.
TEST_F(Mixture, ExpertsThatNoTokenReachesAreRoundedToNearestAndReported) {
  prepare("glm4_moe", "default", [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.layers.1.mlp.gate.e_score_correction_bias") tensor[1] = tensor[3] = -100.0;
    // Outliers in what the experts read, or there would be nothing to scale.
    if (name == "model.layers.1.post_attention_layernorm.weight") tensor.narrow(0, 0, 3).mul_(20.0);
  });
  options_.awq.rounding.off_diagonal = 1.0;
  const QuantizeModelResult result = run();
  const std::string mlp = "model.layers.1.mlp.";
  const at::Tensor columns = norm_scales("model.layers.1.post_attention_layernorm.weight");
  EXPECT_GT((columns - 1.0).abs().max().item<float>(), 0.05f) << "nothing was scaled: the test shows nothing";
  for (int64_t expert = 0; expert < 4; ++expert) {
    const bool reached = expert == 0 || expert == 2;
    const std::string prefix = fmt::format("{}experts.{}.", mlp, expert);
    for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
      SCOPED_TRACE(prefix + linear);
      const LinearReport& report = report_of(result, prefix + linear);
      EXPECT_EQ(report.routed_tokens, reached ? kRealTokens : 0);  // two of two: every token goes to both
      const at::Tensor weight = float_tensor(*source_, prefix + linear + ".weight");
      const bool down = std::string(linear) == "down_proj";
      const at::Tensor rounded = rounded_to_nearest(down ? weight : weight * columns);
      const bool equal = packed_weight(*artifact_, prefix + linear).allclose(rounded, 1e-4, 1e-5);
      EXPECT_EQ(equal, !reached);
      if (reached) continue;
      EXPECT_EQ(report.clipped_share, 0.0);
      if (!down) continue;
      EXPECT_EQ(report.scale_kind, "identity");
      EXPECT_NEAR(report.error, report.rtn_error, 1e-6 * report.rtn_error);
    }
  }
  EXPECT_EQ(report_of(result, mlp + "shared_experts.down_proj").routed_tokens, -1);
  EXPECT_THAT(messages_, Contains(AllOf(HasSubstr("block 1: 6 of 12 linears of experts"), HasSubstr("rounded to nearest"))));
  int64_t recorded = 0;
  const Json metadata = read_json_file(options_.output / "quantization_metadata.json");
  for (const Json& layer : metadata.at("layers")) recorded += layer.value("routed_tokens", int64_t{-1}) == 0;
  EXPECT_EQ(recorded, 6);
  EXPECT_LT(logit_distance(), 0.5);
}

// Against the router itself, padding left out.
TEST_F(Mixture, RoutedTokensAreThoseThatTheRouterSends) {
  prepare("qwen3_moe");
  const QuantizeModelResult result = run();
  const models::DecoderConfig config = models::load_decoder_config(*source_);
  const models::BlockWeights weights = models::load_block(*source_, config, 0, at::kFloat, at::kCPU);
  const at::Tensor positions = at::arange(12, at::kLong).unsqueeze(0);
  const models::AttentionContext context = models::make_attention_context(config, positions, 0, {}, at::kFloat);
  const models::EmbeddingWeights embedding = models::load_embedding(*source_, config, at::kFloat, at::kCPU);
  const models::BlockObserver nobody;
  std::vector<int64_t> expected(4, 0);
  std::vector<at::Tensor> real_inputs;
  for (int64_t row = 0; row < 6; ++row) {
    const at::Tensor hidden = models::embed(config, embedding, tokens_.ids.narrow(0, row, 1), positions, at::kFloat);
    const models::AttentionHalf half = models::attention_half({config, weights, 0, context, nullptr, 0, nobody}, hidden);
    const models::Routing routing = models::route(config, weights, half.mlp_input.flatten(0, 1));
    real_inputs.push_back(half.mlp_input[0].narrow(0, 0, tokens_.lengths[row].item<int64_t>()));
    for (int64_t token = 0; token < tokens_.lengths[row].item<int64_t>(); ++token) {
      for (int64_t k = 0; k < 2; ++k) ++expected[static_cast<size_t>(routing.experts[token][k].item<int64_t>())];
    }
  }
  for (int64_t expert = 0; expert < 4; ++expert) {
    EXPECT_EQ(report_of(result, fmt::format("model.layers.0.mlp.experts.{}.up_proj", expert)).routed_tokens,
              expected[static_cast<size_t>(expert)])
        << expert;
  }
  EXPECT_THAT(messages_, Each(Not(HasSubstr("reached by no"))));
  // Statistics are of all tokens, routed or not, as the float model has them.
  for (size_t expert = 0; expert < 4; ++expert) {
    const at::Tensor hidden = models::mlp_hidden(config, weights.experts[expert], at::cat(real_inputs)).to(at::kDouble);
    const at::Tensor weight = std::get<models::FloatLinear>(weights.experts[expert].down).weight;
    const double error =
        at::mm(hidden, (rounded_to_nearest(weight) - weight).to(at::kDouble).t()).square().sum().item<double>() / kRealTokens;
    EXPECT_NEAR(report_of(result, fmt::format("model.layers.0.mlp.experts.{}.down_proj", expert)).rtn_error, error, 1e-3 * error);
  }
}

TEST_F(Mixture, IgnoredModulesStayInFloatAndAreListed) {
  prepare("qwen2_moe");
  options_.awq.ignore = {"lm_head", "re:.*experts\\.2\\.", "o_proj", "shared_expert.down_proj"};
  const QuantizeModelResult result = run();
  const std::string mlp = "model.layers.0.mlp.";
  const at::Tensor columns = norm_scales("model.layers.0.post_attention_layernorm.weight");
  for (const char* linear : {"gate_proj", "up_proj"}) {
    const std::string name = fmt::format("{}experts.2.{}.weight", mlp, linear);
    EXPECT_FALSE(artifact_->contains(fmt::format("{}experts.2.{}.qweight", mlp, linear)));
    // Compensated like all the others; down_proj is searched by nobody.
    EXPECT_TRUE(float_tensor(*artifact_, name).allclose(float_tensor(*source_, name) * columns, 2e-3, 1e-4)) << name;
  }
  const std::string down = mlp + "experts.2.down_proj.weight";
  EXPECT_TRUE(float_tensor(*artifact_, down).equal(float_tensor(*source_, down).to(at::kHalf).to(at::kFloat)));
  EXPECT_TRUE(artifact_->contains(mlp + "experts.1.up_proj.qweight"));
  EXPECT_EQ(artifact_->info(mlp + "gate.weight").dtype, at::kHalf);
  EXPECT_TRUE(
      float_tensor(*artifact_, mlp + "gate.weight").allclose(float_tensor(*source_, mlp + "gate.weight") * columns, 2e-3, 1e-4));
  for (const LinearReport& report : result.reports)
    EXPECT_THAT(report.name, Not(testing::ContainsRegex("experts\\.2\\.|o_proj|shared_expert.down"))) << report.name;

  const Json quantization = read_json_file(options_.output / "config.json").at("quantization_config");
  const auto listed = quantization.at("modules_to_not_convert").get<std::vector<std::string>>();
  EXPECT_THAT(listed, IsSupersetOf({mlp + "gate", mlp + "shared_expert_gate", mlp + "experts.2.gate_proj",
                                    mlp + "experts.2.up_proj", mlp + "experts.2.down_proj", mlp + "shared_expert.down_proj",
                                    std::string("model.layers.1.self_attn.o_proj"), std::string("lm_head")}));
  EXPECT_THAT(listed, Each(Not(HasSubstr("experts.1"))));
  EXPECT_THAT(listed, Each(Not(HasSubstr("q_proj"))));
  const models::DetectedModel detected = models::detect_model(options_.output);
  EXPECT_EQ(detected.quantized_linears, static_cast<int64_t>(result.reports.size()));
  EXPECT_TRUE(detected.contradictions.empty()) << detected.contradictions.front();
  EXPECT_LT(logit_distance(), 0.5);
}

// Nothing behind the norm is rounded then: there is nothing to search, and nothing to scale.
TEST_F(Mixture, AllExpertsMayBeIgnored) {
  prepare("qwen3_moe");
  options_.awq.ignore = {"lm_head", "re:.*experts.*"};
  run();
  EXPECT_TRUE(norm_scales("model.layers.0.post_attention_layernorm.weight").allclose(at::ones({64}), 1e-3, 1e-3));
  EXPECT_TRUE(artifact_->contains("model.layers.0.mlp.experts.3.down_proj.weight"));
  EXPECT_TRUE(artifact_->contains("model.layers.0.self_attn.q_proj.qweight"));
  EXPECT_LT(logit_distance(), 0.5);
}

TEST_F(Mixture, OnlyTheMappedGroupsAreScaled) {
  prepare("qwen3_moe");
  options_.awq.mappings = {{"re:.*mlp.*up_proj$", {"re:.*mlp.*down_proj$"}}};
  const QuantizeModelResult result = run();
  EXPECT_TRUE(norm_scales("model.layers.0.post_attention_layernorm.weight").allclose(at::ones({64}), 1e-3, 1e-3));
  EXPECT_TRUE(norm_scales("model.layers.0.input_layernorm.weight").allclose(at::ones({64}), 1e-3, 1e-3));
  int64_t scaled = 0;
  for (const LinearReport& report : result.reports) {
    if (report.name.ends_with("down_proj")) {
      scaled += report.scale_kind != "identity";
    } else {
      EXPECT_EQ(report.scale_kind, "identity") << report.name;
    }
  }
  EXPECT_GT(scaled, 0);
}

// Killed while the second block's experts are worked on, as a power cut would: the next call gives the same bytes.
TEST_F(Mixture, KilledInTheMiddleOfABlockItResumesToTheSameBytes) {
  for (const WeightFormat format : {WeightFormat::kAwqGemm, WeightFormat::kFloat}) {
    SCOPED_TRACE(static_cast<int>(format));
    fs::remove_all(folder_.path() / "source");
    prepare("granitemoe");
    options_.on_message = nullptr;
    options_.awq.format = format;
    options_.output = folder_.path() / fmt::format("whole{}", static_cast<int>(format));
    quantize_model(options_, tokens_);
    const auto expected = test::folder_bytes(options_.output);
    for (const auto& [name, bytes] : expected)
      EXPECT_THAT(name, Not(testing::ContainsRegex("^(scratch|hidden|progress|\\.)"))) << name;

    int64_t in_the_middle = 0;
    for (const int delay_us : {0, 500, 2000, 5000}) {
      options_.output = folder_.path() / fmt::format("killed{}_{}", static_cast<int>(format), delay_us);
      const fs::path work = options_.output.string() + ".partial";
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        try {
          quantize_model(options_, tokens_);
        } catch (...) {
          ::_exit(1);
        }
        ::_exit(0);
      }
      const auto in_second_block = [&] { return fs::exists(work / "hidden_2.bin") && fs::exists(work / "scratch_sum.bin"); };
      int status = 0;
      while (!in_second_block() && ::waitpid(child, &status, WNOHANG) == 0) ::usleep(50);
      ::usleep(static_cast<useconds_t>(delay_us));
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      if (fs::exists(work)) in_the_middle += in_second_block();

      const QuantizeModelResult resumed = quantize_model(options_, tokens_);
      if (delay_us == 0) {
        EXPECT_EQ(resumed.resumed_blocks, 1);
      }
      const auto found = test::folder_bytes(options_.output);
      ASSERT_EQ(found.size(), expected.size());
      for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name;
      EXPECT_FALSE(fs::exists(work));
    }
    EXPECT_GE(in_the_middle, 1) << "no kill came in time: the test shows nothing";
  }
}

// An expert gets as many rows at a time as the router sends it of the tokens that are worked on. Settings say how many those were.
class TokensAtATime : public Mixture, public ::testing::WithParamInterface<const char*> {};

TEST_P(TokensAtATime, DoNotChangeABit) {
  prepare(GetParam());
  std::map<std::string, std::string> expected;
  for (const int64_t tokens : {72, 1, 30}) {
    SCOPED_TRACE(tokens);
    options_.batch_tokens = tokens;
    options_.output = folder_.path() / fmt::format("of{}", tokens);
    quantize_model(options_, tokens_);
    const auto found = test::folder_bytes(options_.output);
    if (expected.empty()) expected = {found.begin(), found.end()};
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, bytes] : found) {
      if (name == "quantization_metadata.json" || name == "README.md") continue;
      EXPECT_TRUE(expected.at(name) == bytes) << name;
    }
  }
  EXPECT_TRUE(models::Decoder::load(*source_, {}).rows_are_independent());
  EXPECT_FALSE(models::Decoder::load(models::Checkpoint(options_.output), {}).rows_are_independent());
}

INSTANTIATE_TEST_SUITE_P(Mixtures, TokensAtATime,
                         ::testing::Values("qwen3_moe", "qwen2_moe", "deepseek_v2", "gpt_oss", "granitemoe"),
                         [](const auto& test) { return std::string(test.param); });

// The sum over all tokens, by the outputs themselves: what rounding to nearest costs a linear of block 1 that sees the inputs of
// the float model.
class PropagateError : public Mixture, public ::testing::WithParamInterface<const char*> {};

TEST_P(PropagateError, OffTheNextBlockSeesTheFloatModel) {
  prepare(GetParam());
  const models::DecoderConfig config = models::load_decoder_config(*source_);
  std::map<models::InputId, std::vector<at::Tensor>> inputs;
  const at::Tensor positions = at::arange(12, at::kLong).unsqueeze(0);
  const models::AttentionContext context = models::make_attention_context(config, positions, 0, {}, at::kFloat);
  const models::EmbeddingWeights embedding = models::load_embedding(*source_, config, at::kFloat, at::kCPU);
  const models::BlockWeights first = models::load_block(*source_, config, 0, at::kFloat, at::kCPU);
  const models::BlockWeights second = models::load_block(*source_, config, 1, at::kFloat, at::kCPU);
  for (int64_t row = 0; row < 6; ++row) {
    const int64_t length = tokens_.lengths[row].item<int64_t>();
    const models::BlockObserver nobody;
    const models::BlockObserver observer = [&](models::InputId input, const at::Tensor& x) {
      if (x.dim() == 3) inputs[input].push_back(x[0].narrow(0, 0, length).to(at::kDouble));
    };
    const at::Tensor hidden = models::embed(config, embedding, tokens_.ids.narrow(0, row, 1), positions, at::kFloat);
    const at::Tensor middle = models::block_forward({config, first, 0, context, nullptr, 0, nobody}, hidden);
    models::block_forward({config, second, 1, context, nullptr, 0, observer}, middle);
  }
  const auto expected_error = [&](const models::LinearSpec& spec) {
    const at::Tensor weight = std::get<models::FloatLinear>(second.at(spec.id)).weight;
    const at::Tensor x = at::cat(inputs.at(spec.input));
    return at::mm(x, (rounded_to_nearest(weight) - weight).to(at::kDouble).t()).square().sum().item<double>() /
           static_cast<double>(x.size(0));
  };
  std::vector<models::LinearSpec> specs = models::block_layout(config, 1).linears;
  for (const models::LinearSpec& spec : models::expert_layout(config, 1, 1)) specs.push_back(spec);

  double largest_change = 0;
  options_.awq.rounding.kind = quant::RoundingKind::kNearest;  // with more error to propagate
  for (const bool propagate : {false, true}) {
    options_.awq.propagate_error = propagate;
    options_.output = folder_.path() / (propagate ? "on" : "off");
    const QuantizeModelResult result = run();
    int64_t compared = 0;
    for (const models::LinearSpec& spec : specs) {
      if (!spec.quantize || !inputs.contains(spec.input)) continue;
      const double expected = expected_error(spec);
      const double relative = std::abs(report_of(result, spec.name).rtn_error / expected - 1.0);
      if (propagate) {
        largest_change = std::max(largest_change, relative);
      } else {
        EXPECT_LT(relative, 1e-3) << spec.name;
      }
      ++compared;
    }
    EXPECT_GE(compared, 6);
    EXPECT_LT(logit_distance(), 0.5);
  }
  EXPECT_GT(largest_change, 5e-3);  // it is not off by accident
}

INSTANTIATE_TEST_SUITE_P(Mixtures, PropagateError, ::testing::Values("qwen3_moe", "qwen2_moe", "deepseek_v2", "gpt_oss"),
                         [](const auto& test) { return std::string(test.param); });

// Gate and up alternate in the last dimension; the input comes first. Nothing inside the experts can be scaled: its up branch is
// clamped.
TEST_F(Mixture, SmoothedFusedExpertsOfGptOssKeepTheirLayout) {
  prepare("gpt_oss");
  options_.awq.format = WeightFormat::kFloat;
  run();
  const std::string mlp = "model.layers.1.mlp.";
  const at::Tensor columns = norm_scales("model.layers.1.post_attention_layernorm.weight");
  EXPECT_GT((columns - 1.0).abs().max().item<float>(), 0.05f);
  const auto same = [&](const std::string& name) { return float_tensor(*artifact_, name).equal(float_tensor(*source_, name)); };
  const at::Tensor before = float_tensor(*source_, mlp + "experts.gate_up_proj");  // [experts, in, 2 * intermediate]
  EXPECT_TRUE(float_tensor(*artifact_, mlp + "experts.gate_up_proj").allclose(before * columns.view({1, 64, 1}), 1e-5, 1e-7));
  EXPECT_TRUE(same(mlp + "experts.gate_up_proj_bias"));
  EXPECT_TRUE(same(mlp + "experts.down_proj"));
  EXPECT_TRUE(same(mlp + "experts.down_proj_bias"));
  EXPECT_TRUE(same("model.layers.1.self_attn.sinks"));
  EXPECT_FALSE(artifact_->contains(mlp + "experts.0.up_proj.weight"));
  EXPECT_LT(logit_distance(), 1e-6);
}

// Rows of gate, then rows of up; what up is divided by, the columns of down are multiplied by, for each expert its own.
TEST_F(Mixture, SmoothedFusedExpertsOfGraniteKeepTheirLayout) {
  prepare("granitemoe");
  options_.awq.format = WeightFormat::kFloat;
  run();
  const std::string mlp = "model.layers.0.block_sparse_moe.";
  const at::Tensor columns = norm_scales("model.layers.0.post_attention_layernorm.weight");
  const auto ratio = [&](const std::string& name) { return float_tensor(*artifact_, name) / float_tensor(*source_, name); };
  const at::Tensor in = ratio(mlp + "input_linear.weight");     // [4, 192, 64]
  const at::Tensor down = ratio(mlp + "output_linear.weight");  // [4, 64, 96]
  EXPECT_TRUE(in.narrow(1, 0, 96).allclose(columns.view({1, 1, 64}).expand({4, 96, 64}), 1e-4, 1e-5));
  const at::Tensor moved = down.select(1, 0);  // [4, 96]
  EXPECT_TRUE(down.allclose(moved.unsqueeze(1).expand({4, 64, 96}), 1e-4, 1e-5));
  EXPECT_TRUE(in.narrow(1, 96, 96).allclose(columns.view({1, 1, 64}) / moved.unsqueeze(2), 1e-4, 1e-5));
  EXPECT_GT((moved[0] - moved[1]).abs().max().item<float>(), 0.01f) << "each expert has scales of its own";
  EXPECT_TRUE(ratio(mlp + "router.layer.weight").allclose(columns.expand({4, 64}), 1e-4, 1e-5));
  EXPECT_LT(logit_distance(), 1e-6);
}

TEST_F(Mixture, SmoothedExpertsKeepTheSourcesDtype) {
  prepare("granitemoe", "default", {}, at::kBFloat16);
  options_.awq.format = WeightFormat::kFloat;
  run();
  for (const std::string& name : artifact_->names()) EXPECT_EQ(artifact_->info(name).dtype, at::kBFloat16) << name;
  EXPECT_EQ(artifact_->names(), source_->names());
  EXPECT_LT(logit_distance(), 1e-3);
}

// Packed, each expert has linears of its own, under the names that readers of such checkpoints use.
TEST_F(Mixture, PackedFusedExpertsAreLinears) {
  for (const auto& [model_type, prefix, fused] : std::vector<std::tuple<std::string, std::string, std::string>>{
           {"gpt_oss", "model.layers.1.mlp.experts.", "model.layers.1.mlp.experts.gate_up_proj"},
           {"granitemoe", "model.layers.1.block_sparse_moe.experts.", "model.layers.1.block_sparse_moe.input_linear.weight"},
           {"llama4_text", "model.layers.1.feed_forward.experts.", "model.layers.1.feed_forward.experts.gate_up_proj"}}) {
    SCOPED_TRACE(model_type);
    fs::remove_all(folder_.path() / "source");
    prepare(model_type);
    options_.output = folder_.path() / model_type;
    run();
    EXPECT_TRUE(source_->contains(fused));
    EXPECT_FALSE(artifact_->contains(fused));
    for (int64_t expert = 0; expert < 4; ++expert) {
      for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
        const std::string name = fmt::format("{}{}.{}", prefix, expert, linear);
        ASSERT_TRUE(artifact_->contains(name + ".qweight")) << name;
        EXPECT_EQ(artifact_->contains(name + ".bias"), model_type == "gpt_oss");
      }
    }
    EXPECT_LT(logit_distance(), 0.5);
  }
}

TEST_F(Mixture, RefusesBeforeAnyFileWhenMemoryWillNotDo) {
  prepare("qwen3_moe");
  const models::DecoderConfig config = models::load_decoder_config(*source_);
  const uint64_t needed = estimate_quantize(config, options_.awq, tokens_.ids.numel(), options_.batch_tokens).peak_memory_bytes;
  options_.max_memory_bytes = needed / 2;
  try {
    run();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_EQ(error.code(), "OUT_OF_MEMORY");
    EXPECT_THAT(error.message(), AllOf(HasSubstr(human_bytes(needed)), HasSubstr(human_bytes(needed / 2)), HasSubstr("allowed")));
    EXPECT_THAT(error.hint(), AllOf(HasSubstr("--batch-tokens"), HasSubstr("--max-memory")));
  }
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder_.path())) left.push_back(entry.path().filename());
  EXPECT_THAT(left, testing::ElementsAre("source"));
  EXPECT_THAT(messages_, Contains(AllOf(HasSubstr("needs at most"), HasSubstr(human_bytes(needed)))));
  options_.max_memory_bytes = needed;
  EXPECT_NO_THROW(run());
}

}  // namespace
}  // namespace salient::pipeline
