// The files that an artifact is made from: their hashes, and whether they still are what was hashed.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "common/json.h"

namespace salient::pipeline {

// {file name: SHA-256} of what an artifact is made from: config.json, every safetensors file and the side files; of an adapter its
// own and its base's. `hash`: of one file, where a store knows it; empty = it is read.
Json hash_source_files(const std::filesystem::path& folder,
                       const std::function<std::string(const std::filesystem::path& file)>& hash = {});

// {file name: its size, times and inode} of the same files: to be taken before they are hashed.
Json source_state(const std::filesystem::path& folder);

// The first of the files, by name, that is gone, new or has another content than `hashes` say; empty = none. Only files whose state
// is not that of `state` are read.
std::string changed_source_file(const std::filesystem::path& folder, const Json& state, const Json& hashes);

}  // namespace salient::pipeline
