#include "common/error.h"
#include "common/json.h"
#include "common/text.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/export_model.h"

namespace salient::pipeline {
namespace {

const std::vector<OptionRow> kExportOptions = {
    {"model", "MODEL", "a folder or GGUF file that Salient reads, float or quantized, or org/name in the local Hugging Face cache"},
    {"format", "NAME",
     "gguf-f16, gguf-bf16, gguf-q8_0, gguf-q4_0, gguf-q4_k_s, gguf-q4_k_m, gguf-q5_k_m, gguf-q6_k: for llama.cpp;\n"
     "torchscript: one file for torch.jit.load in Python and C++;\n"
     "awq-gemm, awq-gemv, awq-gemv-fast, awq-marlin, compressed-tensors: of a model in another of them, without loss;\n"
     "float: a GGUF file, or a LoRA adapter with its base, as a folder of safetensors"},
    adapter_base_option(),
    {"out", "PATH", "a new folder, or a file ending in .gguf or .pt; it appears whole or not at all"},
    {"json", "", "print the result as JSON"},
};

}  // namespace

void export_command(const std::vector<std::string>& words) {
  const Arguments arguments({"export", "", "Writes a model in another format: the same weights, no calibration.",
                             "  salient export --model demo_awq --format torchscript --out demo_script\n"
                             "  salient eval demo_script/model.pt --tasks perplexity --data perplexity=heldout.txt\n"
                             "  salient export --model models/demo --format gguf-q4_k_m --out demo-Q4_K_M.gguf\n"
                             "  salient export --model demo_awq --format compressed-tensors --out demo_compressed\n"
                             "  salient export --model theirs-Q4_K_M.gguf --format float --out theirs\n"
                             "  salient export --model my-lora --adapter-base models/demo --format float --out merged\n"},
                            kExportOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  ExportOptions options;
  options.model_folder = models::resolve_model(arguments.text("model"));
  options.output = arguments.text("out");
  const std::string format = arguments.text("format");
  const ExportResult result = export_model(options, format);
  if (arguments.flag("json")) {
    Json files = Json::array();
    for (const auto& file : result.files) files.push_back(file.string());
    print_json({{"output", options.output.string()},
                {"format", format},
                {"files", files},
                {"bytes", result.bytes},
                {"notes", result.notes}});
    return;
  }
  for (const std::string& note : result.notes) print_note(note);
  print_text(fmt::format("{}: {}", options.output.string(), human_bytes(result.bytes)));
}

}  // namespace salient::pipeline
