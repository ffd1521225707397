// What is fuzzed: every reader of files that come from others, one row each. The same functions run in the fuzzer
// (tests/fuzz/fuzzer.cpp, scripts/fuzz.sh) and, over the corpus and broken copies of good files, in tests/fuzz/replay_test.cpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salient::fuzz {

struct FuzzTarget {
  std::string_view name;
  // Reads the bytes as that kind of file. Errors of any kind but internal are answers; whatever else leaves it is a find.
  void (*run)(std::span<const std::byte> bytes);
  // Good files to begin with: paths below the repository, "*" in the last part and "**" before it. Longer ones than `most` are cut.
  std::span<const std::string_view> seeds;
  size_t most = 1 << 14;
};

std::span<const FuzzTarget> fuzz_targets();

// The texts of the target's seeds, in the order of their names. `root`: the repository.
std::vector<std::string> good_files(const FuzzTarget& target, const std::filesystem::path& root);

// Containers of tensors: container_targets.cpp.
void fuzz_safetensors(std::span<const std::byte> bytes);
void fuzz_index(std::span<const std::byte> bytes);
void fuzz_gguf(std::span<const std::byte> bytes);
void fuzz_npz(std::span<const std::byte> bytes);
void fuzz_imatrix(std::span<const std::byte> bytes);
void fuzz_adapter(std::span<const std::byte> bytes);
// What describes a model: model_targets.cpp.
void fuzz_config(std::span<const std::byte> bytes);
void fuzz_tokenizer(std::span<const std::byte> bytes);
void fuzz_regex(std::span<const std::byte> bytes);
void fuzz_template(std::span<const std::byte> bytes);
// Data and settings: data_targets.cpp.
void fuzz_json_lines(std::span<const std::byte> bytes);
void fuzz_csv(std::span<const std::byte> bytes);
void fuzz_parquet(std::span<const std::byte> bytes);
void fuzz_task_yaml(std::span<const std::byte> bytes);
void fuzz_python_literal(std::span<const std::byte> bytes);

// Writes the bytes to a file of this name in a folder of this process, and returns its path. Nothing else is in the folder but what
// `neighbours` wrote to it, which is called when another name was asked for before: inputs come by the million.
std::filesystem::path fuzz_file(std::string_view name, std::span<const std::byte> bytes,
                                void (*neighbours)(const std::filesystem::path& folder) = nullptr);

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace salient::fuzz
