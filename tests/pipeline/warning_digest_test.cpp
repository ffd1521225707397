#include "pipeline/warning_digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace salient::pipeline {
namespace {

LinearReport report(const std::string& name, std::vector<std::string> warnings, int64_t dead_channels = 0) {
  LinearReport result;
  result.name = name;
  result.warnings = std::move(warnings);
  result.dead_channels = dead_channels;
  return result;
}

TEST(WarningDigest, OneLineForEachKind) {
  const std::vector<LinearReport> reports = {
      report("a", {"12 tokens left out", "damping of 1e-05"}), report("b", {"12 tokens left out", "damping of 0.01"}),
      report("c", {"12 tokens left out"}, 3), report("d", {"12 tokens left out"}), report("e", {})};
  EXPECT_THAT(warning_lines(reports),
              testing::ElementsAre("warning, 4 linears: 12 tokens left out (a, b, c and 1 more)",
                                   "warning, 2 linears: such as: damping of 1e-05 (a, b)",
                                   "warning, 1 linear: 3 input channels were 0 for every calibration token (c)"));
  const Json json = warnings_json(reports);
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[0], (Json{{"text", "12 tokens left out"}, {"linears", 4}, {"first", {"a", "b", "c"}}}));
  EXPECT_TRUE(warning_lines(std::vector<LinearReport>{report("e", {})}).empty());
}

}  // namespace
}  // namespace salient::pipeline
