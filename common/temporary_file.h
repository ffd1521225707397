// Files that are being written, under names of their own.
#pragma once

#include <filesystem>

namespace salient {

// A new file and its descriptor, open for reading and writing and closed by whoever asked for it. As long as it is open the file's
// lock is held, by which others see that its process lives.
struct TemporaryFile {
  std::filesystem::path path;
  int descriptor = -1;
};

// Makes an empty ".<name of target>.<process>-<number>.partial" in the folder of `target`, which must be there. Removes the files
// of that kind in the folder that nobody holds the lock of: those of processes that were killed. Where the file system has no locks
// they stay. Errors: not found, io.
TemporaryFile make_temporary_file(const std::filesystem::path& target);

}  // namespace salient
