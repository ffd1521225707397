// One pass of the float model over the calibration tokens of several quantizations, block by block.
//
// Sets of tokens that begin with the same batches, as nested calibration sets do (64 samples are the first of 128), share these:
// the largest set runs through the block, and where a smaller one ends, what has been added up so far is copied, the few batches
// that are the smaller set's own are added to the copy, and that set is measured. The sums have the same order, so the same bits,
// as if each set had been run alone. Memory: one block, its Gram matrices twice. Disk: the hidden states of all tokens that differ,
// twice while a block runs.
//
// After each block the hidden states and a progress file are made durable in the folder: another pass over the same sets goes on
// there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "models/io/checkpoint.h"
#include "pipeline/block_step.h"
#include "pipeline/calibration_pass.h"

namespace salient::pipeline {

class SharedPass {
 public:
  // `folder` is made, and belongs to the pass. The others must outlive it. `source`: a hash of the checkpoint's files. Dense models
  // only. Errors: io.
  SharedPass(std::filesystem::path folder, const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
             const std::string& source, std::vector<const CalibrationPass*> sets);

  // The next block to be run, whose input is there.
  int64_t next_block() const { return next_block_; }
  // Back to the first block.
  void restart();

  // Runs the next block. For each set that `wanted` names, `visit` is called once, with what is measured of it; it may throw, and
  // nothing of the pass is lost then. `needs_output`: false where nothing reads the output of the block.
  using Visit = std::function<void(size_t set, MeasuredBlock measured)>;
  void run_block(const std::vector<bool>& wanted, bool needs_output, const Visit& visit);

  // Input of the next block, in rows of the set.
  RowReader reader(size_t set) const;

  // Batches that are run for all blocks of the sets together, and those of each set alone: what sharing saves.
  int64_t batches_run() const;
  int64_t batches_of_all() const;

 private:
  // A set follows `leader` for the first `shared` batches, and has the hidden states of the others in a file of its own. A leader
  // follows itself for none.
  struct Track {
    const CalibrationPass* pass = nullptr;
    size_t leader = 0;
    int64_t shared = 0;
    int64_t shared_rows() const { return shared * pass->rows_of_batch(); }
    std::vector<int64_t> file_shape(int64_t hidden_size) const;
  };

  std::filesystem::path file_of(size_t set, int64_t block) const;
  ActivationFile open_file(size_t set, int64_t block) const;
  Json file_checksums() const;  // of the sets' hidden states, as a block reads them next
  void save() const;

  std::filesystem::path folder_;
  const models::Checkpoint& checkpoint_;
  const models::DecoderConfig& config_;
  std::vector<Track> tracks_;
  std::string fingerprint_;
  int64_t next_block_ = 0;
};

}  // namespace salient::pipeline
