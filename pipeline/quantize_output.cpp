#include "pipeline/quantize_output.h"

#include <ATen/ops/sum.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/text.h"
#include "models/io/spec_json.h"
#include "pipeline/artifact_files.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/model_card.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/reached.h"
#include "pipeline/rows_curve.h"
#include "pipeline/runtime_scheme.h"
#include "pipeline/search_file.h"
#include "pipeline/source_files.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using models::Checkpoint;
using models::DecoderConfig;

Json output_config(const Checkpoint& checkpoint, const DecoderConfig& config, const AwqOptions& options,
                   const std::vector<models::PlannedTensor>& kept) {
  if (options.format == WeightFormat::kFloat || gguf_format_of(options.format) != nullptr) return checkpoint.config();
  if (options.format == WeightFormat::kDequantized) return artifact_config(checkpoint.config(), Json(), "float32");
  const Json quantization = quantization_config(options.format, options.spec, quantized_modules(config, options),
                                                float_modules(config, options, kept), written_runtime_bits(options));
  const bool bfloat16 = packed_dtype(config, options.format) == at::kBFloat16;
  return artifact_config(checkpoint.config(), quantization, bfloat16 ? "bfloat16" : "float16", quantizes_head(options));
}

Json metadata_json(const QuantizeWork& job, const Json& mean_bits, const QuantizeProgress& progress, const Json& file_hashes) {
  const QuantizeModelOptions& options = job.options;
  const calibration::TokenBlocks& tokens = job.tokens;
  Json layers = Json::array();
  for (const LinearReport& report : progress.reports) layers.push_back(to_json(report));
  Json settings = settings_json(options.awq);
  settings["batch_tokens"] = options.batch_tokens;
  settings["max_shard_size"] = options.max_shard_bytes;
  Json metadata = {
      {"format", row_of(options.awq.format).keeps_layout() ? "float" : to_string(options.awq.format)},
      {"readers", row_of(options.awq.format).readers},
      {"fingerprint", progress.fingerprint},
      {"method", to_upper(options.awq.method)},
      {"spec", models::spec_to_json(options.awq.spec)},
      {"mean_bits", mean_bits},
      {"search", std::move(settings)},
      {"device", at::Device(options.device.type()).str()},
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
  if (job.is_shared()) metadata["ranks"] = options.ranks->size();
  if (Json curve = rows_curve_json(progress.reports); !curve.empty()) metadata["rows_curve"] = std::move(curve);
  return metadata;
}

}  // namespace

std::optional<QuantizeProgress> reusable_output(const QuantizeWork& job) {
  const QuantizeModelOptions& options = job.options;
  if (!fs::exists(options.output)) return std::nullopt;
  const std::optional<QuantizeProgress> finished = options.reuse_output ? load_finished(options.output) : std::nullopt;
  if (!finished || finished->fingerprint != job.fingerprint) {
    if (!options.replace_output) fail_exists(options);
    return std::nullopt;
  }
  if (!options.search_output.empty() && !fs::exists(options.search_output)) {
    if (options.replace_output) return std::nullopt;
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: is made already, but its search result {} is not there",
                                                         options.output.string(), options.search_output.string()))
        .with_hint("remove the folder, then the same command makes both; or: " + options.exists_hint);
  }
  const std::string changed = find_changed_file(options.output);
  if (changed.empty()) return finished;
  if (options.replace_output) return std::nullopt;
  throw Error(ErrorKind::kCorruption, fmt::format("{}: {} is not as it was made", options.output.string(), changed))
      .with_hint("remove the folder, then the same command makes it again; or: " + options.exists_hint);
}

std::optional<QuantizeProgress> finished_work(const QuantizeWork& job) {
  std::optional<QuantizeProgress> finished = load_finished(job.work);
  if (!finished || finished->fingerprint != job.fingerprint || !find_changed_file(job.work).empty()) return std::nullopt;
  return finished;
}

void check_other_work(const QuantizeWork& job) {
  const std::optional<StoppedWork> other = find_other_work(job.work, job.fingerprint, job.inputs);
  if (!other) return;
  // What other settings cannot bring back: the old weights or calibration file, another build or machine.
  constexpr std::array kNoSettings = {kSourceInput, "calibration.sha256", "version", "libtorch", "device", "ranks"};
  const auto is_gone = [&](const std::string& name) {
    return std::find(kNoSettings.begin(), kNoSettings.end(), name) != kNoSettings.end();
  };
  const bool gone = other->differences.empty() || std::any_of(other->differences.begin(), other->differences.end(), is_gone);
  const std::string what = fmt::format(
      "{}: {} of {} blocks are done, of a quantization with other inputs ({})", job.work.string(), other->blocks_done, job.blocks(),
      other->differences.empty() ? "which is not known" : fmt::to_string(fmt::join(other->differences, ", ")));
  if (gone || job.options.replace_output) return job.say(what + ": beginning again");
  throw Error(ErrorKind::kInvalidArgument, what)
      .with_hint(fmt::format("give what it was begun with to go on; or remove that folder to begin again; or: {}",
                             job.options.exists_hint));
}

void check_source(const QuantizeWork& job) {
  const std::string changed = changed_source_file(job.checkpoint.folder(), job.source_state, job.source_hashes);
  if (changed.empty()) return;
  throw Error(ErrorKind::kCorruption, fmt::format("{}: {} was changed while the model was quantized: expected the file that the "
                                                  "job began with",
                                                  job.checkpoint.folder().string(), changed))
      .with_hint(
          "put the old file back and give the same command again: finished blocks are kept; or give it with the new one, "
          "which begins again");
}

void write_other_files(const QuantizeWork& job, const AwqOptions& awq, const std::optional<BitPlan>& bits,
                       const QuantizeProgress& progress, const Json& head) {
  copy_side_files(job.checkpoint.folder(), job.work);
  const std::string new_config = dump_json(output_config(job.checkpoint, job.config, awq, job.kept), 2) + "\n";
  Json file_hashes = hash_files(job.work, [](const std::string& name) {
    return !name.starts_with(".") && !is_progress_file(name) && name != kMetadataFile && name != kModelCard;
  });
  file_hashes["config.json"] = sha256_hex(new_config);
  Json metadata = metadata_json(job, bits ? Json(bits->mean_bits) : Json(), progress, file_hashes);
  if (!head.is_null()) metadata["head"] = head;
  write_file(job.work / kModelCard, model_card(metadata));  // not among the hashes: users add to it
  write_file(job.work / kMetadataFile, dump_json(metadata, 2) + "\n");
  write_file(job.work / "config.json", new_config);
}

void save_search(const QuantizeWork& job) {
  check_search_output(job);  // it came while this job was at work
  SearchResult whole;
  whole.model_type = job.config.model_type;
  whole.fingerprint = weights_fingerprint(job.source_hashes);
  whole.settings = settings_json(job.options.awq);
  join_search_parts(job.options.search_output, job.work, job.blocks(), whole, job.fingerprint);
}

void publish(const QuantizeWork& job) {
  // It came while this job was at work, and nobody said that it may be replaced.
  if (fs::exists(job.options.output) && !job.options.replace_output) fail_exists(job.options);
  publish_folder(job.work, job.options.output);
}

}  // namespace salient::pipeline
