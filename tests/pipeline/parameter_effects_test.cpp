// What each parameter of a quantization does, seen in an artifact: every row of the table of settings. A new parameter without an
// entry here fails. Keys of a run's `calibration:` section: calibration_effects_test.cpp; of llm-compressor's recipes:
// recipe_effects_test.cpp.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_unique.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "common/error.h"
#include "models/io/compressed_config.h"
#include "models/text/dataset.h"
#include "pipeline/search_file.h"
#include "quant/clip_search.h"
#include "quant/fixed_parts.h"
#include "support/demo_job.h"
#include "support/parameter_effect.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using test::ParameterEffect;
using test::same_weights;
using test::TinyArtifact;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kO = "model.layers.0.self_attn.o_proj";
const std::string kDown = "model.layers.0.mlp.down_proj";
const std::string kSecondQ = "model.layers.1.self_attn.q_proj";
constexpr auto kError = &LinearReport::error;
constexpr auto kRtnError = &LinearReport::rtn_error;
constexpr auto kScaledError = &LinearReport::scaled_error;

test::TinyQuantization& tiny() {
  static test::TinyQuantization model;
  return model;
}
const TinyArtifact& with(const std::string& settings) { return tiny()(settings); }

at::Tensor source_weight(const std::string& module) {
  return models::Checkpoint(tiny().source()).view(module + ".weight").to(at::kFloat).clone();
}

int64_t distinct_values(const at::Tensor& tensor) {
  return static_cast<int64_t>(std::get<0>(at::_unique(tensor.contiguous())).numel());
}

int64_t count_if(const TinyArtifact& artifact, const std::function<bool(const LinearReport&)>& is) {
  return std::count_if(artifact.result.model.reports.begin(), artifact.result.model.reports.end(), is);
}
int64_t scaled(const TinyArtifact& artifact) {
  return count_if(artifact, [](const LinearReport& report) { return report.scale_kind != "identity"; });
}
int64_t clipped(const TinyArtifact& artifact) {
  return count_if(artifact, [](const LinearReport& report) { return report.clipped_share > 0; });
}

// Of q_proj, k_proj and v_proj of the first block: one group, whose input no setting has changed yet.
double first_group(const TinyArtifact& artifact, double LinearReport::*member) {
  double total = 0;
  for (const char* name : {"q", "k", "v"}) total += artifact.report(fmt::format("model.layers.0.self_attn.{}_proj", name)).*member;
  return total;
}

bool same_column(const at::Tensor& a, const at::Tensor& b, int64_t column) {
  return at::equal(a.select(1, column), b.select(1, column));
}

void check_method() {
  const TinyArtifact& rtn = with("method: rtn, bits: 3");
  for (const LinearReport& report : rtn.result.model.reports) EXPECT_NEAR(report.error, report.rtn_error, 1e-6 * report.rtn_error);
  EXPECT_EQ(scaled(rtn) + clipped(rtn), 0);
  const double nearest = rtn.sum(kError);
  const TinyArtifact& gptq = with("method: gptq, bits: 3");
  EXPECT_EQ(scaled(gptq) + clipped(gptq), 0);
  EXPECT_LT(gptq.sum(kError), 0.9 * nearest);
  const TinyArtifact& adaround = with("method: adaround, bits: 3");
  EXPECT_EQ(scaled(adaround), 0);
  EXPECT_GT(clipped(adaround), 0);
  EXPECT_LT(adaround.sum(kError), 0.9 * nearest);
  const TinyArtifact& awq = with("bits: 3");
  EXPECT_GT(scaled(awq), 0);
  EXPECT_GT(clipped(awq), 0);
  EXPECT_LT(awq.sum(kError), 0.9 * nearest);
}

void check_bits() {
  double before = 0;
  for (const int bits : {8, 6, 5, 4, 3, 2}) {
    const TinyArtifact& artifact = with(fmt::format("method: rtn, bits: {}", bits));
    EXPECT_GT(artifact.sum(kRtnError, ".layers.0."), 2 * before) << bits;
    before = artifact.sum(kRtnError, ".layers.0.");
    const at::Tensor group = artifact.weight(kQ).narrow(0, 0, 1).narrow(1, 0, 32);
    EXPECT_LE(distinct_values(group), int64_t{1} << bits);
    if (bits <= 4) {
      EXPECT_GT(distinct_values(group), int64_t{1} << (bits - 1)) << bits;
    }
  }
}

void check_group_size() {
  double before = 0;
  for (const int size : {32, 64, -1}) {
    const TinyArtifact& artifact = with(fmt::format("method: rtn, group_size: {}, format: compressed-tensors", size));
    EXPECT_GT(artifact.sum(kRtnError, ".layers.0."), before) << size;
    before = artifact.sum(kRtnError, ".layers.0.");
    EXPECT_EQ(artifact.checkpoint().info(kQ + ".weight_scale").shape, (std::vector<int64_t>{128, size > 0 ? 128 / size : 1}));
  }
}

void check_zero_point() {
  const TinyArtifact& on = with("method: rtn, format: compressed-tensors");
  const TinyArtifact& off = with("method: rtn, format: compressed-tensors, zero_point: false");
  EXPECT_TRUE(on.checkpoint().contains(kQ + ".weight_zero_point"));
  EXPECT_FALSE(off.checkpoint().contains(kQ + ".weight_zero_point"));
  EXPECT_LT(on.sum(kRtnError, ".layers.0."), off.sum(kRtnError, ".layers.0.")) << "the weights' ranges are not symmetric";
}

void check_symmetric() {
  EXPECT_TRUE(same_weights(with("method: rtn, format: compressed-tensors, symmetric: true"),
                           with("method: rtn, format: compressed-tensors, zero_point: false")));
}

void check_runtime_bits(const char* key) {
  const TinyArtifact& recorded = with(fmt::format("method: rtn, {}: 16", key));
  EXPECT_EQ(recorded.metadata.at("spec").at(key), 16);
  EXPECT_EQ(with("method: rtn").metadata.at("spec").at(key), 8);
  EXPECT_TRUE(same_weights(recorded, with("method: rtn"))) << "recorded, nothing else";
}

// config.json says it, and each block has its measured scales.
void check_write_runtime_bits() {
  const TinyArtifact& off = with("method: rtn, format: compressed-tensors");
  const TinyArtifact& on = with("method: rtn, format: compressed-tensors, write_runtime_bits: true");
  const auto bits = [](const TinyArtifact& artifact) {
    return models::read_runtime_bits(artifact.checkpoint().config().at("quantization_config"), "config.json");
  };
  EXPECT_EQ(bits(off).activation_bits, std::nullopt);
  EXPECT_EQ(bits(off).kv_bits, std::nullopt);
  EXPECT_FALSE(off.checkpoint().contains("model.layers.0.self_attn.k_scale"));
  EXPECT_EQ(bits(on).activation_bits, 8);
  EXPECT_EQ(bits(on).kv_bits, 8);
  for (const char* tensor : {"model.layers.0.self_attn.k_scale", "model.layers.1.self_attn.v_scale"}) {
    const at::Tensor scale = on.checkpoint().load(tensor, {1}, at::kFloat);
    EXPECT_GT(scale.item<float>(), 1e-4f) << tensor;
  }
  const TinyArtifact& activations = with("method: rtn, format: compressed-tensors, write_runtime_bits: true, kv_cache_bits: 16");
  EXPECT_EQ(bits(activations).kv_bits, std::nullopt);
  EXPECT_FALSE(activations.checkpoint().contains("model.layers.0.self_attn.k_scale"));
  EXPECT_THROW(with("method: rtn, write_runtime_bits: true"), Error);  // floats have no place for it
}

void check_lm_head() {
  const TinyArtifact& half = with("method: rtn, format: compressed-tensors");
  const TinyArtifact& codes = with("method: rtn, format: compressed-tensors, lm_head: int8");
  EXPECT_TRUE(half.checkpoint().contains("lm_head.weight"));
  EXPECT_FALSE(codes.checkpoint().contains("lm_head.weight"));
  EXPECT_TRUE(codes.checkpoint().contains("lm_head.weight_packed"));
  EXPECT_LT(codes.checkpoint().total_bytes(), half.checkpoint().total_bytes());
}

const std::string kScaleOnly = "clip: false, rounding: nearest";
const std::string kClipOnly = "scale: false, rounding: nearest";

void check_scale() {
  EXPECT_GT(scaled(with(kScaleOnly)), 7);
  EXPECT_EQ(scaled(with(kScaleOnly + ", scale: false")), 0);
  EXPECT_LT(first_group(with(kScaleOnly), kError), 0.9 * first_group(with(kScaleOnly + ", scale: false"), kError));
}

void check_n_grid() {
  for (const int grid : {4, 7}) {
    for (const LinearReport& report : with(kScaleOnly + (grid == 4 ? "" : ", n_grid: 7")).result.model.reports) {
      EXPECT_NEAR(report.scale_ratio * grid, std::round(report.scale_ratio * grid), 1e-6) << report.name;
    }
  }
  // Steps of 1/4 are among those of 1/20.
  EXPECT_LT(first_group(with(kScaleOnly + ", n_grid: 20"), kScaledError), first_group(with(kScaleOnly), kScaledError));
}

void check_duo_scaling() {
  const auto kinds = [](const TinyArtifact& artifact) {
    std::set<std::string> found;
    for (const LinearReport& report : artifact.result.model.reports) found.insert(report.scale_kind);
    return found;
  };
  const TinyArtifact& off = with(kScaleOnly + ", duo_scaling: off");
  const TinyArtifact& on = with(kScaleOnly + ", duo_scaling: on");
  EXPECT_FALSE(kinds(off).contains("duo"));
  EXPECT_TRUE(kinds(off).contains("plain"));
  EXPECT_FALSE(kinds(on).contains("plain"));
  EXPECT_TRUE(kinds(on).contains("duo"));
  const double best = std::min(first_group(off, kScaledError), first_group(on, kScaledError));
  EXPECT_LE(first_group(with(kScaleOnly), kScaledError), 1.02 * best) << "both: the better of the two";
}

void check_refine() {
  const TinyArtifact& refined = with(kScaleOnly + ", refine: true");
  EXPECT_GT(
      count_if(refined, [](const LinearReport& r) { return std::abs(r.scale_ratio * 4 - std::round(r.scale_ratio * 4)) > 1e-6; }),
      0);
  EXPECT_LT(first_group(refined, kScaledError), first_group(with(kScaleOnly), kScaledError));
}

void check_objective() {
  const TinyArtifact& gram = with(kScaleOnly + ", n_grid: 10");
  const TinyArtifact& block = with(kScaleOnly + ", n_grid: 10, objective: block");
  EXPECT_FALSE(same_weights(gram, block));
  EXPECT_GT(scaled(block), 0);
  EXPECT_LE(first_group(gram, kScaledError), first_group(block, kScaledError)) << "each is best by its own measure";
}

void check_clip() {
  EXPECT_GT(clipped(with(kClipOnly)), 7);
  EXPECT_EQ(clipped(with(kClipOnly + ", clip: false")), 0);
  EXPECT_LT(first_group(with(kClipOnly), kError), first_group(with(kClipOnly + ", clip: false"), kError));
}

void check_clip_steps() {
  EXPECT_LT(first_group(with(kClipOnly + ", clip_steps: 20"), kError), first_group(with(kClipOnly + ", clip_steps: 2"), kError));
}

// What is left of the narrowest range: with export_compatible weights are clipped, but not rounded.
double narrowest(const TinyArtifact& artifact) {
  const auto ranges = [](const at::Tensor& weight) {
    const at::Tensor groups = weight.reshape({weight.size(0), -1, 32});
    return groups.amax(2).sub(groups.amin(2));
  };
  return ranges(artifact.weight(kQ)).div(ranges(source_weight(kQ))).min().item<double>();
}

void check_max_shrink() {
  const std::string clip_alone = "scale: false, bits: 2, group_size: 32, clip_steps: 10, export_compatible: true, max_shrink: ";
  EXPECT_EQ(narrowest(with(clip_alone + "0")), 1);
  EXPECT_NEAR(narrowest(with(clip_alone + "0.1")), 0.9, 0.03);
  EXPECT_LT(narrowest(with(clip_alone + "0.6")), 0.8);
}

void check_rounding() {
  const TinyArtifact& nearest = with("bits: 3, rounding: nearest");
  const TinyArtifact& gram = with("bits: 3");
  const TinyArtifact& adaround = with("bits: 3, rounding: adaround");
  EXPECT_TRUE(same_weights(nearest, with("bits: 3, rounding: rtn")));
  for (const LinearReport& report : nearest.result.model.reports) EXPECT_EQ(report.off_diagonal, -1) << report.name;
  EXPECT_LT(first_group(gram, kError), 0.9 * first_group(nearest, kError));
  EXPECT_LT(first_group(adaround, kError), 0.95 * first_group(nearest, kError));
  EXPECT_FALSE(same_weights(gram, adaround));
}

// The column that is rounded first has nothing to make up for.
void check_column_order() {
  const at::Tensor nearest = with("method: rtn, bits: 3").weight(kQ);
  const at::Tensor activation = with("method: gptq, bits: 3").weight(kQ);
  const at::Tensor natural = with("method: gptq, bits: 3, column_order: natural").weight(kQ);
  EXPECT_TRUE(same_column(natural, nearest, 0));
  EXPECT_FALSE(same_column(natural, nearest, test::kTinyOutlier));
  EXPECT_TRUE(same_column(activation, nearest, test::kTinyOutlier));
  EXPECT_FALSE(same_column(activation, nearest, 0));
}

void check_damping() {
  const double little = first_group(with("method: gptq, bits: 3, damping: 0.01"), kError);
  const double much = first_group(with("method: gptq, bits: 3, damping: 10"), kError);
  EXPECT_LT(little, 0.95 * much) << "a large diagonal leaves little to compensate";
  EXPECT_LT(much, first_group(with("method: rtn, bits: 3"), kError));
}

void check_off_diagonal() {
  const TinyArtifact& none = with("method: gptq, bits: 3, off_diagonal: 0");
  const TinyArtifact& half = with("method: gptq, bits: 3, off_diagonal: 0.5");
  const TinyArtifact& all = with("method: gptq, bits: 3, off_diagonal: 1");
  EXPECT_TRUE(at::equal(none.weight(kQ), with("method: rtn, bits: 3").weight(kQ))) << "no compensation is rounding to nearest";
  EXPECT_LT(first_group(half, kError), first_group(none, kError));
  EXPECT_LT(first_group(all, kError), first_group(half, kError));
  EXPECT_EQ(half.report(kQ).off_diagonal, 0.5);
  const LinearReport& chosen = with("method: gptq, bits: 3, off_diagonal: auto").report(kQ);
  EXPECT_GE(chosen.off_diagonal, 0);
  EXPECT_LE(chosen.off_diagonal, 1);
  EXPECT_GT(chosen.held_back_error, 0) << "chosen on rows that were held back";
}

void check_sweeps() {
  EXPECT_LT(first_group(with("method: gptq, bits: 3, sweeps: 3"), kError),
            first_group(with("method: gptq, bits: 3, sweeps: 0"), kError));
}

// A first block in 2 bits: whether the second is measured behind it or behind the float one.
void check_propagate_error() {
  const std::string coarse = "method: rtn, overrides: [{pattern: 're:.*layers\\.0\\..*', bits: 2}]";
  const std::string exact = "method: rtn, overrides: [{pattern: 're:.*layers\\.0\\..*', bits: 16}]";
  EXPECT_NE(with(coarse).report(kSecondQ).rtn_error, with(exact).report(kSecondQ).rtn_error);
  EXPECT_EQ(with(coarse + ", propagate_error: false").report(kSecondQ).rtn_error, with(exact).report(kSecondQ).rtn_error);
}

void check_format() {
  EXPECT_TRUE(with("method: rtn, format: awq-gemm").checkpoint().contains(kQ + ".qweight"));
  EXPECT_EQ(with("method: rtn, format: awq-gemm").config.at("quantization_config").at("quant_method"), "awq");
  EXPECT_TRUE(with("method: rtn, format: compressed-tensors").checkpoint().contains(kQ + ".weight_packed"));
  EXPECT_EQ(with("method: rtn, format: compressed-tensors").config.at("quantization_config").at("quant_method"),
            "compressed-tensors");
  EXPECT_FALSE(with("method: rtn").config.contains("quantization_config"));
  EXPECT_LE(distinct_values(with("method: rtn").weight(kQ).narrow(0, 0, 1).narrow(1, 0, 32)), 16);
}

void check_version() { EXPECT_TRUE(same_weights(with("method: rtn, version: GEMM"), with("method: rtn, format: awq-gemm"))); }

void check_smooth_only() {
  const TinyArtifact& smoothed = with("smooth_only: true, group_size: 32");
  EXPECT_FALSE(smoothed.config.contains("quantization_config"));
  EXPECT_TRUE(smoothed.checkpoint().contains("model.layers.0.input_layernorm.weight"));
  EXPECT_FALSE(at::equal(smoothed.weight(kQ), source_weight(kQ))) << "scaled";
  EXPECT_GT(distinct_values(smoothed.weight(kQ).narrow(0, 0, 1).narrow(1, 0, 32)), 30) << "not rounded";
  EXPECT_TRUE(same_weights(smoothed, with("smoothing_only: true")));
  EXPECT_TRUE(same_weights(smoothed, with("format: smoothed")));
}

// What clipping cuts off stays cut off, but no weight is rounded.
void check_export_compatible() {
  const std::string only = "scale: false, bits: 2, group_size: 32, max_shrink: 0.7, ";
  const at::Tensor weight = with(only + "export_compatible: true").weight(kQ);
  const at::Tensor before = source_weight(kQ);
  EXPECT_FALSE(with(only + "export_compatible: true").config.contains("quantization_config"));
  EXPECT_LT(weight.abs().sum().item<double>(), before.abs().sum().item<double>());
  EXPECT_GT(weight.eq(before).to(at::kFloat).mean().item<double>(), 0.5) << "inside of the ranges nothing changes";
  EXPECT_TRUE(at::equal(with(only + "smooth_only: true").weight(kQ), before));
}

void check_ignore() {
  const TinyArtifact& artifact = with("method: rtn, ignore: [down_proj]");
  EXPECT_TRUE(at::equal(artifact.weight(kDown), source_weight(kDown)));
  EXPECT_FALSE(at::equal(artifact.weight(kQ), source_weight(kQ)));
  // A typo is caught; what a recipe says of other models is not.
  EXPECT_THROW(with("method: rtn, ignore: [dwon_proj]"), Error);
}

// Anywhere in the name, where `ignore` means its end.
void check_modules_to_not_convert() {
  const TinyArtifact& artifact = with("method: rtn, modules_to_not_convert: [layers.0., visual]");
  EXPECT_TRUE(at::equal(artifact.weight(kQ), source_weight(kQ)));
  EXPECT_TRUE(at::equal(artifact.weight(kDown), source_weight(kDown)));
  EXPECT_FALSE(at::equal(artifact.weight(kSecondQ), source_weight(kSecondQ)));
  EXPECT_EQ(
      std::count_if(artifact.messages.begin(), artifact.messages.end(),
                    [](const std::string& line) { return line.find("'re:.*visual' matches no module") != std::string::npos; }),
      1);
  EXPECT_THROW(with("method: rtn, ignore: ['re:.*visual']"), Error);
}

// 192 channels, of which groups of 128 leave 64 over.
void check_pad_intermediate() {
  EXPECT_EQ(with("method: rtn, group_size: 128, pad_intermediate: auto").checkpoint().config().at("intermediate_size"), 256);
  const TinyArtifact& padded = with("method: rtn, format: dequantized, group_size: 16, pad_intermediate: 80");
  EXPECT_EQ(padded.checkpoint().config().at("intermediate_size"), 240);
  const at::Tensor down = padded.checkpoint().view(kDown + ".weight");
  EXPECT_EQ(down.size(1), 240);
  EXPECT_EQ(down.narrow(1, 192, 48).abs().max().item<float>(), 0);
  EXPECT_GT(down.narrow(1, 160, 32).abs().max().item<float>(), 0);
}

void check_mappings() {
  const TinyArtifact& artifact = with(kScaleOnly + ", mappings: [{smooth_layer: up_proj, balance_layers: [down_proj]}]");
  for (const LinearReport& report : artifact.result.model.reports) {
    if (!report.name.ends_with("down_proj")) {
      EXPECT_EQ(report.scale_kind, "identity") << report.name;
    }
  }
  EXPECT_GT(scaled(artifact), 0);
}

void check_overrides() {
  const TinyArtifact& artifact = with(
      "method: rtn, bits: 3, overrides: [{pattern: q_proj, bits: 8, group_size: 64, symmetric: true}, {pattern: o_proj, bits: "
      "16}]");
  const TinyArtifact& plain = with("method: rtn, bits: 3");
  EXPECT_EQ(artifact.report(kQ).bits, 8);
  EXPECT_EQ(artifact.report(kQ).group_size, 64);
  EXPECT_LT(artifact.report(kQ).error, 0.01 * plain.report(kQ).error);
  EXPECT_EQ(artifact.report(kDown).bits, 3);
  EXPECT_TRUE(at::equal(artifact.weight(kO), source_weight(kO)));
  const at::Tensor group = artifact.weight(kQ).narrow(0, 0, 1).narrow(1, 0, 64);
  EXPECT_GT(distinct_values(group), 16);
  EXPECT_THROW(with("method: rtn, overrides: [{pattern: dwon_proj, bits: 8}]"), Error) << "a typo";
}

const std::string kPlanned = "method: rtn, target_bits: 3.5";

void check_target_bits() {
  const TinyArtifact& artifact = with(kPlanned);
  std::set<int> bits;
  for (const LinearReport& report : artifact.result.model.reports) bits.insert(report.bits);
  EXPECT_GE(bits.size(), 2u);
  EXPECT_LE(artifact.metadata.at("mean_bits").get<double>(), 3.5);
  EXPECT_GT(artifact.metadata.at("mean_bits").get<double>(), 3.2);
  EXPECT_TRUE(with("method: rtn").metadata.at("mean_bits").is_null());
}

void check_bit_choices() {
  for (const LinearReport& report : with(kPlanned + ", bit_choices: [3, 8]").result.model.reports) {
    EXPECT_TRUE(report.bits == 3 || report.bits == 8) << report.name << " " << report.bits;
  }
  EXPECT_GT(count_if(with(kPlanned), [](const LinearReport& report) { return report.bits != 3 && report.bits != 8; }), 0);
}

void check_salient_ratio() {
  const TinyArtifact& kept = with("method: rtn, bits: 3, salient_ratio: 0.02");
  EXPECT_EQ(with("method: rtn, bits: 3").report(kQ).salient_channels, 0);
  EXPECT_GT(kept.report(kQ).salient_channels, 0);
  EXPECT_LT(kept.report(kQ).salient_channels, 6);
  EXPECT_TRUE(same_column(kept.weight(kQ), source_weight(kQ), test::kTinyOutlier)) << "the largest input stays in float";
  EXPECT_LT(kept.report(kQ).error, 0.6 * with("method: rtn, bits: 3").report(kQ).error);
  std::set<int64_t> counts;
  for (const LinearReport& report : with("method: rtn, bits: 3, salient_ratio: 'auto:0.1'").result.model.reports) {
    counts.insert(report.salient_channels);
    EXPECT_LE(report.salient_channels, 20);
  }
  EXPECT_GT(counts.size(), 1u) << "each linear its own";
}

// Smaller slices of a weight, the same result.
void check_max_chunk_memory() {
  const at::Tensor weight = test::golden_tensor("weight", {2048, 128}, 0, 1);
  const at::Tensor inputs = test::golden_tensor("inputs", {256, 128}, 0, 1);
  const at::Tensor gram = inputs.t().matmul(inputs);
  const auto search = [&](const std::string& size) {
    const GivenSettings given = given_settings(ConfigNode::parse("{max_chunk_memory: " + size + "}", "test"));
    const AwqOptions awq = make_quantization_config(given, "test").awq;
    EXPECT_EQ(awq.scale_search.max_chunk_memory, awq.clip_search.max_chunk_memory);
    test::CountingAllocator& counter = test::CountingAllocator::install();
    counter.reset_peak();
    const size_t before = counter.live();
    const double error = quant::total(quant::search_clip(weight, gram, 256, {3, 32, true}, awq.clip_search).error_after);
    return std::pair(error, counter.peak() - before);
  };
  const auto [whole_error, whole_peak] = search("1GiB");
  const auto [sliced_error, sliced_peak] = search("200KB");
  EXPECT_LT(sliced_peak, whole_peak / 3);
  EXPECT_NEAR(sliced_error, whole_error, 1e-4 * whole_error) << "the same but for the order of sums";
  EXPECT_EQ(with("method: awq, max_chunk_memory: 10KB").metadata.at("search").at("max_chunk_memory"), 10'000);
}

void check_rows_curve() {
  const Json& metadata = with("method: awq, rows_curve: true").metadata;
  ASSERT_TRUE(metadata.contains("rows_curve"));
  const Json& curve = metadata.at("rows_curve");
  ASSERT_GE(curve.size(), 2u);
  EXPECT_LT(curve.front().at(0), curve.back().at(0)) << "of more and more rows";
  EXPECT_FALSE(with("method: awq").metadata.contains("rows_curve"));
}

void check_self_generated() {
  const TinyArtifact& own = with("method: awq, self_generated: 0.25");
  const Json& calibration = own.metadata.at("calibration");
  EXPECT_EQ(calibration.at("self_generated").at("share"), 0.25);
  EXPECT_GE(own.metadata.at("calibration_tokens"), 24 * 40 * 5 / 4);
  EXPECT_EQ(with("method: rtn").metadata.at("calibration_tokens"), 24 * 40);
  EXPECT_FALSE(with("method: rtn, self_generated: 0.25").metadata.at("calibration").contains("self_generated"))
      << "nothing is fitted";
}

void check_batch_tokens() {
  const TinyArtifact& small = with("method: rtn, batch_tokens: 64");
  const TinyArtifact& large = with("method: rtn, batch_tokens: 100000");
  EXPECT_LT(small.peak + 500'000, large.peak);
  EXPECT_TRUE(same_weights(small, large)) << "rounding to nearest does not depend on activations";
}

void check_n_parallel_calib_samples() {
  const TinyArtifact& one = with("method: rtn, n_parallel_calib_samples: 1");
  EXPECT_LT(one.peak + 500'000, with("method: rtn, n_parallel_calib_samples: 1000").peak);
  EXPECT_EQ(one.metadata.at("fingerprint"), with("method: rtn, batch_tokens: 64").metadata.at("fingerprint"))
      << "rows of 64 tokens";
}

void check_max_calib_samples() {
  EXPECT_EQ(with("method: rtn, max_calib_samples: 20").metadata.at("calibration_tokens"), 20 * 40);
  EXPECT_EQ(with("method: rtn, samples: 20").metadata.at("calibration_tokens"), 20 * 40);
  EXPECT_NE(with("method: rtn, max_calib_samples: 20").report(kQ).rtn_error, with("method: rtn").report(kQ).rtn_error);
}

void check_max_calib_seq_len() {
  EXPECT_EQ(with("method: rtn, max_calib_seq_len: 32").metadata.at("calibration_blocks"), 24 * 40 / 32);
  EXPECT_EQ(with("method: rtn, max_seq_len: 64").metadata.at("calibration_blocks"), 24 * 40 / 64);
}

void check_split() {
  EXPECT_EQ(with("method: rtn").metadata.at("calibration").at("file"), "train.jsonl");
  EXPECT_EQ(with("method: rtn, split: validation").metadata.at("calibration").at("file"), "validation.jsonl");
  EXPECT_EQ(with("method: rtn, split: validation").metadata.at("calibration_tokens"), 20 * 33);
}

// The texts in a field of another name give the same tokens; a wrong name is an error that says where and what is there.
void check_text_column() {
  const test::TemporaryFolder folder;
  std::string lines;
  for (const Json& row : models::read_dataset(test::kDemo / "data/calib_mixed.jsonl").rows) {
    lines += dump_json(Json{{"content", row.at("text")}, {"text", "a decoy"}, {"id", 1}}) + "\n";
  }
  write_file(folder.path() / "c.jsonl", lines);
  const auto tokens = [&](const std::string& column) {
    QuantizeJob job = test::demo_job();
    job.calibration_file = folder.path() / "c.jsonl";
    const GivenSettings given = given_settings(ConfigNode::parse("{self_generated: 0, text_column: " + column + "}", "test"));
    apply_to_job(make_quantization_config(given, "test"), job);
    return prepare_calibration(job).blocks.ids;
  };
  EXPECT_TRUE(at::equal(tokens("content"), prepare_calibration(test::demo_job()).blocks.ids));
  try {
    tokens("body");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(),
                ::testing::AllOf(HasSubstr("c.jsonl:1: field 'body' is not there"), HasSubstr("content, id, text")));
    EXPECT_THAT(error.hint(), HasSubstr("text_column"));
  }
}

void check_max_shard_size() {
  const auto shards = [](const TinyArtifact& artifact) {
    return std::count_if(fs::directory_iterator(artifact.folder), fs::directory_iterator(),
                         [](const auto& entry) { return entry.path().extension() == ".safetensors"; });
  };
  EXPECT_EQ(shards(with("method: rtn")), 1);
  EXPECT_GT(shards(with("method: rtn, max_shard_size: 500KB")), 2);
  EXPECT_TRUE(same_weights(with("method: rtn"), with("method: rtn, max_shard_size: 500KB")));
}

void check_max_memory() {
  EXPECT_TRUE(same_weights(with("method: rtn, max_memory: 1GB"), with("method: rtn")));
  try {
    with("method: rtn, max_memory: 10KB");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "OUT_OF_MEMORY");
    EXPECT_THAT(error.message(), HasSubstr("are allowed"));
  }
}

// llm-awq's result names three groups of the first block and nothing of the second.
void check_search_given() {
  const std::string file = std::string(SALIENT_SOURCE_DIR) + "/tests/data/search/llm_awq.pt";
  const TinyArtifact& given = with("search: \"" + file + "\"");
  EXPECT_EQ(given.report(kQ).scale_kind, "given");
  EXPECT_EQ(given.report(kSecondQ).scale_kind, "identity");
  EXPECT_EQ(count_if(given, [](const LinearReport& report) { return report.scale_kind == "given"; }), 6);
}

void check_save_search() {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "found.search";
  with("save_search: \"" + file.string() + "\"");
  EXPECT_EQ(read_search(file).scales.size(), 8u);
}

const std::vector<test::Effect> kSettingEffects = {
    {"method", check_method},
    {"bits", check_bits},
    {"group_size", check_group_size},
    {"zero_point", check_zero_point},
    {"symmetric", check_symmetric},
    {"activation_bits", [] { check_runtime_bits("activation_bits"); }},
    {"kv_cache_bits", [] { check_runtime_bits("kv_cache_bits"); }},
    {"write_runtime_bits", check_write_runtime_bits},
    {"lm_head", check_lm_head},
    {"scale", check_scale},
    {"n_grid", check_n_grid},
    {"duo_scaling", check_duo_scaling},
    {"refine", check_refine},
    {"objective", check_objective},
    {"clip", check_clip},
    {"clip_steps", check_clip_steps},
    {"max_shrink", check_max_shrink},
    {"rounding", check_rounding},
    {"column_order", check_column_order},
    {"damping", check_damping},
    {"off_diagonal", check_off_diagonal},
    {"sweeps", check_sweeps},
    {"propagate_error", check_propagate_error},
    {"format", check_format},
    {"version", check_version},
    {"smooth_only", check_smooth_only},
    {"export_compatible", check_export_compatible},
    {"pad_intermediate", check_pad_intermediate},
    {"ignore", check_ignore},
    {"modules_to_not_convert", check_modules_to_not_convert},
    {"mappings", check_mappings},
    {"overrides", check_overrides},
    {"target_bits", check_target_bits},
    {"bit_choices", check_bit_choices},
    {"salient_ratio", check_salient_ratio},
    {"max_chunk_memory", check_max_chunk_memory},
    {"rows_curve", check_rows_curve},
    {"self_generated", check_self_generated},
    {"batch_tokens", check_batch_tokens},
    {"n_parallel_calib_samples", check_n_parallel_calib_samples},
    {"max_calib_samples", check_max_calib_samples},
    {"max_calib_seq_len", check_max_calib_seq_len},
    {"split", check_split},
    {"search", check_search_given},
    {"save_search", check_save_search},
    {"text_column", check_text_column},
    {"max_shard_size", check_max_shard_size},
    {"max_memory", check_max_memory},
};

INSTANTIATE_TEST_SUITE_P(Setting, ParameterEffect, ::testing::ValuesIn(kSettingEffects), test::kEffectName);

TEST(ParameterEffects, EverySettingHasOne) {
  std::set<std::string> settings;
  for (const QuantizationSetting& setting : quantization_settings()) settings.insert(std::string(setting.key));
  EXPECT_EQ(test::keys_of(kSettingEffects), settings);
}

}  // namespace
}  // namespace salient::pipeline
