#include "common/scratch_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include "common/file.h"

namespace salient {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "salient-scratch-";
constexpr std::string_view kRandom = "XXXXXX";

int open_folder(const fs::path& folder) { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }

void remove_abandoned(const fs::path& parent) {
  std::error_code code;
  std::error_code ignored;
  for (fs::directory_iterator it(parent, code); !code && it != fs::directory_iterator(); it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(kPrefix) || name.size() != kPrefix.size() + kRandom.size()) continue;
    const int descriptor = open_folder(it->path());
    if (descriptor < 0) continue;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) fs::remove_all(it->path(), ignored);
    ::close(descriptor);
  }
}

}  // namespace

ScratchFolder::ScratchFolder(const fs::path& parent) {
  std::error_code ignored;  // what is wrong is said by mkdtemp
  fs::create_directories(parent, ignored);
  remove_abandoned(parent);
  while (true) {
    std::string name = (parent / (std::string(kPrefix) + std::string(kRandom))).string();
    if (::mkdtemp(name.data()) == nullptr) fail_errno(name, "create the folder", errno);
    path_ = name;
    descriptor_ = open_folder(path_);
    while (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) {
    }
    if (fs::exists(path_, ignored)) return;
    // Before it was locked, another process took it for an abandoned one.
    if (descriptor_ >= 0) ::close(descriptor_);
  }
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace salient
