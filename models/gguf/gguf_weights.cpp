#include "models/gguf/gguf_weights.h"

#include <unordered_set>

#include "common/error.h"
#include "quant/ggml_types.h"

namespace salient::models {
namespace {

// A matrix of one row may be stored as a vector.
std::vector<int64_t> without_leading_ones(std::vector<int64_t> shape) {
  while (shape.size() > 1 && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

}  // namespace

GgufWeights::GgufWeights(const GgufFile& file, const DecoderConfig& config) : file_(file), plan_(plan_gguf_tensors(config)) {
  const std::string where = file.path().string();
  std::unordered_set<std::string> known{"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};
  for (size_t index = 0; index < plan_.tensors.size(); ++index) {
    const GgufTensorPlan& plan = plan_.tensors[index];
    known.insert(plan.name);
    if (plan.sources.empty()) continue;  // the rotary embedding has it from the metadata already
    const GgufTensor* const found = file.find(plan.name);
    if (found == nullptr)
      fail(ErrorKind::kCorruption, "{}: the tensor '{}' of '{}' is missing", where, plan.name, plan_.architecture);
    if (without_leading_ones(found->shape) != without_leading_ones(plan.shape)) {
      fail(ErrorKind::kCorruption, "{}: tensor '{}': found shape [{}], expected [{}] after the metadata", where, plan.name,
           fmt::join(found->shape, ", "), fmt::join(plan.shape, ", "));
    }
    for (size_t part = 0; part < plan.sources.size(); ++part) {
      if (places_.emplace(plan.sources[part], Place{index, plan.stacked() ? static_cast<int64_t>(part) : -1}).second)
        names_.push_back(plan.sources[part]);
    }
  }
  for (const GgufTensor& tensor : file.header().tensors) {
    if (!known.contains(tensor.name))
      fail(ErrorKind::kCorruption, "{}: tensor '{}' is none of those that '{}' has", where, tensor.name, plan_.architecture);
  }
}

const GgufWeights::Place& GgufWeights::place(const std::string& name) const {
  const auto place = places_.find(name);
  if (place == places_.end()) fail(ErrorKind::kNotFound, "{}: no tensor for '{}'", file_.path().string(), name);
  return place->second;
}

at::Tensor GgufWeights::load(const std::string& name) const {
  const Place& found = place(name);
  const GgufTensorPlan& plan = plan_.tensors[found.tensor];
  if (found.part < 0) return from_gguf(plan, file_.read(plan.name));
  const int64_t rows = plan.shape[1];
  const at::Tensor part = file_.view(plan.name).narrow(0, found.part * rows, rows);
  return from_gguf(plan, quant::dequantize_ggml(part, file_.tensor(plan.name).type));
}

GgufStored GgufWeights::stored(const std::string& name) const {
  const Place& found = place(name);
  const GgufTensorPlan& plan = plan_.tensors[found.tensor];
  GgufStored result{&file_.tensor(plan.name), plan.transform, plan.shape, 0, 0};
  result.bytes = gguf_data_bytes(*result.tensor);
  if (found.part < 0) return result;
  result.shape.erase(result.shape.begin());
  result.bytes /= static_cast<uint64_t>(plan.shape.front());
  result.begin = static_cast<uint64_t>(found.part) * result.bytes;
  return result;
}

}  // namespace salient::models
