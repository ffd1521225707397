#include "pipeline/gguf_output.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include "common/error.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/streamed_head.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/gguf/gguf_metadata.h"
#include "models/gguf/gguf_tokenizer.h"
#include "models/io/model_files.h"
#include "models/io/model_folder.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/quantize_plan.h"
#include "quant/ggml_types.h"

namespace salient::pipeline {
namespace {

using quant::GgmlType;

// The type that holds values of a dtype exactly.
GgmlType float_type(at::ScalarType dtype) {
  return dtype == at::kHalf ? GgmlType::kF16 : dtype == at::kBFloat16 ? GgmlType::kBF16 : GgmlType::kF32;
}

at::ScalarType float_dtype(GgmlType type) {
  return type == GgmlType::kF16 ? at::kHalf : type == GgmlType::kBF16 ? at::kBFloat16 : at::kFloat;
}

constexpr std::string_view kHead = "output.weight";

bool in_blocks(GgmlType type) { return quant::ggml_type_info(type).block_elements > 1; }

}  // namespace

models::GgufHeader GgufContents::header() const {
  models::GgufHeader header;
  header.metadata = metadata;
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    header.tensors.push_back({plan.tensors[i].name, types[i], plan.tensors[i].shape, 0});
  return header;
}

GgufContents plan_gguf_contents(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                const models::GgufFormat& format, const std::string& name,
                                const models::GgufMixtureOptions& mixture) {
  GgufContents contents;
  contents.plan = models::plan_gguf_tensors(config);
  contents.types = models::gguf_mixture(format, config, contents.plan.tensors, mixture);
  contents.notes = contents.plan.notes;
  contents.metadata = models::gguf_metadata(config, {name, format.file_type_id});
  std::vector<models::GgufPair> tokenizer_pairs;
  if (const models::GgufCheckpoint* source = checkpoint.gguf()) {
    for (const models::GgufPair& pair : source->header().metadata) {
      if (pair.key.starts_with("tokenizer.")) tokenizer_pairs.push_back(pair);
    }
  } else if (std::filesystem::exists(models::model_file(checkpoint.folder(), "tokenizer.json"))) {
    models::GgufTokenizer tokenizer = models::gguf_tokenizer(checkpoint.folder(), config);
    tokenizer_pairs = std::move(tokenizer.pairs);
    contents.notes.insert(contents.notes.end(), tokenizer.notes.begin(), tokenizer.notes.end());
  } else {
    tokenizer_pairs = models::gguf_no_tokenizer();
  }
  for (models::GgufPair& pair : tokenizer_pairs) contents.metadata.push_back(std::move(pair));
  return contents;
}

GgufOutput::GgufOutput(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options) {
  const models::GgufFormat* format = gguf_format_of(options.format);
  if (format == nullptr) fail(ErrorKind::kInternal, "format {} is no GGUF file", to_string(options.format));
  file_ = fmt::format("model-{}.gguf", format->file_type);
  contents_ = plan_gguf_contents(checkpoint, config, *format, models::model_name(checkpoint.folder()), {.importance = true});
  for (size_t i = 0; i < contents_.plan.tensors.size(); ++i) {
    const models::GgufTensorPlan& tensor = contents_.plan.tensors[i];
    for (size_t part = 0; part < tensor.sources.size(); ++part)
      places_[tensor.sources[part]].push_back({i, tensor.stacked() ? static_cast<int64_t>(part) : -1});
  }
  head_source_ = models::head_tensor(config);
  for (const Place& place : places_.at(head_source_)) {  // of a tied head that has a tensor of its own, that one
    if (place.tensor == places_.at(head_source_).front().tensor || contents_.plan.tensors[place.tensor].name == kHead)
      head_ = place.tensor;
  }
  keep_ignored_in_float(checkpoint, config, options);
  check_places(checkpoint, config, options);
}

void GgufOutput::keep_ignored_in_float(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                       const AwqOptions& options) {
  std::map<size_t, int64_t> in_float;  // by tensor, of how many parts
  const auto count = [&](const models::LinearSpec& spec) {
    if (!spec.quantize || is_quantized(spec, options)) return;
    const std::string name = spec.name + ".weight";
    const auto places = places_.find(name);
    if (places == places_.end()) return;
    const size_t tensor = places->second.front().tensor;
    ++in_float[tensor];
    if (in_blocks(contents_.types[tensor])) {
      const std::string& source = spec.fused && checkpoint.contains(spec.fused->tensor) ? spec.fused->tensor : name;
      contents_.types[tensor] = float_type(checkpoint.info(source).dtype);
    }
  };
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    for (const models::LinearSpec& spec : layout.linears) count(spec);
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      for (const models::LinearSpec& spec : models::expert_layout(config, block, expert)) count(spec);
    }
  }
  for (const auto& [index, parts] : in_float) {
    const models::GgufTensorPlan& tensor = contents_.plan.tensors[index];
    if (parts == static_cast<int64_t>(tensor.sources.size())) continue;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{} of {} experts in '{}' are to stay in float: in a GGUF file all of them have one type", parts,
                            tensor.sources.size(), tensor.name))
        .with_hint("leave out all experts of a layer, or none");
  }
}

void GgufOutput::check_places(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                              const AwqOptions& options) const {
  const auto check = [&](const std::vector<models::PlannedTensor>& tensors) {
    for (const models::PlannedTensor& tensor : tensors) {
      if (places_.contains(tensor.name)) continue;
      fail(ErrorKind::kUnsupported, "{}: llama.cpp's '{}' has no tensor for {}", checkpoint.folder().string(),
           contents_.plan.architecture, tensor.name);
    }
  };
  const StoredDtype any = one_dtype(at::kFloat);
  const OuterTensors outer = plan_outer(config, any, &options);
  check(outer.before);
  check(outer.after);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) check(plan_block(config, block, options, any, &checkpoint));
}

models::ShardPlan GgufOutput::plan() const { return models::plan_gguf_shard(file_, contents_.header()); }

StoredDtype GgufOutput::stored() const {
  return [this](const std::string& name) {
    const auto places = places_.find(name);
    return places == places_.end() ? at::kFloat : float_dtype(contents_.types[places->second.front().tensor]);
  };
}

// As the writer's plan has it, of one expert where they are stacked.
at::Tensor GgufOutput::stored_form(size_t tensor, const at::Tensor& given) const {
  const models::GgufTensorPlan& plan = contents_.plan.tensors[tensor];
  const GgmlType type = contents_.types[tensor];
  if (given.scalar_type() == at::kByte) {  // rows of blocks are reordered as rows of values
    if (plan.transform != models::GgufTransform::kRopeRows) return given;
    return at::index_select(given, 0, models::rope_row_order(given.size(0), plan.heads));
  }
  const at::Tensor values = models::to_gguf(plan, given);
  if (!in_blocks(type)) return to_stored_dtype(values.to(at::kFloat), float_dtype(type), plan.name);
  return with_context(plan.name, [&] { return quant::quantize_ggml(values.view({-1, values.size(-1)}), type); });
}

TensorSink GgufOutput::sink(models::CheckpointWriter& writer) const {
  const auto put = [this, &writer](const std::string& name, const at::Tensor& tensor) {
    const auto places = places_.find(name);
    if (places == places_.end()) fail(ErrorKind::kInternal, "'{}' has no place in {}", name, file_);
    for (const Place& place : places->second) {
      const std::string& to = contents_.plan.tensors[place.tensor].name;
      const at::Tensor stored = stored_form(place.tensor, tensor);
      if (place.part < 0)
        writer.put(to, stored);
      else
        writer.put_part(to, place.part, stored);
    }
  };
  return {put,
          [](const std::string& name, int64_t, const at::Tensor&) { fail(ErrorKind::kInternal, "'{}' comes in parts", name); }};
}

std::optional<GgmlType> GgufOutput::head_type() const {
  if (!in_blocks(contents_.types[head_])) return std::nullopt;
  return contents_.types[head_];
}

void GgufOutput::put_head(models::CheckpointWriter& writer, const at::Tensor& blocks, const at::Tensor& values) const {
  for (const Place& place : places_.at(head_source_)) {
    writer.put(contents_.plan.tensors[place.tensor].name, place.tensor == head_ ? blocks : stored_form(place.tensor, values));
  }
}

void GgufOutput::put_constants(models::CheckpointWriter& writer) const {
  for (const models::GgufTensorPlan& tensor : contents_.plan.tensors) {
    if (tensor.sources.empty()) writer.put(tensor.name, at::tensor(tensor.values));
  }
}

}  // namespace salient::pipeline
