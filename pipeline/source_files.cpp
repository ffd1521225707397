#include "pipeline/source_files.h"

#include <sys/stat.h>

#include <map>

#include "common/hash.h"
#include "models/io/model_files.h"
#include "pipeline/artifact_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

std::map<std::string, fs::path> source_files(const fs::path& folder) {
  std::map<std::string, fs::path> files = models::list_model_files(folder);
  std::erase_if(files, [](const auto& file) {
    const std::string& name = file.first;
    return !is_side_file(name) && name != "config.json" && name != "adapter_config.json" && !name.ends_with(".safetensors");
  });
  return files;
}

// Null where there is none. The time of the last change of the inode is among it, which no copying program can set back.
Json state_of(const fs::path& file) {
  struct stat found {};
  if (::stat(file.c_str(), &found) != 0) return nullptr;
  return {found.st_size, found.st_ino, found.st_mtim.tv_sec, found.st_mtim.tv_nsec, found.st_ctim.tv_sec, found.st_ctim.tv_nsec};
}

}  // namespace

Json hash_source_files(const fs::path& folder, const std::function<std::string(const fs::path& file)>& hash) {
  Json hashes = Json::object();
  for (const auto& [name, path] : source_files(folder)) hashes[name] = hash ? hash(path) : sha256_file(path);
  return hashes;
}

Json source_state(const fs::path& folder) {
  Json states = Json::object();
  for (const auto& [name, path] : source_files(folder)) states[name] = state_of(path);
  return states;
}

std::string changed_source_file(const fs::path& folder, const Json& state, const Json& hashes) {
  const std::map<std::string, fs::path> files = source_files(folder);
  for (const auto& [name, hash] : hashes.items()) {
    if (!files.contains(name)) return name;
  }
  for (const auto& [name, path] : files) {
    if (!hashes.contains(name)) return name;
    if (state.contains(name) && !state.at(name).is_null() && state.at(name) == state_of(path)) continue;
    if (Json(sha256_file(path)) != hashes.at(name)) return name;
  }
  return "";
}

}  // namespace salient::pipeline
