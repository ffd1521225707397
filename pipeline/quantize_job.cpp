#include "pipeline/quantize_job.h"

#include <torch/version.h>

#include <chrono>

#include "calibration/calibration_rows.h"
#include "calibration/self_generation.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/memory.h"
#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"
#include "models/io/model_files.h"
#include "models/text/chat_template.h"
#include "models/text/tokenizer.h"
#include "pipeline/artifact_files.h"
#include "pipeline/engine_notes.h"
#include "pipeline/pad_intermediate.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_plan.h"
#include "pipeline/reached.h"
#include "pipeline/search_result.h"
#include "pipeline/source_files.h"
#include "pipeline/warning_digest.h"

namespace salient::pipeline {
namespace {

calibration::LongRows long_rows_of(const QuantizeJob& job) {
  return job.discard_long_rows ? calibration::LongRows::kDiscard : job.long_rows;
}

std::vector<calibration::CalibrationSource> sources_of(const QuantizeJob& job) {
  std::vector<calibration::CalibrationSource> sources = job.sources;
  if (sources.empty() && !job.calibration_file.empty()) {
    calibration::CalibrationSource source;
    source.file = job.calibration_file;
    sources.push_back(source);
  }
  calibration::check_sources(sources);
  return sources;
}

Json describe(const calibration::SourceRows& read) {
  return {{"file", read.source.file.filename().string()},
          {"sha256", read.rows.sha256},
          {"domain", calibration::domain_of(read.source)},
          {"weight", read.source.weight ? Json(*read.source.weight) : Json()},
          {"samples", read.source.samples},
          {"rows", read.rows.rows.size()},
          {"record", read.rows.record ? calibration::to_json(*read.rows.record) : Json()}};
}

constexpr const char* kSelfGenerated = "self-generated";
constexpr uint64_t kLeastMemory = uint64_t{64} << 20;

// What a conversation begins with, up to the user's words, and what a document begins with.
std::vector<std::vector<models::TokenId>> openings(const std::filesystem::path& folder, const models::DecoderConfig& config,
                                                   const models::Tokenizer* tokenizer) {
  std::vector<std::vector<models::TokenId>> result;
  if (tokenizer != nullptr && models::ChatTemplate::exists_in(folder)) {
    const std::string words = "Salient";
    const std::string text = models::ChatTemplate::from_folder(folder).render({{{"role", "user"}, {"content", words}}});
    if (const size_t at = text.find(words); at != std::string::npos && at > 0)
      result.push_back(tokenizer->encode(text.substr(0, at), /*add_special_tokens=*/false));
  }
  if (config.bos_token_id) {
    result.push_back({static_cast<models::TokenId>(*config.bos_token_id)});
  } else if (config.pad_token_id) {
    result.push_back({static_cast<models::TokenId>(*config.pad_token_id)});
  }
  return result;
}

// Only compensated rounding fits errors to the text.
bool wants_own_rows(const QuantizeJob& job) {
  const AwqOptions& awq = job.model.awq;
  return job.self_generated > 0 && row_of(awq.format).rounds && !awq.export_compatible &&
         awq.rounding.kind != quant::RoundingKind::kNearest;
}

// Of everything that decides the rows, their number aside.
std::string rows_key(const models::Checkpoint& checkpoint, const calibration::SelfGenerationOptions& options) {
  return sha256_hex(dump_json({{"version", SALIENT_VERSION},
                               {"source", hash_source_files(checkpoint.folder())},
                               {"row_tokens", options.row_tokens},
                               {"temperature", options.temperature},
                               {"seed", options.seed},
                               {"openings", options.openings},
                               {"end_ids", options.end_ids},
                               {"libtorch", TORCH_VERSION}}))
      .substr(0, 16);
}

void add_own_rows(const QuantizeJob& job, const models::Tokenizer* tokenizer, CalibrationInput& input) {
  const models::Checkpoint checkpoint(job.model.model_folder);
  const models::DecoderConfig config = models::load_decoder_config(checkpoint);
  const QuantizeEstimate estimate = estimate_quantize(config, job.model.awq, input.blocks.ids.numel(),
                                                      std::max(job.model.batch_tokens, input.blocks.ids.size(1)));
  calibration::SelfGenerationOptions options;
  options.tokens = std::max<int64_t>(
      options.row_tokens, static_cast<int64_t>(job.self_generated * static_cast<double>(input.blocks.statistics.tokens)));
  options.seed = input.seed.value_or(job.seed);
  options.openings = openings(job.model.model_folder, config, tokenizer);
  for (const int64_t id : config.eos_token_ids) options.end_ids.push_back(static_cast<models::TokenId>(id));
  check_room(job.model, config, input.blocks.ids.numel() + options.tokens, input.blocks.ids.size(1));
  // It runs before the blocks are quantized, and needs no more than they and the process itself are reckoned with.
  options.memory_bytes = std::max(estimate.block_bytes, kLeastMemory);
  options.on_progress = job.on_generation;
  options.ranks = job.model.ranks;
  if (!job.cache.empty()) options.cache = job.cache / "self_generated" / rows_key(checkpoint, options);
  calibration::weave_blocks(input.blocks, calibration::generate_rows(checkpoint, config, options), kSelfGenerated,
                            job.self_generated);
  return_free_memory();
  input.record["self_generated"] = {{"share", job.self_generated}, {"row_tokens", options.row_tokens}, {"seed", options.seed}};
}

CalibrationInput without_calibration() {
  CalibrationInput input;
  input.blocks = no_calibration();
  input.notes.emplace_back(
      "no calibration: the scales and clip ranges are given, weights are rounded to nearest; errors are those of the weights "
      "alone");
  return input;
}

}  // namespace

CalibrationInput prepare_calibration(const QuantizeJob& job) {
  const std::filesystem::path& folder = job.model.model_folder;
  // A model without a tokenizer can be calibrated on lists of ids.
  std::optional<models::Tokenizer> tokenizer;
  if (std::filesystem::exists(models::model_file(folder, "tokenizer.json"))) tokenizer = models::Tokenizer::from_folder(folder);
  const int64_t vocab_size = models::load_decoder_config(folder).vocab_size;
  const auto finder = calibration::ResponseFinder::from_folder(folder);
  calibration::CalibrationRowOptions row_options;
  row_options.render = job.render;
  row_options.find_responses = job.loss_mask == calibration::LossMask::kResponse;
  row_options.text_rows = job.text_rows;
  row_options.vocab_size = vocab_size;

  CalibrationInput input;
  std::vector<calibration::SourceRows> sources;
  for (const calibration::CalibrationSource& source : sources_of(job)) {
    sources.push_back({source, calibration::read_calibration_rows(source, finder, row_options)});
    const std::vector<std::string>& notes = sources.back().rows.notes;
    input.notes.insert(input.notes.end(), notes.begin(), notes.end());
  }
  calibration::TokenBlockOptions options;
  options.rows.max_seq_len = job.max_seq_len;
  options.rows.long_rows = long_rows_of(job);
  options.rows.loss_mask = job.loss_mask;
  options.rows.max_rows = job.samples;
  options.packing = job.packing;
  calibration::Mixture mixture = calibration::mix_rows(sources, tokenizer ? &*tokenizer : nullptr, options.rows, job.seed);
  input.notes.insert(input.notes.end(), mixture.notes.begin(), mixture.notes.end());
  if (mixture.rows.unanswered > 0) {
    input.notes.push_back(
        fmt::format("{} of {} calibration rows hold no answer of the assistant and were left out (loss_mask: response)",
                    mixture.rows.unanswered, mixture.rows.texts));
  }
  input.blocks = calibration::pack_blocks(mixture.rows, options);

  input.record = {{"max_seq_len", job.max_seq_len},
                  {"packing", job.packing == calibration::Packing::kConcat ? "concat" : "rows"},
                  {"long_rows", calibration::to_string(options.rows.long_rows)},
                  {"loss_mask", calibration::to_string(job.loss_mask)}};
  if (job.samples > 0) input.record["samples"] = job.samples;
  if (sources.size() == 1 && sources[0].source.samples == 0) {
    const calibration::SourceRows& only = sources[0];
    input.record["file"] = only.source.file.filename().string();
    input.record["sha256"] = only.rows.sha256;
    input.record["record"] = only.rows.record ? calibration::to_json(*only.rows.record) : Json();
    if (only.rows.record) input.seed = only.rows.record->seed;
  } else {
    input.seed = job.seed;
    input.record["seed"] = job.seed;
    input.record["sources"] = Json::array();
    for (const calibration::SourceRows& source : sources) input.record["sources"].push_back(describe(source));
  }
  if (wants_own_rows(job)) add_own_rows(job, tokenizer ? &*tokenizer : nullptr, input);
  input.coverage = calibration::coverage_of(input.blocks, vocab_size);
  input.record["tokens"] = calibration::to_json(input.blocks.statistics);
  input.record["coverage"] = calibration::to_json(input.coverage);
  return input;
}

PreparedJob prepare_job(const QuantizeJob& job) {
  check_quantization(job.model);
  if (job.model.on_message) {
    const models::DecoderConfig config = models::load_decoder_config(open_source(job.model.model_folder, job.model.awq));
    for (const std::string& line : engine_warnings(config, job.model.awq)) job.model.on_message(line);
  }
  const bool calibrates = !job.calibration_file.empty() || !job.sources.empty() || needs_calibration(job.model.awq);
  PreparedJob prepared{job.model, calibrates ? prepare_calibration(job) : without_calibration()};
  if (job.model.on_message) {
    for (const std::string& note : prepared.input.notes) job.model.on_message(note);
  }
  prepared.model.calibration_record = prepared.input.record;
  if (prepared.input.seed) prepared.model.seed = *prepared.input.seed;
  return prepared;
}

QuantizeJobResult run_quantize_job(const QuantizeJob& job) {
  const auto started = std::chrono::steady_clock::now();
  const FreedMemoryKept kept;
  const PreparedJob prepared = prepare_job(job);
  const CalibrationInput& input = prepared.input;
  QuantizeJobResult result{quantize_model(prepared.model, input.blocks), input.blocks.statistics, input.coverage, 0};
  add_reached(result.coverage, result.model.reports);
  if (job.model.on_message) {
    for (const std::string& line : warning_lines(result.model.reports)) job.model.on_message(line);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

Json summarize_reports(const std::vector<LinearReport>& reports) {
  double rtn = 0;
  double stored = 0;
  for (const LinearReport& report : reports) {
    rtn += report.rtn_error;
    stored += report.error;
  }
  return {{"linears", reports.size()}, {"rtn_error", rtn}, {"error", stored}, {"error_ratio", rtn > 0 ? stored / rtn : 1.0}};
}

}  // namespace salient::pipeline
