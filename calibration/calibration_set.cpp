#include "calibration/calibration_set.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "models/text/dataset.h"

namespace salient::calibration {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "calibration_";
constexpr std::string_view kSuffix = "samples";

std::string escape_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n')
      line += "\\n";
    else if (c == '\r')
      line += "\\r";
    else if (c == '\\')
      line += "\\\\";
    else
      line += c;
  }
  return line;
}

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool is_dataset_name(std::string_view name) {
  return !name.empty() && name[0] != '.' && name[0] != '-' && std::all_of(name.begin(), name.end(), is_name_char);
}

std::vector<int64_t> numbers(const Json& json, std::string_view key, std::string_view where) {
  const Json list = require<Json>(json, key, where);
  if (!list.is_array()) fail(ErrorKind::kCorruption, "{}: key '{}': expected a list of integers", where, key);
  std::vector<int64_t> result;
  for (const Json& value : list) {
    if (!value.is_number_integer()) fail(ErrorKind::kCorruption, "{}: key '{}': expected a list of integers", where, key);
    result.push_back(value.get<int64_t>());
  }
  return result;
}

}  // namespace

TokenCounts count_tokens(std::vector<int64_t> lengths) {
  if (lengths.empty()) return {};
  std::sort(lengths.begin(), lengths.end());
  return {std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), lengths.front(), lengths[(lengths.size() - 1) / 2],
          lengths.back()};
}

Json to_json(const CalibrationRecord& r) {
  return {{"format_version", kRecordFormatVersion},
          {"dataset", r.dataset},
          {"dataset_rows", r.dataset_rows},
          {"source_file", r.source_file},
          {"source_sha256", r.source_sha256},
          {"source_skipped_lines", r.source_skipped_lines},
          {"source_replaced_utf8", r.source_replaced_utf8},
          {"size", r.size},
          {"seed", r.seed},
          {"row_numbers", r.row_numbers},
          {"line_numbers", r.line_numbers},
          {"layout", r.layout},
          {"content", r.content},
          {"system_prompt", r.system_prompt},
          {"template_sha256", r.template_sha256},
          {"tokenizer_sha256", r.tokenizer_sha256},
          {"samples", r.samples},
          {"texts_sha256", r.texts_sha256},
          {"tokens", {{"total", r.tokens.total}, {"min", r.tokens.min}, {"median", r.tokens.median}, {"max", r.tokens.max}}},
          {"max_seq_len", r.max_seq_len},
          {"truncated", r.truncated},
          {"duplicates", r.duplicates}};
}

CalibrationRecord record_from_json(const Json& json, std::string_view where) {
  const auto version = require<int64_t>(json, "format_version", where);
  if (version != kRecordFormatVersion) {
    fail(ErrorKind::kUnsupported, "{}: format_version is {}, this program reads {}", where, version, kRecordFormatVersion);
  }
  const auto text = [&](std::string_view key) { return require<std::string>(json, key, where); };
  const auto number = [&](std::string_view key) { return require<int64_t>(json, key, where); };
  CalibrationRecord r;
  r.dataset = text("dataset");
  r.dataset_rows = number("dataset_rows");
  r.source_file = text("source_file");
  r.source_sha256 = text("source_sha256");
  r.source_skipped_lines = number("source_skipped_lines");
  r.source_replaced_utf8 = number("source_replaced_utf8");
  r.size = text("size");
  r.seed = static_cast<uint64_t>(number("seed"));
  r.row_numbers = numbers(json, "row_numbers", where);
  r.line_numbers = numbers(json, "line_numbers", where);
  r.layout = text("layout");
  r.content = text("content");
  r.system_prompt = text("system_prompt");
  r.template_sha256 = text("template_sha256");
  r.tokenizer_sha256 = text("tokenizer_sha256");
  r.samples = number("samples");
  r.texts_sha256 = text("texts_sha256");
  const Json tokens = require<Json>(json, "tokens", where);
  const std::string tokens_where = fmt::format("{}: tokens", where);
  r.tokens = {require<int64_t>(tokens, "total", tokens_where), require<int64_t>(tokens, "min", tokens_where),
              require<int64_t>(tokens, "median", tokens_where), require<int64_t>(tokens, "max", tokens_where)};
  r.max_seq_len = number("max_seq_len");
  r.truncated = number("truncated");
  r.duplicates = number("duplicates");
  return r;
}

std::string calibration_stem(const CalibrationFileName& name) {
  if (!is_dataset_name(name.dataset)) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("dataset name '{}': expected letters, digits, '.', '_' and '-', which file names bear", name.dataset))
        .with_hint("give the data set a name of its own, such as openmath");
  }
  return fmt::format("{}{}_{}{}", kPrefix, name.dataset, name.dataset_rows, kSuffix);
}

std::optional<CalibrationFileName> parse_calibration_name(const fs::path& path) {
  std::string stem = path.filename().string();
  for (const char* extension : {".record.json", ".jsonl", ".txt"}) {
    if (!stem.ends_with(extension)) continue;
    stem.resize(stem.size() - std::string_view(extension).size());
    break;
  }
  if (!stem.starts_with(kPrefix) || !stem.ends_with(kSuffix) || stem.size() < kPrefix.size() + kSuffix.size()) return std::nullopt;
  const std::string middle = stem.substr(kPrefix.size(), stem.size() - kPrefix.size() - kSuffix.size());
  const size_t at = middle.rfind('_');
  if (at == std::string::npos || at + 1 == middle.size()) return std::nullopt;
  CalibrationFileName name{middle.substr(0, at), 0};
  const char* last = middle.data() + middle.size();
  const auto [end, code] = std::from_chars(middle.data() + at + 1, last, name.dataset_rows);
  if (code != std::errc() || end != last || name.dataset_rows < 0 || !is_dataset_name(name.dataset)) return std::nullopt;
  return name;
}

fs::path record_path(const fs::path& calibration_file) {
  return fs::path(calibration_file).replace_filename(calibration_file.stem().string() + ".record.json");
}

std::string texts_sha256(const std::vector<std::string>& texts) {
  Sha256 hash;
  for (const std::string& text : texts) {
    hash.update(text);
    hash.update(std::string_view("\0", 1));
  }
  return hash.hex();
}

std::string text_of_line(std::string_view line) {
  std::string text;
  for (size_t i = 0; i < line.size(); ++i) {
    const char next = line[i] == '\\' && i + 1 < line.size() ? line[i + 1] : '\0';
    if (next == 'n')
      text += '\n';
    else if (next == 'r')
      text += '\r';
    else if (next == '\\')
      text += '\\';
    else {
      text += line[i];
      continue;
    }
    ++i;
  }
  return text;
}

std::optional<CalibrationRecord> record_beside(const fs::path& calibration_file, const std::vector<std::string>& texts,
                                               std::vector<std::string>& notes) {
  const fs::path beside = record_path(calibration_file);
  if (!fs::exists(beside)) return std::nullopt;
  const Json json = read_json_file(beside);
  if (value_or<std::string>(json, "kind", "", beside.string()) == "recording") return std::nullopt;
  CalibrationRecord record = record_from_json(json, beside.string());
  if (record.texts_sha256 == texts_sha256(texts)) return record;
  notes.push_back(fmt::format("{} does not belong to these texts, which were changed after it was written; it is left aside",
                              beside.filename().string()));
  return std::nullopt;
}

CalibrationSet read_calibration_set(const fs::path& path) {
  models::Dataset data = models::read_dataset(path);
  CalibrationSet set;
  set.sha256 = data.sha256;
  set.format = data.format;
  for (size_t i = 0; i < data.rows.size(); ++i) {
    Json& row = data.rows[i];
    if (!row.contains("text") || !row["text"].is_string()) {
      std::vector<std::string> names;
      for (const auto& [name, value] : row.items()) names.push_back(name);
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}:{}: expected a calibration text {{\"text\": \"...\"}}, fields found: {}", path.string(),
                              data.line_numbers[i], names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))))
          .with_hint("training data become calibration texts by `salient calibrate`");
    }
    std::string& text = row["text"].get_ref<std::string&>();
    set.texts.push_back(data.format == "txt" ? text_of_line(text) : std::move(text));
  }
  if (data.replaced_utf8 > 0)
    set.notes.push_back(fmt::format("{} ill-formed UTF-8 sequences were replaced by U+FFFD", data.replaced_utf8));
  set.record = record_beside(path, set.texts, set.notes);
  return set;
}

std::string jsonl_form(const std::vector<std::string>& texts) {
  std::string bytes;
  Json row = Json::object();
  for (const std::string& text : texts) {
    row["text"] = text;
    bytes += dump_json(row) + "\n";
  }
  return bytes;
}

std::string txt_form(const std::vector<std::string>& texts) {
  std::string bytes;
  for (const std::string& text : texts) bytes += escape_line(text) + "\n";
  return bytes;
}

std::string record_form(const CalibrationRecord& record) { return dump_json(to_json(record), 2) + "\n"; }

void write_files(const std::vector<FileBytes>& files, bool overwrite) {
  std::vector<const FileBytes*> changed;
  for (const FileBytes& file : files) {
    if (fs::exists(file.path) && read_text_file(file.path) == file.bytes) continue;
    if (fs::exists(file.path) && !overwrite) {
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists and differs from what would be written", file.path.string()))
          .with_code("OUTPUT_EXISTS")
          .with_hint("choose another output folder, remove the file, or allow overwriting");
    }
    changed.push_back(&file);
  }
  for (const FileBytes* file : changed) write_file(file->path, file->bytes);
}

}  // namespace salient::calibration
