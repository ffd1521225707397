// Whether an artifact is what its quantization_metadata.json says: the manifest with the SHA-256 of every file, of the source's
// files and of the calibration rows, and every setting.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/quantize_job.h"

namespace salient::pipeline {

enum class FileState : uint8_t {
  kSame,
  kChanged,
  kMissing,
  kUnrecorded,  // in the folder, not in the manifest: no failure, users add files
};
std::string_view to_string(FileState state);

struct CheckedFile {
  std::string name;
  FileState state = FileState::kSame;
  std::string expected;  // SHA-256 as recorded; empty where nothing is
  std::string found;     // empty for a missing one; unrecorded ones are not read
};

// Every file of the manifest, then what else lies in the folder; by name. What the program adds later (README.md, hidden files) is
// not named. Memory: the files are read through mappings. Errors: not found (no folder, no quantization_metadata.json); unsupported
// where the metadata have no hashes, corruption where they are damaged.
std::vector<CheckedFile> check_files(const std::filesystem::path& artifact,
                                     const std::function<void(int64_t done, int64_t total)>& on_progress = {});

// The same for the files that it was made from, in `source`. Files that no quantization reads are not named.
std::vector<CheckedFile> check_source(const std::filesystem::path& artifact, const std::filesystem::path& source);

struct RederiveOptions {
  std::filesystem::path artifact;
  // model.model_folder and the calibration files with what says how their rows are read; every other setting is the metadata's. No
  // files where the artifact was made without any, or with one that is looked for by its hash: in the working folder, beside the
  // artifact, and where `salient run` keeps it.
  QuantizeJob job;
  int64_t blocks = 1;             // the first ones, at most all
  std::filesystem::path scratch;  // a folder with room for the artifact once more
};

struct Rederived {
  int64_t blocks = 0;
  int64_t tensors = 0;                 // compared: those of the blocks, and those of no block
  uint64_t bytes = 0;                  // of them
  std::vector<std::string> different;  // names of tensors
  bool same_inputs = false;            // the fingerprint of everything that decides the bytes is the recorded one
  // Where it is not: what differs, "libtorch 2.13.0, made with 2.12.1". Then other bytes prove nothing.
  std::vector<std::string> other_inputs;
};

// Quantizes the first blocks again and compares their stored bytes. Memory and time: those of
// quantize_model for these blocks. Errors: those of check_files and run_quantize_job; invalid argument for calibration rows that
// are not the recorded ones, check failed where the same job writes other files; unsupported for an artifact that was converted or
// exported.
Rederived rederive(const RederiveOptions& options);

}  // namespace salient::pipeline
