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

constexpr std::string_view kBundled = "bundled:";  // before the names of bundled files, which are no paths

bool is_yaml(const fs::path& path) { return path.extension() == ".yaml" || path.extension() == ".yml"; }

std::string bundled_origin(const BundledFile& file) { return fmt::format("{}{}", kBundled, file.name); }

// An include of a bundled file is a bundled file; of any other a path beside it, else a bundled one.
IncludedFile load_include(const std::string& name, const std::string& from) {
  const fs::path beside = fs::path(from).parent_path() / name;
  const bool bundled = from.starts_with(kBundled);
  if (!bundled && fs::is_regular_file(beside)) return {beside.string(), ConfigNode::load(beside)};
  for (const BundledFile& file : bundled_task_files()) {
    if (file.name != name) continue;
    const std::string origin = bundled_origin(file);
    return {origin, ConfigNode::parse(file.text, origin)};
  }
  fail(ErrorKind::kNotFound, "{}: include: found no file {}", from, bundled ? name : beside.string());
}

template <typename T>
void add_new(std::vector<T>& list, const T& value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

}  // namespace

const TaskLibrary& TaskLibrary::bundled() {
  static const TaskLibrary library = [] {
    TaskLibrary made;
    for (const BundledFile& file : bundled_task_files()) made.add_file(std::string(file.text), bundled_origin(file), true);
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

std::vector<std::string> TaskLibrary::collect(std::string_view name, TaskSelection& selection,
                                              std::vector<std::string>& path) const {
  if (const Entry* entry = find_task(name)) {
    add_new(selection.tasks, entry->task);
    return {entry->task->name};
  }
  if (const GroupDefinition* group = find_group(name)) return collect_group(*group, selection, path);
  std::vector<std::string> leaves;
  for (const Entry& entry : tasks_) {
    const std::vector<std::string>& tags = entry.task->tags;
    if (std::find(tags.begin(), tags.end(), name) != tags.end()) add_new(leaves, entry.task->name);
  }
  for (const std::string& leaf : leaves) add_new(selection.tasks, find_task(leaf)->task);
  if (!leaves.empty()) return leaves;
  const std::vector<std::string> known = names();
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("task \"{}\" is not there{}; there are: {}", name, did_you_mean(name, known), fmt::join(known, ", ")))
      .with_hint("a task of your own: give its YAML file instead of a name");
}

std::vector<std::string> TaskLibrary::collect_group(const GroupDefinition& group, TaskSelection& selection,
                                                    std::vector<std::string>& path) const {
  const auto done = std::find_if(selection.groups.begin(), selection.groups.end(),
                                 [&](const GroupDefinition& other) { return other.name == group.name; });
  if (done != selection.groups.end()) return done->tasks;
  if (std::find(path.begin(), path.end(), group.name) != path.end())
    fail(ErrorKind::kInvalidArgument, "group {} holds itself", group.name);
  path.push_back(group.name);
  GroupDefinition resolved{group.name, {}, group.metrics};
  for (const std::string& member : group.tasks) {
    for (const std::string& leaf : collect(member, selection, path)) add_new(resolved.tasks, leaf);
  }
  path.pop_back();
  selection.groups.push_back(resolved);
  return resolved.tasks;
}

TaskSelection TaskLibrary::find(std::string_view name) const {
  TaskSelection selection;
  std::vector<std::string> path;
  if (is_yaml(fs::path(name))) {
    TaskLibrary with_file = *this;
    with_file.add_file(read_text_file(fs::path(name)), std::string(name), false);
    if (with_file.groups_.size() > groups_.size()) {  // what the file holds, whatever else has its name
      selection.name = with_file.groups_.back().name;
      with_file.collect_group(with_file.groups_.back(), selection, path);
    } else if (with_file.tasks_.size() > tasks_.size()) {
      selection.tasks = {with_file.tasks_.back().task};
      selection.name = selection.tasks.front()->name;
    } else {
      fail(ErrorKind::kInvalidArgument, "{}: no task in it: found neither the key 'task' nor 'group'", name);
    }
  } else {
    collect(name, selection, path);
    const Entry* entry = find_task(name);
    selection.name = entry != nullptr ? entry->task->name : std::string(name);
  }
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
