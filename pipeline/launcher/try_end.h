// How a try of a job ended: what both runners tell the loop of launch.cpp.
#pragma once

#include <cstddef>
#include <string>

namespace salient::pipeline {

enum class EndKind {
  kExited,    // by itself, with an exit code
  kLost,      // ended from outside; another try goes on
  kHopeless,  // another try would end the same
  kCancelled,
};

struct TryEnd {
  size_t job = 0;  // position in the launch
  EndKind kind = EndKind::kExited;
  int exit_code = -1;
  std::string reason;  // empty where the exit code says it
};

}  // namespace salient::pipeline
