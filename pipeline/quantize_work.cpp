#include "pipeline/quantize_work.h"

#include <torch/version.h>

#include <cstddef>
#include <span>

#include "common/error.h"
#include "common/hash.h"
#include "models/io/spec_json.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/pad_intermediate.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/search_result.h"
#include "pipeline/source_files.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// Those that this process keeps hidden states of.
Share hidden_rows(const QuantizeWork& job) {
  const int64_t rows = job.tokens.ids.size(0);
  return job.is_shared() ? share_of(rows, job.options.ranks->rank(), job.options.ranks->size()) : Share{0, rows};
}

}  // namespace

QuantizeModelOptions normalized(QuantizeModelOptions options) {
  options.output = options.output.lexically_normal();
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "out/"
  if (options.output.empty() || options.output == ".") fail(ErrorKind::kInvalidArgument, "the output folder has no name");
  if (options.awq.export_compatible) options.awq.format = WeightFormat::kFloat;
  apply_gguf_format(options.awq);
  return options;
}

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

namespace {

// Empty where there is no such folder: opening it will say so.
Json state_before(const fs::path& model_folder) {
  return fs::is_directory(model_folder) ? source_state(model_folder) : Json::object();
}

}  // namespace

QuantizeWork::QuantizeWork(const QuantizeModelOptions& given, const calibration::TokenBlocks& calibration_tokens)
    : options(normalized(given)),
      tokens(calibration_tokens),
      source_state(options.source_state.is_null() ? state_before(options.model_folder) : options.source_state),
      checkpoint(open_source(options.model_folder, options.awq, &padding_notes)),
      config(models::load_decoder_config(checkpoint)),
      kept(plan_kept(checkpoint, config)),
      source_hashes(options.source_hashes.is_null() ? hash_source_files(checkpoint.folder()) : options.source_hashes),
      work(work_folder_of(options.output)) {
  options.awq.scale_dtype = packed_dtype(config, options.awq.format);
  options.awq.ggml_types = ggml_types(config, options.awq);
  if (gguf_format_of(options.awq.format) != nullptr) {
    gguf.emplace(checkpoint, config, options.awq);
    kept.clear();  // a file of its own, for llama.cpp
  }
  stored = gguf ? gguf->stored() : stored_dtypes(checkpoint, config, options.awq);
  inputs = {{"version", SALIENT_VERSION},
            {kSourceInput, source_hashes},
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
            {"max_shard_bytes", options.max_shard_bytes}};
  // The processor's sums are those of the token blocks, one after the other, however many are run at a time.
  if (!options.device.is_cpu()) inputs["batch_tokens"] = options.batch_tokens;
  if (is_shared()) {  // sums have another order
    inputs["ranks"] = options.ranks->size();
    inputs["device"] = at::Device(options.device.type()).str();  // each rank has one of its own
  }
  fingerprint = sha256_hex(dump_json(inputs));
}

fs::path QuantizeWork::hidden_path(int64_t block) const {
  return hidden_file(work, block, is_shared() ? options.ranks->rank() : 0);
}

ActivationFile QuantizeWork::create_hidden(int64_t block) const {
  const Share rows = hidden_rows(*this);
  return ActivationFile::create(hidden_path(block), {rows.count, tokens.ids.size(1), config.hidden_size}, rows.begin);
}

ActivationFile QuantizeWork::open_hidden(int64_t block) const {
  const Share rows = hidden_rows(*this);
  return ActivationFile::open(hidden_path(block), {rows.count, tokens.ids.size(1), config.hidden_size}, rows.begin);
}

CalibrationPass QuantizeWork::make_pass() const {
  const quant::RoundingOptions& rounding = options.awq.rounding;
  const bool hold_back = rounding.kind == quant::RoundingKind::kGram && !rounding.off_diagonal;
  CalibrationPass pass(config, tokens, options.device, options.batch_tokens, hold_back, options.awq.rows_curve);
  if (is_shared()) pass.share_over(*options.ranks);
  return pass;
}

ActivationFile QuantizeWork::embed(const CalibrationPass& pass) const {
  ActivationFile hidden = create_hidden(0);
  const Share& rows = pass.own_rows();
  embed_tokens(checkpoint, config, tokens.ids.narrow(0, rows.begin, rows.count), pass.rows_of_batch(), hidden);
  hidden.sync();
  return hidden;
}

}  // namespace salient::pipeline
