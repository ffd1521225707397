#include "pipeline/quantize_progress.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>
#include <span>

#include "common/checksum.h"
#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "pipeline/bit_plan_file.h"
#include "pipeline/block_step.h"
#include "pipeline/search_file.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kProgressFile = "progress.json";
constexpr const char* kOwnChecksum = "checksum";

// JSON has no NaN and no infinity: null stands for them.
double read_error(const Json& json, std::string_view key, const std::string& where) {
  if (json.is_object() && json.contains(key) && json[key].is_null()) return std::numeric_limits<double>::quiet_NaN();
  return require<double>(json, key, where);
}

// "absent" where there is no such key.
double read_measured(const Json& json, std::string_view key, double absent, const std::string& where) {
  return json.contains(key) ? read_error(json, key, where) : absent;
}

std::vector<double> read_numbers(const Json& json, std::string_view key, const std::string& where) {
  std::vector<double> numbers;
  for (const Json& number : value_or<Json>(json, key, Json::array(), where)) {
    if (!number.is_number() && !number.is_null())
      fail(ErrorKind::kCorruption, "{}: {}: found {}, expected a number", where, key, number.type_name());
    numbers.push_back(number.is_null() ? std::numeric_limits<double>::quiet_NaN() : number.get<double>());
  }
  return numbers;
}

std::vector<std::pair<int, double>> read_sensitivity(const Json& json, const std::string& where) {
  std::vector<std::pair<int, double>> sensitivity;
  const Json measured = value_or<Json>(json, "sensitivity", Json::object(), where);
  if (!measured.is_object())
    fail(ErrorKind::kCorruption, "{}: sensitivity: found {}, expected an object {{bits: error}}", where, measured.type_name());
  for (const auto& [bits, error] : measured.items()) {
    int number = 0;
    const auto [end, failure] = std::from_chars(bits.data(), bits.data() + bits.size(), number);
    if (failure != std::errc() || end != bits.data() + bits.size())
      fail(ErrorKind::kCorruption, "{}: sensitivity: '{}' is no number of bits", where, bits);
    sensitivity.emplace_back(number, read_error(measured, bits, where + ": sensitivity"));
  }
  std::sort(sensitivity.begin(), sensitivity.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return sensitivity;
}

std::vector<std::pair<int64_t, double>> read_curve(const Json& json, const std::string& where) {
  std::vector<std::pair<int64_t, double>> curve;
  for (const Json& point : value_or<Json>(json, "rows_curve", Json::array(), where)) {
    if (!point.is_array() || point.size() != 2 || !point[0].is_number_integer() || !(point[1].is_number() || point[1].is_null())) {
      fail(ErrorKind::kCorruption, "{}: rows_curve: found {}, expected [rows, error]", where, dump_json(point));
    }
    curve.emplace_back(point[0].get<int64_t>(),
                       point[1].is_null() ? std::numeric_limits<double>::quiet_NaN() : point[1].get<double>());
  }
  return curve;
}

}  // namespace

Json with_own_checksum(Json json) {
  json.erase(kOwnChecksum);
  const std::string text = dump_json(json);
  json[kOwnChecksum] = checksum_text(checksum_of_bytes(std::as_bytes(std::span(text))));
  return json;
}

bool has_own_checksum(const Json& json) {
  return json.is_object() && json.contains(kOwnChecksum) && with_own_checksum(json) == json;
}

Json to_json(const LinearReport& report) {
  Json json = {{"name", report.name},        {"rtn_error", report.rtn_error}, {"error", report.error},
               {"scale", report.scale_kind}, {"ratio", report.scale_ratio},   {"clipped_share", report.clipped_share}};
  const auto add = [&](const char* key, double value) {
    if (!(value < 0)) json[key] = value;  // NaN stays, as null
  };
  add("scaled_error", report.scaled_error);
  add("clipped_error", report.clipped_error);
  add("held_back_nearest", report.held_back_nearest);
  add("held_back_error", report.held_back_error);
  add("off_diagonal", report.off_diagonal);
  if (report.bits > 0) {
    json["bits"] = report.bits;
    json["group_size"] = report.group_size;
    json["in_features"] = report.in_features;
    json["dead_channels"] = report.dead_channels;
    json["salient_channels"] = report.salient_channels;
  }
  if (report.salience_correlation >= -1) json["salience_correlation"] = report.salience_correlation;
  if (!report.salience_quantiles.empty()) json["salience"]["quantiles"] = report.salience_quantiles;
  if (report.salience_top_share >= 0) json["salience"]["top_share"] = report.salience_top_share;
  if (!report.rows_curve.empty()) json["rows_curve"] = report.rows_curve;
  for (const auto& [bits, error] : report.sensitivity) json["sensitivity"][std::to_string(bits)] = error;
  if (!report.warnings.empty()) json["warnings"] = report.warnings;
  if (report.routed_tokens >= 0) json["routed_tokens"] = report.routed_tokens;
  return json;
}

LinearReport linear_report_from_json(const Json& json, const std::string& where) {
  if (!json.is_object()) fail(ErrorKind::kCorruption, "{}: found {}, expected the report of a linear", where, json.type_name());
  LinearReport report;
  report.name = require<std::string>(json, "name", where);
  const std::string at = where + ": " + report.name;
  report.bits = static_cast<int>(value_or<int64_t>(json, "bits", 0, at));
  report.group_size = value_or<int64_t>(json, "group_size", 0, at);
  report.in_features = value_or<int64_t>(json, "in_features", 0, at);
  report.rtn_error = read_error(json, "rtn_error", at);
  report.scaled_error = read_measured(json, "scaled_error", -1, at);
  report.clipped_error = read_measured(json, "clipped_error", -1, at);
  report.error = read_error(json, "error", at);
  report.scale_kind = require<std::string>(json, "scale", at);
  report.scale_ratio = require<double>(json, "ratio", at);
  report.clipped_share = require<double>(json, "clipped_share", at);
  report.held_back_nearest = read_measured(json, "held_back_nearest", -1, at);
  report.held_back_error = read_measured(json, "held_back_error", -1, at);
  report.off_diagonal = value_or<double>(json, "off_diagonal", -1, at);
  report.dead_channels = value_or<int64_t>(json, "dead_channels", 0, at);
  report.salient_channels = value_or<int64_t>(json, "salient_channels", 0, at);
  report.salience_correlation = value_or<double>(json, "salience_correlation", -2, at);
  const Json salience = value_or<Json>(json, "salience", Json::object(), at);
  report.salience_quantiles = read_numbers(salience, "quantiles", at + ": salience");
  report.salience_top_share = value_or<double>(salience, "top_share", -1, at);
  report.sensitivity = read_sensitivity(json, at);
  report.rows_curve = read_curve(json, at);
  for (const Json& warning : value_or<Json>(json, "warnings", Json::array(), at)) {
    if (!warning.is_string()) fail(ErrorKind::kCorruption, "{}: warnings: found {}, expected texts", at, warning.type_name());
    report.warnings.push_back(warning.get<std::string>());
  }
  report.routed_tokens = value_or<int64_t>(json, "routed_tokens", -1, at);
  return report;
}

namespace {

// Null where there is none that is whole.
Json read_progress(const fs::path& file) {
  if (!fs::exists(file)) return nullptr;
  Json json;
  try {
    json = read_json_file(file);
  } catch (const Error& error) {  // damaged: as good as none
    log_warn("progress_unreadable reason=\"{}\"", error.message());
    return nullptr;
  }
  if (has_own_checksum(json)) return json;
  log_warn("progress_changed file=\"{}\": beginning again", file.string());
  return nullptr;
}

// Keys whose values differ, those of objects with the object's name before them; not of the source, whose keys are names of files.
void add_differences(const Json& one, const Json& other, const std::string& prefix, std::vector<std::string>& names) {
  std::set<std::string> keys;
  for (const Json* json : {&one, &other}) {
    for (const auto& [key, value] : json->items()) keys.insert(key);
  }
  for (const std::string& key : keys) {
    const Json mine = one.value(key, Json()), theirs = other.value(key, Json());
    if (mine == theirs) continue;
    if (mine.is_object() && theirs.is_object() && key != kSourceInput) {
      add_differences(mine, theirs, prefix + key + ".", names);
    } else {
      names.push_back(prefix + key);
    }
  }
}

}  // namespace

std::optional<StoppedWork> find_other_work(const fs::path& work_folder, const std::string& fingerprint, const Json& inputs) {
  const fs::path file = work_folder / kProgressFile;
  const Json json = read_progress(file);
  if (json.is_null() || require<std::string>(json, "fingerprint", file.string()) == fingerprint) return std::nullopt;
  StoppedWork work;
  work.blocks_done = require<int64_t>(json, "blocks_done", file.string());
  const Json theirs = json.value("inputs", Json());
  if (work.blocks_done == 0) return std::nullopt;
  if (!theirs.is_object()) return work;
  std::vector<std::string> names;
  add_differences(inputs, theirs, "", names);
  // What follows from the rows is one thing.
  const auto of_rows = [](const std::string& name) {
    return name == "ids" || name == "lengths" || name == "mask" || name.starts_with("calibration.coverage.") ||
           name.starts_with("calibration.tokens.");
  };
  const size_t all = names.size();
  std::erase_if(names, of_rows);
  if (names.size() < all) names.emplace_back("calibration rows");
  work.differences = std::move(names);
  return work;
}

std::optional<QuantizeProgress> load_progress(const fs::path& work_folder, const std::string& fingerprint, bool hidden) {
  const fs::path file = work_folder / kProgressFile;
  const std::string where = file.string();
  const Json json = read_progress(file);
  if (json.is_null()) return std::nullopt;
  QuantizeProgress progress;
  progress.fingerprint = require<std::string>(json, "fingerprint", where);
  progress.inputs = json.value("inputs", Json());
  progress.blocks_done = require<int64_t>(json, "blocks_done", where);
  if (progress.fingerprint != fingerprint) return std::nullopt;
  progress.files = require<Json>(json, "files", where).get<std::map<std::string, std::string>>();
  progress.tensors = require<Json>(json, "tensors", where).get<std::map<std::string, std::string>>();
  if (hidden && !progress.files.contains(hidden_file(work_folder, progress.blocks_done).filename().string())) return std::nullopt;
  for (const auto& [name, checksum] : progress.files) {
    const fs::path named = work_folder / name;
    if (fs::exists(named) && file_checksum(named) == checksum) continue;
    log_warn("progress_changed file=\"{}\": beginning again", named.string());
    return std::nullopt;
  }
  for (const Json& report : require<Json>(json, "reports", where))
    progress.reports.push_back(linear_report_from_json(report, where));
  return progress;
}

std::optional<QuantizeProgress> progress_from_metadata(const Json& metadata, const std::string& where) {
  QuantizeProgress progress;
  progress.fingerprint = value_or<std::string>(metadata, "fingerprint", "", where);
  if (progress.fingerprint.empty()) return std::nullopt;
  for (const Json& layer : require<Json>(metadata, "layers", where))
    progress.reports.push_back(linear_report_from_json(layer, where));
  return progress;
}

fs::path hidden_file(const fs::path& work_folder, int64_t block, int rank) {
  return work_folder / (rank == 0 ? fmt::format("hidden_{}.bin", block) : fmt::format("hidden_{}_rank{}.bin", block, rank));
}

void save_progress(const fs::path& work_folder, QuantizeProgress& progress, const ActivationFile& hidden) {
  hidden.sync();
  // Of the block before, of all ranks.
  const std::string stem = hidden_file(work_folder, progress.blocks_done - 1).stem().string();
  std::erase_if(progress.files,
                [&](const auto& file) { return file.first == stem + ".bin" || file.first.starts_with(stem + "_rank"); });
  note_file(progress, hidden_file(work_folder, progress.blocks_done));
  save_progress(work_folder, progress);
}

std::string file_checksum(const fs::path& file) { return checksum_text(checksum_of_file(file)); }

void note_file(QuantizeProgress& progress, const fs::path& file) { note_file(progress, file, file_checksum(file)); }

void note_file(QuantizeProgress& progress, const fs::path& file, const std::string& checksum) {
  progress.files[file.filename().string()] = checksum;
}

void save_progress(const fs::path& work_folder, const QuantizeProgress& progress) {
  Json reports = Json::array();
  for (const LinearReport& report : progress.reports) reports.push_back(to_json(report));
  write_file(work_folder / kProgressFile, dump_json(with_own_checksum({{"fingerprint", progress.fingerprint},
                                                                       {"inputs", progress.inputs},
                                                                       {"blocks_done", progress.blocks_done},
                                                                       {"reports", reports},
                                                                       {"files", progress.files},
                                                                       {"tensors", progress.tensors}})));
  std::error_code ignored;
  if (progress.blocks_done > 0) fs::remove(hidden_file(work_folder, progress.blocks_done - 1), ignored);
}

bool is_progress_file(const std::string& name) {
  // Of a process that was killed while it wrote a file (".config.json.4711.partial"); shards being filled end in
  // ".safetensors.partial" or ".gguf.partial".
  const bool shard = name.ends_with(".safetensors.partial") || name.ends_with(".gguf.partial");
  const bool left_over = name.starts_with(".") && name.ends_with(".partial") && !shard;
  return name == kProgressFile || (name.starts_with("hidden_") && name.ends_with(".bin")) || is_scratch_file(name) ||
         is_bit_plan_file(name) || is_search_part(name) || left_over;
}

void remove_progress(const fs::path& work_folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(work_folder)) {
    if (is_progress_file(entry.path().filename().string())) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove(file);
}

}  // namespace salient::pipeline
