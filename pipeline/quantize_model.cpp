#include "pipeline/quantize_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/memory.h"
#include "common/text.h"
#include "models/decoder/embedding.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/spec_json.h"
#include "pipeline/artifact_files.h"
#include "pipeline/bit_plan.h"
#include "pipeline/block_step.h"
#include "pipeline/mappings.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/weight_formats.h"
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

void put_outer(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    writer.put(planned.name, checkpoint.load(planned.name, planned.shape, planned.dtype));
  }
}

// As they are, whatever their dtype.
void copy_kept(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    writer.put(planned.name, checkpoint.view(planned.name));
    checkpoint.release(planned.name);
  }
}

// The first block's input. Rows are looked up in the stored table, so that it is never converted as a whole; its pages are let go.
void embed_tokens(const Checkpoint& checkpoint, const DecoderConfig& config, const CalibrationPass& pass, const at::Tensor& ids,
                  ActivationFile& hidden) {
  const models::EmbeddingWeights weights = models::load_embedding(checkpoint, config, at::kFloat, at::kCPU, /*view_tokens=*/true);
  const at::Tensor positions = at::arange(ids.size(1), at::kLong).unsqueeze(0);
  pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
    hidden.write(batch.begin, models::embed(config, weights, ids.narrow(0, batch.begin, batch.count), positions, at::kFloat));
  });
  checkpoint.release(std::string(config.names.embedding));
}

constexpr const char* kMetadataFile = "quantization_metadata.json";

Json metadata_json(const QuantizeModelOptions& options, const AwqOptions& asked, const Json& mean_bits, const QuantizeProgress& progress, const Json& source_hashes,
                   const Json& file_hashes, const calibration::TokenBlocks& tokens) {
  Json layers = Json::array();
  for (const LinearReport& report : progress.reports) layers.push_back(to_json(report));
  return {{"format", row_of(options.awq.format).packed ? to_string(options.awq.format) : "float"},
          {"fingerprint", progress.fingerprint},
          {"method", to_upper(options.awq.method)},
          {"spec", models::spec_to_json(options.awq.spec)},
          {"mean_bits", mean_bits},
          {"search", settings_json(asked)},
          {"calibration", options.calibration_record},
          {"calibration_tokens", tokens.mask.defined() ? tokens.mask.sum().item<int64_t>() : tokens.lengths.sum().item<int64_t>()},
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
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: this name is needed for the work in progress, but the folder holds {}, which is "
                            "none of its files",
                            work.string(), name))
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
void check_taken_over(const models::CheckpointWriter& writer, const std::vector<models::PlannedTensor>& planned,
                      const fs::path& work) {
  for (const models::PlannedTensor& tensor : planned) {
    if (writer.taken_over(tensor.name)) continue;
    throw Error(ErrorKind::kCorruption,
                fmt::format("{}: the work of a stopped job is there, but its shard with {} is not", work.string(), tensor.name))
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
  if (options.format == WeightFormat::kFloat) return checkpoint.config();
  if (options.format == WeightFormat::kDequantized) return artifact_config(checkpoint.config(), Json(), "float32");
  const Json quantization =
      quantization_config(options.format, options.spec, quantized_modules(config, options), float_modules(config, options, kept));
  const bool bfloat16 = packed_dtype(config, options.format) == at::kBFloat16;
  return artifact_config(checkpoint.config(), quantization, bfloat16 ? "bfloat16" : "float16", quantizes_head(options));
}

// lm_head in codes, from its own weight or the embedding that it shares.
void put_head(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const DecoderConfig& config, const AwqOptions& options,
              at::ScalarType dtype) {
  const std::string source = config.tie_word_embeddings ? std::string(config.names.embedding) : std::string(config.names.lm_head) + ".weight";
  const at::Tensor weight = checkpoint.load(source, {config.vocab_size, config.hidden_size}, at::kFloat, at::kCPU);
  const quant::QuantizedWeight rounded = quant::quantize_affine(weight, {kHeadSetting.bits, config.hidden_size, kHeadSetting.zero_point, dtype});
  for (const auto& [name, tensor] : packed_tensors(options.format, std::string(config.names.lm_head), rounded, kHeadSetting, dtype)) writer.put(name, tensor);
}

// What each module gets with target_bits; measured once for a job, however often it is stopped.
BitPlan find_bits(const QuantizeModelOptions& options, const Checkpoint& checkpoint, const DecoderConfig& config, const calibration::TokenBlocks& tokens,
                  const StoredDtype& stored, const fs::path& work, const std::string& fingerprint) {
  if (std::optional<BitPlan> known = load_bit_plan(work, fingerprint)) return std::move(*known);
  const CalibrationPass pass(config, tokens, options.device, options.batch_tokens);
  const auto embed = [&](ActivationFile& hidden) { embed_tokens(checkpoint, config, pass, tokens.ids, hidden); };
  BitPlan plan = plan_bits({checkpoint, config, options.awq, tokens, pass, stored, work, embed, options.awq.bit_choices, options.on_planning});
  save_bit_plan(work, fingerprint, plan);
  return plan;
}

// "12 modules with 3, 16 with 4"
std::string count_bits(const BitPlan& plan) {
  std::map<int, int64_t> counts;
  for (const PlannedModule& module : plan.modules) ++counts[module.bits];
  std::string text;
  for (const auto& [bits, count] : counts) text += fmt::format("{}{}{} with {}", text.empty() ? "" : ", ", count, text.empty() ? " modules" : "", bits);
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
  return options;
}

void say(const QuantizeModelOptions& options, const std::string& line) {
  if (options.on_message) options.on_message(line);
}

}  // namespace

void check_quantization(const QuantizeModelOptions& given) {
  const QuantizeModelOptions options = normalized(given);
  quant::validate(options.awq.spec);
  check_stored(options.awq);
  const bool ours = fs::exists(options.output) && load_finished(options.output).has_value();
  if (fs::exists(options.output) && !(ours && (options.reuse_output || options.replace_output))) fail_exists(options);
  const Checkpoint checkpoint(options.model_folder);
  check_source(checkpoint);
  const DecoderConfig config = models::load_decoder_config(checkpoint);
  check_mappings(config, options.awq.mappings);
  check_ignore(config, options.awq.ignore);
  check_tensors(checkpoint, config);
  const StoredDtype stored = stored_dtypes(checkpoint, config, options.awq);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) plan_block(config, block, options.awq, stored, &checkpoint);
}

QuantizeModelResult quantize_model(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens) {
  const auto started = std::chrono::steady_clock::now();
  const at::NoGradGuard no_grad;
  check_quantization(given);
  QuantizeModelOptions options = normalized(given);
  const bool ours = fs::exists(options.output);
  const Checkpoint checkpoint(options.model_folder);
  const DecoderConfig config = models::load_decoder_config(checkpoint);
  options.awq.scale_dtype = packed_dtype(config, options.awq.format);
  for (const std::string& note : check_tensors(checkpoint, config)) say(options, note);

  const StoredDtype stored = stored_dtypes(checkpoint, config, options.awq);
  const std::vector<models::PlannedTensor> kept = plan_kept(checkpoint, config);
  QuantizeEstimate estimate =
      estimate_quantize(config, options.awq, tokens.ids.numel(), std::max(options.batch_tokens, tokens.ids.size(1)));
  for (const models::PlannedTensor& tensor : kept) estimate.disk_bytes += models::data_bytes(tensor);

  const Json source_hashes = hash_source_files(checkpoint.folder());
  const std::string fingerprint = sha256_hex(dump_json({{"version", SALIENT_VERSION},
                                                        {"source", source_hashes},
                                                        {"spec", models::spec_to_json(options.awq.spec)},
                                                        {"search", settings_json(options.awq)},
                                                        {"ids", hash_tensor(tokens.ids)},
                                                        {"lengths", hash_tensor(tokens.lengths)},
                                                        {"mask", tokens.mask.defined() ? hash_tensor(tokens.mask) : ""},
                                                        {"calibration", options.calibration_record},
                                                        {"seed", options.seed},
                                                        {"libtorch", TORCH_VERSION},
                                                        {"device", options.device.str()},
                                                        {"batch_tokens", options.batch_tokens},
                                                        {"max_shard_bytes", options.max_shard_bytes}}));

  QuantizeModelResult result;
  result.folder = options.output;
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
  if (const auto finished = load_finished(work);
      finished && finished->fingerprint == fingerprint && find_changed_file(work).empty()) {
    publish(work, options.output);
    result.reports = finished->reports;
    result.resumed_blocks = config.num_hidden_layers;
    return result;
  }
  say(options, fmt::format("needs at most {} of memory and {} of disk", human_bytes(estimate.peak_memory_bytes),
                           human_bytes(estimate.disk_bytes)));
  check_memory(options, estimate);
  if (!fs::exists(work)) check_disk(options.output, estimate);
  fs::create_directories(work);
  const AwqOptions asked = options.awq;
  std::optional<BitPlan> bits;
  if (asked.target_bits > 0) {
    bits = find_bits(options, checkpoint, config, tokens, stored, work, fingerprint);
    for (const PlannedModule& module : bits->modules) options.awq.planned_bits[module.name] = module.bits;
    say(options, fmt::format("{:.2f} bits a weight: {}", bits->mean_bits, count_bits(*bits)));
  }
  const OuterTensors outer = plan_outer(config, stored, &options.awq);
  std::vector<models::PlannedTensor> planned = outer.before;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (models::PlannedTensor& tensor : plan_block(config, block, options.awq, stored, &checkpoint))
      planned.push_back(std::move(tensor));
  }
  planned.insert(planned.end(), outer.after.begin(), outer.after.end());
  planned.insert(planned.end(), outer.head.begin(), outer.head.end());
  planned.insert(planned.end(), kept.begin(), kept.end());
  const models::ShardPlan plan = models::plan_shards(planned, options.max_shard_bytes);
  result.bytes = plan.total_bytes;
  // The writer locks the folder: whatever is looked at or removed in it from here on belongs to no other job.
  models::CheckpointWriter writer(work, plan);
  const std::optional<QuantizeProgress> found = load_progress(work, fingerprint);
  if (!found) {
    remove_progress(work);
    if (bits) save_bit_plan(work, fingerprint, *bits);
  }
  QuantizeProgress progress = found ? *found : QuantizeProgress{fingerprint, 0, {}};
  result.resumed_blocks = progress.blocks_done;
  if (found) check_taken_over(writer, planned, work);
  const bool hold_back = options.awq.rounding.kind == quant::RoundingKind::kGram && !options.awq.rounding.off_diagonal;
  const CalibrationPass pass(config, tokens, options.device, options.batch_tokens, hold_back);
  const std::vector<int64_t> hidden_shape{tokens.ids.size(0), tokens.ids.size(1), config.hidden_size};
  if (found) {
    say(options, fmt::format("going on at block {} of {}", progress.blocks_done + 1, config.num_hidden_layers));
  } else {
    put_outer(writer, checkpoint, outer.before);
    put_outer(writer, checkpoint, outer.after);
    if (!outer.head.empty()) put_head(writer, checkpoint, config, options.awq, packed_dtype(config, options.awq.format));
    copy_kept(writer, checkpoint, kept);
    ActivationFile embedded = ActivationFile::create(hidden_file(work, 0), hidden_shape);
    embed_tokens(checkpoint, config, pass, tokens.ids, embedded);
    writer.sync();
    save_progress(work, progress, embedded);
  }

  const TensorSink sink{
      [&](const std::string& name, const at::Tensor& tensor) { writer.put(name, tensor); },
      [&](const std::string& name, int64_t index, const at::Tensor& tensor) { writer.put_part(name, index, tensor); }};
  const BlockStep step{checkpoint, config, options.awq, pass, stored, work, sink, {}};
  if (options.on_progress) options.on_progress(progress.blocks_done, config.num_hidden_layers);
  for (int64_t block = progress.blocks_done; block < config.num_hidden_layers; ++block) {
    const ActivationFile input = ActivationFile::open(hidden_file(work, block), hidden_shape);
    ActivationFile output = ActivationFile::create(hidden_file(work, block + 1), hidden_shape);
    std::vector<LinearReport> reports = run_block_step(step, block, input, output);
    if (bits) add_sensitivities(reports, *bits);
    progress.reports.insert(progress.reports.end(), reports.begin(), reports.end());
    progress.blocks_done = block + 1;
    writer.sync();
    save_progress(work, progress, output);
    return_free_memory();
    if (const std::string note = coverage_note(reports, block); !note.empty()) say(options, note);
    if (options.on_progress) options.on_progress(progress.blocks_done, config.num_hidden_layers);
  }

  writer.finish();
  copy_side_files(checkpoint.folder(), work);
  const std::string new_config = dump_json(output_config(checkpoint, config, options.awq, kept), 2) + "\n";
  Json file_hashes = hash_files(
      work, [](const std::string& name) { return !name.starts_with(".") && !is_progress_file(name) && name != kMetadataFile; });
  file_hashes["config.json"] = sha256_hex(new_config);
  write_file(work / kMetadataFile, dump_json(metadata_json(options, asked, bits ? Json(bits->mean_bits) : Json(), progress, source_hashes, file_hashes, tokens), 2) + "\n");
  write_file(work / "config.json", new_config);
  publish(work, options.output);
  result.reports = std::move(progress.reports);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace salient::pipeline
