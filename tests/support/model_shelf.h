// A folder of real models made of the bundled demo, for tests of what goes through many models.
#pragma once

#include <filesystem>
#include <string>

#include "support/demo_run.h"

namespace salient::test {

// Files that a checkpoint of the demo is made of.
inline const std::vector<std::string> kDemoFiles = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                                                    "generation_config.json"};

// A copy of the demo's checkpoint, without its README and training metadata.
inline std::filesystem::path put_demo(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  for (const std::string& name : kDemoFiles) std::filesystem::copy_file(kDemoModel / name, folder / name);
  return folder;
}

// The first `bytes` of a file, as a writer that was stopped leaves it.
inline void put_beginning(const std::filesystem::path& from, const std::filesystem::path& to, size_t bytes) {
  write_text(to, file_bytes(from).substr(0, bytes));
}

}  // namespace salient::test
