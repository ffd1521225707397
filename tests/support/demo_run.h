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
  const std::string data = kDemoModel.string() + "/data";
  std::string text = "model: {path: " + kDemoModel.string() + "}\n";
  text += "calibration: {samples: 12}\n";
  text += "quantization: {n_grid: 4, max_shard_size: 1MB}\n";
  text += "evaluation:\n";
  text += "  tasks:\n";
  text += "    - {name: perplexity, file: " + data + "/heldout.txt, limit: 4}\n";
  text += "    - {name: arc, file: " + data + "/arc_test.jsonl, limit: 40}\n";
  text += "  throughput: false\n";
  text += "output: {folder: artifacts, store: runs/salient.db}\n";
  const std::filesystem::path file = folder / "run.yaml";
  write_text(file, text + more);
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
