// A folder for what is needed for a while, and is gone with the process that made it, or, where that was killed, with the next one.
#pragma once

#include <filesystem>

namespace salient {

class ScratchFolder {
 public:
  // Makes a new, empty folder "salient-scratch-XXXXXX" in `parent`, which is made where it is missing, and removes those of killed
  // processes there, known by locks that nobody holds. Errors: io.
  explicit ScratchFolder(const std::filesystem::path& parent = std::filesystem::temp_directory_path());
  // Removes it with everything in it.
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;  // of the folder; holds its lock
};

}  // namespace salient
