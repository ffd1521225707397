// The folder of a launch, by which the process that follows it and the jobs, perhaps on other machines, speak with each other:
//
//   launch.json                  what is known of each job (launch_state.h)
//   try.sh                       runs one try of a job and leaves its exit code, for both kinds of launcher
//   submissions/N/               of Slurm: jobs.txt, array.sh, what sbatch said, slurm-INDEX.log
//   jobs/NAME/job.sh             the command; runs by hand, too
//   jobs/NAME/after.sh           exports the job's store
//   jobs/NAME/results.salient    what it exported
//   jobs/NAME/try-N/             log, host, claim (a link that names the Slurm job that runs it), exit_code
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/launcher/launch_job.h"
#include "pipeline/launcher/launcher_config.h"

namespace salient::pipeline {

inline constexpr const char* kResultsFile = "results.salient";
// try.sh ends so when another Slurm job has begun the same try.
inline constexpr int kClaimedElsewhere = 119;

// With absolute paths and every default filled in. Errors: invalid argument (a name twice or with characters that do not belong
// into a file's name, no command, a folder with a line end in it).
std::vector<LaunchJob> resolve_jobs(std::vector<LaunchJob> jobs, const std::filesystem::path& launch_folder);

// Writes try.sh. Errors: io.
void write_try_script(const std::filesystem::path& launch_folder);
// Writes job.sh and after.sh of a resolved job; files that are as they should be stay. Errors: io.
void write_job_files(const LaunchJob& job, const LauncherConfig& config);

std::filesystem::path try_folder(const LaunchJob& job, int64_t number);
// {"sh", try.sh, folder of the job, number of the try}; a claim may follow.
std::vector<std::string> try_command(const std::filesystem::path& launch_folder, const LaunchJob& job, int64_t number);

// What a try left; nothing while it runs, and when it was ended from outside.
std::optional<int> exit_code_of(const LaunchJob& job, int64_t number);
// The Slurm job that began the try; empty when none has.
std::string claim_of(const LaunchJob& job, int64_t number);
// Empty where the job has no store.
std::filesystem::path results_file(const LaunchJob& job);
// Whether what a job that is done leaves is there.
bool has_results(const LaunchJob& job);

// A program that the jobs can start again, wherever it was started from: this one.
std::filesystem::path own_program();

}  // namespace salient::pipeline
