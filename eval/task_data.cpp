#include "eval/task_data.h"

#include <algorithm>
#include <array>
#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "eval/task_functions.h"
#include "models/text/dataset.h"

namespace salient::eval {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 7> kRowExtensions = {".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet"};
constexpr std::array<std::string_view, 3> kTextExtensions = {".txt", ".text", ".raw"};

// Names of a split's file in a folder, without an extension.
std::vector<std::string> file_stems(const TaskDefinition& task, const std::string& split) {
  const std::string& dataset = task.dataset_name;
  if (dataset.empty()) return {split};
  return {dataset + "/" + split, dataset + "_" + split, split};
}

// What Hugging Face's hub adds to the name of a Parquet file that holds a whole split.
constexpr std::string_view kOnlyShard = "-00000-of-00001.parquet";

std::optional<fs::path> find_in_folder(const fs::path& folder, const std::vector<std::string>& stems) {
  for (const std::string& stem : stems) {
    for (const auto& extensions :
         {std::span<const std::string_view>(kRowExtensions), std::span<const std::string_view>(kTextExtensions)}) {
      for (const std::string_view extension : extensions) {
        fs::path file = folder / stem;
        file += extension;
        if (fs::is_regular_file(file)) return file;
      }
    }
  }
  for (const std::string& stem : stems) {
    for (const fs::path& place : {folder, folder / "data"}) {
      fs::path file = place / stem;
      file += kOnlyShard;
      if (fs::is_regular_file(file)) return file;
    }
  }
  return std::nullopt;
}

bool matches(const Json& row, const std::map<std::string, std::string>& filter) {
  return std::all_of(filter.begin(), filter.end(), [&](const auto& entry) {
    const auto found = row.find(entry.first);
    if (found == row.end()) return true;
    return (found->is_string() ? found->template get<std::string>() : dump_json(*found)) == entry.second;
  });
}

TaskRows read_rows(const TaskDefinition& task, const fs::path& file) {
  TaskRows out{file, {}, {}, {}};
  if (!task.document_reader.empty() && !holds_rows(file)) {
    const std::string text = read_text_file(file);
    out.sha256 = sha256_hex(text);
    out.rows = find_document_reader(task.document_reader)(text);
    for (size_t i = 0; i < out.rows.size(); ++i) out.line_numbers.push_back(static_cast<int64_t>(i) + 1);
    return out;
  }
  models::Dataset data = models::read_dataset(file);
  out.sha256 = data.sha256;
  out.rows = std::move(data.rows);
  out.line_numbers = std::move(data.line_numbers);
  return out;
}

}  // namespace

bool holds_rows(const fs::path& file) {
  return std::find(kRowExtensions.begin(), kRowExtensions.end(), file.extension().string()) != kRowExtensions.end();
}

fs::path find_split(const TaskDefinition& task, const std::string& split, const DataSource& source) {
  if (const auto given = source.splits.find(split); given != source.splits.end()) return given->second;
  const bool evaluated = split == task.evaluated_split();
  const std::vector<std::string> stems = file_stems(task, split);
  const auto hint = [&] {
    return evaluated ? fmt::format("--data {}=FILE; nothing is ever downloaded", task.name)
                     : fmt::format("--data {}:{}=FILE, or --num-fewshot 0", task.name, split);
  };
  for (const fs::path& place : {source.path, fs::path(task.dataset_path)}) {
    if (!place.empty() && fs::is_directory(place)) {
      if (const auto file = find_in_folder(place, stems)) return *file;
      if (place == source.path) {
        throw Error(ErrorKind::kInvalidArgument,
                    fmt::format("{}: no file for the split '{}' of task {}; looked for {}, with one of {} or {}, or {}",
                                place.string(), split, task.name, fmt::join(stems, ", "), fmt::join(kRowExtensions, ", "),
                                fmt::join(kTextExtensions, ", "), kOnlyShard))
            .with_hint(hint());
      }
    } else if (evaluated && !place.empty() && (place == source.path || fs::exists(place))) {
      return place;
    }
    if (place != source.path) continue;
    if (const auto named = task.data_files.find(split); named != task.data_files.end()) return named->second;
    if (fs::path(split).has_extension() && fs::is_regular_file(split)) return split;
  }
  throw Error(ErrorKind::kInvalidArgument,
              evaluated ? fmt::format("task {} has no data file", task.name)
                        : fmt::format("task {}: no file for its split '{}', from which examples are drawn", task.name, split))
      .with_hint(hint());
}

TaskRows load_split(const TaskDefinition& task, const std::string& split, const DataSource& source) {
  TaskRows all = read_rows(task, find_split(task, split, source));
  if (!task.row_filter.empty()) {
    TaskRows kept{all.file, all.sha256, {}, {}};
    for (size_t i = 0; i < all.rows.size(); ++i) {
      if (!matches(all.rows[i], task.row_filter)) continue;
      kept.rows.push_back(std::move(all.rows[i]));
      kept.line_numbers.push_back(all.line_numbers[i]);
    }
    all = std::move(kept);
  }
  if (all.rows.empty()) {
    fail(ErrorKind::kInvalidArgument, "{}: no rows for task {}{}", all.file.string(), task.name,
         task.row_filter.empty()
             ? ""
             : fmt::format(": none whose {} is '{}'", task.row_filter.begin()->first, task.row_filter.begin()->second));
  }
  if (!task.process_docs.empty()) {
    const ProcessDocument process = find_process_docs(task.process_docs);
    for (size_t i = 0; i < all.rows.size(); ++i) process(all.rows[i], fmt::format("{}:{}", all.file.string(), all.line_numbers[i]));
  }
  return all;
}

}  // namespace salient::eval
