// One fault after the other in one command: after each the store must be sound, what was finished must be there, and the same
// command given again must end with the same bytes and rows as if nothing had been.
//
// By default one fault for each kind of operation and each thing that may become of it, each time at another operation;
// SALIENT_FAULTS=N takes up to N of them, SALIENT_FAULTS=all every operation. scripts/faults.sh adds the tables up.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "support/fault_program.h"

namespace salient::test {

struct FaultScenario {
  std::string name;
  // Makes what is there before the command in an empty folder, the same bytes each time.
  std::function<void(const std::filesystem::path& folder)> prepare;
  // Started in that folder, disturbed and again until it is done.
  std::vector<std::string> command;
  // Read by the command; below the folder is everything that it writes.
  std::filesystem::path inputs;
  // Files that the command writes in several steps, each time whole: name alone.
  std::vector<std::string> rewritten = {};
  // Files that have other bytes each time, as they tell how long something took: name alone.
  std::vector<std::string> timed = {};
  // Of a command that failed: 6, an error of the system; or 7 as well, where one of several works failed and the others went on.
  std::vector<int> exit_codes = {6};
};

// Adds a failure to the test for each fault that lost something, and prints a line for each kind and action: "faults SCENARIO KIND
// ACTION", operations of the kind, faults injected, and of those how many the program went on after to its end, how many it
// reported as an error, how many ended the process, and how many lost nothing.
void run_fault_campaign(const FaultScenario& scenario);

}  // namespace salient::test
