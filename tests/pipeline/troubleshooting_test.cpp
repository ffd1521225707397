// docs/troubleshooting.md quotes messages that this program has.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "common/file.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
const fs::path kRoot = SALIENT_SOURCE_DIR;

// All sources, string literals that go on in the next line joined.
std::string sources() {
  std::string all;
  for (const char* folder : {"common", "quant", "models", "calibration", "eval", "pipeline"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (entry.path().extension() == ".cpp" || entry.path().extension() == ".h") all += read_text_file(entry.path());
    }
  }
  std::string joined;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] == '"' && i > 0 && all[i - 1] != '\\') {
      const size_t next = all.find_first_not_of(" \n", i + 1);
      if (next != std::string::npos && next > i + 1 && all[next] == '"' && all.find('\n', i) < next) {
        i = next;
        continue;
      }
    }
    joined += all[i];
  }
  return joined;
}

TEST(Troubleshooting, QuotesMessagesOfTheProgram) {
  const std::string text = sources();
  std::istringstream page(read_text_file(kRoot / "docs/troubleshooting.md"));
  int messages = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `")) continue;
    const size_t end = line.find("` |", 3);
    ASSERT_NE(end, std::string::npos) << line;
    std::string message = line.substr(3, end - 3);
    ++messages;
    // The parts between the ellipses, which stand for names and numbers.
    for (size_t begin = 0; begin <= message.size();) {
      const size_t stop = std::min(message.find("\u2026", begin), message.size());
      std::string part = message.substr(begin, stop - begin);
      if (part.find_first_not_of(" :,()'") != std::string::npos) {
        EXPECT_NE(text.find(part), std::string::npos) << "no source has '" << part << "' of: " << message;
      }
      begin = stop + std::string("\u2026").size();
    }
  }
  EXPECT_GT(messages, 15);
}

}  // namespace
}  // namespace salient
