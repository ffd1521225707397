#include "pipeline/batch/memory_need.h"

#include <algorithm>

#include "eval/task_library.h"
#include "models/decoder/attention.h"
#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"

namespace salient::pipeline {
namespace {

// Beside what grows with the model: logits of two models (32 MiB each), tokenizers, rows of the data.
constexpr uint64_t kFixedWork = uint64_t{128} << 20;
// Vectors of the width of the model, and of its MLP, that one token has at a time in a block: inputs, outputs, sums, queries, keys,
// values, float copies.
constexpr uint64_t kHiddenVectors = 14;
constexpr uint64_t kMlpVectors = 4;

bool generates(const BatchSettings& settings) {
  for (const eval::TaskRequest& request : settings.requests) {
    for (const auto& task : settings.options.tasks->find(request.task).tasks) {
      if (task->output_type == eval::OutputType::kGenerateUntil) return true;
    }
  }
  return settings.options.throughput;
}

uint64_t longest_limit(const BatchSettings& settings) {
  int64_t rows = 0;
  for (const eval::TaskRequest& request : settings.requests) {
    if (request.limit <= 0) return UINT64_MAX;
    rows = std::max(rows, request.limit);
  }
  return rows > 0 ? static_cast<uint64_t>(rows) : 1;
}

// Keys and values of the rows that are generated side by side.
uint64_t cache_bytes(const models::DecoderConfig& config, const BatchSettings& settings) {
  const auto most = static_cast<uint64_t>(settings.options.generation_cache_bytes);
  const uint64_t row = models::cache_bytes_per_token(config, settings.model.decoder.dtype) *
                       static_cast<uint64_t>(std::max<int64_t>(1, config.max_position_embeddings));
  const uint64_t rows = longest_limit(settings);
  return row == 0 || rows > most / row ? most : rows * row;
}

uint64_t bytes_of(const models::DetectedModel& model, const char* dtype) {
  const auto found = model.dtype_bytes.find(dtype);
  return found == model.dtype_bytes.end() ? 0 : found->second;
}

}  // namespace

uint64_t weights_in_memory(const ListedModel& model, const BatchSettings& settings) {
  const models::DetectedModel& detected = model.detected;
  const uint64_t element = at::elementSize(settings.model.decoder.dtype);
  if (model.kind == ModelKind::kTorchscript) return detected.disk_bytes;
  if (model.kind == ModelKind::kGguf) return detected.parameters * element;
  uint64_t bytes = 0;
  for (const auto& [dtype, stored] : detected.dtype_bytes) bytes += stored;
  for (const auto& [dtype, size] : {std::pair<const char*, uint64_t>{"F16", 2}, {"BF16", 2}, {"F32", 4}, {"F64", 8}}) {
    const uint64_t stored = bytes_of(detected, dtype);
    bytes = bytes - stored + stored / size * element;
  }
  return bytes;
}

MemoryNeed memory_need(const ListedModel& model, const ListedModel* base, const BatchSettings& settings) {
  MemoryNeed need;
  need.model = weights_in_memory(model, settings);
  if (base != nullptr) need.base = weights_in_memory(*base, settings);
  need.work = kFixedWork;
  if (model.kind == ModelKind::kTorchscript) return need;
  const models::DecoderConfig config = models::load_decoder_config(models::Checkpoint(model.path));
  const auto hidden = static_cast<uint64_t>(config.hidden_size);
  const auto intermediate = static_cast<uint64_t>(config.intermediate_size);
  need.work +=
      static_cast<uint64_t>(settings.options.batch_tokens) * sizeof(float) * (kHiddenVectors * hidden + kMlpVectors * intermediate);
  if (generates(settings)) need.work += cache_bytes(config, settings);
  return need;
}

}  // namespace salient::pipeline
