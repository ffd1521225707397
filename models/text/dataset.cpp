#include "models/text/dataset.h"

#include <algorithm>
#include <optional>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/json_depth.h"
#include "models/text/parquet_rows.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr size_t kBrokenShown = 5;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr size_t kReleaseStep = size_t{64} << 20;

struct FormatRow {
  std::string_view name;
  std::string_view extensions;  // each between spaces
};
constexpr FormatRow kFormats[] = {
    {"jsonl", " .jsonl .ndjson .jsonlines "},
    {"json", " .json "},
    {"csv", " .csv "},
    {"tsv", " .tsv .tab "},
    {"txt", " .txt .text .raw "},
    {"parquet", " .parquet "},
};
constexpr std::string_view kParquetMagic = "PAR1";

struct MagicRow {
  std::string_view bytes;
  std::string_view name;
  std::string_view hint;
};
using namespace std::string_view_literals;
constexpr MagicRow kRefused[] = {
    {"\x1f\x8b"sv, "gzip", "unpack it first: gunzip FILE"},
    {"PK\x03\x04"sv, "a zip archive", "unpack it first: unzip FILE"},
    {"\x28\xb5\x2f\xfd"sv, "Zstandard", "unpack it first: zstd -d FILE"},
    {"\xff\xfe"sv, "UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > OUT"},
    {"\xfe\xff"sv, "UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > OUT"},
};

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

// Number of U+FFFD. Its first byte always starts a sequence, so this is exact in ill-formed text too.
int64_t count_replacements(std::string_view text) {
  int64_t count = 0;
  for (size_t at = text.find(kReplacement); at != std::string_view::npos; at = text.find(kReplacement, at + kReplacement.size()))
    ++count;
  return count;
}

// The well-formed form of `text`; adds the number of its ill-formed parts to `replaced`.
std::string replace_invalid_utf8(std::string_view text, int64_t& replaced) {
  if (is_valid_utf8(text)) return std::string(text);
  std::string repaired = repair_utf8(text);
  replaced += count_replacements(repaired) - count_replacements(text);
  return repaired;
}

// The text itself when it is well-formed, else its repaired copy in `storage`.
std::string_view well_formed(std::string_view text, std::string& storage, int64_t& replaced) {
  if (is_valid_utf8(text)) return text;
  storage = replace_invalid_utf8(text, replaced);
  return storage;
}

// The same for every text in a value.
void repair_texts(Json& value, int64_t& replaced) {
  if (value.is_string()) {
    auto& text = value.get_ref<std::string&>();
    if (!is_valid_utf8(text)) text = replace_invalid_utf8(text, replaced);
  } else if (value.is_structured()) {
    for (Json& part : value) repair_texts(part, replaced);
  }
}

class Reader {
 public:
  Reader(const MappedFile& file, std::string_view text, const DatasetOptions& options, Dataset& data)
      : file_(file), text_(text), options_(options), data_(data) {}

  void read_json_lines();
  void read_json();
  void read_table(char separator);
  void read_lines();
  void read_parquet();
  void finish();

 private:
  std::string where() const { return data_.path.string(); }

  // The next line without its end, and its number in line_; false at the end of the file.
  bool next_line(std::string_view& line) {
    if (position_ >= text_.size()) return false;
    const size_t end = std::min(text_.find('\n', position_), text_.size());
    line = text_.substr(position_, end - position_);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    move_to(end + 1);
    ++line_;
    return true;
  }

  void move_to(size_t position) {
    position_ = position;
    if (position_ < released_ + kReleaseStep) return;
    const auto begin = static_cast<size_t>(text_.data() - reinterpret_cast<const char*>(file_.bytes().data()));
    file_.release(begin + released_, position_ - released_);
    released_ = position_;
  }

  void add_row(Json row, int64_t line) {
    ++lines_;
    data_.rows.push_back(std::move(row));
    data_.line_numbers.push_back(line);
  }

  void add_broken(int64_t line, std::string_view reason) {
    ++lines_;
    ++data_.skipped;
    if (data_.broken.size() < kBrokenShown) data_.broken.push_back(fmt::format("{} {}: {}", unit_, line, reason));
  }

  std::optional<Json> parse(std::string_view text, std::string& reason) {
    if (is_too_deep_json(text)) {
      reason = fmt::format("lists and objects within each other more than {} levels deep", kMostJsonLevels);
      return std::nullopt;
    }
    try {
      return Json::parse(text.begin(), text.end());
    } catch (const Json::exception& error) {
      reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: what it is"
      if (const size_t at = reason.find("] "); at != std::string::npos) reason.erase(0, at + 2);
      if (reason.starts_with("parse error at line 1, ")) reason.erase(0, std::string_view("parse error at line 1, ").size());
      if (reason.size() > 200) reason = repair_utf8(reason.substr(0, 197)) + "...";
      return std::nullopt;
    }
  }

  void add_list(Json& list);
  bool read_record(char separator, std::vector<std::string>& fields, std::string& reason);

  const MappedFile& file_;
  std::string_view text_;
  const DatasetOptions& options_;
  Dataset& data_;
  size_t position_ = 0;
  size_t released_ = 0;
  int64_t line_ = 0;   // of the line read last, from 1
  int64_t lines_ = 0;  // that hold something
  std::string_view unit_ = "line";
  std::string storage_;
};

void Reader::read_json_lines() {
  std::string_view line;
  std::string reason;
  while (next_line(line)) {
    if (is_blank(line)) continue;
    auto row = parse(well_formed(line, storage_, data_.replaced_utf8), reason);
    if (!row) {
      add_broken(line_, reason);
    } else if (!row->is_object()) {
      add_broken(line_, fmt::format("found JSON of type {}, expected an object", row->type_name()));
    } else {
      add_row(std::move(*row), line_);
    }
  }
}

void Reader::add_list(Json& list) {
  unit_ = "entry";
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].is_object()) {
      add_row(std::move(list[i]), static_cast<int64_t>(i) + 1);
    } else {
      add_broken(static_cast<int64_t>(i) + 1, fmt::format("found JSON of type {}, expected an object", list[i].type_name()));
    }
  }
}

void Reader::read_json() {
  const std::string_view text = well_formed(text_, storage_, data_.replaced_utf8);
  std::string reason;
  auto value = parse(text, reason);
  if (!value) {
    // JSON lines under the extension .json: the first line is a whole object, and more follow.
    std::string ignored;
    const size_t start = std::min(text.find_first_not_of(" \t\r\n"), text.size());
    const size_t end = text.find('\n', start);
    const auto first = end == std::string_view::npos ? std::nullopt : parse(text.substr(start, end - start), ignored);
    if (!first || !first->is_object()) fail(ErrorKind::kCorruption, "{}: not valid JSON: {}", where(), reason);
    data_.replaced_utf8 = 0;  // counted again, line by line
    data_.format = "jsonl";
    return read_json_lines();
  }
  if (value->is_array()) return add_list(*value);
  if (!value->is_object()) {
    fail(ErrorKind::kCorruption, "{}: found JSON of type {}, expected a list of objects or {{\"data\": [...]}}", where(),
         value->type_name());
  }
  if (value->contains("data") && (*value)["data"].is_array()) return add_list((*value)["data"]);
  add_row(std::move(*value), 1);
}

// One record of RFC 4180, which may span lines. False when it is broken; the reader then stands behind the record's first line, or
// behind the record where its end is known. A quote inside an unquoted field is an ordinary character, as spreadsheets write it.
bool Reader::read_record(char separator, std::vector<std::string>& fields, std::string& reason) {
  fields.clear();
  const size_t start = position_;
  const int64_t start_line = ++line_;
  size_t at = start;
  std::string field;
  const auto end_of_first_line = [&] {
    line_ = start_line;
    move_to(std::min(text_.find('\n', start), text_.size()) + 1);
    return false;
  };
  while (true) {
    field.clear();
    if (at < text_.size() && text_[at] == '"') {
      for (++at;; ++at) {
        if (at >= text_.size()) {
          reason = fmt::format("the quote that opens in field {} never closes", fields.size() + 1);
          return end_of_first_line();
        }
        if (text_[at] == '\n') ++line_;
        if (text_[at] != '"') {
          field += text_[at];
        } else if (at + 1 < text_.size() && text_[at + 1] == '"') {
          field += text_[at++];
        } else {
          break;
        }
      }
      ++at;
      const bool ends = at >= text_.size() || text_[at] == separator || text_[at] == '\n' || text_.substr(at, 2) == "\r\n";
      if (!ends) {
        reason = fmt::format("field {} goes on after its closing quote", fields.size() + 1);
        return end_of_first_line();
      }
    } else {
      const size_t end = std::min(text_.find_first_of(separator == '\t' ? "\t\n" : ",\n", at), text_.size());
      field = text_.substr(at, end - at);
      if ((end >= text_.size() || text_[end] == '\n') && !field.empty() && field.back() == '\r') field.pop_back();
      at = end;
    }
    fields.push_back(std::move(field));
    if (at < text_.size() && text_[at] == '\r') ++at;
    if (at >= text_.size() || text_[at] == '\n') break;
    ++at;
  }
  move_to(at + 1);
  return true;
}

void Reader::read_table(char separator) {
  std::vector<std::string> names, fields;
  std::string reason;
  while (names.empty() && position_ < text_.size()) {
    if (!read_record(separator, names, reason)) fail(ErrorKind::kCorruption, "{}: header, line {}: {}", where(), line_, reason);
    if (names.size() == 1 && is_blank(names[0])) names.clear();
  }
  std::set<std::string> seen;
  for (size_t i = 0; i < names.size(); ++i) {
    names[i] = replace_invalid_utf8(names[i], data_.replaced_utf8);
    if (names[i].empty()) names[i] = fmt::format("column_{}", i + 1);
    if (!seen.insert(names[i]).second)
      fail(ErrorKind::kCorruption, "{}: header: the name '{}' stands there twice", where(), names[i]);
  }
  while (position_ < text_.size()) {
    const int64_t line = line_ + 1;
    if (!read_record(separator, fields, reason)) {
      add_broken(line, reason);
    } else if (fields.size() == 1 && is_blank(fields[0]) && names.size() > 1) {
      continue;
    } else if (fields.size() != names.size()) {
      add_broken(line, fmt::format("found {} fields, expected {} as in the header", fields.size(), names.size()));
    } else {
      Json row = Json::object();
      for (size_t i = 0; i < names.size(); ++i) row[names[i]] = replace_invalid_utf8(fields[i], data_.replaced_utf8);
      add_row(std::move(row), line);
    }
  }
}

void Reader::read_lines() {
  std::string_view line;
  while (next_line(line)) {
    if (is_blank(line)) continue;
    Json row = Json::object();
    row["text"] = replace_invalid_utf8(line, data_.replaced_utf8);
    add_row(std::move(row), line_);
  }
}

void Reader::read_parquet() {
  unit_ = "row";
  read_parquet_rows(file_.bytes(), where(), [&](Json row) {
    repair_texts(row, data_.replaced_utf8);
    add_row(std::move(row), lines_ + 1);
  });
}

void Reader::finish() {
  const bool plural = lines_ != 1;
  const std::string_view units = unit_ == "line" ? (plural ? "lines" : "line") : (plural ? "entries" : "entry");
  if (data_.skipped > 0 && (!options_.allow_broken || data_.rows.empty())) {
    std::string hint = "repair these lines, or allow broken lines, which are then skipped and counted";
    if (data_.rows.empty())
      hint = "no line can be read: is the file in another format than its name says? Formats: jsonl, json, csv, tsv, txt, parquet";
    throw Error(ErrorKind::kCorruption, fmt::format("{}: {} of {} {} are broken: {}{}", where(), data_.skipped, lines_, units,
                                                    fmt::join(data_.broken, "; "),
                                                    data_.skipped > static_cast<int64_t>(data_.broken.size()) ? "; ..." : ""))
        .with_code("DATA_LINES_BROKEN")
        .with_hint(hint);
  }
  if (data_.rows.empty()) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: no rows: the file holds {}, expected at least one row of {}", where(),
                                                         text_.empty()            ? "nothing"
                                                         : is_blank(text_)        ? "only blank lines"
                                                         : data_.format == "json" ? "an empty list"
                                                                                  : "only a header",
                                                         data_.format))
        .with_code("DATA_EMPTY");
  }
}

std::string choose_format(const fs::path& path, const std::string& wanted) {
  if (!wanted.empty()) {
    for (const FormatRow& row : kFormats)
      if (row.name == wanted) return wanted;
    fail(ErrorKind::kInvalidArgument, "data format '{}' is unknown, expected jsonl, json, csv, tsv, txt or parquet", wanted);
  }
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  for (const FormatRow& row : kFormats)
    if (!extension.empty() && row.extensions.find(" " + extension + " ") != std::string_view::npos) return std::string(row.name);
  fail(ErrorKind::kInvalidArgument,
       "{}: the extension '{}' names no data format, expected .jsonl, .json, .csv, .tsv, .txt or .parquet", path.string(),
       extension);
}

}  // namespace

Dataset read_dataset(const fs::path& path, const DatasetOptions& options) {
  Dataset data;
  data.path = path;
  const MappedFile file(path);
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  for (const MagicRow& row : kRefused) {
    if (!text.starts_with(row.bytes)) continue;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: the file is {}, expected JSON lines, JSON, CSV, TSV or plain text in UTF-8, or Parquet",
                            path.string(), row.name))
        .with_hint(row.hint);
  }
  data.format = text.starts_with(kParquetMagic) ? "parquet" : choose_format(path, options.format);
  Sha256 hash;
  hash.update(text);
  data.sha256 = hash.hex();
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);

  Reader reader(file, text, options, data);
  if (data.format == "parquet") {
    reader.read_parquet();
  } else if (!is_blank(text)) {
    if (data.format == "jsonl") reader.read_json_lines();
    if (data.format == "json") reader.read_json();
    if (data.format == "csv") reader.read_table(',');
    if (data.format == "tsv") reader.read_table('\t');
    if (data.format == "txt") reader.read_lines();
  }
  reader.finish();
  return data;
}

}  // namespace salient::models
