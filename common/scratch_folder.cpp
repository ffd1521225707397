#include "common/scratch_folder.h"

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "common/file.h"

namespace salient {

ScratchFolder::ScratchFolder(const std::filesystem::path& parent) {
  std::error_code ignored;  // what is wrong is said by mkdtemp
  std::filesystem::create_directories(parent, ignored);
  std::string name = (parent / "salient-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) fail_errno(name, "create the folder", errno);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace salient
