// Every task that there is by name: those compiled into the program (configs/tasks), which it knows wherever it lies, and those of
// the user's own YAML files.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"
#include "eval/task_yaml.h"

namespace salient::eval {

// What a name stands for.
struct TaskSelection {
  std::string name;                                          // the task's, group's or tag's own name
  std::vector<std::shared_ptr<const TaskDefinition>> tasks;  // one, or the leaves of a group or tag in their order
  std::vector<GroupDefinition> groups;                       // the group and those inside it, which come first; none for tags
  std::string sha256;                                        // of all definitions
};

class TaskLibrary {
 public:
  static const TaskLibrary& bundled();

  // Adds the *.yaml files of a folder and those below it; their names win over those that are there. Errors: not found; those of
  // read_task_file.
  void add_folder(const std::filesystem::path& folder);

  // A task, one of its other names, a group, a tag, or a YAML file of one of these ("my/task.yaml", ending in .yaml or .yml); tasks
  // and groups that stand inside a group's file come after all others. Errors: invalid argument with the nearest name and all of
  // them, and for a group that reaches one name in two ways with different keys; those of read_task_file.
  TaskSelection find(std::string_view name) const;

  // Names of tasks and groups, sorted, without the members of groups that are not tasks of a file of their own.
  std::vector<std::string> names() const;

 private:
  template <typename T>
  struct Entry {
    std::shared_ptr<const T> read;
    bool in_group = false;  // stands inside a group's file
  };
  class Collector;
  void add_file(const std::string& text, const std::string& origin, bool bundled);
  const ReadTask* find_task(std::string_view name, bool in_group) const;
  const GroupSource* find_group(std::string_view name, bool in_group) const;

  std::vector<Entry<ReadTask>> tasks_;  // the last of one name counts
  std::vector<Entry<GroupSource>> groups_;
};

}  // namespace salient::eval
