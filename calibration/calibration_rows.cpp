#include "calibration/calibration_rows.h"

#include <algorithm>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/text.h"
#include "models/text/dataset.h"
#include "models/text/utf8.h"

namespace salient::calibration {
namespace {

constexpr int64_t kNoLoss = -100;  // what PyTorch's cross entropy ignores

struct TextRowsRow {
  TextRows rows;
  std::string_view name;
};
constexpr TextRowsRow kTextRows[] = {{TextRows::kLines, "lines"}, {TextRows::kParagraphs, "paragraphs"}, {TextRows::kFile, "file"}};

const Json* token_list(const Json& row) {
  for (const char* name : {"tokens", "input_ids"}) {
    const auto found = row.find(name);
    // Training rows with words under "tokens" are not meant.
    if (found != row.end() && found->is_array() && (found->empty() || found->front().is_number())) return &*found;
  }
  return nullptr;
}

std::vector<int64_t> integers(const Json& list, std::string_view name, size_t length, std::string_view where) {
  std::vector<int64_t> values;
  bool valid = list.is_array();
  if (valid) {
    for (const Json& value : list) {
      if (value.is_boolean()) {
        values.push_back(value.get<bool>() ? 1 : 0);
      } else if (value.is_number_integer()) {
        values.push_back(value.get<int64_t>());
      } else {
        valid = false;
      }
    }
  }
  if (!valid) fail(ErrorKind::kInvalidArgument, "{}: field '{}': expected a flat list of integers", where, name);
  if (values.size() != length) {
    fail(ErrorKind::kInvalidArgument, "{}: field '{}' has {} values for {} tokens", where, name, values.size(), length);
  }
  return values;
}

CalibrationRow token_row(const Json& row, const Json& list, const CalibrationRowOptions& options, std::string_view where) {
  CalibrationRow result;
  const std::vector<int64_t> ids = integers(list, "tokens", list.size(), where);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] <= INT32_MAX && (options.vocab_size == 0 || ids[i] < options.vocab_size)) continue;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: token {} of {} is {}, expected ids from 0 to {}", where, i + 1, ids.size(), ids[i],
                            options.vocab_size == 0 ? INT32_MAX : options.vocab_size - 1))
        .with_hint("the list was made with another model's tokenizer");
  }
  const auto given = [&](const char* name) { return row.contains(name) && !row[name].is_null(); };
  std::vector<uint8_t> loss;
  if (given("loss_mask")) {
    for (const int64_t value : integers(row["loss_mask"], "loss_mask", ids.size(), where)) {
      if (value != 0 && value != 1)
        fail(ErrorKind::kInvalidArgument, "{}: field 'loss_mask': found {}, expected 0 or 1", where, value);
      loss.push_back(static_cast<uint8_t>(value));
    }
  } else if (given("labels")) {
    for (const int64_t value : integers(row["labels"], "labels", ids.size(), where)) loss.push_back(value != kNoLoss);
  } else if (given("response_begin")) {
    if (!row["response_begin"].is_number_integer() || row["response_begin"] < 0 || row["response_begin"] > ids.size()) {
      fail(ErrorKind::kInvalidArgument, "{}: field 'response_begin': expected an index from 0 to {}", where, ids.size());
    }
    loss.assign(ids.size(), 0);
    std::fill(loss.begin() + row["response_begin"].get<std::ptrdiff_t>(), loss.end(), uint8_t{1});
  }
  const std::vector<int64_t> real = given("attention_mask") ? integers(row["attention_mask"], "attention_mask", ids.size(), where)
                                                            : std::vector<int64_t>(ids.size(), 1);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (real[i] == 0) continue;
    result.ids.push_back(static_cast<models::TokenId>(ids[i]));
    if (!loss.empty()) result.loss_mask.push_back(loss[i]);
  }
  return result;
}

CalibrationRow training_row(const Json& row, const ResponseFinder& finder, const CalibrationRowOptions& options,
                            std::string_view where) {
  CalibrationRow result;
  const RowShape shape = detect_shape(row, options.render.fields, where);
  const bool with_template = shape.layout != RowLayout::kText && finder.chat_template() != nullptr;
  if (!with_template || !options.find_responses) {
    result.text = render_row(row, shape, options.render, finder.chat_template(), where);
    result.rendered = with_template;
    return result;
  }
  const OrderedJson messages = build_messages(row, shape, options.render, where);
  RenderedConversation rendered = finder.render(messages, chat_render_options(row, shape, options.render, where), where);
  result.text = std::move(rendered.text);
  result.responses = std::move(rendered.responses);
  result.rendered = true;
  return result;
}

// Texts of a .txt file that are no lines, with the line each begins on.
std::vector<std::pair<std::string, int64_t>> paragraphs(const std::string& text, TextRows kind) {
  if (kind == TextRows::kFile) return {{text, 1}};
  std::vector<std::pair<std::string, int64_t>> result;
  std::string paragraph;
  int64_t number = 0, first = 0;
  const auto finish = [&] {
    if (!paragraph.empty()) result.emplace_back(std::move(paragraph), first);
    paragraph.clear();
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number;
    begin = end + 1;
    if (is_blank(line)) {
      finish();
      continue;
    }
    if (paragraph.empty()) first = number;
    if (!paragraph.empty()) paragraph += '\n';
    paragraph += line;
  }
  finish();
  return result;
}

class DomainIndex {
 public:
  explicit DomainIndex(std::vector<std::string>& names) : names_(names) {}
  int32_t operator()(const std::string& name) {
    const auto index = static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
    if (index == names_.size()) names_.push_back(name);
    return static_cast<int32_t>(index);
  }

 private:
  std::vector<std::string>& names_;
};

}  // namespace

TextRows parse_text_rows(std::string_view name) {
  for (const TextRowsRow& row : kTextRows)
    if (row.name == name) return row.rows;
  fail(ErrorKind::kInvalidArgument, "calibration text rows: found '{}', expected 'lines', 'paragraphs' or 'file'", name);
}

std::string_view to_string(TextRows rows) {
  for (const TextRowsRow& row : kTextRows)
    if (row.rows == rows) return row.name;
  fail(ErrorKind::kInternal, "text rows {} have no name", static_cast<int>(rows));
}

CalibrationRows read_calibration_rows(const CalibrationSource& source, const ResponseFinder& finder,
                                      const CalibrationRowOptions& options) {
  CalibrationRows result;
  models::Dataset data = models::read_dataset(source.file);
  result.sha256 = data.sha256;
  if (data.format == "txt" && options.text_rows != TextRows::kLines) {
    data.rows.clear();
    data.line_numbers.clear();
    std::string text = models::repair_utf8(read_text_file(source.file));
    if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
    for (auto& [paragraph, line] : paragraphs(text, options.text_rows)) {
      Json row = Json::object();
      row["text"] = std::move(paragraph);
      data.rows.push_back(std::move(row));
      data.line_numbers.push_back(line);
    }
  }
  DomainIndex domain_index(result.domains);
  domain_index(domain_of(source));
  std::vector<std::string> texts;
  const FieldNames& fields = options.render.fields;
  const bool text_given = !fields.text.empty() && data.format != "txt";  // lines of text have no fields
  const std::string text_field = text_given ? fields.text : "text";
  const bool turns_given = !text_given && (!fields.question.empty() || !fields.answer.empty());
  for (size_t i = 0; i < data.rows.size(); ++i) {
    const Json& row = data.rows[i];
    const std::string where = fmt::format("{}:{}", source.file.string(), data.line_numbers[i]);
    CalibrationRow made;
    if (const Json* list = token_list(row)) {
      made = token_row(row, *list, options, where);
    } else if (text_given || (row.contains("text") && row["text"].is_string() && !turns_given)) {
      if (text_given) detect_shape(row, fields, where);  // refuses rows without the text
      made.text = row[text_field].get<std::string>();
      if (data.format == "txt" && options.text_rows == TextRows::kLines) made.text = text_of_line(made.text);
      if (options.find_responses) made.responses = finder.in_text(made.text);
      texts.push_back(made.text);
    } else {
      made = training_row(row, finder, options, where);
    }
    made.where = where;
    made.domain =
        domain_index(row.contains("domain") && row["domain"].is_string() ? row["domain"].get<std::string>() : domain_of(source));
    result.rows.push_back(std::move(made));
  }
  if (data.replaced_utf8 > 0)
    result.notes.push_back(
        fmt::format("{}: {} ill-formed UTF-8 sequences were replaced by U+FFFD", source.file.string(), data.replaced_utf8));
  result.record = record_beside(source.file, texts, result.notes);
  if (result.record && !result.record->template_sha256.empty()) {
    for (CalibrationRow& row : result.rows) row.rendered = true;
  }
  return result;
}

}  // namespace salient::calibration
