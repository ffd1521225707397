#include <algorithm>

#include "common/error.h"
#include "common/memory.h"
#include "common/table.h"
#include "common/text.h"
#include "models/io/model_folder.h"
#include "models/io/spec_json.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/quantize_job.h"
#include "pipeline/run_config.h"
#include "pipeline/torch_options.h"
#include "quant/awq_gemm.h"

namespace salient::pipeline {
namespace {

const std::vector<OptionRow> kRows = {
    {"model,src", "DIR", "float checkpoint: a folder, or org/name in the Hugging Face cache"},
    {"calib", "FILE", "calibration texts, .jsonl ({\"text\": ...} a line) or .txt (one a line); see salient calibrate"},
    {"out,dst", "DIR", "artifact folder to make; must not exist"},
    {"method", "NAME", "awq (default)"},
    {"bits", "N", "bits of a weight: 4 (default)"},
    {"group-size", "N", "input channels that share a scale, -1 = per channel; default 128"},
    {"symmetric", "", "no zero points"},
    {"keep-lm-head-fp16", "", "keep lm_head in float16: the default, and the only choice of this format"},
    {"samples", "N", "use the first N calibration texts; default: all"},
    {"max-seq-len", "N", "tokens of a calibration block; default 512"},
    {"packing", "KIND", "concat (default): texts joined and cut into blocks; rows: one text a block"},
    {"discard-long-rows", "", "leave out texts longer than a block, as AutoAWQ does, instead of cutting them"},
    {"n-grid", "N", "steps of the scale search; default 20"},
    {"duo-scaling", "MODE", "both (default), on or off: whether candidates use the weights' magnitudes too"},
    {"no-clip", "", "no clipping of weights"},
    {"no-propagate-error", "", "calibrate each block on the output of the float blocks before it"},
    {"ignore", "NAME", "modules that stay in float: a name (down_proj) or an expression (re:.*layers\\.0\\..*); may be repeated", true},
    {"mappings", "FILE", "YAML list of {smooth_layer, balance_layers} as in llm-compressor; default: every group that the tensors allow"},
    {"format", "NAME", "awq-gemm (default); smoothed: no rounding, the scaled float weights as a checkpoint like the source"},
    {"batch-tokens", "N", "tokens of a forward pass: bounds memory; default 4096"},
    {"max-memory", "SIZE", "refuse to start when more may be needed; default: what is free"},
    {"max-shard-size", "SIZE", "largest safetensors file; default 5GB"},
    {"device", "DEVICE", "cpu (default) or cuda: where the blocks run"},
    {"json", "", "print the result as JSON"},
};

AwqOptions awq_options(const Arguments& arguments) {
  AwqOptions awq;
  if (const std::string method = arguments.text_or("method", "awq"); method != "awq" && method != "AWQ") {
    fail(ErrorKind::kUnsupported, "salient quantize: --method {}: only awq is there", method);
  }
  awq.spec.weight_bits = static_cast<int>(arguments.integer_or("bits", 4, 2, 8));
  with_context("salient quantize: --bits", [&] { quant::check_awq_gemm(awq.spec); });
  awq.spec.group_size = arguments.integer_or("group-size", 128, -1, 1 << 20);
  awq.spec.zero_point = !arguments.flag("symmetric");
  awq.scale_search.grid = static_cast<int>(arguments.integer_or("n-grid", 20, 1, 1000));
  awq.scale_search.duo = quant::parse_duo_scaling(arguments.text_or("duo-scaling", "both"));
  awq.clip = !arguments.flag("no-clip");
  awq.propagate_error = !arguments.flag("no-propagate-error");
  for (const std::string& pattern : arguments.values("ignore")) awq.ignore.push_back(pattern);
  if (arguments.has("mappings")) awq.mappings = read_mappings(ConfigNode::load(arguments.text("mappings")));
  const std::string format = arguments.text_or("format", "awq-gemm");
  if (format != "awq-gemm" && format != "smoothed") {
    fail(ErrorKind::kInvalidArgument, "salient quantize: --format '{}': expected awq-gemm or smoothed", format);
  }
  awq.format = format == "smoothed" ? WeightFormat::kFloat : WeightFormat::kAwqGemm;
  return awq;
}

std::string make_summary(const QuantizeJobResult& result, double peak_mb) {
  std::vector<LinearReport> worst = result.model.reports;
  std::sort(worst.begin(), worst.end(), [](const LinearReport& a, const LinearReport& b) { return a.error > b.error; });
  if (worst.size() > 5) worst.resize(5);
  std::vector<std::vector<std::string>> rows;
  for (const LinearReport& report : worst) {
    rows.push_back({report.name, fmt::format("{:.3g}", report.rtn_error), fmt::format("{:.3g}", report.error),
                    fmt::format("{:.0f} %", 100 * report.error / std::max(report.rtn_error, 1e-30)),
                    fmt::format("{} {:.2f}", report.scale_kind, report.scale_ratio), fmt::format("{:.0f} %", 100 * report.clipped_share)});
  }
  if (rows.empty()) {
    return fmt::format("{}: smoothed, {}, {} calibration tokens, {}, peak memory {:.0f} MB\n", result.model.folder.string(),
                       human_bytes(result.model.bytes), result.tokens.tokens, human_duration(result.model.seconds), peak_mb);
  }
  const Json total = summarize_reports(result.model.reports);
  std::string text = fmt::format("{}: {} linears in 4 bits, {}, {} calibration tokens, {}, peak memory {:.0f} MB\n",
                                 result.model.folder.string(), result.model.reports.size(), human_bytes(result.model.bytes),
                                 result.tokens.tokens, human_duration(result.model.seconds), peak_mb);
  text += fmt::format("output error left of rounding to nearest: {:.0f} %; the linears with most of it:\n\n",
                      100 * total["error_ratio"].get<double>());
  return text + format_table({"Linear", "Rounding", "Stored", "Left", "Scale", "Clipped"}, rows);
}

}  // namespace

void quantize_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"quantize", "",
       "AWQ quantization of a float checkpoint, one block at a time, into an AutoAWQ GEMM folder that AutoAWQ, transformers and vLLM read.\n"
       "A job that was stopped goes on at the block where it was when the same command is given again.",
       "  salient quantize --model models/demo --calib calibration_openmath_2000samples.jsonl --out demo_awq\n"
       "  salient quantize --method awq --src models/demo --dst demo_awq --calib prompts.txt --bits 4 --group-size 128 --keep-lm-head-fp16\n"},
      kRows, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);

  QuantizeJob job;
  job.model.model_folder = models::resolve_model_folder(arguments.text("model"));
  job.calibration_file = arguments.text("calib");
  job.model.output = arguments.text("out");
  job.model.awq = awq_options(arguments);
  job.samples = arguments.integer_or("samples", 0, 0, 1 << 30);
  job.max_seq_len = arguments.integer_or("max-seq-len", 512, 1, 1 << 20);
  job.packing = calibration::parse_packing(arguments.text_or("packing", "concat"));
  job.discard_long_rows = arguments.flag("discard-long-rows");
  job.model.batch_tokens = arguments.integer_or("batch-tokens", 4096, 1, 1 << 24);
  job.model.max_memory_bytes = parse_size_option(arguments, "max-memory", 0);
  job.model.device = parse_device(arguments.text_or("device", "cpu"));
  job.model.max_shard_bytes = parse_size_option(arguments, "max-shard-size", 5'000'000'000);
  const bool json = arguments.flag("json");
  job.model.on_message = print_note;
  ProgressLine progress;
  job.model.on_progress = [&](int64_t done, int64_t total) { progress.show("quantize", "blocks", done, total); };

  const QuantizeJobResult result = run_quantize_job(std::move(job));
  progress.finish();
  const double peak_mb = static_cast<double>(peak_memory_bytes()) / 1e6;
  if (!json) return print_text(make_summary(result, peak_mb));
  Json output = {{"folder", result.model.folder.string()},
                 {"quantize_s", result.model.seconds},
                 {"peak_memory_mb", peak_mb},
                 {"bytes", result.model.bytes},
                 {"resumed_blocks", result.model.resumed_blocks},
                 {"calibration", calibration::to_json(result.tokens)},
                 {"summary", summarize_reports(result.model.reports)}};
  print_json(output);
}

}  // namespace salient::pipeline
