// The setting pad_intermediate: MLPs wider by zeros (models/decoder/mlp_padding.h), so that group sizes divide them, formats hold
// them and engines' kernels take them. With a number, widths become multiples of it: for tensor parallelism on n devices n times
// the group size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/io/checkpoint.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// What kPadAuto makes of an MLP's width: the smallest one, not below it, that options.spec.group_size divides, the format can store
// and the fewest rules of pipeline/engine_notes.h are against. `options`: of the model's own linears, overrides do not count.
int64_t fitting_width(int64_t width, int64_t hidden_size, const AwqOptions& options);

// The checkpoint that a quantization reads: of `folder`, padded as the options say. `notes` gets what was changed; may be null.
// Errors: those of Checkpoint and of widen_mlps.
models::Checkpoint open_source(const std::filesystem::path& folder, const AwqOptions& options,
                               std::vector<std::string>* notes = nullptr);

}  // namespace salient::pipeline
