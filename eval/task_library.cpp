#include "eval/task_library.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/text.h"
#include "eval/bundled_tasks.h"

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
  const TaskFile file = read_task_file(root, origin, load_include);
  for (const auto& task : file.tasks) tasks_.push_back({task, !file.groups.empty()});
  for (const auto& group : file.groups) groups_.push_back({group, group != file.groups.back()});
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

const ReadTask* TaskLibrary::find_task(std::string_view name, bool in_group) const {
  const auto by_name = std::find_if(tasks_.rbegin(), tasks_.rend(),
                                    [&](const auto& e) { return e.in_group == in_group && e.read->definition->name == name; });
  if (by_name != tasks_.rend()) return by_name->read.get();
  const auto by_alias = std::find_if(tasks_.rbegin(), tasks_.rend(), [&](const auto& e) {
    const std::vector<std::string>& aliases = e.read->definition->aliases;
    return e.in_group == in_group && std::find(aliases.begin(), aliases.end(), name) != aliases.end();
  });
  return by_alias != tasks_.rend() ? by_alias->read.get() : nullptr;
}

const GroupSource* TaskLibrary::find_group(std::string_view name, bool in_group) const {
  const auto found =
      std::find_if(groups_.rbegin(), groups_.rend(), [&](const auto& e) { return e.in_group == in_group && e.read->name == name; });
  return found != groups_.rend() ? found->read.get() : nullptr;
}

// Walks what a name stands for and gathers the leaves, each with the keys that the groups on the way lay over it. A member's own
// keys win over those that the group is reached with, these over the group's own.
class TaskLibrary::Collector {
 public:
  using Overrides = std::vector<TaskSource::Layer>;

  explicit Collector(const TaskLibrary& library) : library_(library) {}

  // These return the names of the leaves.
  std::vector<std::string> add_name(std::string_view name, const Overrides& overrides) {
    for (const bool in_group : {false, true}) {
      if (const ReadTask* task = library_.find_task(name, in_group)) return add_task(*task, overrides);
      if (const GroupSource* group = library_.find_group(name, in_group)) return add_group(*group, overrides);
      if (in_group) continue;
      std::vector<std::string> leaves;
      for (const auto& entry : library_.tasks_) {
        const TaskDefinition& task = *entry.read->definition;
        if (std::find(task.tags.begin(), task.tags.end(), name) != task.tags.end()) add_new(leaves, task.name);
      }
      for (const std::string& leaf : leaves) {
        const ReadTask* task = library_.find_task(leaf, false);
        add_task(task != nullptr ? *task : *library_.find_task(leaf, true), overrides);
      }
      if (!leaves.empty()) return leaves;
    }
    const std::vector<std::string> known = library_.names();
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("task \"{}\" is not there{}; there are: {}", name, did_you_mean(name, known), fmt::join(known, ", ")))
        .with_hint("a task of your own: give its YAML file instead of a name");
  }

  std::vector<std::string> add_task(const ReadTask& task, const Overrides& overrides) {
    const auto definition = overrides.empty() ? task.definition : override_task(task.source, overrides).definition;
    for (const auto& other : selection_.tasks) {
      if (other->name != definition->name) continue;
      if (other->sha256 == definition->sha256) return {definition->name};
      refuse_two("task", definition->name);
    }
    selection_.tasks.push_back(definition);
    return {definition->name};
  }

  std::vector<std::string> add_group(const GroupSource& group, const Overrides& overrides) {
    const std::string key = fmt::format("{} {}", static_cast<const void*>(&group), key_of(overrides));
    for (const GroupDefinition& other : selection_.groups) {
      if (other.name != group.name) continue;
      if (keys_.at(group.name) == key) return other.tasks;
      refuse_two("group", group.name);
    }
    if (std::find(path_.begin(), path_.end(), &group) != path_.end())
      fail(ErrorKind::kInvalidArgument, "group {} holds itself", group.name);
    path_.push_back(&group);
    GroupDefinition resolved{group.name, {}, group.metrics};
    for (const GroupMember& member : group.members) {
      for (const std::string& leaf : add_member(group, member, overrides)) add_new(resolved.tasks, leaf);
    }
    path_.pop_back();
    keys_[group.name] = key;
    selection_.groups.push_back(resolved);
    return resolved.tasks;
  }

  TaskSelection take() { return std::move(selection_); }

 private:
  std::vector<std::string> add_member(const GroupSource& group, const GroupMember& member, const Overrides& overrides) {
    Overrides all = member.overrides;
    all.insert(all.end(), overrides.begin(), overrides.end());
    all.insert(all.end(), group.overrides.begin(), group.overrides.end());
    if (member.group != nullptr) return add_group(*member.group, all);
    if (member.task == nullptr) return add_name(member.name, all);
    // Its own keys come before those that the group is reached with, these before the keys of the groups in its file, which it has
    // already.
    TaskSource source = member.task->source;
    const auto groups =
        std::find_if(source.layers.begin(), source.layers.end(), [](const TaskSource::Layer& layer) { return layer.is_override; });
    source.layers.insert(groups, overrides.begin(), overrides.end());
    return add_task(overrides.empty() ? *member.task : override_task(source, {}), {});
  }

  static std::string key_of(const Overrides& overrides) {
    Json keys = Json::array();
    for (const TaskSource::Layer& layer : overrides) keys.push_back(layer.node.to_json());
    return sha256_hex(dump_json(keys));
  }

  [[noreturn]] static void refuse_two(std::string_view kind, const std::string& name) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("the {} {} is reached twice, with different keys", kind, name))
        .with_hint("results are named after tasks and groups: give one of them a name of its own");
  }

  const TaskLibrary& library_;
  TaskSelection selection_;
  std::vector<const GroupSource*> path_;     // the groups on the way
  std::map<std::string, std::string> keys_;  // of the groups in selection_: which one, with which keys
};

TaskSelection TaskLibrary::find(std::string_view name) const {
  std::string own_name;
  TaskLibrary with_file = *this;
  Collector collector(with_file);
  if (is_yaml(fs::path(name))) {
    with_file.add_file(read_text_file(fs::path(name)), std::string(name), false);
    if (with_file.groups_.size() > groups_.size()) {  // what the file holds, whatever else has its name
      own_name = with_file.groups_.back().read->name;
      collector.add_group(*with_file.groups_.back().read, {});
    } else if (with_file.tasks_.size() > tasks_.size()) {
      own_name = with_file.tasks_.back().read->definition->name;
      collector.add_task(*with_file.tasks_.back().read, {});
    } else {
      fail(ErrorKind::kInvalidArgument, "{}: no task in it: found neither the key 'task' nor 'group'", name);
    }
  } else {
    collector.add_name(name, {});
  }
  TaskSelection selection = collector.take();
  if (own_name.empty()) {  // an alias stands for the task's own name
    const bool is_task = selection.groups.empty() && selection.tasks.size() == 1 && find_task(name, false) != nullptr;
    own_name = is_task ? selection.tasks.front()->name : std::string(name);
  }
  selection.name = own_name;
  std::string all;
  for (const auto& task : selection.tasks) all += task->sha256;
  selection.sha256 = selection.tasks.size() == 1 ? selection.tasks.front()->sha256 : sha256_hex(all);
  return selection;
}

std::vector<std::string> TaskLibrary::names() const {
  std::set<std::string> names;
  for (const auto& entry : tasks_) {
    if (!entry.in_group) names.insert(entry.read->definition->name);
  }
  for (const auto& entry : groups_) names.insert(entry.read->name);
  return {names.begin(), names.end()};
}

}  // namespace salient::eval
