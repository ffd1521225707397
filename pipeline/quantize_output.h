// What a quantization leaves behind besides tensors, and what an earlier call left.
#pragma once

#include <optional>

#include "pipeline/bit_plan.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/quantize_work.h"

namespace salient::pipeline {

// The output, when it was made from exactly this job's inputs and is as it was made. Errors: it is there, but neither that nor to
// be replaced (invalid argument, corruption).
std::optional<QuantizeProgress> reusable_output(const QuantizeWork& job);

// Of a job that was stopped between the last file and the rename: everything is there.
std::optional<QuantizeProgress> finished_work(const QuantizeWork& job);

// Says what becomes of blocks that another job left in the work folder: they are lost. Errors: invalid argument where other
// settings alone would go on with them, and nobody said that they may be replaced.
void check_other_work(const QuantizeWork& job);

// Errors: corruption when the source's files are not what was hashed when the job began.
void check_source(const QuantizeWork& job);

// Writes the files that are not tensors into the work folder; the metadata and config.json last. `head`: what is to be said of a
// head in blocks, null otherwise.
void write_other_files(const QuantizeWork& job, const AwqOptions& awq, const std::optional<BitPlan>& bits,
                       const QuantizeProgress& progress, const Json& head);

// Joins what the blocks' searches found into options.search_output.
void save_search(const QuantizeWork& job);

// Gives the work folder the output's name. Errors: invalid argument when it exists and may not be replaced; io.
void publish(const QuantizeWork& job);

}  // namespace salient::pipeline
