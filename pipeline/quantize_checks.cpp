#include "pipeline/quantize_checks.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "common/memory.h"
#include "common/text.h"
#include "models/decoder/block_layout.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/checkpoint.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/mappings.h"
#include "pipeline/pad_intermediate.h"
#include "pipeline/quantization_config.h"
#include "pipeline/quantize_ranks.h"
#include "pipeline/rows_curve.h"
#include "pipeline/search_file.h"
#include "pipeline/stored_range.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"
#include "quant/affine.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using models::Checkpoint;
using models::DecoderConfig;

bool lies_in(const fs::path& file, const fs::path& folder) {
  const fs::path relative = fs::absolute(file).lexically_normal().lexically_relative(fs::absolute(folder).lexically_normal());
  return !relative.empty() && *relative.begin() != "..";
}

// Weights that are rounded already, or a copy of a checkpoint without what the artifact is made of beside the weights.
void refuse_gguf(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() == nullptr) return;
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{}: is a GGUF file ({}), expected a folder with config.json and safetensors files",
                          checkpoint.folder().string(), describe_weights(checkpoint.gguf()->summary())))
      .with_hint(
          "give the float checkpoint that it was made from; where there is none, salient export --format float makes a folder of "
          "the file");
}

void check_source(const Checkpoint& checkpoint) {
  refuse_gguf(checkpoint);
  if (checkpoint.config().contains("quantization_config")) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: the model is quantized already (config.json has a quantization_config)",
                                                     checkpoint.folder().string()))
        .with_hint(
            "give the float checkpoint that it was made from, or, where there is none (MXFP4, FP8), dequantize it with "
            "transformers first");
  }
}

// Ranks of one machine share what it has free.
void check_memory(const QuantizeModelOptions& options, const QuantizeEstimate& estimate) {
  const auto ranks = static_cast<uint64_t>(is_shared(options.ranks) ? options.ranks->host_size() : 1);
  const uint64_t limit = options.max_memory_bytes > 0 ? options.max_memory_bytes : available_memory_bytes() / ranks;
  if (limit == 0 || estimate.peak_memory_bytes <= limit) return;
  throw Error(ErrorKind::kIo,
              fmt::format("up to {} of memory will be needed, {} {}", human_bytes(estimate.peak_memory_bytes), human_bytes(limit),
                          options.max_memory_bytes > 0 ? "are allowed"
                          : ranks > 1                  ? "are free for each rank of this machine"
                                                       : "are free"))
      .with_code("OUT_OF_MEMORY")
      .with_hint(
          fmt::format("run fewer tokens at a time than {} with --batch-tokens, free memory, or raise the limit with --max-memory",
                      options.batch_tokens));
}

void check_disk(const fs::path& output, const QuantizeEstimate& estimate) {
  const uint64_t free = free_disk_bytes(output);
  if (free < estimate.disk_bytes) {
    throw Error(ErrorKind::kIo, fmt::format("{}: the artifact and its work files need {}, the disk has {} free", output.string(),
                                            human_bytes(estimate.disk_bytes), human_bytes(free)))
        .with_code("DISK_FULL")
        .with_hint("free some space or choose another output folder with --out");
  }
}

void check_writable(const fs::path& output) {
  fs::path folder = fs::absolute(output).parent_path();
  while (!fs::exists(folder) && folder.has_relative_path()) folder = folder.parent_path();
  if (::access(folder.c_str(), W_OK | X_OK) == 0) return;
  throw Error(ErrorKind::kIo,
              fmt::format("{}: nothing can be written to {}: {}", output.string(), folder.string(), std::strerror(errno)))
      .with_hint("choose another output folder with --out, or ask for the right to write there");
}

// The hidden states before and after a block, and what is found, by block and joined: less than a byte for each 16 weights.
uint64_t search_only_bytes(const QuantizeWork& job, uint64_t artifact_bytes) {
  return 2 * static_cast<uint64_t>(job.tokens.ids.numel() * job.config.hidden_size) * sizeof(float) + artifact_bytes / 4;
}

// A search result that is applied to other weights than it was searched on: of a fine-tuned model, say.
std::string other_weights_note(const QuantizeWork& job) {
  const std::shared_ptr<const SearchResult>& search = job.options.awq.search;
  if (search == nullptr || search->fingerprint.empty() || search->fingerprint == weights_fingerprint(job.source_hashes)) return "";
  return fmt::format("{}: was searched on other weights than these: the scales keep the model's function, but may not be the best",
                     search->file);
}

// Of the experts that a rank holds beside the one that it quantizes: each rank takes one at a time, and all read every one of them.
uint64_t other_experts_bytes(const QuantizeWork& job) {
  if (!job.is_shared()) return 0;
  uint64_t most = 0;
  for (int64_t block = 0; block < job.blocks(); ++block) {
    const int64_t experts = models::block_layout(job.config, block).experts;
    if (experts == 0) continue;
    uint64_t bytes = 0;
    for (const models::LinearSpec& spec : models::expert_layout(job.config, block, 0))
      bytes += static_cast<uint64_t>(spec.out_features * spec.in_features) * sizeof(float);
    most = std::max(most, bytes * static_cast<uint64_t>(std::min<int64_t>(job.options.ranks->size(), experts) - 1));
  }
  return most;
}

}  // namespace

void fail_exists(const QuantizeModelOptions& options) {
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", options.output.string()))
      .with_hint(options.exists_hint);
}

void check_quantization(const QuantizeModelOptions& given) {
  QuantizeModelOptions options = normalized(given);
  check_shared(options);
  quant::validate(options.awq.spec);
  check_stored(options.awq);
  if (options.awq.search_only && options.search_output.empty())
    fail(ErrorKind::kInvalidArgument, "format awq-search: no file is named for what the searches find");
  const bool ours = fs::exists(options.output) && load_finished(options.output).has_value();
  if (fs::exists(options.output) && !(ours && (options.reuse_output || options.replace_output))) fail_exists(options);
  check_source(Checkpoint(options.model_folder));
  const Checkpoint checkpoint = open_source(options.model_folder, options.awq);
  const DecoderConfig config = models::load_decoder_config(checkpoint);
  check_mappings(config, options.awq.mappings);
  check_ignore(config, options.awq.ignore, options.awq.ignore_may_miss);
  check_overrides(config, options.awq.overrides);
  check_tensors(checkpoint, config);
  options.awq.ggml_types = ggml_types(config, options.awq);
  std::optional<GgufOutput> gguf;
  if (gguf_format_of(options.awq.format) != nullptr) gguf.emplace(checkpoint, config, options.awq);
  const StoredDtype stored = gguf ? gguf->stored() : stored_dtypes(checkpoint, config, options.awq);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) plan_block(config, block, options.awq, stored, &checkpoint);
  check_rows_curve(options.awq);
  check_search(config, options.awq);
  check_stored_range(checkpoint, config, options.awq, stored);
}

std::vector<std::string> quantization_notes(const QuantizeWork& job) {
  std::vector<std::string> notes;
  const auto append = [&](const std::vector<std::string>& more) { notes.insert(notes.end(), more.begin(), more.end()); };
  append(check_tensors(job.checkpoint, job.config));
  append(job.padding_notes);
  if (job.gguf) append(job.gguf->notes());
  append(check_ignore(job.config, job.options.awq.ignore, job.options.awq.ignore_may_miss));
  append(check_overrides(job.config, job.options.awq.overrides));
  append(check_search(job.config, job.options.awq));
  if (const std::string note = other_weights_note(job); !note.empty()) notes.push_back(note);
  return notes;
}

void check_needs(const QuantizeWork& job, bool disk) {
  const QuantizeModelOptions& options = job.options;
  const at::Tensor& ids = job.tokens.ids;
  QuantizeEstimate estimate = estimate_quantize(job.config, options.awq, ids.numel(), std::max(options.batch_tokens, ids.size(1)));
  estimate.peak_memory_bytes += other_experts_bytes(job);
  for (const models::PlannedTensor& tensor : job.kept) estimate.disk_bytes += models::data_bytes(tensor);
  if (options.awq.search_only) estimate.disk_bytes = std::min(estimate.disk_bytes, search_only_bytes(job, estimate.disk_bytes));
  job.say(fmt::format("needs at most {} of memory{} and {} of disk", human_bytes(estimate.peak_memory_bytes),
                      job.is_shared() ? " for each rank" : "", human_bytes(estimate.disk_bytes)));
  check_memory(options, estimate);
  if (disk) check_disk(options.output, estimate);
}

void check_room(const QuantizeModelOptions& given, const DecoderConfig& config, int64_t tokens, int64_t row_tokens) {
  if (given.output.empty()) return;  // rows for something else than an artifact
  const QuantizeModelOptions options = normalized(given);
  if (fs::exists(options.output)) return;  // it may be this job's
  const QuantizeEstimate estimate = estimate_quantize(config, options.awq, tokens, std::max(options.batch_tokens, row_tokens));
  check_memory(options, estimate);
  if (fs::exists(work_folder_of(options.output))) return;  // which has its room
  check_writable(options.output);
  if (!options.awq.search_only) check_disk(options.output, estimate);
}

void check_search_output(const QuantizeWork& job) {
  const fs::path& file = job.options.search_output;
  if (file.empty()) return;
  // A folder that the search result made would stand in the artifact's way.
  for (const fs::path& folder : {job.options.output, job.work}) {
    if (!lies_in(file, folder) || job.options.awq.search_only) continue;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: the search result would lie in {}, the folder of the artifact", file.string(), folder.string()))
        .with_hint("choose a file outside of it for the search result");
  }
  if (!fs::exists(file) || search_file_job(file) == job.fingerprint) return;
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", file.string()))
      .with_hint("choose another file for the search result, or remove that one");
}

}  // namespace salient::pipeline
