#include "common/error.h"
#include "common/text.h"
#include "models/io/detect.h"
#include "models/io/model_folder.h"
#include "models/io/spec_json.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

Json to_json(const models::DetectedModel& model) {
  Json evidence = Json::array();
  for (const models::Evidence& entry : model.evidence) evidence.push_back({{"source", entry.source}, {"finding", entry.finding}});
  return {{"format", model.format},
          {"method", model.method},
          {"spec", model.spec ? models::spec_to_json(*model.spec) : Json()},
          {"version", model.version},
          {"disk_bytes", model.disk_bytes},
          {"parameters", model.parameters},
          {"dtype_bytes", model.dtype_bytes},
          {"quantized_linears", model.quantized_linears},
          {"unquantized_linears", model.unquantized_linears},
          {"evidence", evidence},
          {"contradictions", model.contradictions}};
}

std::string to_text(const models::DetectedModel& model) {
  std::string text = fmt::format("format      {}{}\nmethod      {}\n", model.format,
                                 model.version.empty() ? "" : " (" + model.version + ")", model.method);
  if (model.spec) text += fmt::format("spec        {}\n", quant::to_string(*model.spec));
  if (model.parameters > 0) text += fmt::format("parameters  {:.4g} M\n", static_cast<double>(model.parameters) / 1e6);
  text += fmt::format("on disk     {}", human_bytes(model.disk_bytes));
  std::string separator = ": ";
  for (const auto& [dtype, bytes] : model.dtype_bytes) {
    text += fmt::format("{}{} {}", separator, dtype, human_bytes(bytes));
    separator = ", ";
  }
  text += fmt::format("\nlinears     {} quantized, {} not\nevidence\n", model.quantized_linears, model.unquantized_linears);
  for (const models::Evidence& entry : model.evidence) text += fmt::format("  {}: {}\n", entry.source, entry.finding);
  if (!model.contradictions.empty()) {
    text += "contradictions\n";
    for (const std::string& line : model.contradictions) text += fmt::format("  {}\n", line);
  }
  return text;
}

}  // namespace

void inspect_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"inspect", "MODEL",
       "Says what a model folder holds: format, method, bits, group size, sizes; and from which evidence: config.json,\n"
       "metadata, tensor names and shapes, the folder's name last. Sources that contradict each other are listed. A GGUF file "
       "tells its\n"
       "architecture, types, bits per weight, tokenizer and importance matrix.",
       "  salient inspect artifacts/Qwen3-Demo-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized\n"
       "  salient inspect demo-Q4_K_M.gguf\n"},
      {adapter_base_option(), {"json", "", "print the result as JSON"}}, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    fail(ErrorKind::kInvalidArgument, "salient inspect: found {} models, expected one", arguments.positional().size());
  }
  // A single GGUF or safetensors file may be named too.
  const std::string& name = arguments.positional().front();
  const std::filesystem::path path = models::resolve_model(name);
  const models::DetectedModel model = models::detect_model(path);
  if (arguments.flag("json")) return print_json(to_json(model));
  print_text(to_text(model));
}

}  // namespace salient::pipeline
