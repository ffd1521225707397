// The folder in which an artifact is made, "<output>.partial", and what it becomes: the artifact's folder, complete once
// config.json is there.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "pipeline/quantize_progress.h"

namespace salient::pipeline {

inline constexpr const char* kMetadataFile = "quantization_metadata.json";

std::filesystem::path work_folder_of(const std::filesystem::path& output);

// A folder that only happens to have the name is left alone. Errors: invalid argument when it holds a file that is none of a job's.
void check_work_folder(const std::filesystem::path& work);

// What a complete folder says of the job that made it; nothing of one that is not complete, or not ours. Errors: corruption.
std::optional<QuantizeProgress> load_finished(const std::filesystem::path& folder);

// The name of a file of an artifact that is not as it was made; "" when all are.
std::string find_changed_file(const std::filesystem::path& folder);

// Removes what is no tensor of an artifact from its work folder: another job's, which this one does not write over.
void remove_results(const std::filesystem::path& work);

// Gives a complete work folder, without what served the work only, the artifact's name; what has that name is removed afterwards.
// Between the two it is called "<output>.replaced", or "<output>.replaced-2" where there is such a folder, and so on: those are
// left alone. Errors: io.
void publish_folder(const std::filesystem::path& work, const std::filesystem::path& output);

}  // namespace salient::pipeline
