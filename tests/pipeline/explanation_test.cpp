#include "pipeline/explanation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Json old_layer(const std::string& name, double rtn_error, double error) {
  return {{"name", name}, {"rtn_error", rtn_error}, {"error", error}, {"scale", "duo"}, {"ratio", 0.25}, {"clipped_share", 0.5}};
}

Json new_layer(const std::string& name, double rtn_error, double error, double top_share) {
  Json layer = old_layer(name, rtn_error, error);
  layer.update({{"bits", 4},
                {"group_size", 128},
                {"scaled_error", 0.5 * rtn_error},
                {"clipped_error", 0.25 * rtn_error},
                {"held_back_nearest", 0.25 * rtn_error},
                {"held_back_error", 0.125 * rtn_error},
                {"off_diagonal", 0.75},
                {"dead_channels", 0},
                {"salient_channels", 3},
                {"salience_correlation", 0.5},
                {"sensitivity", {{"3", 4 * error}, {"4", error}}},
                {"salience", {{"quantiles", {0.0, 0.01, 0.02, 0.03, 0.05, 0.4, 6.0}}, {"top_share", top_share}}}});
  return layer;
}

void write_metadata(const std::filesystem::path& folder, const Json& layers, const Json& more = Json::object()) {
  Json metadata = {{"format", "awq-gemm"}, {"method", "AWQ"},           {"spec", {{"weight_bits", 4}, {"group_size", 128}}},
                   {"layers", layers},     {"calibration_tokens", 100}, {"calibration_blocks", 2}};
  metadata.update(more);
  write_file(folder / "quantization_metadata.json", dump_json(metadata));
  write_file(folder / "config.json", "{}");
}

const Json kNewLayers = {
    new_layer("model.layers.0.self_attn.q_proj", 8, 2, 0.1), new_layer("model.layers.0.mlp.down_proj", 40, 4, 0.3),
    new_layer("model.layers.1.self_attn.q_proj", 16, 8, 0.2), new_layer("model.layers.1.mlp.down_proj", 80, 4, 0.4)};

TEST(Explanation, LinearsWithoutAFiniteErrorDoNotCountInTheCorrelation) {
  const test::TemporaryFolder folder;
  Json layers = kNewLayers;
  write_metadata(folder.path(), layers);
  // rtn_error 8, 40, 16, 80 and top_share 0.1, 0.3, 0.2, 0.4 rise together.
  EXPECT_DOUBLE_EQ(*explain_artifact(folder.path()).salience.across, 1);
  layers.push_back(new_layer("model.layers.2.mlp.down_proj", 1, 1, 0.9));
  layers.back()["rtn_error"] = nullptr;
  write_metadata(folder.path(), layers);
  const SalienceStudy study = explain_artifact(folder.path()).salience;
  EXPECT_DOUBLE_EQ(*study.across, 1);
  EXPECT_EQ(study.across_linears, 4);
  write_metadata(folder.path(), Json{kNewLayers[0], kNewLayers[1]});
  EXPECT_FALSE(explain_artifact(folder.path()).salience.across) << "two linears are always in one order or the other";
}

TEST(Explanation, NamesAreTakenApart) {
  EXPECT_EQ(projection_of("model.layers.3.mlp.down_proj"), "down_proj");
  EXPECT_EQ(projection_of("model.layers.3.mlp.experts.17.down_proj"), "experts.down_proj");
  EXPECT_EQ(projection_of("model.layers.3.mlp.shared_expert.up_proj"), "shared_expert.up_proj");
  EXPECT_EQ(projection_of("lm_head"), "lm_head");
  EXPECT_EQ(block_of("model.layers.13.mlp.experts.17.down_proj"), 13);
  EXPECT_EQ(block_of("lm_head"), -1);
}

TEST(Explanation, SumsByProjectionAndBlock) {
  const test::TemporaryFolder folder;
  write_metadata(folder.path(), kNewLayers, {{"rows_curve", {{16, 30.0, 40.0}, {128, 20.0, 40.0}}}});
  const Explanation explanation = explain_artifact(folder.path());
  ASSERT_EQ(explanation.projections.size(), 2U);
  EXPECT_EQ(explanation.projections[0].name, "q_proj");
  EXPECT_DOUBLE_EQ(explanation.projections[0].rtn_error, 24);
  EXPECT_DOUBLE_EQ(explanation.projections[0].left, 10.0 / 24);
  EXPECT_DOUBLE_EQ(*explanation.projections[1].scaled_left, 0.5);
  EXPECT_DOUBLE_EQ(*explanation.projections[1].clipped_left, 0.25);
  EXPECT_DOUBLE_EQ(*explanation.projections[1].held_back_left, 0.5);
  ASSERT_EQ(explanation.blocks.size(), 2U);
  EXPECT_EQ(explanation.blocks[1].name, "1");
  EXPECT_DOUBLE_EQ(explanation.blocks[1].error, 12);
  EXPECT_DOUBLE_EQ(*explanation.blocks[1].mean_bits, 4);
  EXPECT_DOUBLE_EQ(explanation.total.left, 18.0 / 144);
  EXPECT_DOUBLE_EQ(*explanation.salience.within_median, 0.5);
  EXPECT_DOUBLE_EQ(*explanation.salience.across, 1);  // 8, 40, 16, 80 against 0.1, 0.3, 0.2, 0.4
  ASSERT_EQ(explanation.rows_curve.size(), 2U);
  EXPECT_EQ(explanation.rows_curve[1].rows, 128);
  EXPECT_DOUBLE_EQ(explanation.rows_curve[1].held_back_error, 20);
}

TEST(Explanation, OrdersPutTheLargestFirst) {
  const test::TemporaryFolder folder;
  write_metadata(folder.path(), kNewLayers);
  const std::vector<LinearReport> linears = explain_artifact(folder.path()).linears;
  EXPECT_EQ(sorted_linears(linears, "error")[0].name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(sorted_linears(linears, "rtn")[0].name, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(sorted_linears(linears, "ratio")[0].name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(sorted_linears(linears, "ratio")[3].name, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(sorted_linears(linears, "sensitivity")[0].name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(sorted_linears(linears, "name")[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_THROW(sorted_linears(linears, "eror"), Error);
}

TEST(Explanation, WhatIsNotThereIsSaid) {
  const test::TemporaryFolder folder;
  const auto kind_of = [&] {
    try {
      explain_artifact(folder.path());
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::kInternal;
  };
  EXPECT_EQ(kind_of(), ErrorKind::kNotFound);
  write_file(folder.path() / "quantization_metadata.json", R"({"tool": "another"})");
  EXPECT_EQ(kind_of(), ErrorKind::kUnsupported);
  write_metadata(folder.path(), Json::array());  // smoothing only
  EXPECT_EQ(kind_of(), ErrorKind::kUnsupported);
  write_metadata(folder.path(), Json::array({Json{{"name", "x"}}}));
  EXPECT_EQ(kind_of(), ErrorKind::kCorruption);
  write_metadata(folder.path(), kNewLayers, {{"rows_curve", {{1, "a", 2}}}});
  EXPECT_EQ(kind_of(), ErrorKind::kCorruption);
}

TEST(Explanation, PlotsShowEveryLinearAndWhatWasMeasured) {
  const test::TemporaryFolder folder;
  write_metadata(folder.path(), kNewLayers, {{"rows_curve", {{16, 30.0, 40.0}, {128, 20.0, 40.0}}}});
  const std::string svg = plot_explanation(explain_artifact(folder.path()));
  EXPECT_THAT(svg, AllOf(HasSubstr("model.layers.1.mlp.down_proj: as stored 4"), HasSubstr("mean |x|"),
                         HasSubstr("calibration rows"), HasSubstr("held back")));
  write_metadata(folder.path(), Json::array({old_layer("model.layers.0.self_attn.q_proj", 2, 1)}));
  const std::string old = plot_explanation(explain_artifact(folder.path()));
  EXPECT_THAT(old, AllOf(HasSubstr("rounding to nearest"), HasSubstr("no data"), Not(HasSubstr("held back")),
                         Not(HasSubstr("calibration rows"))));
}

TEST(ExplainCommand, PrintsTablesJsonPlotsAndOneLayer) {
  const test::TemporaryFolder folder;
  Json layers = kNewLayers;
  layers[2]["warnings"] = {"fp16 scales overflow"};
  layers[2]["dead_channels"] = 4;
  write_metadata(folder.path() / "new", layers, {{"rows_curve", {{16, 30.0, 40.0}, {128, 20.0, 40.0}}}});
  const test::ProgramResult all = test::run_program({"explain", "new", "--plot", "plot.svg"}, folder.path());
  EXPECT_EQ(all.exit_code, 0) << all.err;
  EXPECT_THAT(all.out, AllOf(HasSubstr("down_proj"), HasSubstr("how well salience predicts"), HasSubstr("+1.00"),
                             HasSubstr("sensitivity"), HasSubstr("-33.3 %"), HasSubstr("q_proj: fp16 scales overflow"),
                             HasSubstr("4 input channels were 0"), HasSubstr("▁")));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "plot.svg"));
  const test::ProgramResult json = test::run_program({"explain", "new", "--json"}, folder.path());
  EXPECT_EQ(parse_json(json.out, "explain --json").at("linears").size(), 4U);
  const test::ProgramResult layer = test::run_program({"explain", "new", "--layer", "re:.*layers\\.1\\.mlp.*"}, folder.path());
  EXPECT_THAT(layer.out, AllOf(HasSubstr("model.layers.1.mlp.down_proj"), HasSubstr("with the scales"), Not(HasSubstr("q_proj"))));
  EXPECT_EQ(test::run_program({"explain", "new", "--layer", "dwn_proj"}, folder.path()).exit_code, 3);
  EXPECT_THAT(test::run_program({"explain", "new", "--rows-curve"}, folder.path()).out,
              AllOf(HasSubstr("128"), Not(HasSubstr("q_proj"))));
  EXPECT_EQ(test::run_program({"explain", "new", "--sort", "size"}, folder.path()).exit_code, 2);

  write_metadata(folder.path() / "old", Json::array({old_layer("model.layers.0.self_attn.q_proj", 2, 1)}));
  const test::ProgramResult old = test::run_program({"explain", "old"}, folder.path());
  EXPECT_EQ(old.exit_code, 0) << old.err;
  EXPECT_THAT(old.out, AllOf(HasSubstr("50 %"), HasSubstr(" - "), Not(HasSubstr("sensitivity")),
                             Not(HasSubstr("salience predicts")), Not(HasSubstr("nan"))));
  EXPECT_EQ(test::run_program({"explain", "old", "--rows-curve"}, folder.path()).exit_code, 3);
}

}  // namespace
}  // namespace salient::pipeline
