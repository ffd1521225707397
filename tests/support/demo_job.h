// A short quantization job on the demo model: 40 rows of 128 tokens, none written by the model itself.
#pragma once

#include <filesystem>

#include "pipeline/quantize_job.h"

namespace salient::test {

inline const std::filesystem::path kDemo = SALIENT_SOURCE_DIR "/models/demo";

inline pipeline::QuantizeJob demo_job() {
  pipeline::QuantizeJob job;
  job.model.model_folder = kDemo;
  job.calibration_file = kDemo / "data/calib_mixed.jsonl";
  job.samples = 40;
  job.max_seq_len = 128;
  job.self_generated = 0;
  return job;
}

}  // namespace salient::test
