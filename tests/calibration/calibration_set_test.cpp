#include "calibration/calibration_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CalibrationSetTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("salient_calibration_set_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path write(const std::string& name, std::string_view text) const {
    write_file(folder_ / name, text);
    return folder_ / name;
  }
  fs::path folder_;
};

CalibrationRecord sample_record(const std::vector<std::string>& texts) {
  CalibrationRecord record;
  record.dataset = "openmath";
  record.dataset_rows = 2000;
  record.source_file = "train.jsonl";
  record.source_sha256 = std::string(64, 'a');
  record.source_skipped_lines = 2;
  record.source_replaced_utf8 = 1;
  record.size = "auto";
  record.seed = 0xFFFFFFFFFFFFFFFEull;
  record.row_numbers = {5, 1, 7};
  record.line_numbers = {6, 2, 8};
  record.layout = "pair";
  record.content = "conversation";
  record.system_prompt = "Be \"brief\".\n";
  record.template_sha256 = std::string(64, 'b');
  record.tokenizer_sha256 = std::string(64, 'c');
  record.samples = 3;
  record.texts_sha256 = texts_sha256(texts);
  record.tokens = {30, 8, 10, 12};
  record.max_seq_len = 512;
  record.truncated = 1;
  record.duplicates = 4;
  return record;
}

const std::vector<std::string> kHostile = {"plain",
                                           "two\nlines\n",
                                           "back\\slash \\n and \\\\ end\\",
                                           "cr\r\nlf\r",
                                           " \ttabs and spaces ",
                                           "emoji \xF0\x9F\x98\x80 \xE2\x80\xA8 line separator",
                                           "\"quotes\"",
                                           std::string("nul\0byte", 8)};

TEST_F(CalibrationSetTest, BothFormsGiveTheTextsBack) {
  const CalibrationSet jsonl = read_calibration_set(write("a.jsonl", jsonl_form(kHostile)));
  EXPECT_EQ(jsonl.texts, kHostile);
  EXPECT_EQ(jsonl.sha256, sha256_file(folder_ / "a.jsonl"));
  EXPECT_FALSE(jsonl.record.has_value());
  EXPECT_FALSE(jsonl.from_chat_template());
  EXPECT_EQ(read_calibration_set(write("a.txt", txt_form(kHostile))).texts, kHostile);
}

TEST_F(CalibrationSetTest, TheFormsOnDisk) {
  EXPECT_EQ(jsonl_form({"a\n\xC3\xA9"}), "{\"text\":\"a\\n\xC3\xA9\"}\n");
  EXPECT_EQ(txt_form({"1\n2", "a\\b"}), "1\\n2\na\\\\b\n");
  EXPECT_EQ(read_calibration_set(write("a.txt", "x\\ty\\frac\n\nlast\\")).texts,
            (std::vector<std::string>{"x\\ty\\frac", "last\\"}));
}

TEST_F(CalibrationSetTest, RecordRoundTrip) {
  const CalibrationRecord record = sample_record(kHostile);
  EXPECT_EQ(to_json(record_from_json(to_json(record), "x")), to_json(record));
  EXPECT_EQ(record_form(record), record_form(record));
  EXPECT_EQ(record_from_json(Json::parse(record_form(record)), "x").seed, record.seed);
  EXPECT_EQ(to_json(record).size(), 22u);
}

TEST_F(CalibrationSetTest, TheRecordBesideIsRead) {
  const auto path = write("calibration_openmath_2000samples.jsonl", jsonl_form(kHostile));
  write("calibration_openmath_2000samples.txt", txt_form(kHostile));
  write("calibration_openmath_2000samples.record.json", record_form(sample_record(kHostile)));
  const CalibrationSet set = read_calibration_set(path);
  ASSERT_TRUE(set.record.has_value());
  EXPECT_EQ(set.record->dataset_rows, 2000);
  EXPECT_TRUE(set.from_chat_template());
  EXPECT_TRUE(read_calibration_set(folder_ / "calibration_openmath_2000samples.txt").record.has_value());
}

TEST_F(CalibrationSetTest, ARecordOfOtherTextsIsLeftAsideWithANote) {
  const auto path = write("a.jsonl", jsonl_form({"one", "changed"}));
  write("a.record.json", record_form(sample_record({"one", "two"})));
  const CalibrationSet set = read_calibration_set(path);
  EXPECT_FALSE(set.record.has_value());
  ASSERT_EQ(set.notes.size(), 1u);
  EXPECT_THAT(set.notes[0], HasSubstr("does not belong"));
}

TEST_F(CalibrationSetTest, BrokenRecords) {
  Json json = to_json(sample_record({}));
  json["format_version"] = 2;
  EXPECT_THROW(
      {
        try {
          record_from_json(json, "r");
        } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
          throw;
        }
      },
      Error);
  const Json good = to_json(sample_record({}));
  for (const auto& [key, value] : good.items()) {
    Json missing = good;
    missing.erase(key);
    EXPECT_THROW(record_from_json(missing, "r"), Error) << key;
    Json wrong = good;
    wrong[key] = Json::array({"x"});
    EXPECT_THROW(record_from_json(wrong, "r"), Error) << key;
  }
  write("a.record.json", "{\"format_version\": 1");
  EXPECT_THROW(read_calibration_set(write("a.jsonl", jsonl_form({"one"}))), Error);
}

TEST_F(CalibrationSetTest, RowsWithoutTextNameTheirFields) {
  try {
    read_calibration_set(write("a.jsonl", "{\"text\": \"fine\"}\n{\"question\": \"q\", \"answer\": \"a\"}\n"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), HasSubstr("a.jsonl:2: "));
    EXPECT_THAT(error.message(), HasSubstr("fields found: answer, question"));
    EXPECT_FALSE(error.hint().empty());
  }
  EXPECT_THROW(read_calibration_set(write("b.jsonl", "")), Error);
}

TEST(CalibrationNames, MadeAndParsed) {
  for (const auto& [dataset, rows] :
       {std::pair<std::string, int64_t>{"openmath", 2000}, {"squad_v2", 130319}, {"a.b-c_9", 0}, {"x_7samples", 12}}) {
    const std::string stem = calibration_stem({dataset, rows});
    for (const char* extension : {"", ".jsonl", ".txt", ".record.json"}) {
      const auto name = parse_calibration_name("some/folder/" + stem + extension);
      ASSERT_TRUE(name.has_value()) << stem << extension;
      EXPECT_EQ(name->dataset, dataset);
      EXPECT_EQ(name->dataset_rows, rows);
    }
  }
  EXPECT_EQ(calibration_stem({"openmath", 2000}), "calibration_openmath_2000samples");
  for (const char* other : {"", "calibration_samples", "calibration__5samples", "calibration_x_samples",
                            "calibration_x_5sample.jsonl", "openmath_5samples", "calibration_x_-5samples",
                            "calibration_x_5samples.csv", "calibration_x_99999999999999999999samples"}) {
    EXPECT_FALSE(parse_calibration_name(other).has_value()) << other;
  }
  for (const char* name : {"", "org/name", "..", ".hidden", "-x", "a b", "\xC3\xA9"})
    EXPECT_THROW(calibration_stem({name, 5}), Error) << name;
}

TEST(CountTokens, TotalsAndMedian) {
  const TokenCounts counts = count_tokens({5, 1, 9, 3});
  EXPECT_EQ(counts.total, 18);
  EXPECT_EQ(counts.min, 1);
  EXPECT_EQ(counts.median, 3);
  EXPECT_EQ(counts.max, 9);
  EXPECT_EQ(count_tokens({}).max, 0);
}

TEST_F(CalibrationSetTest, FilesAreWrittenTogetherOrNotAtAll) {
  const auto first = folder_ / "new/first", second = folder_ / "new/second";
  write_files({{first, "1"}, {second, "2"}}, false);
  const auto before = fs::last_write_time(first);
  write_files({{first, "1"}, {second, "2"}}, false);
  EXPECT_EQ(fs::last_write_time(first), before);
  fs::remove(first);
  EXPECT_THROW(write_files({{first, "1"}, {second, "other"}}, false), Error);
  EXPECT_FALSE(fs::exists(first));
  EXPECT_EQ(read_text_file(second), "2");
  write_files({{first, "1"}, {second, "other"}}, true);
  EXPECT_EQ(read_text_file(second), "other");
}

}  // namespace
}  // namespace salient::calibration
