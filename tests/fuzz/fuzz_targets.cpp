#include "fuzz/fuzz_targets.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <string>

#include "common/error.h"
#include "common/file.h"
#include "common/scratch_folder.h"

namespace salient::fuzz {
namespace fs = std::filesystem;
namespace {

using Seeds = std::string_view;

constexpr std::array kSafetensors = {Seeds("tests/data/adapters/**/*.safetensors"), Seeds("tests/data/decoder/**/*.safetensors")};
constexpr std::array kIndex = {Seeds("tests/fuzz/seeds/*.index.json")};
constexpr std::array kGguf = {Seeds("tests/data/gguf/*.gguf"), Seeds("tests/fuzz/seeds/*.gguf")};
constexpr std::array kNpz = {Seeds("tests/data/npz/*.npz")};
constexpr std::array kImatrix = {Seeds("tests/fuzz/seeds/*.imatrix")};
constexpr std::array kAdapter = {Seeds("tests/data/adapters/**/adapter_config.json")};
constexpr std::array kConfig = {Seeds("tests/data/decoder/**/config.json"), Seeds("models/demo/config.json")};
constexpr std::array kTokenizer = {Seeds("tests/fuzz/seeds/*.tokenizer.json")};
constexpr std::array kRegex = {Seeds("tests/fuzz/seeds/*.regex")};
constexpr std::array kTemplate = {Seeds("tests/data/templates/*.jinja"), Seeds("models/demo/chat_template.jinja")};
constexpr std::array kJsonLines = {Seeds("models/demo/data/*.jsonl"), Seeds("tests/fuzz/seeds/*.jsonl")};
constexpr std::array kCsv = {Seeds("tests/fuzz/seeds/*.csv")};
constexpr std::array kParquet = {Seeds("tests/data/parquet/*.parquet")};
constexpr std::array kTaskYaml = {Seeds("configs/tasks/*.yaml")};
constexpr std::array kPythonLiteral = {Seeds("tests/fuzz/seeds/*.literal")};

constexpr std::array kTargets = {
    FuzzTarget{"safetensors", fuzz_safetensors, kSafetensors},
    FuzzTarget{"index", fuzz_index, kIndex},
    FuzzTarget{"gguf", fuzz_gguf, kGguf},
    FuzzTarget{"npz", fuzz_npz, kNpz},
    FuzzTarget{"imatrix", fuzz_imatrix, kImatrix},
    FuzzTarget{"adapter", fuzz_adapter, kAdapter},
    FuzzTarget{"config", fuzz_config, kConfig},
    FuzzTarget{"tokenizer", fuzz_tokenizer, kTokenizer},
    FuzzTarget{"regex", fuzz_regex, kRegex, 512},
    FuzzTarget{"template", fuzz_template, kTemplate},
    FuzzTarget{"json_lines", fuzz_json_lines, kJsonLines, 4096},
    FuzzTarget{"csv", fuzz_csv, kCsv, 4096},
    FuzzTarget{"parquet", fuzz_parquet, kParquet},
    FuzzTarget{"task_yaml", fuzz_task_yaml, kTaskYaml},
    FuzzTarget{"python_literal", fuzz_python_literal, kPythonLiteral, 1024},
};

// Files that a seed's pattern names.
std::vector<fs::path> matching(const fs::path& root, std::string_view pattern) {
  const fs::path whole = root / pattern;
  const std::string ending = whole.filename().string().starts_with("*") ? whole.filename().string().substr(1) : "";
  fs::path folder = whole.parent_path();
  const bool deep = folder.filename() == "**";
  if (deep) folder = folder.parent_path();
  std::vector<fs::path> files;
  const auto consider = [&](const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && (ending.empty() ? name == whole.filename() : name.ends_with(ending)))
      files.push_back(entry.path());
  };
  if (deep) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) consider(entry);
  } else {
    for (const auto& entry : fs::directory_iterator(folder)) consider(entry);
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::vector<std::string> good_files(const FuzzTarget& target, const fs::path& root) {
  std::vector<std::string> texts;
  for (const std::string_view pattern : target.seeds) {
    for (const fs::path& file : matching(root, pattern)) texts.push_back(read_text_file(file).substr(0, target.most));
  }
  return texts;
}

std::span<const FuzzTarget> fuzz_targets() { return kTargets; }

std::filesystem::path fuzz_file(std::string_view name, std::span<const std::byte> bytes,
                                void (*neighbours)(const std::filesystem::path& folder)) {
  static const ScratchFolder folder(fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path());
  static fs::path file;
  if (file.filename() != name) {
    for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove_all(entry.path());
    if (neighbours != nullptr) neighbours(folder.path());
    file = folder.path() / name;
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> to(std::fopen(file.c_str(), "wb"), &std::fclose);
  if (to == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), to.get()) != bytes.size())
    fail(ErrorKind::kInternal, "{}: cannot be written", file.string());
  return file;
}

}  // namespace salient::fuzz
