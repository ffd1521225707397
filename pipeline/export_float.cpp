#include "pipeline/export_float.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "common/memory.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/io/adapter.h"
#include "models/io/checkpoint_writer.h"

namespace salient::pipeline {
namespace {

// What the weights are now.
Json config_of(const models::Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& planned) {
  Json config = checkpoint.config();
  config.erase("quantization_config");
  std::map<at::ScalarType, uint64_t> bytes;
  for (const models::PlannedTensor& tensor : planned) bytes[tensor.dtype] += models::data_bytes(tensor);
  const auto most = std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  config["torch_dtype"] = most->first == at::kHalf ? "float16" : most->first == at::kBFloat16 ? "bfloat16" : "float32";
  return config;
}

}  // namespace

FloatExport export_float(const models::Checkpoint& checkpoint, const std::filesystem::path& folder, uint64_t max_shard_bytes) {
  const at::NoGradGuard no_grad;
  if (checkpoint.gguf() == nullptr && !models::is_adapter(checkpoint.folder())) {
    fail(ErrorKind::kInvalidArgument,
         "{}: has safetensors files already, expected a GGUF file or a LoRA adapter for the format 'float'",
         checkpoint.folder().string());
  }
  std::vector<models::PlannedTensor> planned;
  for (const std::string& name : checkpoint.names()) {
    const models::TensorInfo& info = checkpoint.info(name);
    planned.push_back({name, info.dtype, info.shape});
  }
  const models::ShardPlan plan = models::plan_shards(planned, max_shard_bytes);
  models::CheckpointWriter writer(folder, plan);
  for (const models::PlannedTensor& tensor : planned) {
    writer.put(tensor.name, checkpoint.load(tensor.name, tensor.shape, tensor.dtype));
    return_free_memory();
  }
  writer.finish();
  write_file(folder / "config.json", dump_json(config_of(checkpoint, planned), 2) + "\n");
  FloatExport result;
  for (const models::ShardPlan::Shard& shard : plan.shards) result.files.emplace_back(shard.file);
  result.bytes = plan.total_bytes;
  if (checkpoint.gguf() != nullptr && !checkpoint.gguf()->summary().is_float())
    result.notes.push_back(fmt::format("weights as they are rounded in the file ({}), stored as float32",
                                       describe_weights(checkpoint.gguf()->summary())));
  return result;
}

}  // namespace salient::pipeline
