// The bundled demo, made small enough to be run many times in a test.
#pragma once

#include <filesystem>
#include <string>

#include "support/run_program.h"

namespace salient::test {

inline const std::filesystem::path kDemoModel = SALIENT_SOURCE_DIR "/models/demo";

// The name that the demo's training metadata and the default specification give.
constexpr const char* kDemoArtifact = "Qwen3-Demo-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized";

// Writes run.yaml: 12 calibration rows, several shards, 4 windows of perplexity, 40 questions. Everything goes below `folder`.
inline std::filesystem::path write_demo_config(const std::filesystem::path& folder, const std::string& more = "") {
  const std::string model = kDemoModel.string();
  const std::filesystem::path file = folder / "run.yaml";
  write_text(file, "model: {path: " + model + "}\n" +
                       "calibration: {samples: 12}\n"
                       "quantization: {n_grid: 4, max_shard_size: 1MB}\n"
                       "evaluation:\n"
                       "  tasks:\n"
                       "    - {name: perplexity, file: " + model + "/data/heldout.txt, limit: 4}\n" +
                       "    - {name: arc, file: " + model + "/data/arc_test.jsonl, limit: 40}\n" +
                       "  throughput: false\n"
                       "output: {folder: artifacts, store: runs/salient.db}\n" + more);
  return file;
}

// Twelve texts, one a line, for `salient quantize --calib`.
inline std::filesystem::path write_calibration(const std::filesystem::path& folder) {
  std::ifstream in(kDemoModel / "data/calib_mixed.jsonl");
  std::string text;
  std::string line;
  for (int i = 0; i < 12 && std::getline(in, line); ++i) text += line + "\n";
  write_text(folder / "calibration.jsonl", text);
  return folder / "calibration.jsonl";
}

}  // namespace salient::test
