// What a stopped quantization left behind, so that the next call can go on: progress.json and the hidden states in the work folder.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/awq_block.h"

namespace salient::pipeline {

struct QuantizeProgress {
  std::string fingerprint;  // of everything that decides the result's bytes
  int64_t blocks_done = 0;
  std::vector<LinearReport> reports;  // of the blocks done
};

Json to_json(const LinearReport& report);

// The progress in `work_folder` when it is whole and has this fingerprint; otherwise nothing.
std::optional<QuantizeProgress> load_progress(const std::filesystem::path& work_folder, const std::string& fingerprint);

// Makes `progress` and the input of the next block durable; only then may the job count the block as done. hidden: float32 [blocks, len, size].
void save_progress(const std::filesystem::path& work_folder, const QuantizeProgress& progress, const at::Tensor& hidden);
at::Tensor load_hidden_states(const std::filesystem::path& work_folder, const QuantizeProgress& progress);

// The same out of a finished artifact's quantization_metadata.json; nothing when another program wrote it.
std::optional<QuantizeProgress> progress_from_metadata(const Json& metadata, const std::string& where);

// Whether a file of a work folder is part of the work only, not of the artifact.
bool is_progress_file(const std::string& name);

// Removes what save_progress wrote, and what writers that were killed left half-written, before the work folder becomes the artifact.
void remove_progress(const std::filesystem::path& work_folder);

}  // namespace salient::pipeline
