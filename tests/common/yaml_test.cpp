#include "common/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "support/thrown_error.h"

namespace salient {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

template <typename Body>
std::string error_of(ErrorKind kind, Body&& body) {
  return test::error_of(body, kind).message();
}

ConfigNode parse(std::string_view text) { return ConfigNode::parse(text, "c.yaml"); }

const std::vector<std::string> kKeys = {"model", "quantization", "tasks"};

TEST(ConfigNode, ReadsTypedValues) {
  const ConfigNode root = parse("model: {path: models/demo, scale: 1e-3, on: true, n: -4, version: 0.6}\nlist: [1, two]\nempty:\n");
  const ConfigNode& model = root.get("model");
  EXPECT_EQ(model.get("path").as_string(), "models/demo");
  EXPECT_EQ(model.get("scale").as_double(), 1e-3);
  EXPECT_TRUE(model.get("on").as_bool());
  EXPECT_EQ(model.get("n").as_int64(), -4);
  EXPECT_EQ(model.get("n").as_double(), -4.0);
  EXPECT_EQ(model.get("version").as_string(), "0.6");
  ASSERT_EQ(root.get("list").list().size(), 2u);
  EXPECT_EQ(root.get("list").list()[1].path(), "list.1");
  EXPECT_FALSE(root.has("empty"));
  EXPECT_FALSE(root.has("missing"));
  EXPECT_TRUE(root.get("empty").list().empty());
  EXPECT_EQ(model.get("n").where(), "c.yaml:1:54");
}

TEST(ConfigNode, RefusesWrongTypesWithPlace) {
  const ConfigNode root = parse(
      "a:\n  bits: four\n  quoted: \"4\"\n  yes: yes\n  nan: .nan\n  big: 99999999999999999999\n  real: 4.5\n  list: []\n  octal: "
      "0x10\n");
  const ConfigNode& a = root.get("a");
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument, [&] { a.get("bits").as_int64(2, 8); }),
            "c.yaml:2:9: 'a.bits': found 'four', expected an integer from 2 to 8");
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument, [&] { a.get("quoted").as_int64(); }),
            "c.yaml:3:11: 'a.quoted': found the string '4', expected an integer");
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument, [&] { a.get("yes").as_bool(); }),
            "c.yaml:4:8: 'a.yes': found 'yes', expected true or false");
  for (const char* key : {"big", "real", "octal", "list"}) error_of(ErrorKind::kInvalidArgument, [&] { a.get(key).as_int64(); });
  error_of(ErrorKind::kInvalidArgument, [&] { a.get("nan").as_double(); });
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { a.get("real").as_int64(1); }), HasSubstr("an integer, 1 or more"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { a.get("bits").get("x"); }), HasSubstr("expected keys with values below"));
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument,
                     [&] {
                       a.get("bits").as_choice(std::vector<std::string>{"for", "six"});
                     }),
            "c.yaml:2:9: 'a.bits': found 'four', expected 'for' or 'six'; did you mean 'for'?");
}

TEST(ConfigNode, UnknownKeysNameTheNearest) {
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument, [&] { parse("model: 1\nquantisation: {}\n").check_keys(kKeys); }),
            "c.yaml:2:1: unknown key 'quantisation'; did you mean 'quantization'?");
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument, [&] { parse("zzz: 1\n").check_keys(kKeys); }),
            "c.yaml:1:1: unknown key 'zzz'; known here: model, quantization, tasks");
  parse("model: 1\ntasks:\n").check_keys(kKeys);
  parse("").check_keys(kKeys);
}

TEST(ConfigNode, RefusesMalformedFiles) {
  EXPECT_EQ(error_of(ErrorKind::kCorruption, [&] { parse("a: 1\nb: {x: 1,\n  x: 2}\n"); }),
            "c.yaml:3:3: key 'b.x' is there twice, first at c.yaml:2:5");
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse("a: [1, 2\nb: 3\n"); }), StartsWith("c.yaml:2"));
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse("a: 1\n\tb: 2\n"); }), HasSubstr("not valid YAML"));
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse("a: 1\n---\nb: 1\n"); }), HasSubstr("more than one YAML document"));
  // In which yaml-cpp finds documents without end.
  for (const char* text : {",", "- a\n,", "{a: 1},"}) {
    EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse(text); }), HasSubstr("YAML")) << text;
  }
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse("[1, 2]: 3\n"); }), HasSubstr("a key is a list"));
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse("a: *nowhere\n"); }), HasSubstr("not valid YAML"));
  EXPECT_THAT(error_of(ErrorKind::kNotFound, [&] { ConfigNode::load("/nonexistent/c.yaml"); }), HasSubstr("/nonexistent/c.yaml"));
}

TEST(ConfigNode, RefusesTreesThatUnfoldWithoutEnd) {
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse(std::string(80, '[') + std::string(80, ']')); }),
              HasSubstr("deeper than 64"));
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse("a: &x [*x]\n"); }), HasSubstr("c.yaml"));
  std::string bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n";
  for (int i = 1; i < 9; ++i) {
    bomb += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 9; ++j) bomb += fmt::format("{}*a{}", j > 0 ? "," : "", i - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse(bomb); }), HasSubstr("more than 100000 values"));
  std::string paths = "? " + std::string(100'000, 'k') + "\n: [";  // each value has the path of its keys
  for (int i = 0; i < 90'000; ++i) paths += "1,";
  EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { parse(paths + "1]"); }),
              HasSubstr("100000 bytes together, expected at most 4000"));
  std::string keys = "{";
  for (int i = 0; i < 90'000; ++i) keys += fmt::format("k{}: 1, ", i);
  EXPECT_EQ(parse(keys + "}").map().size(), 90'000u);
}

TEST(ConfigNode, OverridesSetAndReportThemselves) {
  ConfigNode root = parse("model: {path: a}\ntasks: [{limit: 1}, {limit: 2}]\nempty:\n");
  root.apply_override("model.path=b=c");
  root.apply_override("quantization.bits=3");
  root.apply_override("tasks.1.limit=9");
  root.apply_override("empty.x=[1, {y: 2}]");
  EXPECT_EQ(
      root.to_json(),
      Json::parse(
          R"({"model":{"path":"b=c"},"tasks":[{"limit":1},{"limit":9}],"empty":{"x":[1,{"y":2}]},"quantization":{"bits":3}})"));
  EXPECT_EQ(root.get("quantization").get("bits").where(), "--set quantization.bits=3");
  EXPECT_EQ(error_of(ErrorKind::kInvalidArgument, [&] { root.get("quantization").get("bits").as_bool(); }),
            "--set quantization.bits=3: 'quantization.bits': found '3', expected true or false");
  EXPECT_EQ(root.get("model").where(), "c.yaml:1:8");
  root.apply_override("quantisation.bits=3");
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument,
                       [&] {
                         root.check_keys(std::vector<std::string>{"model", "tasks", "empty", "quantization"});
                       }),
              StartsWith("--set quantisation.bits=3: unknown key 'quantisation'; did you mean 'quantization'?"));
}

TEST(ConfigNode, ARefusedOverrideChangesNothing) {
  ConfigNode root = parse("model: {path: a}\ntasks: [1]\n");
  const Json before = root.to_json();
  for (const char* bad : {"model.path", "=3", ".a=1", "a..b=1", "model.path.x=1", "tasks.1=2", "tasks.x=2", "tasks.-1=2"}) {
    error_of(ErrorKind::kInvalidArgument, [&] { root.apply_override(bad); });
    EXPECT_EQ(root.to_json(), before) << bad;
  }
  for (const char* bad : {"new.key=[1", "model.path={a: 1, a: 2}"}) {
    EXPECT_THAT(error_of(ErrorKind::kCorruption, [&] { root.apply_override(bad); }), StartsWith(fmt::format("--set {}", bad)));
    EXPECT_EQ(root.to_json(), before) << bad;
  }
}

TEST(ConfigNode, CanonicalJsonTypesScalarsAndForgetsOrder) {
  const std::string a = parse("b: {y: 1.50, x: ~}\na: ['1', true, text, 1]\n").to_json().dump();
  EXPECT_EQ(a, R"({"a":["1",true,"text",1],"b":{"x":null,"y":1.5}})");
  EXPECT_EQ(parse("# other order\na:\n- \"1\"\n- true\n- text\n- 1\nb:\n  x:\n  y: 1.5\n").to_json().dump(), a);
}

}  // namespace
}  // namespace salient
