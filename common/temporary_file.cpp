#include "common/temporary_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <regex>
#include <system_error>

#include "common/error.h"
#include "common/file.h"

namespace salient {
namespace fs = std::filesystem;
namespace {

// Whether `path` is still the file of `descriptor`.
bool names(const fs::path& path, int descriptor) {
  struct stat open {};
  struct stat named {};
  return ::fstat(descriptor, &open) == 0 && ::lstat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

void remove_abandoned(const fs::path& folder) {
  static const std::regex kName(R"(\..+\.\d+-\d+\.partial)");
  std::error_code code;
  for (fs::directory_iterator it(folder, code); !code && it != fs::directory_iterator(); it.increment(code)) {
    const fs::path& path = it->path();
    if (path.extension() != ".partial" || !std::regex_match(path.filename().string(), kName)) continue;
    // NFS locks only what is open for writing.
    const int descriptor = ::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) continue;
    // A writer that has just renamed its file may have made another one of this name; one whose lock is held here has no writer.
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && names(path, descriptor)) ::unlink(path.c_str());
    ::close(descriptor);
  }
}

}  // namespace

TemporaryFile make_temporary_file(const fs::path& target) {
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  remove_abandoned(folder);
  for (int number = 0;; ++number) {
    TemporaryFile made;
    made.path = folder / fmt::format(".{}.{}-{}.partial", target.filename().string(), ::getpid(), number);
    made.descriptor = ::open(made.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (made.descriptor < 0 && errno == EEXIST) continue;
    if (made.descriptor < 0) fail_errno(target, "create", errno);
    const bool taken = ::flock(made.descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!taken && names(made.path, made.descriptor)) return made;
    // Before it had its lock, another process took it for an abandoned one.
    ::close(made.descriptor);
  }
}

}  // namespace salient
