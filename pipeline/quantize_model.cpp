#include "pipeline/quantize_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/memory.h"
#include "common/text.h"
#include "models/decoder/streamed_head.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/spec_json.h"
#include "pipeline/artifact_files.h"
#include "pipeline/bit_plan_file.h"
#include "pipeline/block_step.h"
#include "pipeline/gguf_head.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/gguf_output.h"
#include "pipeline/mappings.h"
#include "pipeline/model_card.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/reached.h"
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

Json settings_json(const AwqOptions& awq) {
  QuantizationConfig config;
  config.awq = awq;
  return to_json(config);
}

std::string hash_tensor(const at::Tensor& tensor) {
  const at::Tensor data = tensor.contiguous();
  Sha256 hash;
  hash.update(std::span(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()));
  return hash.hex();
}

void put_outer(const TensorSink& sink, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    sink.put(planned.name, checkpoint.load(planned.name, planned.shape, planned.dtype));
  }
}

// As they are, whatever their dtype.
void copy_kept(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    writer.put(planned.name, checkpoint.view(planned.name));
    checkpoint.release(planned.name);
  }
}

void check_source(const Checkpoint& checkpoint) {
  if (checkpoint.config().contains("quantization_config")) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: the model is quantized already (config.json has a quantization_config)",
                                                     checkpoint.folder().string()))
        .with_hint(
            "give the float checkpoint that it was made from, or, where there is none (MXFP4, FP8), dequantize it with "
            "transformers first");
  }
}

void check_memory(const QuantizeModelOptions& options, const QuantizeEstimate& estimate) {
  const uint64_t limit = options.max_memory_bytes > 0 ? options.max_memory_bytes : available_memory_bytes();
  if (limit == 0 || estimate.peak_memory_bytes <= limit) return;
  throw Error(ErrorKind::kIo, fmt::format("up to {} of memory will be needed, {} {}", human_bytes(estimate.peak_memory_bytes),
                                          human_bytes(limit), options.max_memory_bytes > 0 ? "are allowed" : "are free"))
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

[[noreturn]] void fail_exists(const QuantizeModelOptions& options) {
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", options.output.string()))
      .with_hint(options.exists_hint);
}

// Progress without the shards that it speaks of: somebody tidied up in the work folder.
void check_taken_over(const models::CheckpointWriter& writer, const models::ShardPlan& plan, const fs::path& work) {
  for (const models::ShardPlan::Shard& shard : plan.shards) {
    const std::string& tensor = shard.tensors.front().name;
    if (writer.taken_over(tensor)) continue;
    throw Error(ErrorKind::kCorruption, fmt::format("{}: the work of a stopped job is there, but its shard with {} is not", work.string(), tensor))
        .with_hint("remove that folder and give the same command again");
  }
}

// Experts that no calibration token reached.
std::string coverage_note(const std::vector<LinearReport>& reports, int64_t block) {
  int64_t linears = 0;
  int64_t unreached = 0;
  for (const LinearReport& report : reports) {
    linears += report.routed_tokens >= 0;
    unreached += report.routed_tokens == 0;
  }
  if (unreached == 0) return "";
  return fmt::format(
      "block {}: {} of {} linears of experts were reached by no calibration token: rounded to nearest; more samples may reach them",
      block, unreached, linears);
}

Json output_config(const Checkpoint& checkpoint, const DecoderConfig& config, const AwqOptions& options,
                   const std::vector<models::PlannedTensor>& kept) {
  if (options.format == WeightFormat::kFloat || gguf_format_of(options.format) != nullptr) return checkpoint.config();
  if (options.format == WeightFormat::kDequantized) return artifact_config(checkpoint.config(), Json(), "float32");
  const Json quantization =
      quantization_config(options.format, options.spec, quantized_modules(config, options), float_modules(config, options, kept));
  const bool bfloat16 = packed_dtype(config, options.format) == at::kBFloat16;
  return artifact_config(checkpoint.config(), quantization, bfloat16 ? "bfloat16" : "float16", quantizes_head(options));
}

// lm_head in codes, from its own weight or the embedding that it shares.
void put_head(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const DecoderConfig& config,
              const AwqOptions& options, at::ScalarType dtype) {
  const at::Tensor weight =
      checkpoint.load(models::head_tensor(config), {config.vocab_size, config.hidden_size}, at::kFloat, at::kCPU);
  const quant::QuantizedWeight rounded =
      quant::quantize_affine(weight, {kHeadSetting.bits, config.hidden_size, kHeadSetting.zero_point, dtype});
  for (const auto& [name, tensor] : packed_tensors(options.format, std::string(config.names.lm_head), rounded, kHeadSetting, dtype))
    writer.put(name, tensor);
}

// "12 modules with 3, 16 with 4"
std::string count_bits(const BitPlan& plan) {
  std::map<int, int64_t> counts;
  for (const PlannedModule& module : plan.modules) ++counts[module.bits];
  std::string text;
  for (const auto& [bits, count] : counts)
    text += fmt::format("{}{}{} with {}", text.empty() ? "" : ", ", count, text.empty() ? " modules" : "", bits);
  return text;
}

void add_sensitivities(std::vector<LinearReport>& reports, const BitPlan& plan) {
  std::map<std::string, const PlannedModule*> by_name;
  for (const PlannedModule& module : plan.modules) by_name[module.name] = &module;
  for (LinearReport& report : reports) {
    if (const auto module = by_name.find(report.name); module != by_name.end()) report.sensitivity = module->second->sensitivity;
  }
}

QuantizeModelOptions normalized(QuantizeModelOptions options) {
  options.output = options.output.lexically_normal();
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "out/"
  if (options.output.empty() || options.output == ".") fail(ErrorKind::kInvalidArgument, "the output folder has no name");
  if (options.awq.export_compatible) options.awq.format = WeightFormat::kFloat;
  apply_gguf_format(options.awq);
  return options;
}

// What one call works on; nothing of it changes while it runs.
struct Job {
  Job(const QuantizeModelOptions& given, const calibration::TokenBlocks& calibration_tokens)
      : options(normalized(given)),
        tokens(calibration_tokens),
        checkpoint(options.model_folder),
        config(models::load_decoder_config(checkpoint)),
        kept(plan_kept(checkpoint, config)),
        source_hashes(hash_source_files(checkpoint.folder())),
        work(work_folder_of(options.output)) {
    options.awq.scale_dtype = packed_dtype(config, options.awq.format);
    options.awq.ggml_types = ggml_types(config, options.awq);
    if (gguf_format_of(options.awq.format) != nullptr) {
      gguf.emplace(checkpoint, config, options.awq);
      kept.clear();  // a file of its own, for llama.cpp
    }
    stored = gguf ? gguf->stored() : stored_dtypes(checkpoint, config, options.awq);
    fingerprint = sha256_hex(dump_json({{"version", SALIENT_VERSION},
                                        {"source", source_hashes},
                                        {"spec", models::spec_to_json(options.awq.spec)},
                                        {"search", settings_json(options.awq)},
                                        {"given_search", options.awq.search ? options.awq.search->sha256 : ""},
                                        {"save_search", !options.search_output.empty()},
                                        {"ids", hash_tensor(tokens.ids)},
                                        {"lengths", hash_tensor(tokens.lengths)},
                                        {"mask", tokens.mask.defined() ? hash_tensor(tokens.mask) : ""},
                                        {"calibration", options.calibration_record},
                                        {"seed", options.seed},
                                        {"libtorch", TORCH_VERSION},
                                        {"device", options.device.str()},
                                        {"batch_tokens", options.batch_tokens},
                                        {"max_shard_bytes", options.max_shard_bytes}}));
  }
  Job(const Job&) = delete;  // `stored` refers to `checkpoint` or `gguf`
  Job& operator=(const Job&) = delete;

  int64_t blocks() const { return config.num_hidden_layers; }
  std::vector<int64_t> hidden_shape() const { return {tokens.ids.size(0), tokens.ids.size(1), config.hidden_size}; }
  void say(const std::string& line) const {
    if (options.on_message) options.on_message(line);
  }

  QuantizeModelOptions options;
  const calibration::TokenBlocks& tokens;
  Checkpoint checkpoint;
  DecoderConfig config;
  std::vector<models::PlannedTensor> kept;
  Json source_hashes;
  fs::path work;
  std::optional<GgufOutput> gguf;  // where that is the format
  StoredDtype stored;
  std::string fingerprint;  // of everything that decides the result's bytes
};

// The output, when it was made from exactly this job's inputs and is as it was made. Errors: it is there, but neither that nor to
// be replaced.
std::optional<QuantizeProgress> reusable_output(const Job& job) {
  const QuantizeModelOptions& options = job.options;
  if (!fs::exists(options.output)) return std::nullopt;
  const std::optional<QuantizeProgress> finished = options.reuse_output ? load_finished(options.output) : std::nullopt;
  if (!finished || finished->fingerprint != job.fingerprint) {
    if (!options.replace_output) fail_exists(options);
    return std::nullopt;
  }
  const std::string changed = find_changed_file(options.output);
  if (changed.empty()) return finished;
  if (options.replace_output) return std::nullopt;
  throw Error(ErrorKind::kCorruption, fmt::format("{}: {} is not as it was made", options.output.string(), changed))
      .with_hint("remove the folder, then the same command makes it again; or: " + options.exists_hint);
}

// Of a job that was stopped between the last file and the rename: everything is there.
std::optional<QuantizeProgress> finished_work(const Job& job) {
  std::optional<QuantizeProgress> finished = load_finished(job.work);
  if (!finished || finished->fingerprint != job.fingerprint || !find_changed_file(job.work).empty()) return std::nullopt;
  return finished;
}

QuantizeModelResult nothing_to_do(const Job& job, const QuantizeProgress& finished) {
  QuantizeModelResult result;
  result.folder = job.options.output;
  result.reports = finished.reports;
  result.resumed_blocks = job.blocks();
  return result;
}

// The hidden states before and after a block, and what is found, by block and joined: less than a byte for each 16 weights.
uint64_t search_only_bytes(const Job& job, uint64_t artifact_bytes) {
  return 2 * static_cast<uint64_t>(job.tokens.ids.numel() * job.config.hidden_size) * sizeof(float) + artifact_bytes / 4;
}

// Says what will be needed and refuses what is not there. `disk`: also what the disk has free, which work in progress has taken
// already.
void check_needs(const Job& job, bool disk) {
  const QuantizeModelOptions& options = job.options;
  const at::Tensor& ids = job.tokens.ids;
  QuantizeEstimate estimate = estimate_quantize(job.config, options.awq, ids.numel(), std::max(options.batch_tokens, ids.size(1)));
  for (const models::PlannedTensor& tensor : job.kept) estimate.disk_bytes += models::data_bytes(tensor);
  if (options.awq.search_only) estimate.disk_bytes = std::min(estimate.disk_bytes, search_only_bytes(job, estimate.disk_bytes));
  job.say(fmt::format("needs at most {} of memory and {} of disk", human_bytes(estimate.peak_memory_bytes),
                      human_bytes(estimate.disk_bytes)));
  check_memory(options, estimate);
  if (disk) check_disk(options.output, estimate);
}

// What each module gets with target_bits; measured once for a job, however often it is stopped.
std::optional<BitPlan> find_bits(const Job& job) {
  const QuantizeModelOptions& options = job.options;
  if (options.awq.target_bits <= 0) return std::nullopt;
  std::optional<BitPlan> bits = load_bit_plan(job.work, job.fingerprint);
  if (!bits) {
    const CalibrationPass pass(job.config, job.tokens, options.device, options.batch_tokens);
    const auto embed = [&](ActivationFile& hidden) { embed_tokens(job.checkpoint, job.config, pass, job.tokens.ids, hidden); };
    bits = plan_bits({job.checkpoint, job.config, options.awq, job.tokens, pass, job.stored, job.work, embed,
                      options.awq.bit_choices, options.on_planning});
    save_bit_plan(job.work, job.fingerprint, *bits);
  }
  job.say(fmt::format("{:.2f} bits a weight: {}", bits->mean_bits, count_bits(*bits)));
  return bits;
}

constexpr const char* kNoTensor = "none";

// Every tensor of the artifact, in the order in which they are stored.
models::ShardPlan plan_artifact(const Job& job, const AwqOptions& awq, const OuterTensors& outer) {
  // A writer wants something to write.
  if (awq.search_only) return models::plan_shards({{kNoTensor, at::kByte, {1}}}, job.options.max_shard_bytes);
  if (job.gguf) return job.gguf->plan();
  std::vector<models::PlannedTensor> planned = outer.before;
  const auto append = [&](const std::vector<models::PlannedTensor>& tensors) {
    planned.insert(planned.end(), tensors.begin(), tensors.end());
  };
  for (int64_t block = 0; block < job.blocks(); ++block) append(plan_block(job.config, block, awq, job.stored, &job.checkpoint));
  append(outer.after);
  append(outer.head);
  append(job.kept);
  return models::plan_shards(planned, job.options.max_shard_bytes);
}

// Takes tensors under their names in the checkpoint.
TensorSink sink_of(const Job& job, models::CheckpointWriter& writer) {
  if (job.gguf) return job.gguf->sink(writer);
  return {[&](const std::string& name, const at::Tensor& tensor) { writer.put(name, tensor); },
          [&](const std::string& name, int64_t index, const at::Tensor& tensor) { writer.put_part(name, index, tensor); }};
}

// All that is not of a block, and the first block's input.
QuantizeProgress begin_work(const Job& job, const AwqOptions& awq, const OuterTensors& outer, const CalibrationPass& pass,
                            models::CheckpointWriter& writer) {
  if (awq.search_only) {
    writer.put(kNoTensor, at::zeros({1}, at::kByte));
  } else {
    const TensorSink sink = sink_of(job, writer);
    const auto without_head = [&](std::vector<models::PlannedTensor> tensors) {  // it waits for what it will read
      std::erase_if(tensors, [&](const models::PlannedTensor& tensor) { return job.gguf && job.gguf->is_head(tensor.name); });
      return tensors;
    };
    put_outer(sink, job.checkpoint, without_head(outer.before));
    put_outer(sink, job.checkpoint, without_head(outer.after));
    if (job.gguf) job.gguf->put_constants(writer);
    if (!outer.head.empty()) put_head(writer, job.checkpoint, job.config, awq, packed_dtype(job.config, awq.format));
    copy_kept(writer, job.checkpoint, job.kept);
  }
  ActivationFile embedded = ActivationFile::create(hidden_file(job.work, 0), job.hidden_shape());
  embed_tokens(job.checkpoint, job.config, pass, job.tokens.ids, embedded);
  writer.sync();
  const QuantizeProgress progress{job.fingerprint, 0, {}};
  save_progress(job.work, progress, embedded);
  return progress;
}

void run_blocks(const Job& job, const AwqOptions& awq, const std::optional<BitPlan>& bits, const CalibrationPass& pass,
                models::CheckpointWriter& writer, QuantizeProgress& progress) {
  const QuantizeModelOptions& options = job.options;
  SearchResult found;
  const bool keep = !options.search_output.empty();
  TensorSink sink{[](const std::string&, const at::Tensor&) {}, [](const std::string&, int64_t, const at::Tensor&) {}, nullptr};
  if (!awq.search_only) sink = sink_of(job, writer);
  if (keep) sink.found = &found;
  BlockStep step{job.checkpoint, job.config, awq, pass, job.stored, job.work, sink, {}};
  if (options.on_progress) options.on_progress(progress.blocks_done, job.blocks());
  for (int64_t block = progress.blocks_done; block < job.blocks(); ++block) {
    const ActivationFile input = ActivationFile::open(hidden_file(job.work, block), job.hidden_shape());
    ActivationFile output = ActivationFile::create(hidden_file(job.work, block + 1), job.hidden_shape());
    step.needs_output = block + 1 < job.blocks() || (job.gguf && job.gguf->head_type());
    std::vector<LinearReport> reports = run_block_step(step, block, input, output);
    if (bits) add_sensitivities(reports, *bits);
    progress.reports.insert(progress.reports.end(), reports.begin(), reports.end());
    progress.blocks_done = block + 1;
    if (keep) write_search(search_part(job.work, block), found);
    found = {};
    writer.sync();
    save_progress(job.work, progress, output);
    return_free_memory();
    if (const std::string note = coverage_note(reports, block); !note.empty()) job.say(note);
    if (options.on_progress) options.on_progress(progress.blocks_done, job.blocks());
  }
}

// The head of a GGUF file, once the hidden states that it reads are there.
void put_gguf_head(const Job& job, const CalibrationPass& pass, models::CheckpointWriter& writer) {
  const auto type = job.gguf->head_type();
  if (!type) return;
  const ActivationFile hidden = ActivationFile::open(hidden_file(job.work, job.blocks()), job.hidden_shape());
  const quant::InputStatistics input = head_statistics(job.checkpoint, job.config, pass, hidden);
  const std::string name = models::head_tensor(job.config);
  const at::Tensor weight = job.checkpoint.view(name);
  const HeadBlocks head = quantize_head(job.config, weight, *type, input, job.options.awq);
  job.gguf->put_head(writer, head.blocks, weight);
  job.checkpoint.release(name);
  job.say(fmt::format("head: {}, {:.0f} % of the error of rounding to nearest", quant::ggml_type_info(*type).name,
                      head.rtn_error > 0 ? 100 * head.error / head.rtn_error : 100.0));
}

Json metadata_json(const Job& job, const Json& mean_bits, const QuantizeProgress& progress, const Json& file_hashes) {
  const QuantizeModelOptions& options = job.options;
  const calibration::TokenBlocks& tokens = job.tokens;
  Json layers = Json::array();
  for (const LinearReport& report : progress.reports) layers.push_back(to_json(report));
  Json metadata = {
      {"format", row_of(options.awq.format).packed ? to_string(options.awq.format) : "float"},
      {"fingerprint", progress.fingerprint},
      {"method", to_upper(options.awq.method)},
      {"spec", models::spec_to_json(options.awq.spec)},
      {"mean_bits", mean_bits},
      {"search", settings_json(options.awq)},
      {"calibration", with_reached(options.calibration_record, progress.reports)},
      {"calibration_tokens", tokens.mask.defined() ? tokens.mask.sum().item<int64_t>() : tokens.lengths.sum().item<int64_t>()},
      {"calibration_blocks", tokens.ids.size(0)},
      {"calibration_ids_sha256", hash_tensor(tokens.ids)},
      {"seed", options.seed},
      {"source", describe_source(job.checkpoint.folder())},
      {"source_sha256", job.source_hashes},
      {"files_sha256", file_hashes},
      {"layers", layers},
      {"versions", {{"salient", SALIENT_VERSION}, {"libtorch", TORCH_VERSION}}}};
  if (Json curve = rows_curve_json(progress.reports); !curve.empty()) metadata["rows_curve"] = std::move(curve);
  return metadata;
}

// The files that are not tensors; the metadata and config.json last.
void write_other_files(const Job& job, const AwqOptions& awq, const std::optional<BitPlan>& bits,
                       const QuantizeProgress& progress) {
  copy_side_files(job.checkpoint.folder(), job.work);
  const std::string new_config = dump_json(output_config(job.checkpoint, job.config, awq, job.kept), 2) + "\n";
  Json file_hashes = hash_files(job.work, [](const std::string& name) {
    return !name.starts_with(".") && !is_progress_file(name) && name != kMetadataFile && name != kModelCard;
  });
  file_hashes["config.json"] = sha256_hex(new_config);
  const Json metadata = metadata_json(job, bits ? Json(bits->mean_bits) : Json(), progress, file_hashes);
  write_file(job.work / kModelCard, model_card(metadata));  // not among the hashes: users add to it
  write_file(job.work / kMetadataFile, dump_json(metadata, 2) + "\n");
  write_file(job.work / "config.json", new_config);
}

void save_search(const Job& job) {
  SearchResult whole;
  whole.model_type = job.config.model_type;
  whole.fingerprint = weights_fingerprint(job.source_hashes);
  whole.settings = settings_json(job.options.awq);
  join_search_parts(job.options.search_output, job.work, job.blocks(), whole, job.fingerprint);
}

void publish(const Job& job) {
  // It came while this job was at work, and nobody said that it may be replaced.
  if (fs::exists(job.options.output) && !job.options.replace_output) fail_exists(job.options);
  publish_folder(job.work, job.options.output);
}

// In the work folder, which is locked: from what is there to the artifact.
QuantizeModelResult make_artifact(const Job& job, const FolderLock& lock) {
  const std::optional<BitPlan> bits = find_bits(job);
  AwqOptions awq = job.options.awq;
  if (bits) {
    for (const PlannedModule& module : bits->modules) awq.planned_bits[module.name] = module.bits;
  }
  const OuterTensors outer = plan_outer(job.config, job.stored, &awq);
  const models::ShardPlan plan = plan_artifact(job, awq, outer);
  models::CheckpointWriter writer(lock, plan);
  std::optional<QuantizeProgress> progress = load_progress(job.work, job.fingerprint);
  QuantizeModelResult result;
  result.folder = job.options.output;
  result.bytes = plan.total_bytes;
  result.resumed_blocks = progress ? progress->blocks_done : 0;
  const bool hold_back = awq.rounding.kind == quant::RoundingKind::kGram && !awq.rounding.off_diagonal;
  const CalibrationPass pass(job.config, job.tokens, job.options.device, job.options.batch_tokens, hold_back, job.options.awq.rows_curve);
  if (progress) {
    check_taken_over(writer, plan, job.work);
    job.say(fmt::format("going on at block {} of {}", progress->blocks_done + 1, job.blocks()));
  } else {
    remove_progress(job.work);
    if (bits) save_bit_plan(job.work, job.fingerprint, *bits);
    progress = begin_work(job, awq, outer, pass, writer);
  }
  run_blocks(job, awq, bits, pass, writer, *progress);
  if (job.gguf) put_gguf_head(job, pass, writer);
  writer.finish();
  result.reports = std::move(progress->reports);
  if (!job.options.search_output.empty()) save_search(job);
  if (awq.search_only) {
    result.bytes = fs::file_size(job.options.search_output);
    fs::remove_all(job.work);
    return result;
  }
  write_other_files(job, awq, bits, QuantizeProgress{progress->fingerprint, progress->blocks_done, result.reports});
  publish(job);
  return result;
}

// A search result that is applied to other weights than it was searched on: of a fine-tuned model, say.
std::string other_weights_note(const Job& job) {
  const std::shared_ptr<const SearchResult>& search = job.options.awq.search;
  if (search == nullptr || search->fingerprint.empty() || search->fingerprint == weights_fingerprint(job.source_hashes)) return "";
  return fmt::format("{}: was searched on other weights than these: the scales keep the model's function, but may not be the best",
                     search->file);
}

void check_search_output(const Job& job) {
  const fs::path& file = job.options.search_output;
  if (file.empty() || !fs::exists(file) || search_file_job(file) == job.fingerprint) return;
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", file.string()))
      .with_hint("choose another file for the search result, or remove that one");
}

}  // namespace

calibration::TokenBlocks no_calibration() {
  calibration::TokenBlocks blocks;
  blocks.ids = at::zeros({0, 1}, at::kLong);
  blocks.lengths = at::zeros({0}, at::kLong);
  return blocks;
}

void check_quantization(const QuantizeModelOptions& given) {
  QuantizeModelOptions options = normalized(given);
  quant::validate(options.awq.spec);
  check_stored(options.awq);
  const bool ours = fs::exists(options.output) && load_finished(options.output).has_value();
  if (fs::exists(options.output) && !(ours && (options.reuse_output || options.replace_output))) fail_exists(options);
  const Checkpoint checkpoint(options.model_folder);
  check_source(checkpoint);
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

QuantizeModelResult quantize_model(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens) {
  const auto started = std::chrono::steady_clock::now();
  const at::NoGradGuard no_grad;
  check_quantization(given);
  const Job job(given, tokens);
  for (const std::string& note : check_tensors(job.checkpoint, job.config)) job.say(note);
  if (job.gguf) {
    for (const std::string& note : job.gguf->notes()) job.say(note);
  }
  for (const std::string& note : check_ignore(job.config, job.options.awq.ignore, job.options.awq.ignore_may_miss)) job.say(note);
  for (const std::string& note : check_overrides(job.config, job.options.awq.overrides)) job.say(note);
  for (const std::string& note : check_search(job.config, job.options.awq)) job.say(note);
  if (const std::string note = other_weights_note(job); !note.empty()) job.say(note);
  check_search_output(job);
  if (const auto finished = reusable_output(job)) return nothing_to_do(job, *finished);
  const bool replaces = fs::exists(job.options.output);
  check_work_folder(job.work);
  std::optional<FolderLock> lock;
  if (fs::exists(job.work)) {
    lock.emplace(models::lock_checkpoint_folder(job.work));
    if (const auto finished = finished_work(job)) {
      publish(job);
      return nothing_to_do(job, *finished);
    }
  }
  check_needs(job, /*disk=*/!lock);
  // Before anything is looked for or made in the folder, the plan of bits above all: what is in it from here on belongs to no other
  // job.
  if (!lock) {
    lock.emplace(models::lock_checkpoint_folder(job.work));
    if (!replaces &&
        fs::exists(job.options.output)) {  // another job was faster: what is to be said and done of its output is decided above
      std::error_code ignored;
      fs::remove(job.work, ignored);
      lock.reset();
      return quantize_model(given, tokens);
    }
  }
  QuantizeModelResult result = make_artifact(job, *lock);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace salient::pipeline
