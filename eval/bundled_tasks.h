// The files of configs/tasks as text, compiled in by CMake.
#pragma once

#include <span>
#include <string_view>

namespace salient::eval {

struct BundledFile {
  std::string_view name;  // "arc_easy.yaml"
  std::string_view text;
};
std::span<const BundledFile> bundled_task_files();

}  // namespace salient::eval
