// Every reader of files from others, over good files, what fuzzing kept (tests/fuzz/corpus), and thousands of broken copies: each
// is read, or refused with an error of this program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "fuzz/fuzz_targets.h"

namespace salient::fuzz {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> inputs_of(const FuzzTarget& target) {
  std::vector<std::string> inputs = good_files(target, SALIENT_SOURCE_DIR);
  EXPECT_FALSE(inputs.empty()) << "no good files to begin with";
  const fs::path corpus = fs::path(SALIENT_SOURCE_DIR) / "tests/fuzz/corpus" / target.name;
  if (!fs::exists(corpus)) return inputs;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(corpus)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) inputs.push_back(read_text_file(file));
  return inputs;
}

// One to four changes: bits, bytes, numbers of 4 or 8 bytes, cuts, parts doubled.
std::string broken(std::string text, std::mt19937_64& random) {
  for (uint64_t changes = 1 + random() % 4; changes > 0 && !text.empty(); --changes) {
    const size_t at = random() % text.size();
    switch (random() % 6) {
      case 0: text[at] = static_cast<char>(text[at] ^ (1 << random() % 8)); break;
      case 1: text[at] = static_cast<char>(random()); break;
      case 2:
        for (size_t i = at; i < std::min(text.size(), at + 4 + 4 * (random() % 2)); ++i)
          text[i] = static_cast<char>(random() % 3 == 0 ? 0xFF : 0x7F);
        break;
      case 3: text.resize(at); break;
      case 4: text.erase(at, 1 + random() % 16); break;
      default: text.insert(at, text.substr(random() % text.size(), 1 + random() % 32)); break;
    }
  }
  return text;
}

class Replay : public ::testing::TestWithParam<FuzzTarget> {};

TEST_P(Replay, IsReadOrRefused) {
  const FuzzTarget& target = GetParam();
  set_log_level(LogLevel::kError);  // what is read although it is odd is told, thousands of times
  std::mt19937_64 random(7);
  int64_t read = 0;
  int64_t refused = 0;
  std::string last_refusal;
  const auto run = [&](const std::string& text) {
    try {
      target.run(std::as_bytes(std::span(text)));
      ++read;
    } catch (const Error& error) {
      ++refused;
      last_refusal = error.message();
      if (error.kind() != ErrorKind::kInternal) return;
      const fs::path kept = fs::temp_directory_path() / fmt::format("salient-fuzz-{}", target.name);
      write_file(kept, text);
      ADD_FAILURE() << error.message() << "; the input is kept in " << kept;
    }
  };
  const std::vector<std::string> inputs = inputs_of(target);
  for (const std::string& input : inputs) run(input);
  EXPECT_GT(read, 0) << "no good file is read: " << last_refusal;
  const int64_t good = read;
  for (int i = 0; i < 1500; ++i) run(broken(inputs[random() % inputs.size()], random));
  EXPECT_GT(refused, 100);
  RecordProperty("good_files", static_cast<int>(good));
  RecordProperty("refused", static_cast<int>(refused));
}

INSTANTIATE_TEST_SUITE_P(Readers, Replay, ::testing::ValuesIn(fuzz_targets().begin(), fuzz_targets().end()),
                         [](const auto& of_target) { return std::string(of_target.param.name); });

}  // namespace
}  // namespace salient::fuzz
