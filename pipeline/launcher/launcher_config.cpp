#include "pipeline/launcher/launcher_config.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <string_view>

#include "common/error.h"
#include "common/text.h"

namespace salient::pipeline {
namespace {

const std::vector<std::string> kKinds = {"local", "slurm"};
const std::vector<std::string> kKeys = {"kind",   "max_jobs", "cpus",    "retries", "partition",     "time",
                                        "memory", "gpus",     "account", "qos",     "max_submitted", "options"};
constexpr std::array kSlurmKeys = {"partition", "time", "memory", "gpus", "account", "qos", "max_submitted", "options"};
constexpr int64_t kMost = 1'000'000;

// Options of sbatch that the launcher sets: another value would lose track of the jobs.
constexpr std::array<std::string_view, 22> kOwnOptions = {
    "--array",    "-a",     "--job-name", "-J", "--output",     "-o",      "--error", "-e",          "--parsable",
    "--wrap",     "--wait", "-W",         "-d", "--dependency", "--chdir", "-D",      "--open-mode", "--test-only",
    "--clusters", "-M",     "--quiet",    "-Q"};

bool all_digits(std::string_view text) {
  return !text.empty() && text.size() <= 6 && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
}

// minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s; or "infinite" and "unlimited".
bool is_slurm_time(const std::string& text) {
  if (text == "infinite" || text == "unlimited") return true;
  const size_t dash = text.find('-');
  if (dash != std::string::npos && !all_digits(text.substr(0, dash))) return false;
  const std::vector<std::string> parts = split(dash == std::string::npos ? text : text.substr(dash + 1), ':');
  return parts.size() <= 3 && std::ranges::all_of(parts, all_digits);
}

// A name of the cluster: one word, so that no option can hide in it.
std::string read_word(const ConfigNode& node, std::string_view what) {
  const std::string text = node.as_string();
  const bool plain = !text.empty() && text.front() != '-' &&
                     std::ranges::none_of(text, [](unsigned char c) { return std::isspace(c) != 0 || std::iscntrl(c) != 0; });
  if (!plain) node.reject(what);
  return text;
}

void read_slurm(const ConfigNode& node, LauncherConfig& config) {
  const auto word = [&](std::string_view key, std::string& target, std::string_view what) {
    if (node.has(key)) target = read_word(node.get(key), what);
  };
  word("partition", config.partition, "the name of a partition, as sinfo lists them");
  word("account", config.account, "the name of an account");
  word("qos", config.qos, "the name of a quality of service");
  if (const ConfigNode& time = node.get("time"); !time.is_null()) {
    config.time = time.as_string();
    if (!is_slurm_time(config.time))
      time.reject("a time limit as sbatch takes it: minutes, h:m:s or d-h:m:s, such as 90, 2:00:00 or 1-12:00:00");
  }
  if (const ConfigNode& memory = node.get("memory"); !memory.is_null()) {
    const std::optional<uint64_t> bytes = parse_bytes(memory.as_string());
    if (!bytes || *bytes < (uint64_t{1} << 20)) memory.reject("a size such as 16GB or 800MiB");
    config.memory_mib = static_cast<int64_t>((*bytes + (uint64_t{1} << 20) - 1) >> 20);
  }
  if (const ConfigNode& gpus = node.get("gpus"); !gpus.is_null()) {
    config.gpus = gpus.as_string();
    const std::vector<std::string> parts = split(config.gpus, ':');
    const bool typed =
        parts.size() == 2 && !parts[0].empty() && all_digits(parts[1]) && config.gpus.find_first_of(" ,=\t\n") == std::string::npos;
    if (!typed && !all_digits(config.gpus)) gpus.reject("a number of GPUs, or TYPE:COUNT such as a100:2");
    if (config.gpus == "0") config.gpus.clear();
  }
  if (node.has("max_submitted")) config.max_submitted = node.get("max_submitted").as_int64(0, kMost);
  for (const ConfigNode& option : node.get("options").list()) {
    std::string text = option.as_string();
    if (!text.starts_with('-')) option.reject("an option of sbatch, with its dash: --exclude=node7");
    const std::string name = text.starts_with("--") ? text.substr(0, text.find('=')) : text.substr(0, 2);
    if (std::ranges::find(kOwnOptions, name) != kOwnOptions.end()) {
      option.reject("an option that Salient does not set itself: by this one it follows its jobs");
    }
    config.options.push_back(std::move(text));
  }
}

}  // namespace

std::string_view to_string(LauncherKind kind) { return kind == LauncherKind::kSlurm ? "slurm" : "local"; }

LauncherConfig read_launcher(const ConfigNode& node) {
  LauncherConfig config;
  if (node.is_null()) return config;
  const bool short_form = node.kind() == ConfigNode::Kind::kScalar;
  if (!short_form) node.check_keys(kKeys);
  const ConfigNode& kind = short_form ? node : node.get("kind");
  if (!kind.is_null() && kind.as_choice(kKinds) == "slurm") config.kind = LauncherKind::kSlurm;
  if (short_form) return config;
  if (node.has("max_jobs")) config.max_jobs = node.get("max_jobs").as_int64(0, kMost);
  if (node.has("cpus")) config.cpus = node.get("cpus").as_int64(0, 4096);
  if (node.has("retries")) config.retries = node.get("retries").as_int64(0, 100);
  if (config.kind == LauncherKind::kSlurm) {
    read_slurm(node, config);
    return config;
  }
  for (const char* key : kSlurmKeys) {
    if (node.has(key)) node.get(key).reject("nothing: the kind is local, and this is Slurm's (kind: slurm)");
  }
  return config;
}

LauncherConfig load_launcher(const std::string& kind_or_file, const std::vector<std::string>& overrides) {
  const bool is_kind = std::ranges::find(kKinds, kind_or_file) != kKinds.end();
  if (!is_kind && !std::filesystem::exists(kind_or_file)) {
    fail(ErrorKind::kNotFound, "launcher '{}': neither {} nor a YAML file that is there", kind_or_file, list_choices(kKinds));
  }
  ConfigNode root = is_kind ? ConfigNode::parse(fmt::format("launcher: {{kind: {}}}", kind_or_file), "--launcher " + kind_or_file)
                            : ConfigNode::load(kind_or_file);
  // The short form has no keys to change.
  if (!overrides.empty() && root.has("launcher") && root.get("launcher").kind() == ConfigNode::Kind::kScalar) {
    root.apply_override(fmt::format("launcher={{kind: {}}}", root.get("launcher").as_choice(kKinds)));
  }
  for (const std::string& assignment : overrides) root.apply_override("launcher." + assignment);
  root.check_keys(std::vector<std::string>{"launcher"});
  return read_launcher(root.get("launcher"));
}

}  // namespace salient::pipeline
