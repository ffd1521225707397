// What the program says when it is asked how it is used, without starting it: that takes a moment, once for each of its commands.
#pragma once

#include <string>
#include <vector>

#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"

namespace salient::test {

// `words`: {"quantize", "--help"}, {"--version"}.
inline std::string program_says(const std::vector<std::string>& words) {
  std::string text;
  pipeline::CommandHost host;
  host.result = [&text](std::string_view piece) { text += piece; };
  host.note = [](const std::string&) {};
  host.progress = [](const std::string&, const std::string&, int64_t, int64_t) {};
  const pipeline::CommandHostScope scope(host);
  pipeline::run_words(words);
  return text;
}

}  // namespace salient::test
