// Work of many like members - points of a sweep, models of a batch - shared out over jobs of a launcher, each with a store of its
// own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pipeline/launcher/launch.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct LaunchPart {
  std::string name;             // "part-2-of-4"; "" of one with a single place
  std::vector<size_t> members;  // that wait
};

// Cuts the row of all members into `most` parts of neighbours, which have most in common; 0 = one a member. Where the cuts are does
// not depend on what waits: a call that follows jobs of an earlier one, some of which are done, finds the others unchanged. Parts
// without anything that waits are left out.
std::vector<LaunchPart> share_out(const std::vector<bool>& waits, int64_t most);

// Folder and store of a job of this name are set, in the launch's folder.
LaunchJob part_job(const std::string& name, const std::filesystem::path& launch_folder);

struct PartJobs {
  std::vector<LaunchJob> jobs;
  std::vector<std::vector<size_t>> members;  // of each job
};

struct PartsLaunch {
  std::map<size_t, std::string> given_up;  // member -> why it is not done
  bool complete = true;                    // false: jobs were left in the queue (detach)
  int signal = 0;                          // LaunchResult::signal
};

// Runs the jobs and imports into `store` what each has stored. Errors: those of launch() and import_store().
PartsLaunch launch_parts(Store& store, const PartJobs& parts, const LauncherConfig& config, const std::filesystem::path& folder,
                         bool detach, const LaunchCallbacks& callbacks);

}  // namespace salient::pipeline
