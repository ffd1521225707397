#include "models/gguf/gguf_checkpoint.h"

#include "common/error.h"
#include "models/gguf/gguf_config.h"

namespace salient::models {
namespace {

void check_readable(const GgufFile& file, const GgufSummary& summary) {
  const std::string where = file.path().string();
  if (summary.kind == "imatrix") {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: is an importance matrix (general.type 'imatrix'), expected a model", where))
        .with_hint("name the GGUF file that holds the weights");
  }
  if (summary.split_count > 1) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: is one of {} parts of a model (split.count), expected a whole one", where, summary.split_count))
        .with_hint("join the parts with llama.cpp: llama-gguf-split --merge FIRST_PART OUT.gguf");
  }
  for (const GgufTensor& tensor : file.header().tensors) {
    const quant::GgmlTypeInfo& type = quant::ggml_type_info(tensor.type);
    if (type.dequantize != nullptr) continue;
    std::string known;
    for (const quant::GgmlTypeInfo& row : quant::ggml_types()) {
      if (row.dequantize != nullptr) known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    fail(ErrorKind::kUnsupported, "{}: tensor '{}' is of type {}, which cannot be read, only {}", where, tensor.name, type.name,
         known);
  }
}

// Another name of a configuration's key for how weights are stored, so that what asks for one sees that these are not float.
Json quantization_of(const GgufSummary& summary) {
  Json types = Json::object();
  for (const auto& [name, total] : summary.types) types[name] = total.tensors;
  return {{"quant_method", "gguf"},
          {"file_type", summary.file_type},
          {"bits_per_weight", summary.bits_per_weight()},
          {"tensor_types", types}};
}

Json config_of(const GgufFile& file, const GgufSummary& summary) {
  check_readable(file, summary);
  Json config = config_from_gguf(file);
  if (!summary.is_float()) config["quantization_config"] = quantization_of(summary);
  return config;
}

at::ScalarType loaded_type(quant::GgmlType type, GgufTransform transform) {
  if (transform == GgufTransform::kAddOne) return at::kFloat;  // minus one is not in the stored type's numbers
  return type == quant::GgmlType::kF16 ? at::kHalf : type == quant::GgmlType::kBF16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace

GgufCheckpoint::GgufCheckpoint(const std::filesystem::path& path)
    : file_(path),
      summary_(summarize_gguf(file_.header(), path.string())),
      config_(config_of(file_, summary_)),
      weights_(file_, parse_decoder_config(config_, path.string())) {
  for (const std::string& name : weights_.names()) {
    const GgufStored stored = weights_.stored(name);
    const uint64_t begin = file_.header().data_begin + stored.tensor->offset + stored.begin;
    tensors_.emplace(name,
                     TensorInfo{loaded_type(stored.tensor->type, stored.transform), stored.shape, begin, begin + stored.bytes});
  }
}

at::Tensor GgufCheckpoint::load(const std::string& name) const {
  const at::Tensor values = weights_.load(name);
  file_.release(weights_.stored(name).tensor->name);
  return values.to(tensors_.at(name).dtype).contiguous();
}

}  // namespace salient::models
