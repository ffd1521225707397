// One block of a quantization: statistics of its inputs, search, storing, and its output as the next block's input.
//
// A dense block is loaded whole. Of a mixture, attention, router and shared expert are; experts are loaded one at a time, first for
// the search of the scales that all of them share, then each for its own statistics (of all calibration tokens), its quantization,
// and its part of the output (of the tokens that the router sends to it). What all experts read and what they add up to is kept in
// files, not in memory.
//
// Where ranks share the pass (CalibrationPass::share_over), each of them runs the step, on its own rows: statistics are summed,
// searches and linears shared out, experts taken in turn. Rank 0 stores.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/error.h"
#include "models/io/checkpoint.h"
#include "pipeline/activation_file.h"
#include "pipeline/awq_block.h"
#include "pipeline/calibration_pass.h"

namespace salient::pipeline {

struct BlockStep {
  const models::Checkpoint& checkpoint;
  const models::DecoderConfig& config;
  const AwqOptions& options;
  const CalibrationPass& pass;
  const StoredDtype& stored;          // of what is not packed
  std::filesystem::path work_folder;  // for scratch files
  TensorSink sink;
  std::function<void(double done)> on_progress;  // share of this block, 0 to 1; may be empty
  LinearsWork linears = quantize_linears;
  bool needs_output = true;    // false: nothing will read the output, and it may be left as it is
  bool search_on_cpu = false;  // search and round there, wherever the pass runs
};

// A device's memory held the batches of a block, but not the search or the rounding. Kind io, code CUDA_OUT_OF_MEMORY.
class SearchOutOfMemory : public Error {
 public:
  using Error::Error;
};

// Reads the block's input from `input`, stores its tensors, writes its output to `output`. Without any calibration tokens
// (options.search: needs_calibration) both are left alone: pipeline/uncalibrated_step.h. Errors: SearchOutOfMemory, after which the
// block can be run again with search_on_cpu; where the memory does not hold a batch, libtorch's own (quant::is_out_of_memory).
std::vector<LinearReport> run_block_step(const BlockStep& step, int64_t block, const ActivationFile& input, ActivationFile& output);

// A dense block whose inputs were measured on its float weights, for several quantizations at once (shared_pass.h).
struct MeasuredBlock {
  models::BlockWeights weights;  // float32, on the CPU
  BlockStatistics statistics;    // finished, on the CPU
  RowReader input;               // of the block, in the rows of the step's pass
};
// Stores the block's tensors; its output is the caller's. step.options must not need more of a block: shares_float_pass
// (quantize_session.h). Searches and rounds where the pass runs, and where that memory is too small, on the CPU.
std::vector<LinearReport> run_measured_step(const BlockStep& step, int64_t block, MeasuredBlock measured);

// A file of a work folder that is worth nothing once the process has ended; `name` without an extension.
// `rank`: whose it is, where ranks work in one folder.
std::filesystem::path scratch_file(const std::filesystem::path& work_folder, const std::string& name, int rank = 0);
// Whether a file of a work folder is one.
bool is_scratch_file(const std::string& name);

}  // namespace salient::pipeline
