#include "common/temporary_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "tests/support/temporary_folder.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

// A process that dies while it writes `target`.
void write_and_die(const fs::path& target) {
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(target);
    file.write("half");
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST(TemporaryFile, OfAKilledProcessIsRemovedByTheNextWriter) {
  const test::TemporaryFolder folder;
  write_and_die(folder.path() / "run_1.html");
  ASSERT_EQ(names_in(folder.path()).size(), 1u);
  write_file(folder.path() / "run_2.html", "whole");  // going on need not write the same file again
  EXPECT_THAT(names_in(folder.path()), ElementsAre("run_2.html"));
}

TEST(TemporaryFile, OfALivingWriterAndOtherFilesStay) {
  const test::TemporaryFolder folder;
  const std::vector<std::string> others = {".model.safetensors.partial", ".4711.partial", "x.12-0.partial", ".x.12-0.part"};
  for (const std::string& name : others) write_file(folder.path() / name, "not of a writer");
  AtomicFile one(folder.path() / "file");
  AtomicFile other(folder.path() / "file");  // a thread of the same process
  EXPECT_EQ(names_in(folder.path()).size(), others.size() + 2);
  const pid_t child = ::fork();
  if (child == 0) {
    write_file(folder.path() / "elsewhere", "");
    ::_exit(0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  one.write("first");
  other.write("second");
  one.commit();
  EXPECT_EQ(read_text_file(folder.path() / "file"), "first");
  other.commit();
  EXPECT_EQ(read_text_file(folder.path() / "file"), "second");
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre(".model.safetensors.partial", ".4711.partial", "x.12-0.partial",
                                                            ".x.12-0.part", "elsewhere", "file"));
}

// Writers who all look for files of dead ones, while some die.
TEST(TemporaryFile, ManyWritersDoNotTakeEachOthersFiles) {
  const test::TemporaryFolder folder;
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    try {
      for (int k = 0; k < 150; ++k)
        write_file(folder.path() / (k % 2 == 0 ? "shared" : "own" + std::to_string(i)), std::to_string(k));
    } catch (const Error&) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  for (int i = 0; i < 20; ++i) write_and_die(folder.path() / "shared");
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  write_file(folder.path() / "shared", "last");
  EXPECT_EQ(names_in(folder.path()).size(), 7u);
}

}  // namespace
}  // namespace salient
