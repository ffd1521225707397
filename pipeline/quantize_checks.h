// What is known to be wrong before a quantization begins, and what the user should know of it.
#pragma once

#include <string>
#include <vector>

#include "pipeline/quantize_model.h"
#include "pipeline/quantize_work.h"

namespace salient::pipeline {

// What can be known to be wrong before any work; quantize_model begins with it. Errors: as there, but for those of memory, disk and
// damaged weights.
void check_quantization(const QuantizeModelOptions& options);

// Worth telling the user before the work begins, a line each.
std::vector<std::string> quantization_notes(const QuantizeWork& job);

// Says what will be needed and refuses what is not there. `disk`: also what the disk has free, which work in progress has taken
// already. Errors: io (codes OUT_OF_MEMORY, DISK_FULL).
void check_needs(const QuantizeWork& job, bool disk);

// What of it is known before calibration rows are made, which may take as long as quantizing: of `tokens` in rows of `row_tokens`.
// Nothing where there is no output folder to be, or it is there already. Errors: those of check_needs; io where the output cannot
// be written.
void check_room(const QuantizeModelOptions& options, const models::DecoderConfig& config, int64_t tokens, int64_t row_tokens);

// Errors: invalid argument when options.search_output exists and is not of this job.
void check_search_output(const QuantizeWork& job);

// Throws invalid argument: options.output exists, with options.exists_hint.
[[noreturn]] void fail_exists(const QuantizeModelOptions& options);

}  // namespace salient::pipeline
