#include "pipeline/work_folder.h"

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/json.h"
#include "pipeline/artifact_files.h"
#include "pipeline/model_card.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

fs::path free_name(const fs::path& wanted) {
  fs::path name = wanted;
  for (int count = 2; fs::exists(fs::symlink_status(name)); ++count) name = fmt::format("{}-{}", wanted.string(), count);
  return name;
}

}  // namespace

fs::path work_folder_of(const fs::path& output) { return output.string() + ".partial"; }

void check_work_folder(const fs::path& work) {
  if (!fs::exists(work)) return;
  for (const auto& entry : fs::directory_iterator(work)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with(".") || name.starts_with("model") || is_progress_file(name) || is_side_file(name) ||
                      name == "config.json" || name == kMetadataFile || name == kModelCard;
    if (ours) continue;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: this name is needed for the work in progress, but the folder holds {}, which is "
                            "none of its files",
                            work.string(), name))
        .with_hint("move that folder away, or choose another --out");
  }
}

std::optional<QuantizeProgress> load_finished(const fs::path& folder) {
  const fs::path file = folder / kMetadataFile;
  if (!fs::exists(file) || !fs::exists(folder / "config.json")) return std::nullopt;
  return progress_from_metadata(read_json_file(file), file.string());
}

std::string find_changed_file(const fs::path& folder) {
  const Json hashes = read_json_file(folder / kMetadataFile).value("files_sha256", Json::object());
  for (const auto& [name, hash] : hashes.items()) {
    if (!fs::exists(folder / name) || Json(sha256_file(folder / name)) != hash) return name;
  }
  return "";
}

void remove_results(const fs::path& work) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(work)) {
    const std::string name = entry.path().filename().string();
    if (is_side_file(name) || name == "config.json" || name == kMetadataFile || name == kModelCard) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove(file);
}

void publish_folder(const fs::path& work, const fs::path& output) {
  remove_progress(work);
  const fs::path parent = output.has_parent_path() ? output.parent_path() : fs::path(".");
  fs::path replaced;
  if (fs::exists(output)) {
    replaced = free_name(output.string() + ".replaced");
    fs::rename(output, replaced);
  }
  fs::rename(work, output);
  sync_folder(parent);  // before the old one goes
  if (!replaced.empty()) fs::remove_all(replaced);
}

}  // namespace salient::pipeline
