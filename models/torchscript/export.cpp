#include "models/torchscript/export.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "models/torchscript/decoder_node.h"
#include "models/torchscript/linear_node.h"
#include "models/torchscript/mlp_node.h"
#include "models/torchscript/scratch_file.h"
#include "models/torchscript/script_writer.h"

namespace salient::models {
namespace {

void count_linears(const ScriptNode& node, TorchscriptFile& counts) {
  if (node.kind.ends_with("FloatLinear")) ++counts.float_linears;
  if (node.kind.ends_with("PackedLinear") || node.kind.ends_with("ByteLinear")) ++counts.quantized_linears;
  for (const auto& [name, child] : node.children) count_linears(child, counts);
}

std::string quantization_of(const Json& config) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || !found->is_object()) return "none";
  return found->value("quant_method", std::string("unknown"));
}

}  // namespace

std::optional<std::string> torchscript_supports(const DecoderConfig& config) {
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention == AttentionKind::kLinear)
      return fmt::format("{}: linear attention (gated delta rule) has no TorchScript form here", config.model_type);
  }
  const bool xielu = !config.names[ParameterSlot::kXieluAlphaP].empty();
  if (!xielu && !activation_text(config.hidden_act, "x"))
    return fmt::format("{}: activation '{}' has no TorchScript form here", config.model_type, config.hidden_act);
  return std::nullopt;
}

TorchscriptFile export_torchscript(const Checkpoint& checkpoint, const std::filesystem::path& path,
                                   const TorchscriptOptions& options) {
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16 && options.dtype != at::kHalf)
    fail(ErrorKind::kUnsupported, "a TorchScript module cannot run in {}, only in float32, bfloat16 or float16",
         c10::toString(options.dtype));
  const DecoderConfig config = load_decoder_config(checkpoint);
  if (const auto reason = torchscript_supports(config)) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: cannot be exported as TorchScript: {}", checkpoint.folder().string(), *reason))
        .with_hint("export another format, or run the model with Salient");
  }
  const std::filesystem::path folder = path.parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  ScratchFile scratch(folder);
  const ScriptNode node = decoder_node({checkpoint, config, options.dtype, scratch});
  TorchscriptFile written;
  count_linears(node, written);
  const std::string source = options.source.empty() ? checkpoint.folder().filename().string() : options.source;
  const Json metadata = {{"salient", SALIENT_VERSION},
                         {"format", "torchscript"},
                         {"model_type", config.model_type},
                         {"dtype", c10::toString(options.dtype)},
                         {"source", source},
                         {"quantization", quantization_of(checkpoint.config())},
                         {"quantized_linears", written.quantized_linears},
                         {"float_linears", written.float_linears},
                         {"max_position_embeddings", config.max_position_embeddings},
                         {"vocab_size", config.vocab_size}};
  write_torchscript(path, node,
                    {{"config.json", dump_json(checkpoint.config(), 2) + "\n"}, {"salient.json", dump_json(metadata, 2) + "\n"}});
  written.bytes = std::filesystem::file_size(path);
  return written;
}

}  // namespace salient::models
