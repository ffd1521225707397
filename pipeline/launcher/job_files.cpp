#include "pipeline/launcher/job_files.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>
#include <string_view>

#include "common/error.h"
#include "common/file.h"
#include "pipeline/launcher/child_process.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// The exit code appears whole, by a rename, and only when nobody ended the try from outside: without it the try is lost and another
// one goes on. `ln -s` is the one operation that makes a file with its content or fails where there is one, on network file systems
// too: of two Slurm jobs with the same try, one works.
constexpr std::string_view kTryScript = R"sh(#!/bin/sh
# sh try.sh FOLDER NUMBER [CLAIM]: runs FOLDER/job.sh as try NUMBER. CLAIM: the Slurm job, which no other may take the try from.
job=$1 at=$1/try-$2 claim=$3
mkdir -p "$at" || exit 1
exec >>"$at/log" 2>&1
if [ -n "$claim" ] && ! ln -s "$claim" "$at/claim" 2>/dev/null && [ "$(readlink "$at/claim")" != "$claim" ]; then
  echo "this try was begun by Slurm job $(readlink "$at/claim"); Slurm job $claim leaves it alone"
  exit 119
fi
rm -f "$at/exit_code"
hostname >"$at/host"
stopped= child=
trap 'stopped=1; if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi' TERM INT
sh "$job/job.sh" &
child=$!
if [ -n "$stopped" ]; then kill -TERM "$child" 2>/dev/null; fi # it came before there was a child
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # a signal ends the waiting, not the command
  wait "$child"
  code=$?
done
if [ -n "$stopped" ]; then exit 143; fi
if [ -e "$job/after.sh" ]; then
  sh "$job/after.sh"
  after=$?
  if [ "$code" -eq 0 ]; then code=$after; fi
fi
printf '%s\n' "$code" >"$at/exit_code.new" && mv -f "$at/exit_code.new" "$at/exit_code" || exit 1
exit "$code"
)sh";

bool is_job_name(const std::string& name) {
  const auto fits = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("._-=+").find(static_cast<char>(c)) != std::string_view::npos;
  };
  return !name.empty() && name.size() <= 200 && name.front() != '.' && name.front() != '-' && std::ranges::all_of(name, fits);
}

void write_if_changed(const fs::path& file, const std::string& text) {
  if (!fs::exists(file) || read_text_file(file) != text) write_file(file, text);
}

}  // namespace

std::string_view to_string(JobStatus status) {
  switch (status) {
    case JobStatus::kWaiting: return "waiting";
    case JobStatus::kSubmitted: return "submitted";
    case JobStatus::kDone: return "done";
    case JobStatus::kFailed: return "failed";
    case JobStatus::kCancelled: return "cancelled";
  }
  return "?";
}

std::vector<LaunchJob> resolve_jobs(std::vector<LaunchJob> jobs, const fs::path& launch_folder) {
  const fs::path root = fs::absolute(launch_folder).lexically_normal();
  std::set<std::string> names;
  std::set<fs::path> folders;
  for (LaunchJob& job : jobs) {
    if (!is_job_name(job.name)) {
      fail(ErrorKind::kInvalidArgument,
           "job '{}': expected a name of letters, digits, '.', '_', '-', '=' and '+', not first a dot or dash, at most 200",
           job.name);
    }
    if (!names.insert(job.name).second)
      fail(ErrorKind::kInvalidArgument, "job '{}' is there twice, expected a name for each", job.name);
    if (job.command.empty()) fail(ErrorKind::kInvalidArgument, "job '{}' has no command", job.name);
    job.folder = (job.folder.empty() ? root / "jobs" / job.name : fs::absolute(job.folder)).lexically_normal();
    job.working_folder = (job.working_folder.empty() ? fs::current_path() : fs::absolute(job.working_folder)).lexically_normal();
    if (!job.store.empty()) job.store = fs::absolute(job.store).lexically_normal();
    if (job.folder.string().find('\n') != std::string::npos)
      fail(ErrorKind::kInvalidArgument, "job '{}': its folder's name has a line end in it", job.name);
    if (!folders.insert(job.folder).second) {
      fail(ErrorKind::kInvalidArgument, "job '{}': another job has the folder {}, expected one for each", job.name,
           job.folder.string());
    }
  }
  return jobs;
}

void write_try_script(const fs::path& launch_folder) { write_if_changed(launch_folder / "try.sh", std::string(kTryScript)); }

void write_job_files(const LaunchJob& job, const LauncherConfig& config) {
  std::string script = "#!/bin/sh\n# Job " + job.name + " of a launch of Salient.\n";
  script += fmt::format("cd {} || exit 1\n", shell_quote(job.working_folder.string()));
  if (config.cpus > 0) script += fmt::format("export OMP_NUM_THREADS={}\n", config.cpus);
  script += fmt::format("exec {}\n", shell_command(job.command));
  write_if_changed(job.folder / "job.sh", script);
  const fs::path after = job.folder / "after.sh";
  if (job.store.empty()) {
    fs::remove(after);
    return;
  }
  // A command that failed before it made a store has nothing to export.
  write_if_changed(after, fmt::format("#!/bin/sh\n# Leaves what job {} stored for the store of the whole launch.\n"
                                      "if [ ! -e {} ]; then echo \"the job made no store\"; exit 1; fi\nexec {}\n",
                                      job.name, shell_quote(job.store.string()),
                                      shell_command({own_program().string(), "store", "export", results_file(job).string(),
                                                     "--store", job.store.string()})));
}

fs::path try_folder(const LaunchJob& job, int64_t number) { return job.folder / fmt::format("try-{}", number); }

std::vector<std::string> try_command(const fs::path& launch_folder, const LaunchJob& job, int64_t number) {
  return {"sh", (launch_folder / "try.sh").string(), job.folder.string(), std::to_string(number)};
}

std::optional<int> exit_code_of(const LaunchJob& job, int64_t number) {
  const fs::path file = try_folder(job, number) / "exit_code";
  if (!fs::exists(file)) return std::nullopt;
  const std::string text = read_text_file(file);
  int code = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code);
  if (error != std::errc() || *end != '\n') {
    fail(ErrorKind::kCorruption, "{}: found '{}', expected an exit code", file.string(), text.substr(0, 40));
  }
  return code;
}

std::string claim_of(const LaunchJob& job, int64_t number) {
  std::error_code code;
  const fs::path claim = fs::read_symlink(try_folder(job, number) / "claim", code);
  return code ? std::string() : claim.string();
}

fs::path results_file(const LaunchJob& job) { return job.store.empty() ? fs::path() : job.folder / kResultsFile; }

bool has_results(const LaunchJob& job) { return job.store.empty() || fs::exists(results_file(job)); }

fs::path own_program() {
  std::error_code code;
  fs::path program = fs::read_symlink("/proc/self/exe", code);
  if (code) fail(ErrorKind::kIo, "/proc/self/exe: cannot tell where this program lies: {}", code.message());
  return program;
}

}  // namespace salient::pipeline
