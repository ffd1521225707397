// Calibration rows of any kind, from one file: texts, conversations and other training rows, lists of token ids. Kinds may be mixed
// in a file.
//
//   {"text": "..."}                                    as it is, or the field that FieldNames::text names; .txt files: see TextRows
//   {"messages": [...]}, {"question", "answer"}, ...   training rows (render.h), rendered with the model's chat template
//   {"tokens": [...]} or {"input_ids": [...]}          ids, used as they are. Optional beside them, one value for each token:
//                                                      "loss_mask" (0 or 1), "labels" (-100 where there is no loss),
//                                                      "attention_mask" (0: padding, left out); or "response_begin": the first
//                                                      token of the answer
//
// A row's "domain" (text) names what it is of, for the coverage report; without one it has the domain of its file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/calibration_set.h"
#include "calibration/render.h"
#include "calibration/response_spans.h"
#include "calibration/sources.h"
#include "models/text/tokenizer.h"

namespace salient::calibration {

// What a row of a .txt file is: a line (the older form of calibration files, with \n for a line feed), a paragraph (lines up to a
// blank one), or the whole file, to be split by LongRows::kSplit.
enum class TextRows { kLines, kParagraphs, kFile };
// "lines", "paragraphs" or "file". Errors: invalid argument.
TextRows parse_text_rows(std::string_view name);
std::string_view to_string(TextRows rows);

struct CalibrationRow {
  std::string text;                  // empty where ids are given
  bool rendered = false;             // by a chat template, which has written BOS and the like
  std::vector<TextSpan> responses;   // of text, where they were asked for
  std::vector<models::TokenId> ids;  // given ids
  std::vector<uint8_t> loss_mask;    // for given ids: 1 = part of an answer; empty: not known
  int32_t domain = 0;                // index into CalibrationRows::domains
  std::string where;                 // "train.jsonl:7"
};

struct CalibrationRowOptions {
  RenderOptions render;
  bool find_responses = false;
  TextRows text_rows = TextRows::kLines;
  int64_t vocab_size = 0;  // given ids must be below; 0: not checked
};

struct CalibrationRows {
  std::vector<CalibrationRow> rows;
  std::vector<std::string> domains;
  std::string sha256;                       // of the file
  std::optional<CalibrationRecord> record;  // of a file of texts that `salient calibrate` made
  std::vector<std::string> notes;           // worth telling the user
};

// In file order. Errors: as read_dataset, detect_shape, build_messages and ResponseFinder::render; invalid argument: ids outside of
// the vocabulary, masks of another length, a row of no known kind (the fields found are listed); corruption: a malformed record.
CalibrationRows read_calibration_rows(const CalibrationSource& source, const ResponseFinder& finder,
                                      const CalibrationRowOptions& options = {});

}  // namespace salient::calibration
