#include "pipeline/online_calibration.h"

#include "common/error.h"
#include "common/hash.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/model_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

calibration::RecordingOptions recording_options(const OnlineCalibrationOptions& options, const eval::LanguageModel& model) {
  if (models::find_gguf_model(model.folder)) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: what a GGUF file runs cannot be recorded for a quantization", model.folder.string()))
        .with_hint("record the checkpoint folder that is to be quantized");
  }
  calibration::RecordingOptions recording;
  recording.file = options.file;
  recording.max_rows = options.max_rows;
  recording.tokenizer_sha256 = sha256_file(models::model_file(model.folder, "tokenizer.json"));
  return recording;
}

}  // namespace

fs::path activations_path(const fs::path& record) {
  fs::path path = record;
  return path.replace_extension(".activations.safetensors");
}

OnlineCalibration::OnlineCalibration(const OnlineCalibrationOptions& options, const eval::LanguageModel& model)
    : model_(model),
      statistics_file_(activations_path(options.file)),
      interval_(options.interval),
      recording_(recording_options(options, model)),
      written_(std::chrono::steady_clock::now()) {
  since_written_.model = model.name;
  since_written_.config_sha256 = sha256_file(models::model_file(model.folder, "config.json"));
  since_written_.linears = linear_inputs(model.decoder.config());
  if (fs::exists(statistics_file_)) {
    const ModelStatistics found = read_model_statistics(statistics_file_);
    if (found.model != since_written_.model || found.config_sha256 != since_written_.config_sha256) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: statistics of the model {}, expected those of {} with its config.json",
                              statistics_file_.string(), found.model, model.name))
          .with_hint("record another model into another file; rows of several files can be given to quantize together");
    }
  }
  observer_.row = [this](std::span<const models::TokenId> row, std::string_view source, int64_t response_begin) {
    add_row(row, source, response_begin);
  };
  observer_.inputs = [this](int64_t block, models::InputId input, const at::Tensor& x) {
    add_tokens(since_written_.inputs[input_name(model_.decoder.config(), block, input)], x);
  };
}

void OnlineCalibration::add_row(std::span<const models::TokenId> row, std::string_view source, int64_t response_begin) {
  recording_.add(row, source, response_begin);
  tokens_ += static_cast<int64_t>(row.size());
  const auto now = std::chrono::steady_clock::now();
  if (now - written_ < interval_) return;
  recording_.flush();
  write_statistics();
  written_ = std::chrono::steady_clock::now();
}

void OnlineCalibration::write_statistics() {
  if (since_written_.inputs.empty()) return;
  ModelStatistics sum{since_written_.model, since_written_.config_sha256, since_written_.linears, {}};
  if (fs::exists(statistics_file_)) sum.inputs = read_model_statistics(statistics_file_).inputs;
  for (const auto& [name, input] : since_written_.inputs) add(sum.inputs[name], input);
  write_model_statistics(statistics_file_, sum);
  inputs_ = static_cast<int64_t>(sum.inputs.size());
  since_written_.inputs.clear();
}

OnlineCalibrationSummary OnlineCalibration::finish() {
  recording_.flush();
  write_statistics();
  return {recording_.summary(), tokens_, inputs_};
}

std::string describe(const OnlineCalibrationSummary& summary, const fs::path& file) {
  if (summary.rows.rows_kept == 0) return fmt::format("recorded nothing: no row was long enough for {}", file.string());
  return fmt::format(
      "recorded: {} holds {} rows, {} tokens; {} tokens were run; statistics of {} inputs in {}\n"
      "  for the next quantization: salient quantize --calib {} ...",
      file.string(), summary.rows.rows_kept, summary.rows.tokens_kept, summary.tokens, summary.inputs,
      activations_path(file).string(), file.string());
}

}  // namespace salient::pipeline
