// Two `salient run` at once on one store: each ends as if it were alone, or is refused with the reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <thread>

#include "common/json.h"
#include "support/program_errors.h"
#include "support/small_demo.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::AnyOf;
using testing::HasSubstr;

class ConcurrentRuns : public testing::Test {
 protected:
  ConcurrentRuns() {
    write_small_demo(inputs_.path());
    write_text(folder() / "run.yaml", small_demo_config(inputs_.path()));
    write_text(alone_.path() / "run.yaml", small_demo_config(inputs_.path()));
  }

  const fs::path& folder() const { return folder_.path(); }

  static std::vector<std::string> run_with(const std::vector<std::string>& settings) {
    std::vector<std::string> words = {"run", "run.yaml"};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return words;
  }

  std::array<ProgramResult, 2> both(const std::vector<std::string>& first, const std::vector<std::string>& second) const {
    std::array<ProgramResult, 2> results;
    std::thread other([&] { results[1] = run_program(run_with(second), folder()); });
    results[0] = run_program(run_with(first), folder());
    other.join();
    return results;
  }

  // The artifacts of runs with these settings, one after the other, where nobody else is.
  std::map<std::string, std::string> alone(const std::vector<std::vector<std::string>>& runs) const {
    for (const std::vector<std::string>& settings : runs) EXPECT_EQ(run_program(run_with(settings), alone_.path()).exit_code, 0);
    return folder_bytes(alone_.path() / "artifacts");
  }

  // Artifacts as they are expected, no leftovers, a sound store in which nothing is at work any more.
  void expect_state(const std::map<std::string, std::string>& expected) const {
    const auto found = folder_bytes(folder() / "artifacts");
    ASSERT_EQ(names_of(found), names_of(expected));
    for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name << " has other bytes";
    for (const Json& run : parse_json(run_program({"runs", "--json"}, folder()).out, "runs"))
      EXPECT_NE(run.at("status"), "running");
  }

  TemporaryFolder inputs_;
  TemporaryFolder folder_;
  TemporaryFolder alone_;
};

TEST_F(ConcurrentRuns, OfOneConfigDoTheWorkOnce) {
  const auto results = both({}, {});
  for (const ProgramResult& result : results) EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_state(alone({{}}));
  const auto worked = [](const ProgramResult& result) { return result.err.find("stage quantize: done in") != std::string::npos; };
  EXPECT_EQ(worked(results[0]) + worked(results[1]), 1) << results[0].err << results[1].err;
}

TEST_F(ConcurrentRuns, OfTwoConfigsDoNotDisturbEachOther) {
  for (const ProgramResult& result : both({}, {"quantization.group_size=64"})) EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_state(alone({{}, {"quantization.group_size=64"}}));
}

// Settings that are not part of the artifact's name: both would make the same folder.
TEST_F(ConcurrentRuns, OfOneNameAreRefusedButForOne) {
  const std::vector<std::string> other = {"quantization.n_grid=3", "evaluation.tasks=[]"};
  const std::vector<std::string> plain = {"evaluation.tasks=[]"};
  const auto results = both(plain, other);
  const bool first_won = results[0].exit_code == 0;
  ASSERT_EQ(results[first_won ? 0 : 1].exit_code, 0) << results[0].err << results[1].err;
  const ProgramResult& refused = results[first_won ? 1 : 0];
  expect_error(refused, kInvalidArgument, {"hint:"});
  EXPECT_THAT(refused.err,
              AnyOf(HasSubstr("exists already"), HasSubstr("another process is writing"), HasSubstr("another process works")));
  expect_state(alone({first_won ? plain : other}));
}

}  // namespace
}  // namespace salient::test
