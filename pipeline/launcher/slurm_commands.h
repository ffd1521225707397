// Slurm's programs as functions: sbatch, squeue, scontrol, scancel (tried with Slurm 22.05;
// https://slurm.schedmd.com/job_state_codes.html). No accounting is needed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/launcher/launcher_config.h"

namespace salient::pipeline {

// What a state of Slurm means to who waits for the job.
enum class SlurmMeaning {
  kQueued,  // waits, or goes back to wait
  kRunning,
  kEnded,      // by itself: the exit code says how
  kLost,       // through no fault of its own, or at its time limit: another try goes on
  kCancelled,  // by somebody
  kHopeless,   // another try would end the same
};

struct SlurmState {
  std::string_view name;
  SlurmMeaning meaning;
  std::string_view advice;  // for who reads that a job ended so
};

std::span<const SlurmState> slurm_states();
// Of a state that is not in the table, nothing.
const SlurmState* find_slurm_state(std::string_view name);

struct SlurmTask {
  std::string array_id;
  int64_t index = 0;
  std::string state;   // "PENDING"
  std::string reason;  // "Priority"; "None"
};

struct SlurmArray {
  std::string job_name;
  std::filesystem::path folder;  // has array.sh; logs go there
  int64_t tasks = 0;
  int64_t at_a_time = 0;     // 0 = no bound
  std::string after;         // id of an array that must have ended; empty: none
  int lock_descriptor = -1;  // inherited by sbatch
};

// The words that sbatch is called with.
std::vector<std::string> sbatch_command(const SlurmArray& array, const LauncherConfig& config);

// Starts nothing but a question: whether the programs are there and the controller answers. The result is the largest number of
// tasks that an array may have. Errors: not found (SLURM_MISSING), io (SLURM_UNREACHABLE), unsupported (arrays are turned off).
int64_t slurm_max_array();

struct SbatchAnswer {
  std::string array_id;    // empty: refused
  std::string error;       // sbatch's words, in one line
  bool temporary = false;  // the controller did not answer, or not in time
};
// Standard output goes to <folder>/sbatch.out as well, so that it is known who dies before reading it.
SbatchAnswer call_sbatch(const SlurmArray& array, const LauncherConfig& config);
// The id out of what sbatch printed; nothing when there is none.
std::optional<std::string> parse_sbatch_output(std::string_view text);
// What to do about a refusal.
std::string sbatch_hint(std::string_view error);

// "3", "0-2,5", "4-6%2" of an array as single numbers; empty when it is none of them.
std::vector<int64_t> parse_array_indices(std::string_view text);

// All tasks of jobs of these names that the controller still knows, ended ones for some minutes (MinJobAge), too. Nothing when it
// does not answer; `error` then says why.
std::optional<std::vector<SlurmTask>> query_tasks(const std::vector<std::string>& job_names, std::string& error);

// Best effort: the error in one line, empty when it was taken.
std::string cancel_arrays(const std::vector<std::string>& array_ids);

}  // namespace salient::pipeline
