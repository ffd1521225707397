// Reads every #include line of the project: arrows only go up, and third-party headers stay in the file that wraps them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "common/file.h"
#include "common/text.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

// What each folder may include besides itself.
const std::map<std::string, std::set<std::string>> kAllowed = {
    {"common", {}},
    {"quant", {"common"}},
    {"models", {"common", "quant"}},
    {"calibration", {"common", "quant", "models"}},
    {"eval", {"common", "quant", "models"}},
    {"pipeline", {"common", "quant", "models", "calibration", "eval"}},
};

struct Wrapper {
  std::string prefix;            // of the included name
  std::set<std::string> owners;  // the only files that may include it
};
const std::vector<Wrapper> kWrappers = {
    {"sqlite3", {"pipeline/store.cpp", "pipeline/sqlite_statement.cpp"}},
    {"yaml-cpp/", {"common/yaml.cpp"}},
    {"spdlog/", {"common/log.cpp", "common/fmt_probe.cpp"}},
    {"openssl/", {"common/hash.cpp"}},
    {"curl/", {"common/http.cpp"}},
    {"mpi.h", {"common/mpi_ranks.cpp"}},
};

std::string first_folder(const std::string& path) { return path.substr(0, path.find('/')); }

// What is wrong with `file` (relative to the root) including `included`; nothing when it is fine.
std::optional<std::string> find_violation(const std::string& file, const std::string& included) {
  const std::string from = first_folder(file), to = first_folder(included);
  if (to == "tests") return file + " includes " + included + ": the program must not stand on its tests";
  if (kAllowed.contains(to) && included.find('/') != std::string::npos && to != from && !kAllowed.at(from).contains(to)) {
    return file + " includes " + included + ": " + from + " may not stand on " + to;
  }
  for (const Wrapper& wrapper : kWrappers) {
    if (included.starts_with(wrapper.prefix) && !wrapper.owners.contains(file)) {
      return file + " includes " + included + ", which belongs into " + *wrapper.owners.begin();
    }
  }
  if (file.ends_with(".h") && (included == "torch/torch.h" || included == "torch/script.h" || included == "torch/extension.h")) {
    return file + " includes " + included +
           ": headers include <ATen/core/Tensor.h> only, the whole of torch compiles for half a minute";
  }
  return std::nullopt;
}

std::vector<std::string> includes_of(const std::string& source) {
  static const std::regex kInclude(R"re(^\s*#\s*include\s*[<"]([^>"]+)[>"])re");
  std::vector<std::string> names;
  for (const std::string& line : split(source, '\n')) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) names.push_back(match[1]);
  }
  return names;
}

TEST(Layering, TheRulesCatchWhatTheyShould) {
  for (const auto& [file, included] :
       std::vector<std::pair<std::string, std::string>>{{"common/json.h", "quant/spec.h"},
                                                        {"quant/spec.cpp", "models/io/checkpoint.h"},
                                                        {"models/io/a.cpp", "eval/task.h"},
                                                        {"eval/a.cpp", "calibration/render.h"},
                                                        {"calibration/a.h", "eval/task.h"},
                                                        {"calibration/a.h", "pipeline/store.h"},
                                                        {"pipeline/stage.cpp", "sqlite3.h"},
                                                        {"pipeline/run_config.cpp", "yaml-cpp/yaml.h"},
                                                        {"quant/a.cpp", "spdlog/spdlog.h"},
                                                        {"models/a.h", "torch/torch.h"},
                                                        {"pipeline/a.cpp", "tests/support/temporary_folder.h"}}) {
    EXPECT_TRUE(find_violation(file, included)) << file << " " << included;
  }
  for (const auto& [file, included] : std::vector<std::pair<std::string, std::string>>{{"common/json.h", "common/error.h"},
                                                                                       {"models/io/a.cpp", "quant/spec.h"},
                                                                                       {"pipeline/commands/a.cpp", "eval/task.h"},
                                                                                       {"pipeline/store.cpp", "sqlite3.h"},
                                                                                       {"models/a.cpp", "torch/torch.h"},
                                                                                       {"eval/a.h", "vector"}}) {
    EXPECT_FALSE(find_violation(file, included)) << file << " " << included;
  }
  EXPECT_THAT(includes_of("  #  include <a/b.h>\n#include \"c.h\"  // x\n// #include <d.h>\nint include;\n"),
              ::testing::ElementsAre("a/b.h", "c.h"));
}

TEST(Layering, HoldsInEveryFile) {
  const fs::path root = SALIENT_SOURCE_DIR;
  size_t read = 0;
  for (const auto& [folder, unused] : kAllowed) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (!entry.is_regular_file() || (extension != ".h" && extension != ".cpp")) continue;
      ++read;
      const std::string file = entry.path().lexically_relative(root).generic_string();
      for (const std::string& included : includes_of(read_text_file(entry.path()))) {
        if (const auto violation = find_violation(file, included)) ADD_FAILURE() << *violation;
      }
    }
  }
  EXPECT_GT(read, 40u) << "the folders were not found";
}

}  // namespace
}  // namespace salient
