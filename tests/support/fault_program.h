// The program with one of its operations failing: tests/faults/fault_layer.cpp says which can and how.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace salient::test {

struct Fault {
  std::string kind;  // empty: none
  int64_t index = 0;
  std::string action;

  std::string text() const { return kind + ":" + std::to_string(index) + ":" + action; }
  // It ends the process.
  bool kills() const { return action == "kill" || action == "torn" || action == "power"; }
};

struct FaultResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  std::string out;
  std::string err;
  std::map<std::string, int64_t> counts;  // operations of each kind, up to its end
  std::string fired;                      // "pwrite /path" of the one that failed; empty: it did not come so far
};

struct FaultCall {
  std::vector<std::string> arguments;
  std::filesystem::path folder;                // working folder
  std::vector<std::filesystem::path> watched;  // operations elsewhere do not count
  Fault fault = {};
};

// One thread each: threads decide the bytes of sums, and in which order operations come. A call that takes longer than two minutes
// ends with SIGALRM.
class FaultProgram {
 public:
  // Why there is none, such as a build with a sanitizer, which has an allocator of its own; empty when it can be made.
  static std::string missing();

  FaultProgram();
  ~FaultProgram();
  FaultProgram(const FaultProgram&) = delete;
  FaultProgram& operator=(const FaultProgram&) = delete;

  FaultResult run(const FaultCall& call);

 private:
  int socket_ = -1;
  pid_t server_ = -1;
  std::filesystem::path scratch_;
};

}  // namespace salient::test
