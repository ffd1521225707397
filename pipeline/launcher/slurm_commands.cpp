#include "pipeline/launcher/slurm_commands.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "pipeline/launcher/child_process.h"

namespace salient::pipeline {
namespace {

using enum SlurmMeaning;

constexpr std::string_view kTimeAdvice = "the next try goes on where it was; a longer launcher.time needs fewer of them";
constexpr SlurmState kStates[] = {
    {"PENDING", kQueued, ""},
    {"REQUEUED", kQueued, ""},
    {"REQUEUE_HOLD", kQueued, ""},
    {"REQUEUE_FED", kQueued, ""},
    {"SPECIAL_EXIT", kQueued, ""},
    {"RESV_DEL_HOLD", kQueued, ""},
    {"CONFIGURING", kRunning, ""},
    {"RUNNING", kRunning, ""},
    {"COMPLETING", kRunning, ""},
    {"RESIZING", kRunning, ""},
    {"SIGNALING", kRunning, ""},
    {"STAGE_OUT", kRunning, ""},
    {"STOPPED", kRunning, ""},
    {"SUSPENDED", kRunning, ""},
    {"COMPLETED", kEnded, ""},
    {"FAILED", kEnded, ""},
    {"TIMEOUT", kLost, kTimeAdvice},
    {"NODE_FAIL", kLost, "its machine went away"},
    {"PREEMPTED", kLost, "other jobs came first"},
    {"BOOT_FAIL", kLost, "its machine did not start"},
    {"LAUNCH_FAILED", kLost, "its machine did not start it"},
    {"RECONFIG_FAIL", kLost, "its machine could not be configured"},
    {"REVOKED", kLost, "it runs on another cluster of the federation"},
    {"CANCELLED", kCancelled, "cancelled by scancel or by who runs the cluster; the same command submits it again"},
    {"DEADLINE", kHopeless, "it could not end before the deadline that was asked for"},
    {"OUT_OF_MEMORY", kHopeless, "raise launcher.memory"},
};

// Defaults of the user's environment that would hide jobs or make the programs wait or ask. Those of sbatch for account, partition
// and so on stay.
const std::vector<std::string> kUnset = {
    "SQUEUE_", "SCANCEL_", "SBATCH_WAIT=", "SBATCH_ARRAY_INX=", "SBATCH_OPEN_MODE=", "SBATCH_QUIET="};

ChildResult call(const std::vector<std::string>& command, ChildOptions options = {}) {
  options.unset = kUnset;
  try {
    return run_child(command, options);
  } catch (Error& error) {
    if (error.kind() == ErrorKind::kNotFound) {
      error.with_code("SLURM_MISSING")
          .with_hint("submit from a machine of the cluster, where Slurm's programs are; or use launcher: local");
    }
    throw;
  }
}

// "sbatch: error: Batch job submission failed: Invalid partition name specified" and more lines, as one without the program's name
// in front.
std::string words_of(const ChildResult& result) {
  std::string text;
  for (std::string line : split(result.err, '\n')) {
    if (const size_t colon = line.find(": "); colon != std::string::npos && line.substr(0, colon).find(' ') == std::string::npos)
      line = line.substr(colon + 2);
    for (const std::string_view lead : {"error: ", "fatal: "}) {
      if (line.starts_with(lead)) line = line.substr(lead.size());
    }
    if (!line.empty()) text += (text.empty() ? "" : "; ") + one_line(line);
  }
  return text.empty() ? fmt::format("exit code {}", result.exit_code) : text;
}

// What the programs say when nobody answers them, or not in time: the same call may succeed later.
bool is_temporary(std::string_view error) {
  constexpr std::array<std::string_view, 7> kTexts = {
      "Unable to contact slurm controller", "Socket timed out",   "Connection refused",         "temporarily unable",
      "Resource temporarily unavailable",   "Transport endpoint", "Zero Bytes were transmitted"};
  return std::ranges::any_of(kTexts, [&](std::string_view text) { return error.find(text) != std::string_view::npos; });
}

bool is_number(std::string_view text) {
  return !text.empty() && text.size() <= 18 && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
}

struct Refusal {
  std::string_view text;
  std::string_view hint;
};
constexpr Refusal kRefusals[] = {
    {"partition", "launcher.partition names one; 'sinfo' lists them with their limits"},
    {"account", "launcher.account and launcher.qos say who pays; 'sacctmgr show associations user=$USER' lists what you may use"},
    {"qos", "launcher.qos: 'sacctmgr show qos' lists them, and their limits on jobs (launcher.max_submitted keeps below one)"},
    {"QOS", "launcher.qos: 'sacctmgr show qos' lists them, and their limits on jobs (launcher.max_submitted keeps below one)"},
    {"generic resource", "launcher.gpus: 'sinfo -o \"%P %G\"' lists what the partitions have"},
    {"time limit", "launcher.time must lie within the partition's limit: 'sinfo -o \"%P %l\"'"},
    {"Memory", "launcher.memory must fit on a machine: 'sinfo -N -l'"},
    {"node configuration",
     "no machine of the partition has so much: look at launcher.cpus, launcher.memory and launcher.gpus beside 'sinfo -N -l'"},
    {"array", "launcher.max_submitted makes the arrays shorter"},
};

}  // namespace

std::span<const SlurmState> slurm_states() { return kStates; }

const SlurmState* find_slurm_state(std::string_view name) {
  const auto* found = std::ranges::find(kStates, name, &SlurmState::name);
  return found == std::end(kStates) ? nullptr : found;
}

std::vector<std::string> sbatch_command(const SlurmArray& array, const LauncherConfig& config) {
  // --requeue: when a machine fails or another job comes first, Slurm starts the task again by itself, also while nobody follows.
  std::vector<std::string> words = {"sbatch",
                                    "--parsable",
                                    "--job-name=" + array.job_name,
                                    "--chdir=" + array.folder.string(),
                                    "--output=slurm-%a.log",
                                    "--open-mode=append",
                                    "--requeue"};
  words.push_back(fmt::format("--array=0-{}{}", array.tasks - 1, array.at_a_time > 0 ? fmt::format("%{}", array.at_a_time) : ""));
  if (!array.after.empty()) words.push_back("--dependency=afterany:" + array.after);
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) words.push_back(std::string(option) + value);
  };
  add("--partition=", config.partition);
  add("--time=", config.time);
  if (config.memory_mib > 0) words.push_back(fmt::format("--mem={}M", config.memory_mib));
  if (config.cpus > 0) words.push_back(fmt::format("--cpus-per-task={}", config.cpus));
  add("--gres=gpu:", config.gpus);
  add("--account=", config.account);
  add("--qos=", config.qos);
  words.insert(words.end(), config.options.begin(), config.options.end());
  words.push_back((array.folder / "array.sh").string());
  return words;
}

int64_t slurm_max_array() {
  const ChildResult result = call({"scontrol", "show", "config"});
  if (result.exit_code != 0) {
    throw Error(ErrorKind::kIo, fmt::format("Slurm's controller does not answer: scontrol show config: {}", words_of(result)))
        .with_code("SLURM_UNREACHABLE")
        .with_hint(
            "'scontrol ping' says whether it is up; jobs that run there already go on, and the same command finds them again");
  }
  for (const std::string& line : split(result.out, '\n')) {
    if (!line.starts_with("MaxArraySize")) continue;
    const size_t start = line.find_first_of("0123456789");
    int64_t most = 0;
    if (start != std::string::npos) std::from_chars(line.data() + start, line.data() + line.size(), most);
    if (most > 0) return most;  // the largest index is one less, and the first is 0
    fail(ErrorKind::kUnsupported, "this Slurm has no job arrays: MaxArraySize is 0 in its configuration");
  }
  return 1001;  // Slurm's default
}

std::optional<std::string> parse_sbatch_output(std::string_view text) {
  // --parsable: "123", on several clusters "123;name"; a site's wrapper may print more before it.
  std::optional<std::string> id;
  for (const std::string& line : split(text, '\n')) {
    const std::string digits = line.substr(0, line.find(';'));
    if (is_number(digits)) id = digits;
  }
  return id;
}

SbatchAnswer call_sbatch(const SlurmArray& array, const LauncherConfig& config) {
  ChildOptions options;
  options.out_file = array.folder / "sbatch.out";
  options.keep_descriptor = array.lock_descriptor;
  const ChildResult result = call(sbatch_command(array, config), options);
  SbatchAnswer answer;
  if (result.exit_code == 0) {
    if (const auto id = parse_sbatch_output(read_text_file(options.out_file))) answer.array_id = *id;
  }
  if (!answer.array_id.empty()) return answer;
  answer.error = result.exit_code == 0 ? "sbatch printed no job id" : words_of(result);
  answer.temporary = is_temporary(answer.error);
  return answer;
}

std::string sbatch_hint(std::string_view error) {
  for (const Refusal& refusal : kRefusals) {
    if (error.find(refusal.text) != std::string_view::npos) return std::string(refusal.hint);
  }
  return "the options come from the block launcher of the configuration";
}

std::vector<int64_t> parse_array_indices(std::string_view text) {
  constexpr int64_t kMost = 4'000'000;  // what Slurm allows
  std::vector<int64_t> indices;
  for (const std::string& range : split(text.substr(0, text.find('%')), ',')) {
    const std::vector<std::string> ends = split(range, '-');
    if (ends.size() > 2 || !std::ranges::all_of(ends, is_number)) return {};
    const int64_t first = std::stoll(ends.front());
    const int64_t last = std::stoll(ends.back());
    if (last > kMost) return {};
    for (int64_t index = first; index <= last; ++index) indices.push_back(index);
  }
  return indices;
}

std::optional<std::vector<SlurmTask>> query_tasks(const std::vector<std::string>& job_names, std::string& error) {
  if (job_names.empty()) return std::vector<SlurmTask>();
  const ChildResult result = call({"squeue", "--noheader", "--all", "--array", "--states=all", "--format=%F|%K|%T|%r",
                                   fmt::format("--name={}", fmt::join(job_names, ","))});
  if (result.exit_code != 0) {
    error = words_of(result);
    return std::nullopt;
  }
  std::vector<SlurmTask> tasks;
  for (const std::string& line : split(result.out, '\n')) {
    const std::vector<std::string> parts = split(line, '|');
    if (parts.size() < 4) continue;
    // Tasks that were cancelled before they started stand in one line.
    for (const int64_t index : parse_array_indices(parts[1])) tasks.push_back({parts[0], index, parts[2], parts[3]});
  }
  return tasks;
}

std::string cancel_arrays(const std::vector<std::string>& array_ids) {
  if (array_ids.empty()) return {};
  std::vector<std::string> words = {"scancel"};
  words.insert(words.end(), array_ids.begin(), array_ids.end());
  const ChildResult result = call(words);
  return result.exit_code == 0 ? std::string() : words_of(result);
}

}  // namespace salient::pipeline
