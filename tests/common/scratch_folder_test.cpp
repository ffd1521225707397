#include "common/scratch_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <vector>

#include "common/file.h"
#include "tests/support/temporary_folder.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(ScratchFolder, IsGoneWithItsContents) {
  const test::TemporaryFolder folder;
  std::optional<ScratchFolder> scratch(folder.path() / "new");
  write_file(scratch->path() / "below/file", "x");
  EXPECT_EQ(entries(folder.path() / "new"), 1u);
  scratch.reset();
  EXPECT_EQ(entries(folder.path() / "new"), 0u);
}

TEST(ScratchFolder, OfAKilledProcessIsRemovedByTheNextAndNoOtherIs) {
  const test::TemporaryFolder folder;
  fs::create_directory(folder.path() / "salient-scratch-of-mine");
  const ScratchFolder living(folder.path());
  const pid_t child = ::fork();
  if (child == 0) {
    const ScratchFolder scratch(folder.path());
    write_file(scratch.path() / "file", "x");
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(entries(folder.path()), 3u);
  const ScratchFolder next(folder.path());
  EXPECT_EQ(entries(folder.path()), 3u);
  EXPECT_TRUE(fs::exists(living.path()));
  EXPECT_TRUE(fs::exists(folder.path() / "salient-scratch-of-mine"));
}

TEST(ScratchFolder, ManyAtOnceDoNotTakeEachOthers) {
  const test::TemporaryFolder folder;
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    int lost = 0;
    for (int k = 0; k < 200; ++k) {
      const ScratchFolder scratch(folder.path());
      lost += !fs::exists(scratch.path());
    }
    ::_exit(lost == 0 ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(entries(folder.path()), 0u);
}

}  // namespace
}  // namespace salient
