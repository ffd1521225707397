#include "pipeline/quantize_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nonzero.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/memory.h"
#include "common/text.h"
#include "models/decoder/architecture.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/spec_json.h"
#include "pipeline/artifact_files.h"
#include "pipeline/quantize_progress.h"
#include "quant/awq_gemm.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using models::BlockWeights;
using models::Checkpoint;
using models::DecoderConfig;
using models::InputSlot;

Json search_json(const AwqOptions& awq) {
  return {{"n_grid", awq.scale_search.grid},
          {"duo_scaling", to_string(awq.scale_search.duo)},
          {"clip", awq.clip},
          {"clip_steps", awq.clip_search.steps},
          {"clip_max_shrink", awq.clip_search.max_shrink},
          {"propagate_error", awq.propagate_error}};
}

std::string hash_tensor(const at::Tensor& tensor) {
  const at::Tensor data = tensor.contiguous();
  Sha256 hash;
  hash.update(std::span(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()));
  return hash.hex();
}

// The tensors outside of the blocks, in the order in which they are stored.
struct OuterTensors {
  std::vector<models::PlannedTensor> before;
  std::vector<models::PlannedTensor> after;
};

OuterTensors plan_outer(const DecoderConfig& config, const models::Architecture& architecture) {
  const std::vector<int64_t> matrix{config.vocab_size, config.hidden_size};
  OuterTensors outer;
  outer.before.push_back({std::string(architecture.embedding), at::kHalf, matrix});
  outer.after.push_back({std::string(architecture.final_norm), at::kHalf, {config.hidden_size}});
  if (!config.tie_word_embeddings) outer.after.push_back({std::string(architecture.lm_head), at::kHalf, matrix});

  return outer;
}

// Every tensor that the architecture names must be there with its shape, before any work; every other one would be lost.
void check_tensors(const Checkpoint& checkpoint, const DecoderConfig& config, const models::Architecture& architecture,
                   const OuterTensors& outer) {
  std::map<std::string, std::vector<int64_t>> expected;
  for (const auto* list : {&outer.before, &outer.after}) {
    for (const models::PlannedTensor& tensor : *list) expected[tensor.name] = tensor.shape;
  }
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (size_t i = 0; i < models::kLinearSlots; ++i) {
      const auto slot = static_cast<models::LinearSlot>(i);
      const std::string name = models::linear_name(architecture, block, slot);
      const auto [out, in] = models::linear_shape(config, slot);
      expected[name + ".weight"] = {out, in};
      if (models::linear_has_bias(config, slot)) expected[name + ".bias"] = {out};
    }
    for (const models::PlannedTensor& norm : plan_norms(config, block)) expected[norm.name] = norm.shape;
  }
  for (const auto& [name, shape] : expected) {
    if (const auto& info = checkpoint.info(name); info.shape != shape) {
      fail(ErrorKind::kCorruption, "{}: {}: shape is [{}], expected [{}] from config.json", checkpoint.folder().string(), name,
           fmt::join(info.shape, ", "), fmt::join(shape, ", "));
    }
  }
  for (const std::string& name : checkpoint.names()) {
    // The tied head is the embedding once more; inverse frequencies (old Llama files) follow from the config.
    const bool redundant = (config.tie_word_embeddings && name == architecture.lm_head) || name.ends_with("rotary_emb.inv_freq");
    if (!redundant && !expected.contains(name)) {
      fail(ErrorKind::kUnsupported, "{}: tensor {} is not part of architecture {} as config.json describes it, it would be lost",
           checkpoint.folder().string(), name, architecture.model_type);
    }
  }
}

void put_outer(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    writer.put(planned.name, checkpoint.load(planned.name, planned.shape, at::kHalf));
  }
}

// Embeddings of all calibration tokens: float32 [blocks, length, hidden_size]. Rows are looked up in the stored tensor, so that the table
// itself is never converted as a whole.
at::Tensor embed(const Checkpoint& checkpoint, const models::Architecture& architecture, const at::Tensor& ids) {
  const at::Tensor table = checkpoint.view(std::string(architecture.embedding));
  return at::embedding(table, ids).to(at::kFloat).contiguous();
}

// Indices of the real tokens of a batch in its flattened [batch * length] rows; undefined when there is no padding.
at::Tensor real_rows(const at::Tensor& lengths, int64_t width) {
  if ((lengths == width).all().item<bool>()) return {};
  const at::Tensor mask = at::arange(width, at::kLong).unsqueeze(0) < lengths.unsqueeze(1);
  return at::nonzero(mask.flatten()).flatten();
}

// Runs blocks over all calibration tokens, batch by batch.
class CalibrationPass {
 public:
  CalibrationPass(const DecoderConfig& config, const calibration::TokenBlocks& tokens, const QuantizeModelOptions& options)
      : config_(config), tokens_(tokens), device_(options.device) {
    const int64_t width = tokens.ids.size(1);
    batch_ = std::max<int64_t>(1, options.batch_tokens / width);
    context_ = models::make_attention_context(config, at::arange(width, at::kLong).unsqueeze(0), at::kFloat);
    context_.cos = context_.cos.to(device_);
    context_.sin = context_.sin.to(device_);
  }

  // Statistics of every linear input. With `replace`, the block's output takes the place of its input in `hidden`.
  BlockStatistics observe(const BlockWeights& weights, int64_t block, at::Tensor& hidden, bool replace) const {
    BlockStatistics statistics;
    run(weights, block, hidden, replace, [&](InputSlot slot, const at::Tensor& x, const at::Tensor& rows) {
      auto& into = statistics[static_cast<size_t>(slot)];
      if (!into.gram.defined()) into = quant::make_input_statistics(x.size(-1), device_);
      const at::Tensor flat = x.reshape({-1, x.size(-1)});
      quant::accumulate(into, rows.defined() ? flat.index_select(0, rows) : flat);
    });
    for (auto& entry : statistics) {
      quant::finish(entry);
      entry.gram = entry.gram.cpu();
      entry.abs_sum = entry.abs_sum.cpu();
    }
    return statistics;
  }

  void propagate(const BlockWeights& weights, int64_t block, at::Tensor& hidden) const { run(weights, block, hidden, true, {}); }

 private:
  using Observer = std::function<void(InputSlot, const at::Tensor&, const at::Tensor& rows)>;

  void run(const BlockWeights& weights, int64_t block, at::Tensor& hidden, bool replace, const Observer& observer) const {
    for (int64_t begin = 0; begin < hidden.size(0); begin += batch_) {
      const int64_t count = std::min(batch_, hidden.size(0) - begin);
      at::Tensor rows = real_rows(tokens_.lengths.narrow(0, begin, count), hidden.size(1));
      if (rows.defined()) rows = rows.to(device_);
      models::BlockObserver forward_observer;
      if (observer) forward_observer = [&](InputSlot slot, const at::Tensor& x) { observer(slot, x, rows); };
      at::Tensor part = hidden.narrow(0, begin, count);
      const at::Tensor out =
          models::block_forward(config_, weights, block, part.to(device_), context_, nullptr, 0, forward_observer);
      if (replace) part.copy_(out);
    }
  }

  const DecoderConfig& config_;
  const calibration::TokenBlocks& tokens_;
  at::Device device_;
  int64_t batch_ = 1;
  models::AttentionContext context_;
};

BlockWeights to_device(BlockWeights weights, at::Device device) {
  for (models::Linear& linear : weights.linears) {
    auto& dense = std::get<models::FloatLinear>(linear);
    dense.weight = dense.weight.to(device);
    if (dense.bias.defined()) dense.bias = dense.bias.to(device);
  }
  for (at::Tensor& norm : weights.norms) {
    if (norm.defined()) norm = norm.to(device);
  }
  return weights;
}

constexpr const char* kMetadataFile = "quantization_metadata.json";

Json metadata_json(const QuantizeModelOptions& options, const QuantizeProgress& progress, const Json& source_hashes,
                   const Json& file_hashes, const calibration::TokenBlocks& tokens) {
  Json layers = Json::array();
  for (const LinearReport& report : progress.reports) layers.push_back(to_json(report));
  return {{"format", "awq-gemm"},
          {"fingerprint", progress.fingerprint},
          {"method", "AWQ"},
          {"spec", models::spec_to_json(options.awq.spec)},
          {"search", search_json(options.awq)},
          {"calibration", options.calibration_record},
          {"calibration_tokens", tokens.lengths.sum().item<int64_t>()},
          {"calibration_blocks", tokens.ids.size(0)},
          {"calibration_ids_sha256", hash_tensor(tokens.ids)},
          {"seed", options.seed},
          {"source_sha256", source_hashes},
          {"files_sha256", file_hashes},
          {"layers", layers},
          {"versions", {{"salient", SALIENT_VERSION}, {"libtorch", TORCH_VERSION}}}};
}

void check_source(const Checkpoint& checkpoint) {
  if (checkpoint.config().contains("quantization_config")) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: the model is quantized already (config.json has a quantization_config)",
                                                     checkpoint.folder().string()))
        .with_hint("give the float checkpoint that it was made from");
  }
}

void check_disk(const fs::path& output, const QuantizeEstimate& estimate) {
  const uint64_t free = free_disk_bytes(output);
  if (free < estimate.disk_bytes) {
    throw Error(ErrorKind::kIo, fmt::format("{}: the artifact and its work files need {} MB, the disk has {} MB free", output.string(),
                                            estimate.disk_bytes / 1'000'000, free / 1'000'000))
        .with_code("DISK_FULL")
        .with_hint("free some space or choose another output folder with --out");
  }
}

[[noreturn]] void fail_exists(const QuantizeModelOptions& options) {
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", options.output.string())).with_hint(options.exists_hint);
}

// What a complete artifact folder says of the job that made it. config.json is written last.
std::optional<QuantizeProgress> load_finished(const fs::path& folder) {
  const fs::path file = folder / kMetadataFile;
  if (!fs::exists(file) || !fs::exists(folder / "config.json")) return std::nullopt;
  return progress_from_metadata(read_json_file(file), file.string());
}

// Whether every file of an artifact is still as it was made: "model.safetensors" for one that is not, "" when all are.
std::string find_changed_file(const fs::path& folder) {
  const Json hashes = read_json_file(folder / kMetadataFile).value("files_sha256", Json::object());
  for (const auto& [name, hash] : hashes.items()) {
    if (!fs::exists(folder / name) || sha256_file(folder / name) != hash) return name;
  }
  return "";
}

// Deletes nothing that is not ours: a folder that only happens to be called "<output>.partial" is refused.
void check_work_folder(const fs::path& work) {
  if (!fs::exists(work)) return;
  for (const auto& entry : fs::directory_iterator(work)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with(".") || name.starts_with("model") || is_progress_file(name) || is_side_file(name) ||
                      name == "config.json" || name == kMetadataFile;
    if (ours) continue;
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: this name is needed for the work in progress, but the folder holds {}, which is "
                                                         "none of its files", work.string(), name))
        .with_hint("move that folder away, or choose another --out");
  }
}

// A complete work folder gets the artifact's name; what had it (see replace_output) is removed afterwards.
void publish(const fs::path& work, const fs::path& output) {
  remove_progress(work);
  const fs::path replaced = output.string() + ".replaced";
  if (fs::exists(output)) {
    fs::remove_all(replaced);
    fs::rename(output, replaced);
  }
  fs::rename(work, output);
  fs::remove_all(replaced);
  sync_folder(output.has_parent_path() ? output.parent_path() : fs::path("."));
}

// Progress without the shards that it speaks of: somebody tidied up in the work folder.
void check_taken_over(const models::CheckpointWriter& writer, const std::vector<models::PlannedTensor>& planned, const fs::path& work) {
  for (const models::PlannedTensor& tensor : planned) {
    if (writer.taken_over(tensor.name)) continue;
    throw Error(ErrorKind::kCorruption, fmt::format("{}: the work of a stopped job is there, but its shard with {} is not", work.string(),
                                                    tensor.name))
        .with_hint("remove that folder and give the same command again");
  }
}

void say(const QuantizeModelOptions& options, const std::string& line) {
  if (options.on_message) options.on_message(line);
}

}  // namespace

QuantizeEstimate estimate_quantize(const DecoderConfig& config, const AwqOptions& options, int64_t calibration_tokens,
                                   int64_t batch_tokens, uint64_t other_tensor_bytes) {
  QuantizeEstimate estimate;
  uint64_t block_floats = 0;
  uint64_t largest_linear = 0;
  uint64_t gram_floats = 0;
  std::array<bool, models::kInputSlots> counted{};
  for (size_t i = 0; i < models::kLinearSlots; ++i) {
    const auto slot = static_cast<models::LinearSlot>(i);
    const auto [out, in] = models::linear_shape(config, slot);
    block_floats += static_cast<uint64_t>(out * in);
    largest_linear = std::max(largest_linear, static_cast<uint64_t>(out * in));
    bool& seen = counted[static_cast<size_t>(models::input_of(slot))];
    if (!seen) gram_floats += static_cast<uint64_t>(in * in);
    seen = true;
  }
  const uint64_t hidden_floats = static_cast<uint64_t>(calibration_tokens * config.hidden_size);
  // Of a forward pass: about six hidden-sized and three intermediate-sized activations.
  const uint64_t activation_floats =
      static_cast<uint64_t>(batch_tokens) * static_cast<uint64_t>(6 * config.hidden_size + 3 * config.intermediate_size);
  // Two copies of the block (before and after scaling), the packed tensors, and four temporaries of the largest linear.
  estimate.peak_memory_bytes =
      4 * (2 * block_floats + block_floats / 4 + 4 * largest_linear + 2 * gram_floats + hidden_floats + activation_floats);
  uint64_t packed_bytes = 0;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (const auto& planned : plan_block(config, block, options)) {
      uint64_t elements = 1;
      for (const int64_t size : planned.shape) elements *= static_cast<uint64_t>(size);
      packed_bytes += elements * c10::elementSize(planned.dtype);
    }
  }
  estimate.disk_bytes = packed_bytes + other_tensor_bytes + 2 * 4 * hidden_floats;
  return estimate;
}

QuantizeModelResult quantize_model(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens) {
  const auto started = std::chrono::steady_clock::now();
  QuantizeModelOptions options = given;
  options.output = options.output.lexically_normal();
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "out/"
  if (options.output.empty() || options.output == ".") fail(ErrorKind::kInvalidArgument, "the output folder has no name");
  const at::NoGradGuard no_grad;
  quant::validate(options.awq.spec);
  quant::check_awq_gemm(options.awq.spec);
  const bool ours = fs::exists(options.output) && load_finished(options.output).has_value();
  if (fs::exists(options.output) && !(ours && (options.reuse_output || options.replace_output))) fail_exists(options);
  const Checkpoint checkpoint(options.model_folder);
  check_source(checkpoint);
  const DecoderConfig config = models::parse_decoder_config(checkpoint.config(), (checkpoint.folder() / "config.json").string());
  const models::Architecture& architecture = models::find_architecture(config.model_type);

  const OuterTensors outer = plan_outer(config, architecture);
  check_tensors(checkpoint, config, architecture, outer);
  std::vector<models::PlannedTensor> planned = outer.before;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (models::PlannedTensor& tensor : plan_block(config, block, options.awq)) planned.push_back(std::move(tensor));
  }
  planned.insert(planned.end(), outer.after.begin(), outer.after.end());
  const models::ShardPlan plan = models::plan_shards(planned, options.max_shard_bytes);
  const uint64_t outer_bytes = static_cast<uint64_t>(2 * config.vocab_size * config.hidden_size) * (config.tie_word_embeddings ? 1 : 2);
  const QuantizeEstimate estimate = estimate_quantize(config, options.awq, tokens.ids.numel(), options.batch_tokens, outer_bytes);

  const Json source_hashes = hash_source_files(checkpoint.folder());
  const std::string fingerprint =
      sha256_hex(dump_json({{"version", SALIENT_VERSION},
                            {"source", source_hashes},
                            {"spec", models::spec_to_json(options.awq.spec)},
                            {"search", search_json(options.awq)},
                            {"ids", hash_tensor(tokens.ids)},
                            {"lengths", hash_tensor(tokens.lengths)},
                            {"calibration", options.calibration_record},
                            {"seed", options.seed},
                            {"libtorch", TORCH_VERSION},
                            {"device", options.device.str()},
                            {"batch_tokens", options.batch_tokens},
                            {"max_shard_bytes", options.max_shard_bytes}}));

  QuantizeModelResult result;
  result.folder = options.output;
  result.bytes = plan.total_bytes;
  if (ours && options.reuse_output) {
    const QuantizeProgress finished = *load_finished(options.output);
    if (finished.fingerprint == fingerprint) {
      const std::string changed = find_changed_file(options.output);
      if (changed.empty()) {
        result.reports = finished.reports;
        result.resumed_blocks = config.num_hidden_layers;
        return result;
      }
      if (!options.replace_output) {
        throw Error(ErrorKind::kCorruption, fmt::format("{}: {} is not as it was made", options.output.string(), changed))
            .with_hint("remove the folder, then the same command makes it again; or: " + options.exists_hint);
      }
    } else if (!options.replace_output) {
      fail_exists(options);
    }
  }

  const fs::path work = options.output.string() + ".partial";
  check_work_folder(work);
  // Stopped between the last file and the rename: everything is there.
  if (const auto finished = load_finished(work); finished && finished->fingerprint == fingerprint && find_changed_file(work).empty()) {
    publish(work, options.output);
    result.reports = finished->reports;
    result.resumed_blocks = config.num_hidden_layers;
    return result;
  }
  if (!fs::exists(work)) check_disk(options.output, estimate);
  if (const uint64_t available = available_memory_bytes(); available > 0 && estimate.peak_memory_bytes > available) {
    say(options, fmt::format("warning: up to {} of memory may be needed, {} is free; fewer tokens at a time (batch_tokens) or fewer samples need less",
                             human_bytes(estimate.peak_memory_bytes), human_bytes(available)));
  }
  fs::create_directories(work);
  // The writer locks the folder: whatever is looked at or removed in it from here on belongs to no other job.
  models::CheckpointWriter writer(work, plan);
  const std::optional<QuantizeProgress> found = load_progress(work, fingerprint);
  if (!found) remove_progress(work);
  QuantizeProgress progress = found ? *found : QuantizeProgress{fingerprint, 0, {}};
  result.resumed_blocks = progress.blocks_done;
  if (found) check_taken_over(writer, planned, work);
  at::Tensor hidden;
  if (found) {
    say(options, fmt::format("going on at block {} of {}", progress.blocks_done + 1, config.num_hidden_layers));
    hidden = load_hidden_states(work, progress);
  } else {
    put_outer(writer, checkpoint, outer.before);
    put_outer(writer, checkpoint, outer.after);
    hidden = embed(checkpoint, architecture, tokens.ids);
    writer.sync();
    save_progress(work, progress, hidden);
  }

  const CalibrationPass pass(config, tokens, options);
  if (options.on_progress) options.on_progress(progress.blocks_done, config.num_hidden_layers);
  for (int64_t block = progress.blocks_done; block < config.num_hidden_layers; ++block) {
    BlockWeights weights = models::load_block(checkpoint, config, block, at::kFloat, at::kCPU);
    const BlockStatistics statistics =
        pass.observe(to_device(weights, options.device), block, hidden, /*replace=*/!options.awq.propagate_error);
    QuantizedBlock quantized = quantize_block(config, block, std::move(weights), statistics, options.awq);
    for (const models::NamedTensor& tensor : quantized.tensors) writer.put(tensor.name, tensor.tensor);
    if (options.awq.propagate_error) pass.propagate(to_device(std::move(quantized.weights), options.device), block, hidden);
    progress.reports.insert(progress.reports.end(), quantized.reports.begin(), quantized.reports.end());
    progress.blocks_done = block + 1;
    writer.sync();
    save_progress(work, progress, hidden);
    if (options.on_progress) options.on_progress(progress.blocks_done, config.num_hidden_layers);
  }

  writer.finish();
  copy_side_files(checkpoint.folder(), work);
  const std::string new_config = dump_json(awq_config(checkpoint.config(), options.awq.spec), 2) + "\n";
  Json file_hashes = hash_files(work, [](const std::string& name) {
    return !name.starts_with(".") && !is_progress_file(name) && name != kMetadataFile;
  });
  file_hashes["config.json"] = sha256_hex(new_config);
  write_file(work / kMetadataFile, dump_json(metadata_json(options, progress, source_hashes, file_hashes, tokens), 2) + "\n");
  write_file(work / "config.json", new_config);
  publish(work, options.output);
  result.reports = std::move(progress.reports);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace salient::pipeline
