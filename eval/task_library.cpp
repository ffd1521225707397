#include "eval/task_library.h"

#include <algorithm>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/text.h"
#include "eval/bundled_tasks.h"
#include "eval/task_yaml.h"

namespace salient::eval {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kBundled = "configs/tasks";

bool is_yaml(const fs::path& path) { return path.extension() == ".yaml" || path.extension() == ".yml"; }

// An include of a bundled file is a bundled file; of any other a path beside it, else a bundled one.
ConfigNode load_include(const std::string& name, const std::string& from) {
  const fs::path beside = fs::path(from).parent_path() / name;
  const bool bundled = from.starts_with(kBundled);
  if (!bundled && fs::is_regular_file(beside)) return ConfigNode::load(beside);
  for (const BundledFile& file : bundled_task_files()) {
    if (file.name == name) return ConfigNode::parse(file.text, fmt::format("{}/{}", kBundled, name));
  }
  fail(ErrorKind::kNotFound, "{}: include: found no file {}", from, bundled ? name : beside.string());
}

}  // namespace

const TaskLibrary& TaskLibrary::bundled() {
  static const TaskLibrary library = [] {
    TaskLibrary made;
    for (const BundledFile& file : bundled_task_files())
      made.add_file(std::string(file.text), fmt::format("{}/{}", kBundled, file.name), true);
    return made;
  }();
  return library;
}

void TaskLibrary::add_file(const std::string& text, const std::string& origin, bool bundled) {
  const ConfigNode root = ConfigNode::parse(text, origin);
  // Files of other programs lie in such folders, too; only maps that name a task or group are ours.
  if (root.kind() != ConfigNode::Kind::kMap) {
    if (bundled) fail(ErrorKind::kInternal, "{} is no task", origin);
    return;
  }
  TaskFile file = read_task_file(root, origin, load_include);
  for (TaskDefinition& task : file.tasks)
    tasks_.push_back({std::make_shared<const TaskDefinition>(std::move(task)), !file.groups.empty()});
  groups_.insert(groups_.end(), file.groups.begin(), file.groups.end());
}

void TaskLibrary::add_folder(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::kNotFound, "{}: no such folder of task files", folder.string());
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && is_yaml(entry.path())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) add_file(read_text_file(file), file.string(), false);
}

const TaskLibrary::Entry* TaskLibrary::find_task(std::string_view name) const {
  const auto by_name = std::find_if(tasks_.rbegin(), tasks_.rend(), [&](const Entry& e) { return e.task->name == name; });
  if (by_name != tasks_.rend()) return &*by_name;
  const auto by_alias = std::find_if(tasks_.rbegin(), tasks_.rend(), [&](const Entry& e) {
    return std::find(e.task->aliases.begin(), e.task->aliases.end(), name) != e.task->aliases.end();
  });
  return by_alias != tasks_.rend() ? &*by_alias : nullptr;
}

const GroupDefinition* TaskLibrary::find_group(std::string_view name) const {
  const auto found = std::find_if(groups_.rbegin(), groups_.rend(), [&](const GroupDefinition& g) { return g.name == name; });
  return found != groups_.rend() ? &*found : nullptr;
}

void TaskLibrary::collect(std::string_view name, TaskSelection& selection, std::vector<std::string>& path) const {
  if (const Entry* entry = find_task(name)) {
    if (std::find(selection.tasks.begin(), selection.tasks.end(), entry->task) == selection.tasks.end())
      selection.tasks.push_back(entry->task);
    return;
  }
  if (const GroupDefinition* group = find_group(name)) {
    if (std::find(path.begin(), path.end(), group->name) != path.end())
      fail(ErrorKind::kInvalidArgument, "group {} holds itself", group->name);
    path.push_back(group->name);
    TaskSelection members;
    for (const std::string& member : group->tasks) collect(member, members, path);
    path.pop_back();
    GroupDefinition resolved = *group;
    resolved.tasks.clear();
    for (const auto& task : members.tasks) resolved.tasks.push_back(task->name);
    for (auto& task : members.tasks) {
      if (std::find(selection.tasks.begin(), selection.tasks.end(), task) == selection.tasks.end()) selection.tasks.push_back(task);
    }
    selection.groups.insert(selection.groups.end(), members.groups.begin(), members.groups.end());
    selection.groups.push_back(std::move(resolved));
    return;
  }
  const size_t before = selection.tasks.size();
  std::set<std::string> seen;
  for (const Entry& entry : tasks_) {
    const std::vector<std::string>& tags = entry.task->tags;
    if (std::find(tags.begin(), tags.end(), name) == tags.end() || !seen.insert(entry.task->name).second) continue;
    selection.tasks.push_back(find_task(entry.task->name)->task);
  }
  if (selection.tasks.size() > before) return;
  const std::vector<std::string> known = names();
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("task \"{}\" is not there{}; there are: {}", name, did_you_mean(name, known), fmt::join(known, ", ")))
      .with_hint("a task of your own: give its YAML file instead of a name");
}

TaskSelection TaskLibrary::find(std::string_view name) const {
  if (is_yaml(fs::path(name))) {
    TaskLibrary with_file = *this;
    const size_t tasks = tasks_.size();
    with_file.add_file(read_text_file(fs::path(name)), std::string(name), false);
    if (with_file.groups_.size() > groups_.size()) return with_file.find(with_file.groups_.back().name);
    if (with_file.tasks_.size() > tasks) return with_file.find(with_file.tasks_.back().task->name);
    fail(ErrorKind::kInvalidArgument, "{}: no task in it: found neither the key 'task' nor 'group'", name);
  }
  TaskSelection selection;
  std::vector<std::string> path;
  collect(name, selection, path);
  const Entry* entry = find_task(name);
  selection.name = entry != nullptr ? entry->task->name : std::string(name);
  std::string all;
  for (const auto& task : selection.tasks) all += task->sha256;
  selection.sha256 = selection.tasks.size() == 1 ? selection.tasks.front()->sha256 : sha256_hex(all);
  return selection;
}

std::vector<std::string> TaskLibrary::names() const {
  std::set<std::string> names;
  for (const Entry& entry : tasks_) {
    if (!entry.in_group) names.insert(entry.task->name);
  }
  for (const GroupDefinition& group : groups_) names.insert(group.name);
  return {names.begin(), names.end()};
}

}  // namespace salient::eval
