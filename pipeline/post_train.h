// The run after a training: what a checkpoint's training_metadata.json plans, as a configuration of `salient run`.
//
//   {"base_model": ..., "dataset": {...}, "training": {...}, "system_prompt": ...,      of the training:
//   pipeline/training_metadata.h
//    "quantization": {"method": "AWQ", "bits": 4, "group_size": 128, "lm_head": "fp16", "extras": {...}},
//    "calibration": {"samples": 128},
//    "evaluation": {"tasks": [{"name": "perplexity", "file": "heldout.txt", "limit": 20}], "max_retention_loss": 0.05}}
//
// "quantization" must be there, {} means the defaults; "calibration" and "evaluation" may be missing. Their keys are those of the
// sections of a run's configuration (pipeline/run_config.h), and unknown ones are errors, but for "extras", which is the
// platform's. Also understood, as platforms write them: weights_bits, activations_bits, lm_head_dtype, and backend: awq, autoawq,
// compressed-tensors, llm-compressor or llama.cpp (which needs a format). "quantization": false or null, or "extras":
// {"ptq_planned": false}, says that nothing is planned. Files are looked for in the checkpoint's folder, its data/ folder, then
// from the working directory.
//
// The artifact, the calibration texts and the store (runs/salient.db) go beside the checkpoint, into its parent folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/run_config.h"

namespace salient::pipeline {

// The configuration, as a run's YAML would have it; nothing where nothing is planned. `checkpoint`: a folder, also of a LoRA
// adapter. Errors: not found (the folder, its training_metadata.json), invalid argument with the key (no "quantization"; a key that
// is not known; a section of a wrong type; the same said twice), corruption (malformed JSON).
std::optional<Json> post_train_config(const std::filesystem::path& checkpoint);

// The same, with "a.b=value" overrides applied and everything checked as load_run_config does. `overrides` that plan a quantization
// make up for a section that is missing. Errors also: invalid argument for an output folder or store inside the checkpoint, which
// is never written to.
std::optional<RunConfig> load_post_train_config(const std::filesystem::path& checkpoint,
                                                const std::vector<std::string>& overrides = {});

}  // namespace salient::pipeline
