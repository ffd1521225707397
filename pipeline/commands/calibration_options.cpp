#include "pipeline/commands/calibration_options.h"

#include "common/error.h"
#include "pipeline/quantization_config.h"

namespace salient::pipeline {

OptionRow calibration_files_option() {
  return {"calib,calib-data", "FILES",
          "calibration rows, .jsonl, .json, .csv or .txt: texts, conversations or token lists; several files with weights: "
          "a.jsonl:2,b.txt:1; "
          "a folder holds one file a split",
          true};
}

std::vector<OptionRow> calibration_options() {
  return {
      {"packing", "KIND", "concat (default): texts joined and cut into blocks; rows: one text a block"},
      {"long-rows", "KIND", "of texts longer than a block: split (default), cut or discard"},
      {"discard-long-rows", "", "the same as --long-rows discard, AutoAWQ's way"},
      {"loss-mask", "KIND", "all (default), or response: statistics over the tokens of the assistant's answers only"},
      {"text-rows", "KIND", "what a row of a .txt file is: lines (default), paragraphs or file"},
      {"content", "KIND", "of conversations: conversation (default) or prompt, without the answer"},
      {"system-prompt", "TEXT", "of conversations that have none"},
      {"question-field", "NAME", "field of the user's question, where it is not one of the usual names"},
      {"answer-field", "NAME", "field of the assistant's answer"},
      {"seed", "N", "of the draw from several files; default 42"},
  };
}

void read_calibration(const Arguments& arguments, const std::string& split_name, bool optional, QuantizeJob& job) {
  std::vector<calibration::CalibrationSource> sources;
  for (const std::string& word : arguments.values("calib")) {
    // A path that is there as it stands may hold commas and colons.
    if (std::error_code ignored; std::filesystem::exists(word, ignored)) {
      sources.emplace_back().file = word;
      continue;
    }
    for (calibration::CalibrationSource& source : calibration::parse_sources(word)) sources.push_back(std::move(source));
  }
  if (sources.empty() && optional) {
    for (const OptionRow& row : calibration_options()) {
      if (!arguments.has(row.name)) continue;
      throw Error(ErrorKind::kInvalidArgument, fmt::format("--{} is about calibration rows, and there are none", row.name))
          .with_hint("name a file with --calib");
    }
    return;
  }
  if (sources.empty()) arguments.text("calib");  // says what is missing
  for (calibration::CalibrationSource& source : sources) source.file = resolve_split(source.file, split_name);
  if (sources.size() == 1) {
    job.calibration_file = sources.front().file;
  } else {
    job.sources = std::move(sources);
  }
  job.packing = calibration::parse_packing(arguments.text_or("packing", "concat"));
  job.long_rows = calibration::parse_long_rows(arguments.text_or("long-rows", "split"));
  job.discard_long_rows = arguments.flag("discard-long-rows");
  job.loss_mask = calibration::parse_loss_mask(arguments.text_or("loss-mask", "all"));
  job.text_rows = calibration::parse_text_rows(arguments.text_or("text-rows", "lines"));
  job.render.content = calibration::parse_content_mode(arguments.text_or("content", "conversation"));
  job.render.system_prompt = arguments.text_or("system-prompt", "");
  job.render.fields = {arguments.text_or("question-field", ""), arguments.text_or("answer-field", "")};
  job.seed = static_cast<uint64_t>(arguments.integer_or("seed", 42, 0, int64_t{1} << 62));
}

}  // namespace salient::pipeline
