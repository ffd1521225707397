// AWQ on a whole checkpoint, one decoder block at a time: float weights are read from the mapped files, the quantized block is
// written, its output goes to the next block, and everything of it is freed. Hidden states of the calibration tokens lie in files.
// Peak memory is one block (of a mixture: its attention and one expert), the Gram matrices of one block's inputs and the
// activations of `batch_tokens` tokens; it does not grow with the number of blocks or of calibration tokens.
//
// The artifact is made in "<output>.partial" and renamed when it is complete. After each block the tensors written so far, the
// hidden states and a progress file are flushed to disk: a job that is stopped at any moment goes on at the first block that is not
// done, and gives the same bytes as one that was never stopped.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "common/json.h"
#include "common/ranks.h"
#include "pipeline/awq_options.h"
#include "pipeline/quantize_plan.h"

namespace salient::pipeline {

struct QuantizeModelOptions {
  std::filesystem::path model_folder;
  std::filesystem::path output;  // must not exist, but see reuse_output
  // An output that exists and was made from exactly these inputs counts as this call's result: how a run goes on that was stopped
  // right after the artifact had got its name.
  bool reuse_output = false;
  // An output that another job of this program made is replaced, once the new one is complete.
  bool replace_output = false;
  std::string exists_hint = "choose another --out, or remove the folder";  // what the user can do about an output that exists
  // A file for what the searches find (pipeline/search_file.h); must not exist, unless a stopped call of the same job wrote it.
  // Empty = none. With awq.search_only it is all that is written, and `output` only names the work folder.
  std::filesystem::path search_output;
  AwqOptions awq;
  at::Device device = at::kCPU;  // where the blocks run, and what is searched and rounded for them
  int64_t batch_tokens = 4096;   // tokens of a forward pass: bounds the activations of a block
  uint64_t max_shard_bytes = 5'000'000'000;
  Json calibration_record;        // goes into quantization_metadata.json, its "coverage" completed (reached.h)
  uint64_t seed = 0;              // recorded; the search itself draws nothing
  Json source_hashes;             // those of hash_source_files, where they are known already; null = the files are read
  Json source_state;              // of pipeline/source_files.h, taken before the hashes; null = taken when the job begins
  uint64_t max_memory_bytes = 0;  // refuse to start when more would be needed; 0 = what the machine has free
  // The processes that share the work (pipeline/quantize_ranks.h), each of which must call quantize_model with the same; must
  // outlive the call. Null = this one alone.
  Ranks* ranks = nullptr;
  // Called after each step: blocks done, blocks in all.
  std::function<void(int64_t done, int64_t total)> on_progress;
  std::function<void(int64_t done, int64_t total)> on_planning;  // the same while bits are chosen (target_bits)
  // Called with every plain line that the user should see ("resuming at block 7 of 32").
  std::function<void(const std::string& line)> on_message;
};

struct QuantizeModelResult {
  std::filesystem::path folder;
  std::vector<LinearReport> reports;
  int64_t resumed_blocks = 0;
  double seconds = 0;  // this call, without what earlier, stopped calls did
  uint64_t bytes = 0;  // tensors on disk
};

// Begins with check_quantization (pipeline/quantize_checks.h).
// Errors: invalid argument (output exists; a group size that does not divide, naming the layers and the sizes that do), unsupported
// (already quantized source, architecture), out of memory (as io, code OUT_OF_MEMORY: the estimate and what is free), corruption
// (NaN weights, by name), io (disk full; what was done is kept).
// `tokens`: may be no_calibration() where pipeline/search_result.h's needs_calibration says so.
// Over ranks, only rank 0's result says anything.
QuantizeModelResult quantize_model(const QuantizeModelOptions& options, const calibration::TokenBlocks& tokens);

// No blocks at all.
calibration::TokenBlocks no_calibration();

}  // namespace salient::pipeline
