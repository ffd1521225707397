#include "pipeline/quantize_progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/error.h"

namespace salient::pipeline {
namespace {

LinearReport full_report() {
  LinearReport report;
  report.name = "model.layers.3.mlp.experts.7.down_proj";
  report.bits = 3;
  report.group_size = -1;
  report.rtn_error = 1.0 / 3;
  report.scaled_error = 0.25;
  report.clipped_error = 0.2;
  report.error = 0.1;
  report.scale_kind = "duo";
  report.scale_ratio = 0.55;
  report.clipped_share = 0.75;
  report.held_back_nearest = 0.22;
  report.held_back_error = 0.12;
  report.off_diagonal = 0.0;  // measured, and 0
  report.dead_channels = 2;
  report.salient_channels = 5;
  report.salience_correlation = -0.25;
  report.salience_quantiles = {0, 0.1, 0.2, 0.3, 0.5, 2, 9};
  report.salience_top_share = 0.125;
  report.sensitivity = {{2, 0.9}, {3, 0.3}, {10, 0.001}};
  report.in_features = 768;
  report.rows_curve = {{2, 0.2}, {16, 0.12}};
  report.warnings = {"fp16 scales overflow", "constant group"};
  report.routed_tokens = 0;
  return report;
}

void expect_equal(const LinearReport& a, const LinearReport& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.bits, b.bits);
  EXPECT_EQ(a.group_size, b.group_size);
  EXPECT_EQ(a.rtn_error, b.rtn_error);
  EXPECT_EQ(a.scaled_error, b.scaled_error);
  EXPECT_EQ(a.clipped_error, b.clipped_error);
  EXPECT_EQ(a.error, b.error);
  EXPECT_EQ(a.scale_kind, b.scale_kind);
  EXPECT_EQ(a.scale_ratio, b.scale_ratio);
  EXPECT_EQ(a.clipped_share, b.clipped_share);
  EXPECT_EQ(a.held_back_nearest, b.held_back_nearest);
  EXPECT_EQ(a.held_back_error, b.held_back_error);
  EXPECT_EQ(a.off_diagonal, b.off_diagonal);
  EXPECT_EQ(a.dead_channels, b.dead_channels);
  EXPECT_EQ(a.salient_channels, b.salient_channels);
  EXPECT_EQ(a.salience_correlation, b.salience_correlation);
  EXPECT_EQ(a.salience_quantiles, b.salience_quantiles);
  EXPECT_EQ(a.salience_top_share, b.salience_top_share);
  EXPECT_EQ(a.sensitivity, b.sensitivity);
  EXPECT_EQ(a.in_features, b.in_features);
  EXPECT_EQ(a.rows_curve, b.rows_curve);
  EXPECT_EQ(a.warnings, b.warnings);
  EXPECT_EQ(a.routed_tokens, b.routed_tokens);
}

TEST(LinearReportJson, EveryFieldComesBackThroughText) {
  expect_equal(linear_report_from_json(parse_json(dump_json(to_json(full_report())), "test"), "test"), full_report());
}

TEST(LinearReportJson, KeysAreThoseOfTheDocumentedFormat) {
  const Json json = to_json(full_report());
  EXPECT_EQ(json.at("sensitivity"), (Json{{"2", 0.9}, {"3", 0.3}, {"10", 0.001}}));
  EXPECT_EQ(json.at("salience").at("top_share"), 0.125);
  EXPECT_EQ(json.at("salience").at("quantiles").size(), 7U);
  for (const char* key : {"bits", "group_size", "scaled_error", "clipped_error", "held_back_nearest", "held_back_error",
                          "off_diagonal", "dead_channels", "salient_channels", "salience_correlation", "warnings", "scale", "ratio",
                          "clipped_share", "rtn_error", "error"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
}

TEST(LinearReportJson, WhatWasNotMeasuredHasNoKeyAndEarlierVersionsAreRead) {
  const Json old = {{"name", "a.q_proj"}, {"rtn_error", 2.0}, {"error", 1.0},
                    {"scale", "plain"},   {"ratio", 0.5},     {"clipped_share", 0.25}};
  const LinearReport report = linear_report_from_json(old, "old");
  LinearReport expected;
  expected.name = "a.q_proj";
  expected.rtn_error = 2;
  expected.error = 1;
  expected.scale_kind = "plain";
  expected.scale_ratio = 0.5;
  expected.clipped_share = 0.25;
  expect_equal(report, expected);
  EXPECT_EQ(to_json(report), old);
}

TEST(LinearReportJson, ErrorsThatAreNotFiniteSurviveTheFile) {
  LinearReport report = full_report();
  report.rtn_error = std::numeric_limits<double>::infinity();
  report.error = std::numeric_limits<double>::quiet_NaN();
  report.scaled_error = std::numeric_limits<double>::quiet_NaN();
  const LinearReport back = linear_report_from_json(parse_json(dump_json(to_json(report)), "test"), "test");
  EXPECT_TRUE(std::isnan(back.rtn_error));
  EXPECT_TRUE(std::isnan(back.error));
  EXPECT_TRUE(std::isnan(back.scaled_error));
  EXPECT_EQ(back.clipped_error, 0.2);
}

TEST(LinearReportJson, BrokenEntriesAreNamed) {
  const auto message_of = [](const char* key, const Json& value) {
    Json json = to_json(full_report());
    json[key] = value;
    try {
      linear_report_from_json(json, "file: layers[4]");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
      return error.message();
    }
    return std::string("no error");
  };
  using testing::AllOf;
  using testing::HasSubstr;
  EXPECT_THAT(message_of("sensitivity", {{"two", 1.0}}), AllOf(HasSubstr("layers[4]"), HasSubstr("down_proj"), HasSubstr("'two'")));
  EXPECT_THAT(message_of("sensitivity", 3), HasSubstr("sensitivity"));
  EXPECT_THAT(message_of("warnings", {1, 2}), HasSubstr("warnings"));
  EXPECT_THAT(message_of("salience", {{"quantiles", {"a"}}}), HasSubstr("quantiles"));
  EXPECT_THAT(message_of("error", "much"), HasSubstr("'error'"));
  EXPECT_THAT(message_of("bits", "four"), HasSubstr("'bits'"));
  EXPECT_THROW(linear_report_from_json(Json::array(), "x"), Error);
}

}  // namespace
}  // namespace salient::pipeline
