#include "common/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "tests/support/temporary_folder.h"

namespace salient {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

template <typename Body>
std::string corruption_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
    return error.message();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(Json, ErrorsSayLineAndColumn) {
  EXPECT_THAT(corruption_of([] { parse_json("{\n  \"a\": 1,\n  \"b\": x\n}", "f.json"); }),
              StartsWith("f.json:3:8: not valid JSON: "));
  EXPECT_THAT(corruption_of([] { parse_json("", "f.json"); }), StartsWith("f.json:1:1: "));
  EXPECT_THAT(corruption_of([] { parse_json("{\"a\": 1", "f.json"); }), StartsWith("f.json:1:"));
  EXPECT_THAT(corruption_of([] { parse_json("{} {}", "f.json"); }), StartsWith("f.json:1:4: "));
  corruption_of([] { parse_json("{\"a\": \"\xff\"}", "f.json"); });
  corruption_of([] { parse_json("NaN", "f.json"); });
}

TEST(Json, RequireNamesKeyFoundAndExpected) {
  const Json object = {{"n", 4}, {"s", "text"}, {"x", 0.5}, {"z", nullptr}};
  EXPECT_EQ(require<int64_t>(object, "n", "f"), 4);
  EXPECT_EQ(require<double>(object, "n", "f"), 4.0);
  EXPECT_EQ(require<std::string>(object, "s", "f"), "text");
  EXPECT_EQ(corruption_of([&] { require<int64_t>(object, "x", "f"); }), "f: key 'x': found 0.5, expected an integer");
  EXPECT_EQ(corruption_of([&] { require<bool>(object, "s", "f"); }), "f: key 's': found \"text\", expected true or false");
  EXPECT_EQ(corruption_of([&] { require<bool>(object, "q", "f"); }), "f: key 'q' is missing, expected true or false");
  EXPECT_THAT(corruption_of([&] { require<bool>(Json::array(), "q", "f"); }), HasSubstr("expected a JSON object, found array"));
  EXPECT_EQ(value_or<int64_t>(object, "q", 7, "f"), 7);
  EXPECT_EQ(value_or<int64_t>(object, "z", 7, "f"), 7);
  EXPECT_EQ(value_or<int64_t>(object, "n", 7, "f"), 4);
  corruption_of([&] { value_or<int64_t>(object, "s", 7, "f"); });
}

TEST(Json, DumpsSortedAndReplacesInvalidUtf8) {
  EXPECT_EQ(dump_json({{"b", 1}, {"a", "\xff"}}), "{\"a\":\"\xef\xbf\xbd\",\"b\":1}");
  EXPECT_EQ(parse_ordered_json("{\"b\": 1, \"a\": 2}", "f").dump(), "{\"b\":1,\"a\":2}");
}

// Each key is compared with all before it.
TEST(Json, OrderedObjectsHaveALimitOfKeys) {
  const auto object = [](size_t keys) {
    std::string text = "{";
    for (size_t i = 0; i < keys; ++i) text += fmt::format("{}\"{}\": {{\"a\": 1}}", i > 0 ? "," : "", i);
    return text + "}";
  };
  EXPECT_EQ(parse_ordered_json("[" + object(kMostOrderedKeys) + ", {}]", "f")[0].size(), kMostOrderedKeys);
  EXPECT_EQ(parse_json(object(kMostOrderedKeys + 1), "f").size(), kMostOrderedKeys + 1);
  try {
    parse_ordered_json("[" + object(10) + ", " + object(300'000) + "]", "f");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
    EXPECT_EQ(error.message(), "f: found an object of more than 20000 keys, expected fewer");
  }
}

TEST(Json, ReadsFiles) {
  test::TemporaryFolder folder;
  write_file(folder.path() / "a.json", "[1, 2");
  EXPECT_THAT(corruption_of([&] { read_json_file(folder.path() / "a.json"); }), HasSubstr("a.json:1:"));
  EXPECT_THROW(read_json_file(folder.path() / "none.json"), Error);
}

}  // namespace
}  // namespace salient
