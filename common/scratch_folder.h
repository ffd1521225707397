// A folder for what is needed for a while.
#pragma once

#include <filesystem>

namespace salient {

class ScratchFolder {
 public:
  // Makes a new, empty folder "salient-XXXXXX" in `parent`, which is made where it is missing. Errors: io.
  explicit ScratchFolder(const std::filesystem::path& parent = std::filesystem::temp_directory_path());
  // Removes it with everything in it.
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace salient
