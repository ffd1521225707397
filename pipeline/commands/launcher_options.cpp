#include "pipeline/commands/launcher_options.h"

#include "pipeline/commands/session.h"

namespace salient::pipeline {

OptionRow detach_option() {
  return {"detach", "", "with slurm: submit and end; the same command follows the jobs and collects their results"};
}

std::vector<OptionRow> with_launcher_rows(std::vector<OptionRow> rows) {
  rows.push_back({"launcher", "KIND|FILE",
                  "where jobs run: local (that of salient launch without this), slurm, or a YAML file with the block launcher "
                  "(docs/cluster.md)"});
  rows.push_back({"launcher-set", "KEY=VALUE", "change a value of that block: --launcher-set max_jobs=4", true});
  rows.push_back(detach_option());
  return rows;
}

LaunchCallbacks launch_callbacks(LaunchProgress& progress) {
  LaunchCallbacks callbacks;
  callbacks.message = [&progress](const std::string& line) {
    progress.clear();
    print_note(line);
  };
  callbacks.progress = [&progress](const LaunchCounts& counts) { progress.show(counts); };
  return callbacks;
}

}  // namespace salient::pipeline
