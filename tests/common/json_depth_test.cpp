// JSON that is nested deeper than a stack: refused before it is parsed.
#include "common/json_depth.h"

#include <gtest/gtest.h>

#include <string>

#include "common/error.h"
#include "common/json.h"

namespace salient {
namespace {

std::string nested(int levels, const std::string& open = "[", const std::string& close = "]") {
  std::string text;
  for (int i = 0; i < levels; ++i) text += open;
  text += "1";
  for (int i = 0; i < levels; ++i) text += close;
  return text;
}

TEST(JsonDepth, IsThatOfTheDeepestPlace) {
  EXPECT_FALSE(is_too_deep_json(nested(kMostJsonLevels)));
  EXPECT_TRUE(is_too_deep_json(nested(kMostJsonLevels + 1)));
  EXPECT_TRUE(is_too_deep_json("[1, " + nested(kMostJsonLevels, R"({"a": )", "}") + "]"));
  EXPECT_FALSE(is_too_deep_json("[" + nested(400) + ", " + nested(400) + "]"));
  EXPECT_FALSE(is_too_deep_json("\"" + nested(2000) + "\""));
  EXPECT_FALSE(is_too_deep_json(R"("\"[[" )"));
  EXPECT_TRUE(is_too_deep_json("\"" + nested(2000) + "\\\\\"" + nested(501)));
}

TEST(JsonDepth, ADeepValueIsAnErrorOfTheFile) {
  for (const std::string& text : {nested(200000), nested(300000, R"({"a":)", "}"), std::string(1000000, '[')}) {
    try {
      parse_json(text, "config.json");
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
      EXPECT_NE(error.message().find("config.json: found lists and objects within each other more than 500 levels deep"),
                std::string::npos)
          << error.message();
    }
  }
  EXPECT_EQ(dump_json(parse_json(nested(500), "x")), nested(500));
}

}  // namespace
}  // namespace salient
