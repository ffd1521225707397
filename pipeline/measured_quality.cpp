#include "pipeline/measured_quality.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <optional>
#include <vector>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "pipeline/markdown.h"
#include "pipeline/model_card.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kHeading = "## Measured quality\n";
constexpr std::string_view kNextHeading = "## How to load it\n";
constexpr std::string_view kIndexKey = "model-index:";
constexpr std::string_view kOurIndex = "model-index: [";
constexpr std::string_view kDashes = "---\n";

std::string string_of(const Json& figure, const char* key) {
  return figure.is_object() && figure.value(key, Json()).is_string() ? figure.at(key).get<std::string>() : "";
}

bool is_figure(const Json& figure) { return figure.is_object() && figure.contains("value") && figure.at("value").is_number(); }

bool same_figure(const Json& a, const Json& b) {
  constexpr std::array kKeys = {"task", "metric", "data"};
  return std::all_of(kKeys.begin(), kKeys.end(), [&](const char* key) { return string_of(a, key) == string_of(b, key); });
}

constexpr std::chrono::milliseconds kFolderLockPoll{50};

// Two evaluations of one artifact would each write back what the other one has not seen.
FolderLock lock_figures(const fs::path& folder) {
  for (;;) {
    if (std::optional<FolderLock> lock = FolderLock::try_lock(folder)) return std::move(*lock);
    sleep_unless_cancelled(kFolderLockPoll);
    check_cancelled();
  }
}

// Of a folder without metadata null.
Json metadata_if_there(const fs::path& folder) {
  const fs::path file = folder / kMetadataFile;
  if (!fs::exists(file)) return {};
  Json metadata = read_json_file(file);
  if (!metadata.is_object())
    fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", file.string(), metadata.type_name());
  return metadata;
}

// Whoever makes an artifact takes no lock of this kind, and puts a whole folder in the place of the one before.
void check_same_artifact(const fs::path& folder, const Json& read) {
  const Json now = metadata_if_there(folder);
  for (const char* key : {"fingerprint", "files_sha256"}) {
    const Json before = read.is_object() ? read.value(key, Json()) : Json();
    const Json found = now.is_object() ? now.value(key, Json()) : Json();
    if (found == before) continue;
    throw Error(ErrorKind::kIo,
                fmt::format("{}: {} is {:.40} now, expected {:.40}: another artifact has taken the place of the one "
                            "that was measured",
                            (folder / kMetadataFile).string(), key, dump_json(found), dump_json(before)))
        .with_hint("the figures are in the store; evaluate the artifact that is there now");
  }
}

// What a task is known by: perplexity itself has no share of right answers.
bool is_headline(const Json& figure) {
  return figure.value("headline", Json()) == true || string_of(figure, "metric") == string_of(figure, "task");
}

std::string number_of(const Json& figure, const char* key) {
  const Json value = figure.value(key, Json());
  return value.is_number() ? markdown_value(value) : "";
}

// Where the line that begins so lies in the card's header; npos when there is none.
size_t find_header_line(const std::string& card, std::string_view beginning) {
  if (!card.starts_with(kDashes)) return std::string::npos;
  const size_t end = card.find("\n---", kDashes.size() - 1);
  const size_t at = card.find(fmt::format("\n{}", beginning));
  return end == std::string::npos || at == std::string::npos || at >= end ? std::string::npos : at + 1;
}

void replace_index(std::string& card, const std::string& line) {
  if (const size_t ours = find_header_line(card, kOurIndex); ours != std::string::npos) {
    card.replace(ours, card.find('\n', ours) + 1 - ours, line);
    return;
  }
  if (line.empty() || find_header_line(card, kIndexKey) != std::string::npos) return;
  const size_t end = card.starts_with(kDashes) ? card.find("\n---", kDashes.size() - 1) : std::string::npos;
  if (end == std::string::npos)
    card.insert(0, fmt::format("{}{}{}\n", kDashes, line, kDashes));
  else
    card.insert(end + 1, line);
}

// Position of a heading at the beginning of a line.
size_t find_heading(const std::string& card, std::string_view heading, size_t from = 0) {
  const size_t at = card.find(fmt::format("\n{}", heading), from);
  return at == std::string::npos ? at : at + 1;
}

void replace_section(std::string& card, const std::string& section) {
  const size_t begin = find_heading(card, kHeading);
  if (begin != std::string::npos) {
    const size_t end = find_heading(card, "## ", begin);
    card.replace(begin, end == std::string::npos ? end : end - begin, section + (end == std::string::npos ? "" : "\n"));
    return;
  }
  const size_t next = find_heading(card, kNextHeading);
  if (next == std::string::npos)
    card += "\n" + section;
  else
    card.insert(next, section + "\n");
}

}  // namespace

Json quality_figures(const eval::ModelResult& result) {
  Json figures = Json::array();
  for (const eval::TaskResult& task : result.tasks) {
    for (const eval::MetricResult& metric : task.metrics) {
      if (metric.detail || !std::isfinite(metric.value.value)) continue;
      const auto& error = metric.value.stderr_of_mean;
      const bool has_base = metric.base && std::isfinite(metric.base->base_value);
      figures.push_back({{"task", task.task},
                         {"metric", metric.metric},
                         {"value", metric.value.value},
                         {"stderr", error && std::isfinite(*error) ? Json(*error) : Json()},
                         {"n", metric.n},
                         {"base", has_base ? Json(metric.base->base_value) : Json()},
                         {"headline", metric.headline},
                         {"data", fs::path(task.file).filename().string()},
                         {"data_sha256", task.data_sha256},
                         {"settings", task.settings}});
    }
  }
  return figures;
}

Json merge_figures(const Json& earlier, const Json& later) {
  Json merged = earlier.is_array() ? earlier : Json::array();
  for (const Json& figure : later) {
    const auto known = std::find_if(merged.begin(), merged.end(), [&](const Json& other) { return same_figure(other, figure); });
    if (known == merged.end())
      merged.push_back(figure);
    else
      *known = figure;
  }
  return merged;
}

std::string quality_section(const Json& figures) {
  std::string text = std::string(kHeading) + "\n";
  std::vector<std::vector<std::string>> rows;
  if (figures.is_array()) {
    for (const Json& figure : figures) {
      if (!is_figure(figure)) continue;
      rows.push_back({markdown_text(string_of(figure, "task")), markdown_text(string_of(figure, "metric")),
                      number_of(figure, "value"), number_of(figure, "base"), number_of(figure, "stderr"), number_of(figure, "n"),
                      markdown_text(string_of(figure, "data"))});
    }
  }
  if (!rows.empty())
    return text + markdown_table({"Task", "Metric", "This model", "Original", "Standard error", "n", "Data"}, rows);
  return text +
         "Not measured yet. To compare this model with the original, on a text of your own:\n\n```sh\nsalient eval MODEL "
         "--compare-with ORIGINAL --tasks perplexity \\\n    --data perplexity=heldout.txt --update-card\n```\n";
}

std::string model_index(std::string_view model_name, const Json& figures) {
  if (!figures.is_array()) return "";
  Json results = Json::array();
  for (const Json& figure : figures) {
    if (!is_figure(figure) || !is_headline(figure)) continue;
    const Json dataset = {{"type", string_of(figure, "task")}, {"name", string_of(figure, "data")}};
    const bool known =
        std::any_of(results.begin(), results.end(), [&](const Json& result) { return result.at("dataset") == dataset; });
    if (!known) results.push_back({{"task", {{"type", "text-generation"}}}, {"dataset", dataset}, {"metrics", Json::array()}});
    const auto result = std::find_if(results.begin(), results.end(), [&](const Json& one) { return one.at("dataset") == dataset; });
    (*result)["metrics"].push_back({{"type", string_of(figure, "metric")}, {"value", figure.at("value")}});
  }
  if (results.empty()) return "";
  const Json index = {{{"name", std::string(model_name)}, {"results", results}}};
  return fmt::format("{} {}\n", kIndexKey, dump_json(index));
}

std::string with_figures(std::string card, std::string_view model_name, const Json& figures) {
  replace_index(card, model_index(model_name, figures));
  replace_section(card, quality_section(figures));
  return card;
}

void check_card(const fs::path& folder) {
  const fs::path card = folder / kModelCard;
  const bool there = fs::is_directory(folder) && fs::is_regular_file(card);
  // A card that its owner wrote is not ours to edit.
  if (there && (fs::exists(folder / kMetadataFile) || find_heading("\n" + read_text_file(card), kHeading) != std::string::npos))
    return;
  throw Error(ErrorKind::kInvalidArgument,
              there ? fmt::format("{}: found a card of somebody else's, without '{}', expected Salient's", card.string(),
                                  first_line(kHeading))
                    : fmt::format("{}: no {} to put figures into", folder.string(), kModelCard))
      .with_hint(there ? fmt::format("a line '{}' in it says that figures may be put there", first_line(kHeading))
                       : "folders that salient quantize, run and export make have one");
}

void publish_figures(const fs::path& folder, const Json& figures) {
  check_card(folder);
  const FolderLock lock = lock_figures(folder);
  write_figures(folder, metadata_if_there(folder), figures);
}

void write_figures(const fs::path& folder, Json metadata, const Json& figures) {
  const fs::path card = folder / kModelCard;
  const Json read = metadata;
  Json all = figures;
  std::string name = fs::absolute(folder).lexically_normal().filename().string();
  if (metadata.is_object()) {
    all = merge_figures(metadata.value("evaluation", Json()), figures);
    name = model_name(metadata);
    if (metadata.value("evaluation", Json()) != all) {
      metadata["evaluation"] = all;
      const std::string text = dump_json(metadata, 2) + "\n";
      check_same_artifact(folder, read);
      write_file(folder / kMetadataFile, text);
    }
  }
  const std::string before = read_text_file(card);
  if (const std::string after = with_figures(before, name, all); after != before) {
    check_same_artifact(folder, read);
    write_file(card, after);
  }
}

}  // namespace salient::pipeline
