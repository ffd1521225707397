#include "calibration/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "models/text/dataset.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;

const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

class CalibrateTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("salient_calibrate_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  CalibrateOptions demo(const std::string& out = "out") const {
    CalibrateOptions options;
    options.source = kDemo / "data/openmath_train.jsonl";
    options.dataset = "openmath";
    options.model_folder = kDemo;
    options.output_folder = folder_ / out;
    options.max_seq_len = 256;
    return options;
  }
  CalibrateOptions with_source(const std::string& name, std::string_view text) const {
    write_file(folder_ / name, text);
    CalibrateOptions options = demo();
    options.source = folder_ / name;
    options.dataset = "";
    return options;
  }
  static Error error_of(const CalibrateOptions& options) {
    try {
      calibrate(options);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "no error";
    return Error(ErrorKind::kInternal, "");
  }

  fs::path folder_;
};

// Rows of the demo's training data, so that their texts are long enough together.
std::string demo_rows(int first, int count) {
  const auto data = models::read_dataset(kDemo / "data/openmath_train.jsonl");
  std::string text;
  for (int i = first; i < first + count; ++i) text += data.rows[static_cast<size_t>(i)].dump() + "\n";
  return text;
}

TEST_F(CalibrateTest, DemoSet) {
  const CalibrateResult result = calibrate(demo());
  EXPECT_EQ(result.texts_file, folder_ / "out/calibration_openmath_2000samples.jsonl");
  EXPECT_EQ(result.record_file, folder_ / "out/calibration_openmath_2000samples.record.json");
  EXPECT_TRUE(result.txt_file.empty());
  const CalibrationRecord& record = result.record;
  EXPECT_EQ(record.samples, 128);
  EXPECT_EQ(record.dataset_rows, 2000);
  EXPECT_EQ(record.size, "auto");
  EXPECT_EQ(record.content, "conversation");
  EXPECT_EQ(record.layout, "pair");
  EXPECT_EQ(record.source_file, "openmath_train.jsonl");
  EXPECT_EQ(record.source_sha256, sha256_file(kDemo / "data/openmath_train.jsonl"));
  EXPECT_EQ(record.tokenizer_sha256, sha256_file(kDemo / "tokenizer.json"));
  EXPECT_EQ(record.template_sha256,
            sha256_hex(read_json_file(kDemo / "tokenizer_config.json")["chat_template"].get<std::string>()));
  EXPECT_GT(record.tokens.total, 128 * record.tokens.min);
  EXPECT_LE(record.tokens.median, record.tokens.max);

  const CalibrationSet set = read_calibration_set(result.texts_file);
  ASSERT_TRUE(set.record.has_value());
  EXPECT_EQ(to_json(*set.record), to_json(record));
  ASSERT_EQ(set.texts.size(), 128u);
  EXPECT_EQ(std::set<std::string>(set.texts.begin(), set.texts.end()).size(), 128u);
  const auto data = models::read_dataset(kDemo / "data/openmath_train.jsonl");
  for (size_t i = 0; i < set.texts.size(); ++i) {
    const Json& row = data.rows[static_cast<size_t>(record.row_numbers[i])];
    EXPECT_EQ(data.line_numbers[static_cast<size_t>(record.row_numbers[i])], record.line_numbers[i]);
    EXPECT_EQ(set.texts[i],
              "<|im_start|>system\nYou are a careful assistant. Think in short steps and end with the "
              "answer.<|im_end|>\n<|im_start|>user\n" +
                  row["question"].get<std::string>() + "<|im_end|>\n<|im_start|>assistant\n" + row["answer"].get<std::string>() +
                  "<|im_end|>\n");
  }
}

TEST_F(CalibrateTest, TheSameInputGivesTheSameBytesAnywhere) {
  fs::create_directories(folder_ / "elsewhere");
  fs::copy_file(kDemo / "data/openmath_train.jsonl", folder_ / "elsewhere/openmath_train.jsonl");
  CalibrateOptions other = demo("b");
  other.source = folder_ / "elsewhere/openmath_train.jsonl";
  const CalibrateResult a = calibrate(demo("a")), b = calibrate(other);
  EXPECT_EQ(read_text_file(a.texts_file), read_text_file(b.texts_file));
  EXPECT_EQ(read_text_file(a.record_file), read_text_file(b.record_file));
  EXPECT_THAT(read_text_file(a.record_file), testing::Not(HasSubstr(folder_.string())));
  CalibrateOptions seeded = demo("c");
  seeded.seed = 1;
  EXPECT_NE(calibrate(seeded).record.row_numbers, a.record.row_numbers);
}

TEST_F(CalibrateTest, PromptModeOpensTheAnswerAndBothFormsAgree) {
  CalibrateOptions options = demo();
  options.render.content = ContentMode::kPrompt;
  options.samples = 20;
  options.write_txt = true;
  const CalibrateResult result = calibrate(options);
  const CalibrationSet set = read_calibration_set(result.texts_file);
  ASSERT_EQ(set.texts.size(), 20u);
  for (const std::string& text : set.texts) EXPECT_TRUE(text.ends_with("<|im_start|>assistant\n"));
  const CalibrationSet older = read_calibration_set(result.txt_file);
  EXPECT_EQ(older.texts, set.texts);
  EXPECT_TRUE(older.record.has_value());
}

TEST_F(CalibrateTest, DuplicatesAreReplacedByFurtherDraws) {
  const std::string rows = demo_rows(0, 12);
  CalibrateOptions options = with_source("set.jsonl", rows + rows + rows);
  options.samples = 12;
  const CalibrateResult replaced = calibrate(options);
  EXPECT_EQ(replaced.record.samples, 12);
  EXPECT_GT(replaced.record.duplicates, 0);
  const auto texts = read_calibration_set(replaced.texts_file).texts;
  EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), 12u);
  EXPECT_THAT(replaced.notes, Contains(HasSubstr("further rows were drawn")));

  options.samples = 30;
  options.output_folder = folder_ / "more";
  const CalibrateResult scarce = calibrate(options);
  EXPECT_EQ(scarce.record.samples, 12);
  EXPECT_EQ(scarce.record.duplicates, 24);
  EXPECT_THAT(scarce.notes, Contains(HasSubstr("only 12 of 30")));

  options.keep_duplicates = true;
  options.output_folder = folder_ / "kept";
  EXPECT_EQ(calibrate(options).record.samples, 30);
}

TEST_F(CalibrateTest, MoreRowsThanThereAreIsReported) {
  CalibrateOptions options = with_source("set.jsonl", demo_rows(0, 15));
  options.samples = 500;
  const CalibrateResult result = calibrate(options);
  EXPECT_EQ(result.record.samples, 15);
  EXPECT_EQ(result.record.size, "500");
  EXPECT_EQ(result.record.dataset, "set");
  EXPECT_THAT(result.notes, Contains(HasSubstr("500 rows were asked for, but the set has 15")));
}

TEST_F(CalibrateTest, TooShortDataIsAnErrorAndWritesNothing) {
  const Error error = error_of(with_source("set.jsonl", demo_rows(0, 3)));
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(error.code(), "CALIBRATION_TOO_SHORT");
  EXPECT_THAT(error.message(), HasSubstr("3 texts give "));
  EXPECT_THAT(error.message(), HasSubstr("at least 512 tokens are needed"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_EQ(error_of(with_source("empty.jsonl", "")).code(), "DATA_EMPTY");
  EXPECT_EQ(error_of(with_source("blank.jsonl", "{\"text\": \"  \"}\n{\"question\": \"\\n\", \"answer\": \"a\"}\n")).code(),
            "CALIBRATION_TOO_SHORT");
}

TEST_F(CalibrateTest, BrokenLinesAndRows) {
  CalibrateOptions options =
      with_source("set.jsonl", demo_rows(0, 20) + "{broken\n{\"question\": \"q\", \"answer\": null}\n{\"other\": 1}\n");
  options.samples = 22;
  const Error error = error_of(options);
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error.message(), HasSubstr("1 of 23 lines are broken: line 21"));
  options.allow_broken = true;
  const CalibrateResult result = calibrate(options);
  EXPECT_EQ(result.record.samples, 20);
  EXPECT_EQ(result.record.source_skipped_lines, 1);
  EXPECT_THAT(result.notes, Contains(HasSubstr("2 rows could not be rendered")));
}

TEST_F(CalibrateTest, WrongFieldNamesListTheFields) {
  CalibrateOptions options = demo();
  options.render.fields = {"problem", "answer"};
  const Error error = error_of(options);
  EXPECT_THAT(error.message(), HasSubstr("no field 'problem'; fields found: answer, question"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(CalibrateTest, ReadyTextIsTakenAsItIs) {
  CalibrateOptions options = demo();
  options.source = kDemo / "data/calib_mixed.jsonl";
  options.dataset = "mixed";
  const CalibrateResult result = calibrate(options);
  EXPECT_EQ(result.record.layout, "text");
  EXPECT_EQ(result.record.template_sha256, "");
  EXPECT_THAT(result.notes, Contains(HasSubstr("taken as they are")));
}

TEST_F(CalibrateTest, WithoutAChatTemplateTurnsAreJoined) {
  fs::create_directories(folder_ / "model");
  fs::copy_file(kDemo / "tokenizer.json", folder_ / "model/tokenizer.json");
  CalibrateOptions options = demo();
  options.model_folder = folder_ / "model";
  const CalibrateResult result = calibrate(options);
  EXPECT_THAT(result.notes, Contains(HasSubstr("no chat template")));
  EXPECT_FALSE(read_calibration_set(result.texts_file).from_chat_template());
  EXPECT_THAT(read_calibration_set(result.texts_file).texts[0], testing::Not(HasSubstr("<|im_start|>")));
}

TEST_F(CalibrateTest, TruncationIsCounted) {
  CalibrateOptions options = demo();
  options.max_seq_len = 70;
  const CalibrateResult result = calibrate(options);
  EXPECT_GT(result.record.truncated, 0);
  EXPECT_LT(result.record.truncated, 128);
  EXPECT_GT(result.record.tokens.max, 70);
}

TEST_F(CalibrateTest, ExistingFilesAreNotLost) {
  const CalibrateResult first = calibrate(demo());
  const std::string bytes = read_text_file(first.texts_file);
  EXPECT_NO_THROW(calibrate(demo()));  // the same again
  CalibrateOptions other = demo();
  other.seed = 7;
  const Error error = error_of(other);
  EXPECT_EQ(error.code(), "OUTPUT_EXISTS");
  EXPECT_EQ(read_text_file(first.texts_file), bytes);
  fs::remove(first.record_file);  // cut short before the record
  calibrate(demo());
  EXPECT_TRUE(fs::exists(first.record_file));
  other.overwrite = true;
  calibrate(other);
  EXPECT_NE(read_text_file(first.texts_file), bytes);
  EXPECT_TRUE(read_calibration_set(first.texts_file).record.has_value());
}

TEST_F(CalibrateTest, BadNamesAndNumbersAreToldFirst) {
  CalibrateOptions options = demo();
  options.dataset = "org/openmath";
  EXPECT_EQ(error_of(options).kind(), ErrorKind::kInvalidArgument);
  options = demo();
  options.samples = 0;
  EXPECT_EQ(error_of(options).kind(), ErrorKind::kInvalidArgument);
  options = demo();
  options.source = folder_ / "missing.jsonl";
  EXPECT_EQ(error_of(options).kind(), ErrorKind::kNotFound);
}

}  // namespace
}  // namespace salient::calibration
