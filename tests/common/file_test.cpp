#include "common/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <utility>

#include "common/error.h"
#include "tests/support/temporary_folder.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

template <typename Body>
ErrorKind kind_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << "no error";
  return ErrorKind::kInternal;
}

TEST(MappedFile, MapsBytesAndMoves) {
  test::TemporaryFolder folder;
  const fs::path path = folder.path() / "f";
  write_file(path, std::string("a\0b", 3));
  MappedFile first(path);
  const MappedFile second(std::move(first));
  ASSERT_EQ(second.bytes().size(), 3u);
  EXPECT_EQ(second.bytes()[2], std::byte{'b'});
  second.release(0, 100);
  EXPECT_EQ(second.bytes()[0], std::byte{'a'});
  EXPECT_TRUE(first.bytes().empty());  // NOLINT: moved from on purpose
  write_file(path, "");
  EXPECT_TRUE(MappedFile(path).bytes().empty());
}

TEST(MappedFile, NamesWhatIsWrong) {
  test::TemporaryFolder folder;
  EXPECT_EQ(kind_of([&] { MappedFile(folder.path() / "none"); }), ErrorKind::kNotFound);
  EXPECT_EQ(kind_of([&] { MappedFile(folder.path()); }), ErrorKind::kInvalidArgument);
  write_file(folder.path() / "f", "x");
  EXPECT_EQ(kind_of([&] { MappedFile(folder.path() / "f/below"); }), ErrorKind::kNotFound);
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  test::TemporaryFolder folder;
  const fs::path path = folder.path() / "new/folder/f";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_EQ(entries(path.parent_path()), 0u);
  write_file(path, "old");
  {
    AtomicFile file(path);
    file.write("ne");
    file.write("w");
    EXPECT_EQ(read_text_file(path), "old");
    file.commit();
  }
  EXPECT_EQ(read_text_file(path), "new");
  EXPECT_EQ(entries(path.parent_path()), 1u);
}

TEST(AtomicFile, WhatAKilledWriterLeftIsTakenOver) {
  test::TemporaryFolder folder;
  const fs::path path = folder.path() / "f";
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write(std::string(1000, 'x'));
    ::_exit(0);  // without its destructor
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(entries(folder.path()), 1u);
  EXPECT_FALSE(fs::exists(path));
  write_file(path, "short");
  EXPECT_EQ(read_text_file(path), "short");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(AtomicFile, TwoWritersOfOneFileDoNotMix) {
  test::TemporaryFolder folder;
  const fs::path path = folder.path() / "f";
  {
    AtomicFile first(path);
    first.write("fir");
    AtomicFile second(path);
    second.write("second");
    first.write("st");
    first.commit();
    EXPECT_EQ(read_text_file(path), "first");
    const AtomicFile third(path);
    second.commit();
    EXPECT_EQ(read_text_file(path), "second");
  }
  EXPECT_EQ(read_text_file(path), "second");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(AtomicFile, AFailedRenameLeavesNothing) {
  test::TemporaryFolder folder;
  fs::create_directories(folder.path() / "target/below");  // a folder that is not empty cannot be replaced
  EXPECT_EQ(kind_of([&] { write_file(folder.path() / "target", "x"); }), ErrorKind::kIo);
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(AtomicFile, AFileSizeLimitIsAnErrorAndKeepsTheOldFile) {
  test::TemporaryFolder folder;
  const fs::path path = folder.path() / "f";
  write_file(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file(path, std::string(10000, 'x'));
    } catch (const Error& error) {
      ::_exit(error.kind() == ErrorKind::kIo ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read_text_file(path), "old");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(AtomicFile, AFullDiskIsNamed) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  test::TemporaryFolder folder;
  AtomicFile file(folder.path() / "f");
  // The temporary file is exchanged for the device that is always full.
  const fs::path temporary = fs::directory_iterator(folder.path())->path();
  const int full = ::open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  for (int descriptor = 3; descriptor < full; ++descriptor) {
    std::error_code code;
    if (fs::read_symlink(fmt::format("/proc/self/fd/{}", descriptor), code) == temporary) ::dup2(full, descriptor);
  }
  ::close(full);
  try {
    file.write("x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_EQ(error.code(), "DISK_FULL");
    EXPECT_THAT(error.message(), ::testing::HasSubstr("the disk is full"));
    EXPECT_FALSE(error.hint().empty());
  }
}

TEST(FreeDisk, LooksAtTheNearestParent) {
  test::TemporaryFolder folder;
  EXPECT_GT(free_disk_bytes(folder.path() / "not/there/yet"), 0u);
}

TEST(FolderLock, KeepsOthersAwayUntilItEnds) {
  const test::TemporaryFolder folder;
  std::optional<FolderLock> first = FolderLock::try_lock(folder.path());
  ASSERT_TRUE(first);
  EXPECT_EQ(first->folder(), folder.path());
  EXPECT_FALSE(FolderLock::try_lock(folder.path())) << "in the same process";
  FolderLock moved(std::move(*first));
  first.reset();
  EXPECT_FALSE(FolderLock::try_lock(folder.path()));
  { const FolderLock ended(std::move(moved)); }
  EXPECT_TRUE(FolderLock::try_lock(folder.path()));
  EXPECT_EQ(entries(folder.path()), 0u);
  EXPECT_EQ(kind_of([&] { FolderLock::try_lock(folder.path() / "missing"); }), ErrorKind::kNotFound);
  EXPECT_EQ(kind_of([&] { FolderLock lock(folder.path() / "missing"); }), ErrorKind::kNotFound);
}

// Held by another process: refused while that lives, free however it dies.
TEST(FolderLock, EndsWithItsProcess) {
  const test::TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const FolderLock lock(folder.path());
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_FALSE(FolderLock::try_lock(folder.path()));
  ::kill(child, SIGKILL);
  const FolderLock lock(folder.path());  // waits
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  ::close(ready[0]);
  ::close(ready[1]);
}

// Whoever waited for the lock while its holder renamed the folder would hold another one than it asked for.
TEST(FolderLock, IsOfTheFolderThatHasTheNameNow) {
  const test::TemporaryFolder folder;
  const fs::path work = folder.path() / "work";
  fs::create_directories(work);
  int locked[2];
  ASSERT_EQ(::pipe(locked), 0);
  std::optional<FolderLock> lock(work);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    lock.reset();  // this process's copy; the parent's holds on
    ::alarm(20);
    const FolderLock mine(work);
    const bool same = fs::exists(work / "new");
    ::_exit(::write(locked[1], same ? "y" : "n", 1) == 1 ? 0 : 1);
  }
  ::usleep(200'000);  // most likely it waits by now; if not, the test is only weaker
  fs::rename(work, folder.path() / "published");
  fs::create_directories(work / "new");
  lock.reset();
  char byte = 0;
  ASSERT_EQ(::read(locked[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  ::close(locked[0]);
  ::close(locked[1]);
}

}  // namespace
}  // namespace salient
