#include "calibration/calibration_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kRoot = SALIENT_SOURCE_DIR;

const ResponseFinder& demo() {
  static const ResponseFinder finder = ResponseFinder::from_folder(kRoot / "models/demo");
  return finder;
}

class CalibrationRowsTest : public testing::Test {
 protected:
  CalibrationRows read(const std::string& name, std::string_view text, const CalibrationRowOptions& options = {}) const {
    write_file(folder_.path() / name, text);
    CalibrationSource source;
    source.file = folder_.path() / name;
    return read_calibration_rows(source, demo(), options);
  }
  std::string error(std::string_view line, const CalibrationRowOptions& options = {}) const {
    try {
      read("bad.jsonl", line, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.message();
    }
    return "no error";
  }
  test::TemporaryFolder folder_;
};

std::vector<std::string> texts(const CalibrationRows& rows) {
  std::vector<std::string> result;
  for (const CalibrationRow& row : rows.rows) result.push_back(row.text);
  return result;
}

TEST_F(CalibrationRowsTest, KindsOfRowsMayBeMixed) {
  const CalibrationRows rows =
      read("mixed.jsonl", R"({"text": "ready"})"
                          "\n"
                          R"({"tokens": [1, 2, 3]})"
                          "\n"
                          R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})"
                          "\n"
                          R"({"question": "2+2?", "answer": "4", "domain": "math"})"
                          "\n"
                          R"({"input_ids": [9, 8, 7, 6], "labels": [-100, -100, 7, 6], "attention_mask": [0, 1, 1, 1]})"
                          "\n");
  ASSERT_EQ(rows.rows.size(), 5u);
  EXPECT_EQ(rows.rows[0].text, "ready");
  EXPECT_FALSE(rows.rows[0].rendered);
  EXPECT_THAT(rows.rows[1].ids, ElementsAre(1, 2, 3));
  EXPECT_TRUE(rows.rows[1].loss_mask.empty());
  EXPECT_THAT(rows.rows[2].text, HasSubstr("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>"));
  EXPECT_TRUE(rows.rows[2].rendered);
  EXPECT_THAT(rows.rows[3].text, HasSubstr("assistant\n4<|im_end|>"));
  EXPECT_THAT(rows.rows[4].ids, ElementsAre(8, 7, 6));
  EXPECT_THAT(rows.rows[4].loss_mask, ElementsAre(0, 1, 1));
  EXPECT_THAT(rows.domains, ElementsAre("mixed", "math"));
  EXPECT_EQ(rows.rows[2].domain, 0);
  EXPECT_EQ(rows.rows[3].domain, 1);
  EXPECT_THAT(rows.rows[3].where, HasSubstr("mixed.jsonl:4"));
}

TEST_F(CalibrationRowsTest, AnswersAreFoundWhereTheyAreAskedFor) {
  const std::string line = R"({"question": "2+2?", "answer": "It is 4."})";
  EXPECT_TRUE(read("a.jsonl", line).rows[0].responses.empty());
  CalibrationRowOptions options;
  options.find_responses = true;
  const CalibrationRow row = read("a.jsonl", line, options).rows[0];
  ASSERT_EQ(row.responses.size(), 1u);
  EXPECT_EQ(row.text.substr(row.responses[0].begin, row.responses[0].end - row.responses[0].begin), "It is 4.<|im_end|>");
  const CalibrationRow ready = read("b.jsonl", R"({"text": "<|im_start|>assistant\nyes<|im_end|>"})", options).rows[0];
  ASSERT_EQ(ready.responses.size(), 1u);
  EXPECT_EQ(ready.responses[0], (TextSpan{22, 35}));
  EXPECT_TRUE(read("c.jsonl", R"({"text": "prose"})", options).rows[0].responses.empty());
}

TEST_F(CalibrationRowsTest, TheContentModeAndSystemPromptReachTheTemplate) {
  CalibrationRowOptions options;
  options.render.content = ContentMode::kPrompt;
  options.render.system_prompt = "Be brief.";
  const auto rows = read("a.jsonl", R"({"question": "2+2?", "answer": "4"})", options);
  EXPECT_EQ(rows.rows[0].text,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(CalibrationRowsTest, TheTextMayHaveAnotherName) {
  CalibrationRowOptions options;
  options.render.fields.text = "content";
  const auto rows = read("c.jsonl", R"({"content": "first", "text": "decoy"}
{"tokens": [1, 2]}
{"content": "second", "question": "q", "answer": "a"}
)",
                         options);
  EXPECT_THAT(texts(rows), ElementsAre("first", "", "second"));
  EXPECT_THAT(texts(read("c.csv", "content,id\nfirst,1\n", options)), ElementsAre("first"));
  EXPECT_THAT(texts(read("c.txt", "lines have no fields\n", options)), ElementsAre("lines have no fields"));
  EXPECT_THAT(error("{\"content\": \"fine\"}\n{\"text\": \"t\"}\n", options),
              testing::AllOf(HasSubstr("bad.jsonl:2: field 'content' is not there"), HasSubstr("fields found: text")));
  options.find_responses = true;
  const auto asked =
      read("m.jsonl", R"({"content": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"})", options);
  EXPECT_EQ(asked.rows.at(0).responses.size(), 1u);
}

TEST_F(CalibrationRowsTest, TextFilesByLineParagraphOrWhole) {
  const std::string text = "first line\nsecond\\nline\r\n\n \nnext paragraph\n";
  CalibrationRowOptions options;
  EXPECT_THAT(texts(read("a.txt", text, options)), ElementsAre("first line", "second\nline", "next paragraph"));
  options.text_rows = TextRows::kParagraphs;
  const auto rows = read("a.txt", text, options);
  EXPECT_THAT(texts(rows), ElementsAre("first line\nsecond\\nline", "next paragraph"));
  EXPECT_THAT(rows.rows[1].where, HasSubstr("a.txt:5"));
  options.text_rows = TextRows::kFile;
  EXPECT_THAT(texts(read("a.txt", text, options)), ElementsAre(text));
  for (const TextRows kind : {TextRows::kLines, TextRows::kParagraphs, TextRows::kFile})
    EXPECT_EQ(parse_text_rows(to_string(kind)), kind);
  EXPECT_THROW(parse_text_rows("words"), Error);
}

TEST_F(CalibrationRowsTest, BadTokenListsSayWhereAndWhy) {
  CalibrationRowOptions options;
  options.vocab_size = 100;
  EXPECT_THAT(error(R"({"tokens": [1, 100]})", options), HasSubstr("bad.jsonl:1: token 2 of 2 is 100, expected ids from 0 to 99"));
  EXPECT_THAT(error(R"({"tokens": [1, -1]})", options), HasSubstr("token 2 of 2 is -1"));
  EXPECT_THAT(error(R"({"tokens": [1, 2.5]})"), HasSubstr("field 'tokens': expected a flat list of integers"));
  EXPECT_THAT(error(R"({"tokens": [1, 2], "loss_mask": [1]})"), HasSubstr("field 'loss_mask' has 1 values for 2 tokens"));
  EXPECT_THAT(error(R"({"tokens": [1, 2], "loss_mask": [1, 2]})"), HasSubstr("found 2, expected 0 or 1"));
  EXPECT_THAT(error(R"({"tokens": [1, 2], "response_begin": 3})"), HasSubstr("expected an index from 0 to 2"));
  EXPECT_THAT(error(R"({"nothing": 1})"), HasSubstr("fields found: nothing"));
  EXPECT_THAT(read("a.jsonl", R"({"tokens": [5, 6, 7], "response_begin": 1})").rows[0].loss_mask, ElementsAre(0, 1, 1));
  EXPECT_THAT(read("a.jsonl", R"({"tokens": [5, 6], "loss_mask": [true, false]})").rows[0].loss_mask, ElementsAre(1, 0));
}

TEST_F(CalibrationRowsTest, TheRecordOfTextsSaysThatATemplateWroteThem) {
  CalibrationRecord record;
  record.template_sha256 = std::string(64, 'b');
  record.texts_sha256 = texts_sha256({"a", "b"});
  write_file(folder_.path() / "set.record.json", record_form(record));
  EXPECT_TRUE(read("set.jsonl", jsonl_form({"a", "b"})).rows[1].rendered);
  const CalibrationRows changed = read("set.jsonl", jsonl_form({"a", "c"}));
  EXPECT_FALSE(changed.rows[1].rendered);
  ASSERT_EQ(changed.notes.size(), 1u);
  EXPECT_THAT(changed.notes[0], HasSubstr("does not belong to these texts"));
}

TEST(Sources, ListsOfFilesWithWeights) {
  const auto sources = parse_sources("data/a.jsonl:2,C:/b.jsonl,c:0.5");
  ASSERT_EQ(sources.size(), 3u);
  EXPECT_EQ(sources[0].file, "data/a.jsonl");
  EXPECT_EQ(sources[0].weight, 2.0);
  EXPECT_EQ(domain_of(sources[0]), "a");
  EXPECT_EQ(sources[1].file, "C:/b.jsonl");
  EXPECT_FALSE(sources[1].weight.has_value());
  EXPECT_EQ(sources[2].file, "c");
  EXPECT_EQ(sources[2].weight, 0.5);
  for (const char* bad : {"", "a,,b", "a:0", "a:-1", "a:inf", ":2", "x/a.jsonl,y/a.jsonl"})
    EXPECT_THROW(parse_sources(bad), Error) << bad;
}

}  // namespace
}  // namespace salient::calibration
