// Writes a checkpoint folder in shards, in an order fixed beforehand, so that a stopped job can go on at the first missing shard.
// Shards are safetensors files, or one GGUF file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/file.h"
#include "models/io/gguf_header.h"
#include "models/io/safetensors_header.h"

namespace salient::models {

// Splits the tensors, in the given order, into shards of at most `max_shard_bytes` (a larger tensor gets a shard of its own). Names
// are "model.safetensors" for one shard, else "model-00001-of-00003.safetensors", as transformers writes them. `total_bytes` counts
// tensor data only. Errors: invalid argument for no tensors, a repeated name, or `max_shard_bytes` of 0; those of
// make_safetensors_header.
struct ShardPlan {
  struct Shard {
    std::string file;
    std::vector<PlannedTensor> tensors;
    std::string header;             // what the file begins with
    std::vector<uint64_t> offsets;  // of each tensor, from the start of the file
    uint64_t file_bytes = 0;        // bytes that are neither header nor tensor are 0
  };
  std::vector<Shard> shards;
  uint64_t total_bytes = 0;
};
ShardPlan plan_shards(const std::vector<PlannedTensor>& tensors, uint64_t max_shard_bytes);

// One GGUF file of this name. Tensors of block types are planned as uint8 [rows, bytes of a row], of stacked experts
// [experts, rows, bytes of a row]: what quant::quantize_ggml gives. Errors: those of make_gguf_header; invalid argument for no
// tensors.
ShardPlan plan_gguf_shard(const std::string& file, GgufHeader header);

// The lock that a writer of `folder` (created when missing) holds: for whoever has to look at the folder, or work in it, before
// there is a plan. Errors: invalid argument when another process writes there; io.
FolderLock lock_checkpoint_folder(const std::filesystem::path& folder);

// Streams tensors to disk as they come, holding none: each shard file is created at its full size with its final header, tensors
// are written at their offsets. Call order: (put in any order)* finish. One writer a folder at a time; not for use from several
// threads.
class CheckpointWriter {
 public:
  // `folder` is the final folder (created when missing); everything is written to it under temporary names ".<shard>.partial" until
  // finish(). Shards that an earlier, stopped writer with the same plan left there are taken over: the caller knows which tensors
  // are done and puts the others. Partial files of another plan are removed. The disk space of all shards is reserved at once.
  // Errors: invalid argument when the folder holds another checkpoint or another process writes it; io (code DISK_FULL).
  CheckpointWriter(const std::filesystem::path& folder, const ShardPlan& plan);
  // The same in a folder that is locked already. `lock` must outlive the writer.
  CheckpointWriter(const FolderLock& lock, const ShardPlan& plan);
  // Without finish() the partial files stay, for the next writer to take over.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // True when the tensor's shard was taken over from an earlier writer. When false, its shard started out as zeros: the tensor must
  // be put by this writer, whatever a record of earlier work says. Errors: invalid argument for a name that is not planned.
  bool taken_over(const std::string& name) const;

  // The tensor may lie on any device and be strided. Errors: invalid argument when name, dtype or shape are not as planned; io.
  void put(const std::string& name, const at::Tensor& tensor);
  // Element `index` of the first dimension of a tensor that comes in parts. The tensor counts as put with its last part.
  void put_part(const std::string& name, int64_t index, const at::Tensor& part);
  // Checksums (checksum_text) of what was put since the last call, to be recorded with the work that is done: by the tensors'
  // names, of parts "NAME#INDEX".
  std::map<std::string, std::string> take_checksums();
  // The first of these that is not in the shards any more as it was put, or is not planned; "" when all are. Reads them. Errors:
  // io.
  std::string find_changed(const std::map<std::string, std::string>& checksums) const;
  // Flushes what was put so far to disk, so that the caller may record it as done.
  void sync();
  // Renames the shards to their names, writes model.safetensors.index.json when there are several of them, flushes the folder,
  // opens the result again and checks every header. Errors: invalid argument when a tensor of a shard that was not taken over has
  // not been put; io.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace salient::models
