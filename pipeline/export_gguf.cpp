#include "pipeline/export_gguf.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <map>

#include "common/error.h"
#include "common/memory.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/decoder_config.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/gguf/gguf_metadata.h"
#include "models/gguf/gguf_tensors.h"
#include "models/io/gguf_writer.h"
#include "pipeline/gguf_output.h"
#include "quant/ggml_types.h"

namespace salient::pipeline {
namespace {

using models::Checkpoint;
using models::DecoderConfig;
using models::LinearSpec;

// Values by Hugging Face's names, whatever the checkpoint stores them in.
class Values {
 public:
  Values(const Checkpoint& checkpoint, const DecoderConfig& config) : checkpoint_(checkpoint) {
    const auto note = [&](const LinearSpec& spec) { linears_.emplace(spec.name + ".weight", spec); };
    for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
      const models::BlockLayout layout = models::block_layout(config, block);
      for (const LinearSpec& spec : layout.linears) note(spec);
      for (int64_t expert = 0; expert < layout.experts; ++expert) {
        for (const LinearSpec& spec : models::expert_layout(config, block, expert)) note(spec);
      }
    }
    LinearSpec head;
    head.name = std::string(config.names.lm_head);
    head.out_features = config.vocab_size;
    head.in_features = config.hidden_size;
    linears_.emplace(head.name + ".weight", head);
  }

  at::Tensor load(const std::string& name) const {
    if (checkpoint_.contains(name)) return checkpoint_.load(name, checkpoint_.info(name).shape, at::kFloat);
    const auto linear = linears_.find(name);
    if (linear == linears_.end()) return checkpoint_.load(name, {}, at::kFloat);  // says that it is not there
    LinearSpec spec = linear->second;
    spec.bias = false;
    return models::dense_weight(models::load_linear(checkpoint_, spec, at::kFloat));
  }

 private:
  const Checkpoint& checkpoint_;
  std::map<std::string, LinearSpec> linears_;
};

// AutoAWQ's divisors of an activation have no place in the file.
void refuse_activation_scales(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.names()) {
    if (!name.ends_with("act.scales") && !name.ends_with("gelu_impl.scales")) continue;
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: '{}': GGUF has no place for an activation's divisors", checkpoint.folder().string(), name))
        .with_hint("export the float model, or one that was quantized as compressed-tensors");
  }
}

}  // namespace

GgufExport export_gguf(const Checkpoint& checkpoint, const models::GgufFormat& format, const std::filesystem::path& file, const std::string& name) {
  const at::NoGradGuard no_grad;
  const DecoderConfig config = models::load_decoder_config(checkpoint);
  refuse_activation_scales(checkpoint);
  GgufContents contents = plan_gguf_contents(checkpoint, config, format, name);
  const models::GgufPlan& plan = contents.plan;
  const std::vector<quant::GgmlType>& types = contents.types;
  GgufExport result;
  result.notes = contents.notes;
  if (checkpoint.config().contains("quantization_config")) {
    result.notes.emplace_back("the model is quantized already, and is quantized again: a GGUF file made from the float model loses less");
  }
  models::GgufHeader header = contents.header();
  models::GgufWriter writer(file, std::move(header.metadata), std::move(header.tensors));
  const Values values(checkpoint, config);
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const models::GgufTensorPlan& tensor = plan.tensors[i];
    const auto append = [&](const at::Tensor& source) {
      const at::Tensor stored = models::to_gguf(tensor, source).to(at::kFloat).contiguous();
      writer.append(tensor.name, types[i] == quant::GgmlType::kF32 ? stored : quant::quantize_ggml(stored.view({-1, stored.size(-1)}), types[i]));
    };
    if (tensor.sources.empty()) append(at::tensor(tensor.values));
    for (const std::string& source : tensor.sources) append(values.load(source));
    return_free_memory();
  }
  writer.finish();
  result.bytes = writer.file_bytes();
  return result;
}

}  // namespace salient::pipeline
