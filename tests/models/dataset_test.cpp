#include "models/text/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class DatasetTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              ("salient_dataset_" + std::to_string(::getpid()) + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, std::string_view text) const {
    write_file(folder_ / name, text);
    return folder_ / name;
  }
  Error error_of(const fs::path& path, const DatasetOptions& options = {}) const {
    try {
      read_dataset(path, options);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << path << " was read without an error";
    return Error(ErrorKind::kInternal, "");
  }

  fs::path folder_;
};

TEST_F(DatasetTest, JsonLinesWithMarkBlankLinesAndCarriageReturns) {
  const auto path = write("a.jsonl", "\xEF\xBB\xBF{\"q\": \"one\"}\r\n\r\n  \n{\"q\": \"two \\u00e9\"}");
  const Dataset data = read_dataset(path);
  ASSERT_EQ(data.rows.size(), 2u);
  EXPECT_EQ(data.rows[0], Json::parse(R"({"q": "one"})"));
  EXPECT_EQ(data.rows[1]["q"], "two \xC3\xA9");
  EXPECT_THAT(data.line_numbers, ElementsAre(1, 4));
  EXPECT_EQ(data.format, "jsonl");
  EXPECT_EQ(data.sha256, sha256_file(path));
  EXPECT_EQ(data.skipped, 0);
}

TEST_F(DatasetTest, BrokenLinesAreNumberedAndCounted) {
  std::string text;
  for (int i = 1; i <= 20; ++i) text += i % 3 == 0 ? "{\"q\": oops}\n" : "{\"q\": 1}\n";
  text += "[1, 2]\n{\"n\": 1e999}\n{\"cut\": \"of";
  const auto path = write("a.jsonl", text);
  const Error error = error_of(path);
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_EQ(error.code(), "DATA_LINES_BROKEN");
  EXPECT_THAT(error.message(), HasSubstr("9 of 23 lines are broken"));
  EXPECT_THAT(error.message(), HasSubstr("line 3: "));
  EXPECT_THAT(error.message(), HasSubstr("line 15: "));
  EXPECT_THAT(error.message(), testing::Not(HasSubstr("line 18: ")));
  EXPECT_FALSE(error.hint().empty());

  const Dataset data = read_dataset(path, {.format = "", .allow_broken = true});
  EXPECT_EQ(data.rows.size(), 14u);
  EXPECT_EQ(data.skipped, 9);
  EXPECT_EQ(data.broken.size(), 5u);
  EXPECT_EQ(data.line_numbers[2], 4);
}

TEST_F(DatasetTest, AllLinesBrokenIsAnErrorEvenWhenBrokenLinesAreAllowed) {
  const auto path = write("a.jsonl", "nothing\nhere\n");
  const Error error = error_of(path, {.format = "", .allow_broken = true});
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error.message(), HasSubstr("2 of 2 lines"));
}

TEST_F(DatasetTest, LinesThatAreNotObjectsAreBroken) {
  EXPECT_THAT(error_of(write("a.jsonl", "{\"a\":1}\n\"text\"\n")).message(), HasSubstr("line 2: found JSON of type string"));
}

TEST_F(DatasetTest, JsonListAndDataObject) {
  EXPECT_EQ(read_dataset(write("a.json", "[{\"a\": 1},\n {\"a\": 2}]")).rows.size(), 2u);
  const Dataset data = read_dataset(write("b.json", "{\"version\": 2, \"data\": [{\"a\": 1}, {\"a\": 2}, {\"a\": 3}]}"));
  EXPECT_THAT(data.line_numbers, ElementsAre(1, 2, 3));
  EXPECT_EQ(data.format, "json");
  EXPECT_THAT(error_of(write("c.json", "[{\"a\": 1}, 5]")).message(), HasSubstr("1 of 2 entries are broken: entry 2: "));
  EXPECT_EQ(error_of(write("d.json", "[{\"a\": 1}, ")).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(error_of(write("e.json", "[]")).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(error_of(write("f.json", "17")).kind(), ErrorKind::kCorruption);
}

TEST_F(DatasetTest, JsonLinesUnderTheNameJson) {
  const Dataset data = read_dataset(write("a.json", "{\"a\": \"\xFF\"}\n{\"a\": 2}\n"));
  EXPECT_EQ(data.rows.size(), 2u);
  EXPECT_EQ(data.format, "jsonl");
  EXPECT_EQ(data.replaced_utf8, 1);
}

TEST_F(DatasetTest, CsvQuotesSeparatorsAndNewlines) {
  const Dataset data = read_dataset(write("a.csv",
                                          "\xEF\xBB\xBFquestion,answer,\r\n"
                                          "\"a, \"\"b\"\"\r\nc\",1,x\r\n"
                                          "\r\n"
                                          "5\" pipe,,\"\"\r\n"
                                          "last,\"two\n\nlines\",z"));
  ASSERT_EQ(data.rows.size(), 3u);
  EXPECT_EQ(data.rows[0]["question"], "a, \"b\"\r\nc");
  EXPECT_EQ(data.rows[0]["answer"], "1");
  EXPECT_EQ(data.rows[0]["column_3"], "x");
  EXPECT_EQ(data.rows[1]["question"], "5\" pipe");
  EXPECT_EQ(data.rows[1]["answer"], "");
  EXPECT_EQ(data.rows[2]["answer"], "two\n\nlines");
  EXPECT_THAT(data.line_numbers, ElementsAre(2, 5, 6));
}

TEST_F(DatasetTest, BrokenCsvRecords) {
  const auto path = write("a.csv", "q,a\n1,2,3\n\"x\"y,2\n4,5\n6,\"open\n7,8\n");
  const Error error = error_of(path);
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error.message(), HasSubstr("3 of 5 lines are broken"));
  EXPECT_THAT(error.message(), HasSubstr("line 2: found 3 fields, expected 2"));
  EXPECT_THAT(error.message(), HasSubstr("line 3: field 1 goes on after its closing quote"));
  EXPECT_THAT(error.message(), HasSubstr("line 5: the quote that opens in field 2 never closes"));
  const Dataset data = read_dataset(path, {.format = "", .allow_broken = true});
  EXPECT_THAT(data.line_numbers, ElementsAre(4, 6));  // reading goes on behind the line that a stray quote opened
  EXPECT_EQ(data.rows[1]["q"], "7");
}

TEST_F(DatasetTest, CsvHeaders) {
  EXPECT_THAT(error_of(write("a.csv", "q,q\n1,2\n")).message(), HasSubstr("'q' stands there twice"));
  EXPECT_THAT(error_of(write("b.csv", "q,a\n")).message(), HasSubstr("only a header"));
  EXPECT_EQ(error_of(write("c.csv", "\"q,a\n1,2\n")).kind(), ErrorKind::kCorruption);
}

TEST_F(DatasetTest, TabSeparated) {
  const Dataset data = read_dataset(write("a.tsv", "q\ta\none, two\t\"x\ty\"\n"));
  EXPECT_EQ(data.rows[0], Json::parse(R"({"q": "one, two", "a": "x\ty"})"));
}

TEST_F(DatasetTest, PlainTextKeepsInnerAndOuterSpaces) {
  const Dataset data = read_dataset(write("a.txt", "  first \n\n \t\nsecond\\n\r\n"));
  ASSERT_EQ(data.rows.size(), 2u);
  EXPECT_EQ(data.rows[0], Json::parse(R"({"text": "  first "})"));
  EXPECT_EQ(data.rows[1]["text"], "second\\n");
  EXPECT_THAT(data.line_numbers, ElementsAre(1, 4));
}

TEST_F(DatasetTest, TheFormatCanBeNamed) {
  const auto path = write("a.data", "{\"a\": 1}\n");
  EXPECT_THAT(error_of(path).message(), HasSubstr("'.data'"));
  EXPECT_EQ(read_dataset(path, {.format = "jsonl", .allow_broken = false}).rows.size(), 1u);
  EXPECT_EQ(read_dataset(path, {.format = "txt", .allow_broken = false}).rows[0]["text"], "{\"a\": 1}");
  EXPECT_EQ(error_of(path, {.format = "xml", .allow_broken = false}).kind(), ErrorKind::kInvalidArgument);
}

TEST_F(DatasetTest, EmptyFilesAreErrors) {
  for (const char* name : {"a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"}) {
    EXPECT_EQ(error_of(write(name, "")).kind(), ErrorKind::kInvalidArgument) << name;
    EXPECT_THAT(error_of(write(name, "\xEF\xBB\xBF \n\r\n\t\n")).message(), HasSubstr("only blank lines")) << name;
  }
  EXPECT_EQ(error_of(folder_ / "missing.jsonl").kind(), ErrorKind::kNotFound);
  EXPECT_EQ(error_of(folder_).kind(), ErrorKind::kInvalidArgument);
}

TEST_F(DatasetTest, InvalidUtf8IsReplacedAndCounted) {
  const Dataset data = read_dataset(write("a.jsonl", "{\"a\": \"x\xFFy\xE2\x82z\"}\n{\"a\": \"\xC3\xA9\"}\n"));
  EXPECT_EQ(data.rows[0]["a"], "x\xEF\xBF\xBDy\xEF\xBF\xBDz");
  EXPECT_EQ(data.rows[1]["a"], "\xC3\xA9");
  EXPECT_EQ(data.replaced_utf8, 2);
  EXPECT_EQ(read_dataset(write("b.csv", "a\xFF,b\n\xFE,2\n")).replaced_utf8, 2);
}

// The number of U+FFFD that Python's bytes.decode("utf-8", "replace") gives, which follows the same Unicode practice.
TEST_F(DatasetTest, ReplacementsAreCountedByMaximalIllFormedParts) {
  const std::pair<std::string, int64_t> cases[] = {
      {"\xF0\x9F\x98", 1},     {"\xF0\x9F\x98\x80", 0},     {"\xC0\xAF", 2}, {"\xE0\x80\x80", 3}, {"\xED\xA0\x80", 3},
      {"\xF4\x90\x80\x80", 4}, {"\xE2\x82\xE2\x82\xAC", 1}, {"\x80", 1},     {"\xF5", 1},         {"\xC3", 1},
      {"\xF1\x80\xC3\xA9", 1},
  };
  for (const auto& [text, count] : cases) {
    const Dataset data = read_dataset(write("u.txt", "a\xEF\xBF\xBD" + text + "b\n"));
    const std::string result = data.rows[0]["text"];
    EXPECT_EQ(data.replaced_utf8, count) << testing::PrintToString(text);
    EXPECT_EQ(result.front(), 'a');
    EXPECT_EQ(result.back(), 'b');
    EXPECT_NO_THROW(Json(result).dump());  // strict
  }
}

TEST_F(DatasetTest, OtherFileKindsAreRefusedWithAWayOut) {
  for (const auto& [name, text] : {std::pair<std::string, std::string>{"a.jsonl.gz", "\x1f\x8b\x08"},
                                   {"b.csv", std::string("\xff\xfe\x61\x00", 4)},
                                   {"c.zip", "PK\x03\x04"}}) {
    const Error error = error_of(write(name, text));
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << name;
    EXPECT_FALSE(error.hint().empty()) << name;
  }
}

TEST_F(DatasetTest, DeepNestingAndNulBytesDoNotCrash) {
  EXPECT_EQ(error_of(write("a.jsonl", std::string(200000, '[') + "\n")).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(error_of(write("b.jsonl", std::string("{\"a\": \"x\0y\"}\n", 13))).kind(), ErrorKind::kCorruption);
}

TEST(Dataset, ReadsTheDemoData) {
  const fs::path data = fs::path(SALIENT_SOURCE_DIR) / "models/demo/data";
  const Dataset arc = read_dataset(data / "arc_train.jsonl");
  EXPECT_EQ(arc.rows[0]["id"], "demo_400");
  EXPECT_EQ(arc.rows[0]["choices"]["text"].size(), 4u);
  EXPECT_EQ(read_dataset(data / "calib_mixed.jsonl").skipped, 0);
}

}  // namespace
}  // namespace salient::models
