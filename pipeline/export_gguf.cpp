#include "pipeline/export_gguf.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <map>
#include <optional>

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

// What lies in a source that is a GGUF file already, as it lies there: encoding the values of its blocks anew could give others.
class Blocks {
 public:
  Blocks(const Checkpoint& checkpoint, const models::GgufFormat& format) {
    if (checkpoint.gguf() == nullptr) return;
    file_.emplace(checkpoint.gguf()->path());
    const auto type = models::find_gguf_value<uint32_t>(file_->header(), "general.file_type");
    same_format_ = type && *type == format.file_type_id;
  }

  bool same_format() const { return same_format_; }

  // A file of this format has the mixture that it has: it may have been chosen with an importance matrix.
  void take_types(GgufContents& contents) const {
    for (size_t i = 0; same_format_ && i < contents.types.size(); ++i) {
      if (const models::GgufTensor* tensor = file_->find(contents.plan.tensors[i].name)) contents.types[i] = tensor->type;
    }
  }

  // The stored bytes, rows of blocks; undefined where there are none of this type and shape.
  at::Tensor find(const models::GgufTensorPlan& plan, quant::GgmlType type) const {
    const models::GgufTensor* tensor = file_ ? file_->find(plan.name) : nullptr;
    if (tensor == nullptr || tensor->type != type || tensor->shape != plan.shape) return {};
    return file_->view(plan.name);
  }

 private:
  std::optional<models::GgufFile> file_;
  bool same_format_ = false;
};

// AutoAWQ's divisors of an activation have no place in the file.
void refuse_activation_scales(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.names()) {
    if (!name.ends_with("act.scales") && !name.ends_with("gelu_impl.scales")) continue;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: '{}': GGUF has no place for an activation's divisors", checkpoint.folder().string(), name))
        .with_hint("export the float model, or one that was quantized as compressed-tensors");
  }
}

}  // namespace

GgufExport export_gguf(const Checkpoint& checkpoint, const models::GgufFormat& format, const std::filesystem::path& file,
                       const std::string& name) {
  const at::NoGradGuard no_grad;
  const DecoderConfig config = models::load_decoder_config(checkpoint);
  refuse_activation_scales(checkpoint);
  GgufContents contents = plan_gguf_contents(checkpoint, config, format, name);
  const Blocks blocks(checkpoint, format);
  blocks.take_types(contents);
  const models::GgufPlan& plan = contents.plan;
  const std::vector<quant::GgmlType>& types = contents.types;
  GgufExport result;
  result.notes = contents.notes;
  if (checkpoint.config().contains("quantization_config") && !blocks.same_format()) {
    result.notes.emplace_back(
        "the model is quantized already, and is quantized again: a GGUF file made from the float model loses less");
  }
  models::GgufHeader header = contents.header();
  models::GgufWriter writer(file, std::move(header.metadata), std::move(header.tensors));
  const Values values(checkpoint, config);
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const models::GgufTensorPlan& tensor = plan.tensors[i];
    if (const at::Tensor stored = blocks.find(tensor, types[i]); stored.defined()) {
      writer.append(tensor.name, stored);
      continue;
    }
    const auto append = [&](const at::Tensor& source) {
      const at::Tensor stored = models::to_gguf(tensor, source).to(at::kFloat).contiguous();
      writer.append(tensor.name, types[i] == quant::GgmlType::kF32
                                     ? stored
                                     : quant::quantize_ggml(stored.view({-1, stored.size(-1)}), types[i]));
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
