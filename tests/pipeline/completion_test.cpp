// What the shell completes: every command, and every option that a command's --help names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "pipeline/commands/commands.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::Contains;
using ::testing::Not;

// What bash offers for a command line, the last word of which is being written.
std::set<std::string> completed(const std::vector<std::string>& words) {
  std::string line = "'" SALIENT_PROGRAM "'";
  for (const std::string& word : words) line += " '" + word + "'";
  const test::TemporaryFolder folder;
  test::ProgramCall call;
  call.program = "/bin/bash";
  call.folder = folder.path();
  call.arguments = {"-c", "source '" SALIENT_SOURCE_DIR "/scripts/completion/salient.bash'; COMP_WORDS=(" + line +
                              "); COMP_CWORD=" + std::to_string(words.size()) + "; _salient; printf '%s\\n' \"${COMPREPLY[@]}\""};
  const test::ProgramResult result = test::run_program(call);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  std::set<std::string> found;
  for (std::string one; std::getline(lines, one);) {
    if (!one.empty()) found.insert(one);
  }
  return found;
}

TEST(Completion, OffersEveryCommand) {
  std::set<std::string> names;
  for (const Command& command : commands()) names.emplace(command.name);
  EXPECT_EQ(completed({""}), names);
  EXPECT_EQ(completed({"verify"}), (std::set<std::string>{"verify", "verify-smoothing"}));
}

TEST(Completion, OffersTheOptionsOfACommand) {
  const std::set<std::string> options = completed({"quantize", "--"});
  for (const char* option : {"--model", "--calib", "--out", "--group-size", "--json", "--threads"})
    EXPECT_THAT(options, Contains(option));
  EXPECT_THAT(options, Not(Contains("--tasks")));
  EXPECT_EQ(completed({"verify", "demo_awq", "--aga"}), (std::set<std::string>{"--against-source"}));
}

TEST(Completion, LeavesFilesToTheShell) { EXPECT_TRUE(completed({"inspect", "models/"}).empty()); }

}  // namespace
}  // namespace salient::pipeline
