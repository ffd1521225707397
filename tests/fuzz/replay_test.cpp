// Every reader of files from others, over good files, what fuzzing kept (tests/fuzz/corpus), and thousands of broken copies: each
// is read, or refused with an error of this program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
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

std::string from_base64(const std::string& text) {
  std::string bytes(text.size(), '\0');
  const int count = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                    reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  EXPECT_GE(count, 0) << text;
  // The padding counts as bytes.
  const auto padding = std::count(text.end() - std::min<int64_t>(2, std::ssize(text)), text.end(), '=');
  bytes.resize(static_cast<size_t>(std::max<int64_t>(0, count - padding)));
  return bytes;
}

// Of scripts/fuzz/corpus.py: an input a line.
std::vector<std::string> kept_inputs(const FuzzTarget& target) {
  const fs::path file = fs::path(SALIENT_SOURCE_DIR) / "tests/fuzz/corpus" / fmt::format("{}.base64", target.name);
  std::ifstream lines(file);
  EXPECT_TRUE(lines) << file << " is not there: scripts/fuzz.sh --pack " << target.name;
  std::vector<std::string> inputs;
  for (std::string line; std::getline(lines, line);) inputs.push_back(from_base64(line));
  return inputs;
}

std::vector<std::string> inputs_of(const FuzzTarget& target) {
  std::vector<std::string> inputs = good_files(target, SALIENT_SOURCE_DIR);
  EXPECT_FALSE(inputs.empty()) << "no good files to begin with";
  for (std::string& input : kept_inputs(target)) inputs.push_back(std::move(input));
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
