#include "pipeline/quantize_progress.h"

#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "pipeline/block_step.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kProgressFile = "progress.json";

LinearReport report_from_json(const Json& json, const std::string& where) {
  LinearReport report;
  report.name = require<std::string>(json, "name", where);
  report.rtn_error = require<double>(json, "rtn_error", where);
  report.error = require<double>(json, "error", where);
  report.scale_kind = require<std::string>(json, "scale", where);
  report.scale_ratio = require<double>(json, "ratio", where);
  report.clipped_share = require<double>(json, "clipped_share", where);
  report.routed_tokens = value_or<int64_t>(json, "routed_tokens", -1, where);
  return report;
}

}  // namespace

Json to_json(const LinearReport& report) {
  Json json = {{"name", report.name},        {"rtn_error", report.rtn_error}, {"error", report.error},
               {"scale", report.scale_kind}, {"ratio", report.scale_ratio},   {"clipped_share", report.clipped_share}};
  if (report.routed_tokens >= 0) json["routed_tokens"] = report.routed_tokens;
  return json;
}

std::optional<QuantizeProgress> load_progress(const fs::path& work_folder, const std::string& fingerprint) {
  const fs::path file = work_folder / kProgressFile;
  if (!fs::exists(file)) return std::nullopt;
  const std::string where = file.string();
  Json json;
  try {
    json = read_json_file(file);
  } catch (const Error& error) {  // damaged: as good as none
    log_warn("progress_unreadable reason=\"{}\"", error.message());
    return std::nullopt;
  }
  QuantizeProgress progress;
  progress.fingerprint = require<std::string>(json, "fingerprint", where);
  progress.blocks_done = require<int64_t>(json, "blocks_done", where);
  if (progress.fingerprint != fingerprint || !fs::exists(hidden_file(work_folder, progress.blocks_done))) return std::nullopt;
  for (const Json& report : require<Json>(json, "reports", where)) progress.reports.push_back(report_from_json(report, where));
  return progress;
}

std::optional<QuantizeProgress> progress_from_metadata(const Json& metadata, const std::string& where) {
  QuantizeProgress progress;
  progress.fingerprint = value_or<std::string>(metadata, "fingerprint", "", where);
  if (progress.fingerprint.empty()) return std::nullopt;
  for (const Json& layer : require<Json>(metadata, "layers", where)) progress.reports.push_back(report_from_json(layer, where));
  return progress;
}

fs::path hidden_file(const fs::path& work_folder, int64_t block) { return work_folder / fmt::format("hidden_{}.bin", block); }

void save_progress(const fs::path& work_folder, const QuantizeProgress& progress, const ActivationFile& hidden) {
  hidden.sync();
  Json reports = Json::array();
  for (const LinearReport& report : progress.reports) reports.push_back(to_json(report));
  write_file(work_folder / kProgressFile,
             dump_json({{"fingerprint", progress.fingerprint}, {"blocks_done", progress.blocks_done}, {"reports", reports}}));
  std::error_code ignored;
  if (progress.blocks_done > 0) fs::remove(hidden_file(work_folder, progress.blocks_done - 1), ignored);
}

bool is_progress_file(const std::string& name) {
  // Of a process that was killed while it wrote a file (".config.json.4711.partial"); shards being filled end in
  // ".safetensors.partial".
  const bool left_over = name.starts_with(".") && name.ends_with(".partial") && !name.ends_with(".safetensors.partial");
  return name == kProgressFile || (name.starts_with("hidden_") && name.ends_with(".bin")) || is_scratch_file(name) || left_over;
}

void remove_progress(const fs::path& work_folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(work_folder)) {
    if (is_progress_file(entry.path().filename().string())) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove(file);
}

}  // namespace salient::pipeline
