#include "pipeline/quantize_job.h"

#include "calibration/calibration_set.h"
#include "models/text/tokenizer.h"

namespace salient::pipeline {

QuantizeJobResult run_quantize_job(QuantizeJob job) {
  const calibration::CalibrationSet set = calibration::read_calibration_set(job.calibration_file);
  if (job.model.on_message) {
    for (const std::string& note : set.notes) job.model.on_message(note);
  }
  calibration::TokenBlockOptions block_options;
  block_options.rows.max_seq_len = job.max_seq_len;
  block_options.rows.discard_long_rows = job.discard_long_rows;
  block_options.rows.max_rows = job.samples;
  block_options.rows.from_chat_template = set.from_chat_template();
  block_options.packing = job.packing;
  const auto tokenizer = models::Tokenizer::from_folder(job.model.model_folder);
  const calibration::TokenBlocks blocks = calibration::make_token_blocks(set.texts, tokenizer, block_options);

  job.model.calibration_record = {{"file", job.calibration_file.filename().string()},
                                  {"sha256", set.sha256},
                                  {"max_seq_len", job.max_seq_len},
                                  {"packing", job.packing == calibration::Packing::kConcat ? "concat" : "rows"},
                                  {"discard_long_rows", job.discard_long_rows},
                                  {"tokens", calibration::to_json(blocks.statistics)},
                                  {"record", set.record ? calibration::to_json(*set.record) : Json()}};
  if (set.record) job.model.seed = set.record->seed;
  return {quantize_model(job.model, blocks), blocks.statistics};
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
