// What a stopped quantization left behind, so that the next call can go on: progress.json and the hidden states in the work folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/activation_file.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// Of a job's inputs, the key of the source's hashes.
inline constexpr const char* kSourceInput = "source";

struct QuantizeProgress {
  std::string fingerprint;  // of everything that decides the result's bytes
  Json inputs;              // that everything
  int64_t blocks_done = 0;
  std::vector<LinearReport> reports;  // of the blocks done
  // Checksums (common/checksum.h) of what another call goes on from: files of the work folder, tensors in the shards.
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> tensors;
};

// {"name": ..., "rtn_error": ..., "error": ..., "scale": "duo", "ratio": ..., "clipped_share": ..., ...}: one entry of "layers" in
// quantization_metadata.json. What was not measured has no key; an error that is not finite is null.
Json to_json(const LinearReport& report);
// The inverse, which also reads entries of earlier versions. `where` opens the error text. Errors: corruption.
LinearReport linear_report_from_json(const Json& json, const std::string& where);

// The progress in `work_folder` when it is whole and has this fingerprint, and the files that it names are as they were; otherwise
// nothing. `hidden`: with the input of the next block. The tensors are not looked at (CheckpointWriter::find_changed).
std::optional<QuantizeProgress> load_progress(const std::filesystem::path& work_folder, const std::string& fingerprint,
                                              bool hidden = true);

// Blocks of another job that were done in `work_folder` when it was stopped, and what its inputs have that `inputs` have not:
// "batch_tokens", "search.group_size". No names where its inputs are not known.
struct StoppedWork {
  int64_t blocks_done = 0;
  std::vector<std::string> differences;
};
// Nothing where there is none, or it is this fingerprint's.
std::optional<StoppedWork> find_other_work(const std::filesystem::path& work_folder, const std::string& fingerprint,
                                           const Json& inputs);

// The file with the input of block `block`, of rank `rank` where ranks share the work. There is one for each index: the old one is
// still there until the progress names the new one.
std::filesystem::path hidden_file(const std::filesystem::path& work_folder, int64_t block, int rank = 0);

// Makes `progress` and `hidden`, the input of the next block, durable; only then does the block count as done. Removes the input of
// the last one.
void save_progress(const std::filesystem::path& work_folder, QuantizeProgress& progress, const ActivationFile& hidden);
// The same where hidden states are kept elsewhere (shared_pass.h).
void save_progress(const std::filesystem::path& work_folder, const QuantizeProgress& progress);

// Adds a file of the work folder to those that another call goes on from.
void note_file(QuantizeProgress& progress, const std::filesystem::path& file);
// The same where it is known what file_checksum gives of it.
void note_file(QuantizeProgress& progress, const std::filesystem::path& file, const std::string& checksum);
std::string file_checksum(const std::filesystem::path& file);

// An object with a checksum over its other values, and whether it still has the right one.
Json with_own_checksum(Json json);
bool has_own_checksum(const Json& json);

// The same out of a finished artifact's quantization_metadata.json; nothing when another program wrote it.
std::optional<QuantizeProgress> progress_from_metadata(const Json& metadata, const std::string& where);

// Whether a file of a work folder is part of the work only, not of the artifact.
bool is_progress_file(const std::string& name);

// Removes what save_progress wrote, and what writers that were killed left half-written, before the work folder becomes the
// artifact.
void remove_progress(const std::filesystem::path& work_folder);

}  // namespace salient::pipeline
