#include "eval/sensitivity_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace salient::eval {
namespace {

using ::testing::HasSubstr;

TEST(SensitivityReport, TableAndJsonAreSortedByCost) {
  Sensitivity sensitivity;
  sensitivity.windows = 3;
  sensitivity.window = 8;
  sensitivity.whole = {{0.4, 0.01}, {0.9, std::nullopt}};
  sensitivity.parts = {{"model.layers.0", {{0.1, 0.001}, {0.99, std::nullopt}}, {{0.3, std::nullopt}, {0.95, std::nullopt}}},
                       {"model.layers.1", {{0.3, 0.002}, {0.97, std::nullopt}}, {{0.1, std::nullopt}, {0.96, std::nullopt}}}};
  const Json json = to_json(sensitivity);
  EXPECT_EQ(json.at("parts").at(0).at("part"), "model.layers.1");
  EXPECT_NEAR(json.at("parts").at(0).at("share").get<double>(), 0.75, 1e-12);
  EXPECT_NEAR(json.at("sum_of_only").get<double>(), 0.4, 1e-12);
  EXPECT_FALSE(json.contains("fallback"));
  const std::string table = to_table(sensitivity);
  EXPECT_LT(table.find("model.layers.1"), table.find("model.layers.0"));
  EXPECT_THAT(table, HasSubstr("########################  "));
  EXPECT_THAT(table, HasSubstr("100.0 % of that: errors are small enough to be added"));
  EXPECT_THAT(to_table(sensitivity, 1), HasSubstr("and 1 more, which add 25.0 %"));
}

}  // namespace
}  // namespace salient::eval
