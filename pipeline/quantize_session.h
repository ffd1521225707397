// A quantization that is taken block by block: the part of quantize_model between "nothing is there" and the artifact.
//
// On its own it runs the calibration tokens through each block (run_block()). Several sessions of one model may instead be given
// what was measured on the float model for all of them (run_block(measured)), where shares_float_pass says that it is the same.
// Where ranks share the work, rank 0 has the session, and tells the others what to do (pipeline/quantize_ranks.h).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "models/io/checkpoint_writer.h"
#include "pipeline/bit_plan.h"
#include "pipeline/block_step.h"
#include "pipeline/calibration_pass.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/quantize_work.h"

namespace salient::pipeline {

// "" where blocks can be given measured; otherwise what stands against it: "propagate_error is on".
std::string why_not_shared(const models::DecoderConfig& config, const AwqOptions& options);
inline bool shares_float_pass(const models::DecoderConfig& config, const AwqOptions& options) {
  return why_not_shared(config, options).empty();
}

// Whose files hold the hidden states between the blocks.
enum class HiddenStates : uint8_t { kOwn, kShared };

class QuantizeSession {
 public:
  // Everything that quantize_model does before the first block; its work folder stays locked. `tokens` must outlive the session.
  // Errors: those of quantize_model.
  QuantizeSession(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens,
                  HiddenStates hidden = HiddenStates::kOwn);
  QuantizeSession(const QuantizeSession&) = delete;
  QuantizeSession& operator=(const QuantizeSession&) = delete;

  // The artifact was there already, made from exactly these inputs: only finish() may be called.
  bool finished() const { return finished_.has_value(); }
  const QuantizeWork& work() const { return job_; }
  const CalibrationPass& pass() const { return *pass_; }
  int64_t blocks_done() const { return progress_.blocks_done; }
  // Whether finish() reads the last block's output.
  bool needs_last_output() const { return job_.gguf && job_.gguf->head_type(); }

  // The next block; durable when it returns. The second form only with HiddenStates::kShared.
  void run_block();
  void run_block(MeasuredBlock measured);
  // After the last block: everything else, and the artifact's name. `last_output`: of the last block, where needs_last_output() and
  // hidden states are shared.
  QuantizeModelResult finish(const RowReader& last_output = {});

 private:
  bool begin();
  void prepare();
  void begin_work(const OuterTensors& outer);
  void note_tensors();  // what was put, in the progress
  template <typename Run>
  void run_block_as(const Run& run);
  std::vector<LinearReport> run_step(const BlockStep& step, int64_t block, const ActivationFile& input, ActivationFile& output);
  Json put_gguf_head(const RowReader& last_output);

  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  HiddenStates hidden_;
  QuantizeWork job_;
  std::optional<FolderLock> lock_;
  std::optional<QuantizeProgress> finished_;
  // Set by prepare():
  std::optional<BitPlan> bits_;
  AwqOptions awq_;  // with planned_bits
  std::optional<models::CheckpointWriter> writer_;
  std::optional<CalibrationPass> pass_;
  QuantizeProgress progress_;
  QuantizeModelResult result_;
};

}  // namespace salient::pipeline
