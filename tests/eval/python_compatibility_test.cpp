// Random draws, literals and regular expressions as Python's. Goldens: tests/data/eval/tasks.json, by
// scripts/goldens/eval_tasks.py; the vectors of Random(1234) at hand are CPython's, for the pools of the real data sets.
#include <gtest/gtest.h>

#include "common/json.h"
#include "eval/few_shot.h"
#include "eval/python_literal.h"
#include "eval/python_random.h"
#include "eval/python_regex.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

const Json& golden() {
  static const Json json = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/tasks.json");
  return json;
}

TEST(PythonRandomTest, EqualsCPython) {
  PythonRandom words(1234);
  EXPECT_EQ(words.next32(), 4150886329U);
  EXPECT_EQ(words.next32(), 3342196574U);
  EXPECT_EQ(words.next32(), 1892932127U);
  EXPECT_DOUBLE_EQ(PythonRandom(1234).random(), 0.9664535356921388);
  PythonRandom choices(0);
  for (const Json& expected : golden()["random"]["choices"]) EXPECT_EQ(choices.choice(5153), expected.get<size_t>());
  EXPECT_THROW(PythonRandom(1).sample(3, 4), Error);
}

// Of one stream, from every place in its 624 words: an odd one lets a number's two words lie on both sides of the next ones'
// making.
TEST(PythonRandomTest, ManyDrawsAtOnceAreTheSameDraws) {
  const Json& expected = golden()["random"]["choices"];
  std::vector<uint32_t> first(expected.size());
  PythonRandom(0).choices(5153, first);
  EXPECT_EQ(first, expected.get<std::vector<uint32_t>>());
  for (const int skipped : {0, 1, 623}) {
    PythonRandom one(7);
    PythonRandom many(7);
    for (int i = 0; i < skipped; ++i) EXPECT_EQ(one.next32(), many.next32());
    for (const size_t size : {size_t{1}, size_t{300}, size_t{2'000'000'000}}) {
      std::vector<uint32_t> drawn(777);
      many.choices(size, drawn);
      for (size_t i = 0; i < drawn.size(); ++i) ASSERT_EQ(drawn[i], one.choice(size)) << skipped << " " << size << " " << i;
    }
  }
  std::vector<uint32_t> drawn(1);
  EXPECT_THROW(PythonRandom(1).choices(size_t{1} << 31, drawn), Error);
}

TEST(PythonRandomTest, DrawsTheExamplesOfTheRealDataSets) {
  struct Case {
    size_t pool, count;
    std::vector<std::vector<size_t>> documents;
  };
  const Case cases[] = {{7473, 5, {{6374, 3610, 957, 61, 742}, {7462, 6610, 4769, 286, 5501}}},
                        {2251, 5, {{1805, 478, 30, 371, 143}, {343, 403, 1452, 969, 71}}},
                        {40398, 6, {{28883, 7657, 490, 5940, 38156, 2288}, {5500, 6450, 23241, 15519, 1142, 2019}}},
                        {16113, 6, {{15834, 12749, 7220, 1914, 122, 1485}, {14925, 15442, 15388, 13221, 9539, 572}}},
                        {10, 3, {{7, 1, 0}, {1, 0, 9}}}};
  for (const Case& c : cases) {
    PythonRandom random(1234);
    for (const auto& expected : c.documents) EXPECT_EQ(random.sample(c.pool, c.count), expected) << c.pool;
  }
}

TEST(FewshotSamplerTest, DrawsAsTheHarness) {
  ASSERT_FALSE(golden()["draws"].empty());
  for (const Json& draw : golden()["draws"]) {
    const auto size = draw["size"].get<size_t>();
    const bool exclude = draw["exclude"].get<bool>();
    std::vector<Json> pool;
    for (size_t i = 0; i < size; ++i) pool.push_back({{"i", exclude ? i % (size - 1) : i}});
    TaskDefinition task;
    task.test_split = exclude ? "" : "test";  // both splits unnamed: examples come from the evaluated rows
    FewshotSampler sampler(task, pool, kFewshotSeed);
    for (size_t k = 0; k < draw["rows"].size(); ++k) {
      std::vector<size_t> found;
      for (const size_t i : sampler.draw(draw["count"].get<size_t>(), {{"i", k}})) found.push_back(pool[i]["i"].get<size_t>());
      EXPECT_EQ(found, draw["rows"][k].get<std::vector<size_t>>()) << dump_json(draw).substr(0, 60) << " document " << k;
    }
  }
}

TEST(FewshotSamplerTest, FirstRowsWithoutTheQuestionItself) {
  const std::vector<Json> pool = {{{"i", 0}}, {{"i", 1}}, {{"i", 2}}};
  TaskDefinition task;
  task.fewshot.sampler = "first_n";
  EXPECT_EQ(FewshotSampler(task, pool, 1).draw(2, {{"i", 0}}), (std::vector<size_t>{1, 2}));
  EXPECT_THROW(FewshotSampler(task, pool, 1).draw(3, {{"i", 0}}), Error);
  task.fewshot.split = "dev";
  EXPECT_EQ(FewshotSampler(task, pool, 1).draw(2, {{"i", 0}}), (std::vector<size_t>{0, 1}));
}

TEST(PythonLiteralTest, ReadsWhatTemplatesPrint) {
  EXPECT_EQ(parse_python_literal(R"(['a', "it's", 'b\n\x41\u00e9', 2, -1.5, True, None, (1, 2), (3), {'k': []}])"),
            Json::parse(R"(["a", "it's", "b\nA\u00e9", 2, -1.5, true, null, [1, 2], 3, {"k": []}])"));
  EXPECT_EQ(parse_python_literal("[]"), Json::array());
  for (const char* wrong : {"", "[", "['a' 'b']", "[a]", "['a'] x", "[1,,2]", "['\\7']", "[007]", "{1: 2}", "['a\n']"}) {
    EXPECT_FALSE(parse_python_literal(wrong)) << wrong;
  }
}

std::vector<std::string> all_matches(const PythonRegex& regex, const std::string& text) {
  std::vector<std::string> out;
  for (const auto& m : regex.find_all(text)) out.push_back(text.substr(m.begin, m.end - m.begin));
  return out;
}

TEST(PythonRegexTest, EmptyMatchesMayFollowOthers) {  // re.sub since Python 3.7
  EXPECT_EQ(PythonRegex("x*").replace("abxd", "-"), "-a-b--d-");
  EXPECT_EQ(PythonRegex("a|").replace("aab", "."), "...b.");
  EXPECT_EQ(all_matches(PythonRegex("\xC3\xA9?"), "\xC3\xA9z"), (std::vector<std::string>{"\xC3\xA9", "", ""}));
}

TEST(PythonRegexTest, MatchesBeyondTheStackOfCompiledExpressions) {
  const std::string text = std::string(200'000, 'a') + "c";
  EXPECT_EQ(all_matches(PythonRegex("(?:(a)|b)*c"), text), std::vector<std::string>{text});
}

// Where PCRE2 itself refuses such a pattern (newer versions do), that is an answer, too.
TEST(PythonRegexTest, AMatchNeverBeginsBeforeTheOneBeforeIt) {
  for (const char* pattern : {R"((?<=(?1))(?:(\Ka)){0})", R"((?<=\Ka))", R"((?=a\K))"}) {
    SCOPED_TRACE(pattern);
    try {
      size_t end = 0;
      for (const auto& match : PythonRegex(pattern).find_all("aab")) {
        EXPECT_LE(end, match.begin);
        EXPECT_LE(match.begin, match.end);
        end = match.end;
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.what();
    }
  }
}

TEST(PythonRegexTest, GroupsAndEnds) {
  EXPECT_EQ(PythonRegex(R"((\w+) (\w+))").replace("one two three", R"(\2 \1)"), "two one three");
  const auto match = PythonRegex("(a)|(b)").find_all("b").at(0);
  EXPECT_EQ(match.groups, (std::vector<std::string>{"", "b"}));
  EXPECT_EQ(PythonRegex("\\.$").replace("1.\n", ""), "1\n");
  EXPECT_EQ(PythonRegex("\\.\\Z").replace("1.\n", ""), "1.\n");
  EXPECT_EQ(PythonRegex("(?s).*#### ").replace("a\n#### 3", ""), "3");
  EXPECT_EQ(test::error_of([] { PythonRegex("(a"); }).kind(), ErrorKind::kInvalidArgument);
}

}  // namespace
}  // namespace salient::eval
