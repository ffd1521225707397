// Ctrl-C: the command stops at its next safe point, says how to go on, ends by the signal, and given again ends as if nothing had
// been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

ProgramResult interrupted(std::vector<std::string> words, const fs::path& folder, const std::string& when) {
  ProgramCall call;
  call.arguments = std::move(words);
  call.folder = folder;
  call.interrupt_when = [when](const std::string& err) { return err.find(when) != std::string::npos; };
  return run_program(call);
}

void expect_stopped(const ProgramResult& result) {
  EXPECT_EQ(result.signal, SIGINT) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("stopping at the next safe point"), HasSubstr("stopped as asked for"),
                                HasSubstr("the same call goes on from there")));
}

TEST(InterruptedCommand, ARunGoesOnAndEndsTheSame) {
  const TemporaryFolder folder;
  const TemporaryFolder undisturbed;
  write_demo_config(folder.path());
  write_demo_config(undisturbed.path());
  const std::vector<std::string> words = {"run", "run.yaml", "--threads", "1"};
  ASSERT_EQ(run_program(words, undisturbed.path()).exit_code, 0);
  // In the middle of quantization, and of an evaluation.
  for (const char* when : {"stage quantize: never done", "stage evaluate:perplexity: never done"}) {
    expect_stopped(interrupted(words, folder.path(), when));
    const Json runs = parse_json(run_program({"runs", "--json"}, folder.path()).out, "runs --json");
    EXPECT_EQ(runs.at(0).at("status"), "interrupted") << runs.at(0);
  }
  const ProgramResult last = run_program(words, folder.path());
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_THAT(last.err, HasSubstr("stage quantize: up to date"));
  const auto expected = folder_bytes(undisturbed.path() / "artifacts");
  const auto found = folder_bytes(folder.path() / "artifacts");
  ASSERT_EQ(names_of(found), names_of(expected));
  for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name << " has other bytes";
}

TEST(InterruptedCommand, ASweepStopsWithTheOthersUntouched) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  write_text(folder.path() / "sweep.yaml",
             "run: run.yaml\nset: {quantization.propagate_error: false}\ngrid: {quantization.group_size: [64, 128]}\n");
  const std::vector<std::string> words = {"sweep", "sweep.yaml", "--threads", "1"};
  expect_stopped(interrupted(words, folder.path(), "point 1 of 2"));
  const ProgramResult last = run_program(words, folder.path());
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_THAT(last.out, HasSubstr("2 points"));
}

}  // namespace
}  // namespace salient::test
