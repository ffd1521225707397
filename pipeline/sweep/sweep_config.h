// The configuration of `salient sweep`, read from YAML: one run configuration, and the values of some of its keys for each point.
//
//   name: demo_sweep                       # default: the file's name without extension
//   run: configs/demo.yaml                 # required: the run configuration that every point starts from
//   set: {quantization.propagate_error: false}   # values of all points
//   grid:                                  # every combination of these
//     quantization.group_size: [32, 64, 128, 256]
//     calibration.samples: [64, 128, 256, 512]
//   points:                                # and, or instead, single ones
//     - {quantization.bits: 8}
//   seeds: [42, 43, 44]                    # each point once with each calibration.seed; default: the run configuration's
//   share: true                            # points for which one float pass does are quantized on it: docs/sweeps.md
//   loss: auto                             # kl_divergence | retention | TASK:METRIC: what points are compared by;
//                                          # auto = the first that was measured
//   launcher: slurm                        # points run as jobs: pipeline/launcher/launcher_config.h
//   output:
//     folder: artifacts/sweeps/demo_sweep  # default: output.folder of the run / sweeps / name; each point has a folder in it
//     store: runs/salient.db               # default: output.store of the run
//
// Keys are those of a run configuration (pipeline/run_config.h), in full. Unknown keys and values are errors with their place.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/yaml.h"
#include "pipeline/launcher/launcher_config.h"
#include "pipeline/run_config.h"

namespace salient::pipeline {

struct SweepPoint {
  std::string name;  // "group_size=32,samples=64": of its folder, and of its run after the sweep's name
  std::vector<std::pair<std::string, Json>> values;  // key in full, value; without the seed of a repetition
  std::optional<uint64_t> seed;                      // of a repetition
  RunConfig run;
};

struct SweepConfig {
  std::string name;
  std::vector<SweepPoint> points;       // distinct, in the order of the file; of a grid the last key runs fastest
  std::vector<std::string> duplicates;  // names of points that equal an earlier one, and were left out
  std::vector<std::string>
      keys;  // in which points differ, in full, in the order of the file; without calibration.seed of repetitions
  bool share = true;
  std::string loss = "auto";
  std::optional<LauncherConfig> launcher;  // nothing: this process does the work
  std::filesystem::path folder;
  std::filesystem::path store;
};

// `overrides`: "a.b=c" of the sweep's own file ("loss=retention", "run=other.yaml"). Errors: those of load_run_config, with the
// point in front; invalid argument: no points, an empty list, a key given twice, more than kMostPoints points, output.folder or
// name as a key of a point.
SweepConfig load_sweep_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

inline constexpr size_t kMostPoints = 10'000;

// The last part of a key where no other of `keys` has the same, else the whole key.
std::string short_key(const std::string& key, const std::vector<std::string>& keys);

}  // namespace salient::pipeline
