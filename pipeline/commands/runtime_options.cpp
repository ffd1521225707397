#include "pipeline/commands/runtime_options.h"

#include "pipeline/torch_options.h"

namespace salient::pipeline {

std::vector<OptionRow> with_runtime_rows(std::vector<OptionRow> rows) {
  rows.push_back({"dtype", "TYPE", "float32 (default) or bfloat16: of activations and float weights"});
  rows.push_back({"device", "DEVICE", "cpu (default) or cuda"});
  rows.push_back({"activation-bits", "N",
                  "8: inputs of quantized linears as int8, a scale for each token; 16: as computed. Default: as the model's files "
                  "say, else 16"});
  rows.push_back({"kv-bits", "N", "8: keys and values as int8; 16: as computed. Default: as the model's files say, else 16"});
  return rows;
}

std::vector<OptionRow> with_model_rows(std::vector<OptionRow> rows) {
  rows = with_runtime_rows(std::move(rows));
  rows.push_back({"trust-torchscript", "", "load models that are TorchScript, which runs their authors' code; refused without it"});
  return rows;
}

models::DecoderOptions decoder_options(const Arguments& arguments) {
  return {parse_dtype(arguments.text_or("dtype", "float32")), parse_device(arguments.text_or("device", "cpu")),
          arguments.runtime_bits("activation-bits"), arguments.runtime_bits("kv-bits")};
}

eval::LanguageModelOptions language_model_options(const Arguments& arguments) {
  eval::LanguageModelOptions options;
  options.decoder = decoder_options(arguments);
  options.bos = eval::parse_bos_policy(arguments.text_or("bos", "auto"));
  options.trust_torchscript = arguments.flag("trust-torchscript");
  return options;
}

}  // namespace salient::pipeline
