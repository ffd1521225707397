#include "pipeline/quantization_config.h"

#include "common/error.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/runtime_scheme.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {
namespace fs = std::filesystem;

void check_stored(const AwqOptions& awq) {
  if (awq.search_only && (awq.search != nullptr || !(awq.scale || awq.clip)))
    fail(ErrorKind::kInvalidArgument, "format awq-search: nothing would be searched: {}",
         awq.search != nullptr ? "a search result is given with 'search'" : "'scale' and 'clip' are off");
  check_runtime_scheme(awq);
  if (awq.export_compatible) return;
  check_format(awq.format, awq.spec);
  check_gguf_settings(awq);
  if (awq.salient_ratio > 0) check_salient_channels(awq.format);
  if (awq.target_bits > 0) check_mixed_bits(awq.format);
}

void apply_to_job(const QuantizationConfig& config, QuantizeJob& job) {
  // Without a file of the user's the calibrate stage makes one, which has the usual field.
  if (config.text_column != kUsualTextColumn && (!job.calibration_file.empty() || !job.sources.empty()))
    job.render.fields.text = config.text_column;
  if (config.max_calib_samples) job.samples = *config.max_calib_samples;
  if (config.max_calib_seq_len) job.max_seq_len = *config.max_calib_seq_len;
  job.model.awq = config.awq;
  if (config.awq.search_only && !config.save_search.empty())
    throw Error(ErrorKind::kInvalidArgument,
                "format awq-search writes the search result to the output: 'save_search' names a second file")
        .with_hint("leave save_search out");
  job.model.search_output = config.awq.search_only ? job.model.output : config.save_search;
  job.self_generated = config.self_generated.value_or(config.awq.method == "awq" ? QuantizeJob{}.self_generated : 0.0);
  job.model.max_shard_bytes = config.max_shard_bytes;
  job.model.max_memory_bytes = config.max_memory_bytes;
  job.model.batch_tokens =
      config.n_parallel_calib_samples ? *config.n_parallel_calib_samples * job.max_seq_len : config.batch_tokens;
}

fs::path resolve_split(const fs::path& calibration, const std::string& split_name) {
  if (!fs::is_directory(calibration)) return calibration;
  for (const char* extension : {".jsonl", ".json", ".csv", ".txt", ".parquet"}) {
    fs::path file = calibration / (split_name + extension);
    if (fs::is_regular_file(file)) return file;
  }
  throw Error(ErrorKind::kNotFound,
              fmt::format("{}: no calibration file of split '{}', expected {}.jsonl, .json, .csv, .txt or .parquet in this folder",
                          calibration.string(), split_name, split_name))
      .with_hint("name the file itself, or another split");
}

}  // namespace salient::pipeline
