#include <algorithm>
#include <set>

#include "common/error.h"
#include "common/memory.h"
#include "common/table.h"
#include "common/text.h"
#include "models/io/model_folder.h"
#include "models/io/spec_json.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/calibration_options.h"
#include "pipeline/commands/command_ranks.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/commands/setting_options.h"
#include "pipeline/quantize_job.h"
#include "pipeline/recipe.h"
#include "pipeline/search_result.h"
#include "pipeline/torch_options.h"
#include "pipeline/warning_digest.h"

namespace salient::pipeline {
namespace {

constexpr const char* kCommand = "salient quantize";

std::vector<OptionRow> option_rows() {
  std::vector<OptionRow> rows = {
      {"model,src", "DIR", "float checkpoint: a folder, or org/name in the Hugging Face cache; or the folder of a LoRA adapter"},
      adapter_base_option(),
      calibration_files_option(),
      {"out,dst", "DIR", "artifact folder to make; must not exist"},
      {"recipe", "FILE", "llm-compressor's recipe.yaml: AWQModifier, QuantizationModifier, GPTQModifier; flags override it"},
      {"quant-config", "JSON",
       "AutoAWQ's quant_config, a file or the JSON itself: {\"w_bit\": 4, \"q_group_size\": 128}; overrides a recipe, flags "
       "override it"},
  };
  for (OptionRow& row : setting_options()) rows.push_back(std::move(row));
  rows.push_back({"keep-lm-head-fp16", "", "the same as --lm-head fp16: the default"});
  for (OptionRow& row : calibration_options()) rows.push_back(std::move(row));
  const std::vector<OptionRow> last = {
      {"device", "DEVICE", "cpu (default) or cuda: where the blocks run"},
      {"json", "", "print the result as JSON"},
  };
  rows.insert(rows.end(), last.begin(), last.end());
  return rows;
}

// Recipe, then quant_config, then flags: each replaces what stood before.
QuantizationConfig read_settings(const Arguments& arguments) {
  GivenSettings given;
  if (arguments.has("recipe")) {
    Recipe recipe = read_recipe(arguments.text("recipe"));
    for (const std::string& note : recipe.notes) print_note(note);
    given = std::move(recipe.settings);
  }
  if (arguments.has("quant-config"))
    given = override_settings(std::move(given), read_quant_config(arguments.text("quant-config"), kCommand));
  GivenSettings flags = given_settings(arguments, kCommand);
  if (arguments.flag("keep-lm-head-fp16"))
    add_setting(flags, "lm_head", ConfigNode::parse("fp16", "salient quantize: --keep-lm-head-fp16"));
  given = override_settings(std::move(given), flags);
  const QuantizationConfig config = make_quantization_config(given, kCommand);
  with_context(kCommand, [&] { check_stored(config.awq); });
  return config;
}

// "4 bits", "3, 4 and 8 bits".
std::string bits_text(const std::vector<LinearReport>& reports, int of_spec) {
  std::set<int> bits;
  for (const LinearReport& report : reports) bits.insert(report.bits > 0 ? report.bits : of_spec);
  std::string text;
  for (const int one : bits) text += fmt::format("{}{}", text.empty() ? "" : one == *bits.rbegin() ? " and " : ", ", one);
  return text + " bits";
}

// What a quantization without calibration took from a search that was made before.
std::string given_text(const AwqOptions& awq) {
  return awq.scale && awq.clip ? "scales and clip ranges" : awq.scale ? "scales" : "clip ranges";
}

std::string make_summary(const QuantizeJobResult& result, const AwqOptions& awq, double peak_mb) {
  const int bits = awq.spec.weight_bits;
  std::vector<LinearReport> worst = result.model.reports;
  std::sort(worst.begin(), worst.end(), [](const LinearReport& a, const LinearReport& b) { return a.error > b.error; });
  if (worst.size() > 5) worst.resize(5);
  std::vector<std::vector<std::string>> rows;
  for (const LinearReport& report : worst) {
    rows.push_back({report.name, fmt::format("{:.3g}", report.rtn_error), fmt::format("{:.3g}", report.error),
                    fmt::format("{:.0f} %", 100 * report.error / std::max(report.rtn_error, 1e-30)),
                    fmt::format("{} {:.2f}", report.scale_kind, report.scale_ratio),
                    fmt::format("{:.0f} %", 100 * report.clipped_share)});
  }
  const std::string coverage = "\n" + calibration::coverage_text(result.coverage);
  if (result.tokens.tokens == 0) {
    return fmt::format("{}: {} linears in {}, {}, {} as given, no calibration, {}, peak memory {:.0f} MB\n",
                       result.model.folder.string(), result.model.reports.size(), bits_text(result.model.reports, bits),
                       human_bytes(result.model.bytes), given_text(awq), human_duration(result.seconds), peak_mb);
  }
  if (rows.empty()) {
    return fmt::format("{}: smoothed, {}, {} calibration tokens, {}, peak memory {:.0f} MB\n", result.model.folder.string(),
                       human_bytes(result.model.bytes), result.tokens.tokens, human_duration(result.seconds), peak_mb) +
           coverage;
  }
  const Json total = summarize_reports(result.model.reports);
  std::string text = fmt::format("{}: {} linears in {}, {}, {} calibration tokens, {}, peak memory {:.0f} MB\n",
                                 result.model.folder.string(), result.model.reports.size(), bits_text(result.model.reports, bits),
                                 human_bytes(result.model.bytes), result.tokens.tokens, human_duration(result.seconds), peak_mb);
  text += fmt::format("output error left of rounding to nearest: {:.0f} %; the linears with most of it:\n\n",
                      100 * total["error_ratio"].get<double>());
  return text + format_table({"Linear", "Rounding", "Stored", "Left", "Scale", "Clipped"}, rows) + coverage;
}

}  // namespace

void quantize_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"quantize", "",
       "Quantization of a float checkpoint, one block at a time: by default AWQ into an AutoAWQ GEMM folder that AutoAWQ, "
       "transformers and vLLM read.\n"
       "A job that was stopped goes on at the block where it was when the same command is given again.\n"
       "mpirun -n N salient quantize ... shares the work out among N ranks (docs/cluster.md).\n\n"
       "Methods:  awq       scaling, clipping, compensated rounding\n"
       "          gptq      compensated rounding alone\n"
       "          adaround  clipping, rounding up or down by optimisation\n"
       "          rtn       every weight to its nearest code",
       "  salient quantize --model models/demo --calib calibration_openmath_2000samples.jsonl --out demo_awq\n"
       "  salient quantize --method awq --src models/demo --dst demo_awq --calib prompts.txt --bits 4 --group-size 128 "
       "--keep-lm-head-fp16\n"
       "  salient quantize --model models/demo --calib prompts.txt --out mixed --format compressed-tensors --bits 3 --override "
       "down_proj=bits:4\n"
       "  salient quantize --model models/demo --calib prompts.txt --out theirs --recipe recipe.yaml\n"},
      option_rows(), words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);

  const QuantizationConfig config = read_settings(arguments);
  QuantizeJob job;
  job.model.model_folder = models::resolve_model_folder(arguments.text("model"));
  read_calibration(arguments, config.split, !needs_calibration(config.awq), job);
  job.model.output = arguments.text("out");
  job.model.ranks = command_ranks();
  job.model.device = device_of_rank(parse_device(arguments.text_or("device", "cpu")), job.model.ranks);
  apply_to_job(config, job);
  const bool json = arguments.flag("json");
  job.model.on_message = print_note;
  ProgressLine progress;
  job.on_generation = [&](int64_t done, int64_t total) { progress.show("generate", "steps", done, total); };
  job.model.on_planning = [&](int64_t done, int64_t total) { progress.show("choose bits", "blocks", done, total); };
  job.model.on_progress = [&](int64_t done, int64_t total) { progress.show("quantize", "blocks", done, total); };

  const QuantizeJobResult result = run_quantize_job(job);
  progress.finish();
  if (is_shared(job.model.ranks) && !job.model.ranks->is_root()) return;  // the result is rank 0's
  const double peak_mb = static_cast<double>(peak_memory_bytes()) / 1e6;
  if (!json) return print_text(make_summary(result, config.awq, peak_mb));
  Json output = {{"folder", result.model.folder.string()},
                 {"quantize_s", result.seconds},
                 {"peak_memory_mb", peak_mb},
                 {"bytes", result.model.bytes},
                 {"resumed_blocks", result.model.resumed_blocks},
                 {"calibration", calibration::to_json(result.tokens)},
                 {"coverage", calibration::to_json(result.coverage)},
                 {"warnings", warnings_json(result.model.reports)},
                 {"summary", summarize_reports(result.model.reports)}};
  print_json(output);
}

}  // namespace salient::pipeline
