#include "calibration/calibrate.h"
#include "common/error.h"
#include "common/table.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

const std::vector<OptionRow> kCalibrateOptions = {
    {"model,src", "DIR", "model folder with tokenizer and chat template, or org/name in the Hugging Face cache"},
    {"data", "FILE", "training set: JSON lines, JSON, CSV, TSV, Parquet or plain text"},
    {"dataset", "NAME", "its name in the file's name; default: the file's own"},
    {"samples", "N", "auto (default): 15 % of the rows, at least 8 and at most 128; or a number"},
    {"seed", "N", "of the sample; default 42"},
    {"content", "MODE",
     "conversation (default: measured better on held-out rows, docs/calibration.md): the answer too; prompt: system and user turns "
     "only"},
    {"system-prompt", "TEXT", "system turn; default: what the template does without one"},
    {"question-field", "NAME", "field of the user's turn; default: found by layout"},
    {"answer-field", "NAME", "field of the assistant's turn; default: found by layout"},
    {"max-seq-len", "N", "count texts longer than this, which quantization splits into several rows; default 512"},
    {"out", "DIR", "folder for the result; default: ."},
    {"txt", "", "write the older form too, one prompt a line"},
    {"keep-duplicates", "", "keep rows with equal texts"},
    {"allow-broken", "", "skip and count rows that cannot be read instead of failing"},
    {"overwrite", "", "replace files that exist with other content"},
    adapter_base_option(),
    {"json", "", "print the result as JSON"},
};

}  // namespace

void calibrate_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"calibrate", "",
       "Calibration prompts out of training data: a seeded sample of its rows, rendered with the model's chat template as in "
       "training. Writes\n"
       "calibration_<dataset>_<rows in the training set>samples.jsonl and a record of where it comes from.",
       "  salient calibrate --model models/demo --data models/demo/data/openmath_train.jsonl --dataset openmath\n"
       "  salient calibrate --model models/demo --data train.csv --samples 64 --question-field prompt --answer-field reply --out "
       "calib\n"},
      kCalibrateOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);

  calibration::CalibrateOptions options;
  options.model_folder = models::resolve_model_folder(arguments.text("model"));
  options.source = arguments.text("data");
  options.dataset = arguments.text_or("dataset", "");
  if (arguments.text_or("samples", "auto") != "auto") options.samples = arguments.integer_or("samples", 0, 1, 1 << 30);
  options.seed = static_cast<uint64_t>(arguments.integer_or("seed", 42, 0, INT64_MAX));
  if (arguments.has("content")) options.render.content = calibration::parse_content_mode(arguments.text("content"));
  options.render.system_prompt = arguments.text_or("system-prompt", "");
  options.render.fields = {arguments.text_or("question-field", ""), arguments.text_or("answer-field", "")};
  options.max_seq_len = arguments.integer_or("max-seq-len", 512, 1, 1 << 20);
  options.output_folder = arguments.text_or("out", ".");
  options.write_txt = arguments.flag("txt");
  options.keep_duplicates = arguments.flag("keep-duplicates");
  options.allow_broken = arguments.flag("allow-broken");
  options.overwrite = arguments.flag("overwrite");

  const calibration::CalibrateResult result = calibration::calibrate(options);
  if (arguments.flag("json")) {
    return print_json({{"texts", result.texts_file.string()},
                       {"record_file", result.record_file.string()},
                       {"record", calibration::to_json(result.record)},
                       {"notes", result.notes}});
  }
  for (const std::string& note : result.notes) print_note("note: " + note);
  const calibration::CalibrationRecord& record = result.record;
  print_text(fmt::format(
      "{}\n{} of {} rows, {} tokens ({} to {} a row, median {}), {} longer than {}, {} duplicates, content: {}\n",
      result.texts_file.string(), record.samples, record.dataset_rows, record.tokens.total, record.tokens.min, record.tokens.max,
      record.tokens.median, record.truncated, record.max_seq_len, record.duplicates, record.content));
}

}  // namespace salient::pipeline
