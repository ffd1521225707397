#include "pipeline/quantize_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/error.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/streamed_head.h"
#include "models/decoder/wrappers.h"
#include "pipeline/awq_linear.h"
#include "pipeline/bit_measurement.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/runtime_scheme.h"
#include "pipeline/weight_format_compressed.h"
#include "quant/affine.h"

namespace salient::pipeline {
namespace {

using models::BlockLayout;
using models::DecoderConfig;
using models::LinearSpec;
using models::PlannedTensor;

// Of the process before any tensor is loaded: libtorch and its threads.
constexpr uint64_t kProcessBytes = 200'000'000;

// What is searched must have a group size that divides, whether it is rounded or only smoothed; what is rounded must fit the
// format.
void check_linear_fits(const LinearSpec& spec, const AwqOptions& options) {
  if (is_quantized(spec, options)) {
    check_linear(options.format, options.spec, spec, setting_of(options, spec.name));
  } else if (is_searched(spec, options)) {
    with_context(spec.name, [&] { quant::resolve_group_size(setting_of(options, spec.name).group_size, spec.in_features); });
  }
}

void check_linears(const std::vector<LinearSpec>& linears, const AwqOptions& options) {
  for (const LinearSpec& spec : linears) {
    try {
      check_linear_fits(spec, options);
    } catch (Error& error) {
      const bool by_width = error.kind() == ErrorKind::kInvalidArgument && spec.input.slot == models::InputSlot::kMlpHidden;
      if (by_width && options.pad_intermediate == 0)
        error.with_hint(fmt::format("{}{}--pad-intermediate auto makes the MLP wider by zeros", error.hint(),
                                    error.hint().empty() ? "" : "; or "));
      throw;
    }
  }
}

void plan_float(std::vector<PlannedTensor>& plan, const LinearSpec& spec, const StoredDtype& stored) {
  plan.push_back({spec.name + ".weight", stored(spec.name + ".weight"), {spec.out_features, spec.in_features}});
  if (spec.bias) plan.push_back({spec.name + ".bias", stored(spec.name + ".bias"), {spec.out_features}});
}

std::vector<int64_t> fused_shape(const LinearSpec& spec, int64_t experts) {
  const models::FusedPart& part = *spec.fused;
  return part.transposed ? std::vector<int64_t>{experts, spec.in_features, part.rows}
                         : std::vector<int64_t>{experts, part.rows, spec.in_features};
}

// Names and shapes as the source has them.
void expect_linear(std::map<std::string, std::vector<int64_t>>& expected, const LinearSpec& spec, int64_t experts, bool fused) {
  if (fused) {
    expected[spec.fused->tensor] = fused_shape(spec, experts);
    if (!spec.fused->bias.empty()) expected[spec.fused->bias] = {experts, spec.fused->rows};
    return;
  }
  expected[spec.name + ".weight"] = {spec.out_features, spec.in_features};
  if (spec.bias) expected[spec.name + ".bias"] = {spec.out_features};
}

void expect_norm(std::map<std::string, std::vector<int64_t>>& expected, const models::NormSpec& spec) {
  if (!spec.affine) return;
  const bool together = spec.heads > 0 && spec.names.size() == 1;
  const std::vector<int64_t> shape =
      together ? std::vector<int64_t>{spec.heads, spec.features} : std::vector<int64_t>{spec.features};
  for (const std::string& name : spec.names) {
    expected[name + ".weight"] = shape;
    if (spec.bias) expected[name + ".bias"] = shape;
  }
}

bool has_fused(const models::Checkpoint& checkpoint, const LinearSpec& spec) {
  return spec.fused && checkpoint.contains(spec.fused->tensor);
}

// "" = must not be left out. Buffers that old files carry, and the layers of multi-token prediction behind the last block.
std::string why_redundant(const DecoderConfig& config, const std::string& name) {
  for (const char* buffer :
       {"inv_freq", ".attention.bias", ".attention.masked_bias", ".attn.bias", ".attn.masked_bias", "decoder.version"}) {
    if (name.ends_with(buffer)) return "follows from the config";
  }
  if (config.tie_word_embeddings && name == std::string(config.names.lm_head) + ".weight") return "is the embedding once more";
  if (name.starts_with("mtp.") || name.find(".mtp") != std::string::npos) return "serves speculative decoding only";
  const std::string prefix(config.names.block_prefix);
  if (!name.starts_with(prefix)) return "";
  const int64_t block = std::atoll(name.c_str() + prefix.size());
  return block >= config.num_hidden_layers ? "serves speculative decoding only" : "";
}

bool is_kept(const DecoderConfig& config, const std::string& name) {
  return config.text_spelling != nullptr && models::is_other_part(*config.text_spelling, name);
}

// "vision_tower", "multi_modal_projector": what the tensors belong to.
std::set<std::string> parts_of(const std::vector<PlannedTensor>& kept) {
  std::set<std::string> parts;
  for (const PlannedTensor& tensor : kept) parts.emplace(models::part_of(tensor.name));
  parts.erase("");
  return parts;
}

uint64_t bytes_of(const std::vector<PlannedTensor>& plan) {
  uint64_t total = 0;
  for (const PlannedTensor& tensor : plan) total += models::data_bytes(tensor);
  return total;
}

// Elements of one block, as far as they are in memory at a time.
struct BlockSize {
  uint64_t floats = 0;  // attention, norms, dense MLP or shared expert, and one expert
  uint64_t largest_linear = 0;
  uint64_t grams = 0;  // Gram matrices of all inputs
  uint64_t largest_gram = 0;
  uint64_t widest_hidden = 0;  // channels of the widest MLP
};

BlockSize size_of_block(const DecoderConfig& config, int64_t block) {
  const BlockLayout layout = models::block_layout(config, block);
  std::vector<LinearSpec> linears = layout.linears;
  if (layout.experts > 0) {
    for (LinearSpec& spec : models::expert_layout(config, block, 0)) linears.push_back(std::move(spec));
  }
  BlockSize size;
  std::set<models::InputId> inputs;
  for (const LinearSpec& spec : linears) {
    const auto elements = static_cast<uint64_t>(spec.out_features * spec.in_features);
    size.floats += elements;
    size.largest_linear = std::max(size.largest_linear, elements);
    if (spec.input.slot == models::InputSlot::kMlpHidden)
      size.widest_hidden = std::max(size.widest_hidden, static_cast<uint64_t>(spec.in_features));
    if (!inputs.insert(spec.input).second) continue;
    const auto gram = static_cast<uint64_t>(spec.in_features * spec.in_features);
    size.grams += gram;
    size.largest_gram = std::max(size.largest_gram, gram);
  }
  return size;
}

// Tokens of the sample that measure_modules carries through the model at once: whole rows, of which a long one is at most a batch.
int64_t sample_tokens(int64_t calibration_tokens, int64_t batch_tokens) {
  return std::min(calibration_tokens, std::max(2 * kSampleTokens, batch_tokens));
}

// Elements of the logits that it compares at a time, and of the piece of the head that they come from, as stored and converted.
uint64_t measured_logits(const DecoderConfig& config, int64_t tokens) {
  const int64_t head = 2 * std::min(models::kHeadPieceRows, config.vocab_size) * config.hidden_size;
  return static_cast<uint64_t>(kLogitsCopies * std::min(logits_tokens(config), tokens) * config.vocab_size + head);
}

}  // namespace

StoredDtype one_dtype(at::ScalarType dtype) {
  return [dtype](const std::string&) { return dtype; };
}

at::ScalarType packed_dtype(const models::DecoderConfig& config, WeightFormat format) {
  return format == WeightFormat::kCompressedTensors && config.dtype == at::kBFloat16 ? at::kBFloat16 : at::kHalf;
}

StoredDtype stored_dtypes(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options) {
  if (row_of(options.format).packed) return one_dtype(packed_dtype(config, options.format));
  // Products of codes and float16 scales are exact in float32 only.
  if (options.format == WeightFormat::kDequantized) return one_dtype(at::kFloat);
  return [&checkpoint](const std::string& tensor) { return checkpoint.info(tensor).dtype; };
}

bool quantizes_head(const AwqOptions& options) {
  return row_of(options.format).packed && options.spec.lm_head == quant::HeadDtype::kInt8;
}

LinearSpec head_spec(const DecoderConfig& config) {
  LinearSpec spec;
  spec.name = config.names.lm_head;
  spec.out_features = config.vocab_size;
  spec.in_features = config.hidden_size;
  return spec;
}

OuterTensors plan_outer(const DecoderConfig& config, const StoredDtype& stored, const AwqOptions* options) {
  const models::TensorNames& names = config.names;
  const std::vector<int64_t> matrix{config.vocab_size, config.hidden_size};
  OuterTensors outer;
  const auto add = [&](std::vector<PlannedTensor>& list, const std::string& name, const std::vector<int64_t>& shape) {
    list.push_back({name, stored(name), shape});
  };
  const auto add_norm = [&](std::vector<PlannedTensor>& list, std::string_view module) {
    if (module.empty() || !config.norm_affine) return;
    add(list, std::string(module) + ".weight", {config.hidden_size});
    if (config.norm_bias) add(list, std::string(module) + ".bias", {config.hidden_size});
  };
  add(outer.before, std::string(names.embedding), matrix);
  if (!names.position_embedding.empty()) {
    add(outer.before, std::string(names.position_embedding), {config.learned_positions, config.hidden_size});
  }
  add_norm(outer.before, names.embedding_norm);
  add_norm(outer.after, names.final_norm);
  const std::string head = std::string(names.lm_head) + ".weight";
  if (options != nullptr && quantizes_head(*options)) {
    outer.head = planned_tensors(options->format, head_spec(config), kHeadSetting, stored(head));
  } else if (!config.tie_word_embeddings) {
    add(outer.after, head, matrix);
  }
  if (config.lm_head_bias) add(outer.after, std::string(names.lm_head) + ".bias", {config.vocab_size});
  return outer;
}

std::vector<PlannedTensor> plan_block(const DecoderConfig& config, int64_t block, const AwqOptions& options,
                                      const StoredDtype& stored, const models::Checkpoint* checkpoint) {
  const BlockLayout layout = models::block_layout(config, block);
  std::vector<PlannedTensor> plan;
  const auto add_linear = [&](const LinearSpec& spec) {
    if (is_quantized(spec, options) && gguf_format_of(options.format) == nullptr) {
      for (PlannedTensor& tensor :
           planned_tensors(options.format, spec, setting_of(options, spec.name), stored(spec.name + ".weight")))
        plan.push_back(std::move(tensor));
    } else {
      plan_float(plan, spec, stored);
    }
  };
  check_linears(layout.linears, options);
  for (const LinearSpec& spec : layout.linears) add_linear(spec);
  for (const models::NormSpec& spec : layout.norms) {
    std::map<std::string, std::vector<int64_t>> tensors;
    expect_norm(tensors, spec);
    for (const auto& [name, shape] : tensors) plan.push_back({name, stored(name), shape});
  }
  for (const models::ParameterSpec& spec : layout.parameters) {
    if (spec.slot == models::ParameterSlot::kActivationScales) {
      if (holds_activation_scales(options.format)) plan.push_back({spec.name, stored(spec.name), spec.shape});
      continue;
    }
    if (spec.optional && checkpoint != nullptr && !checkpoint->contains(spec.name)) continue;
    plan.push_back({spec.name, checkpoint == nullptr ? at::kFloat : checkpoint->info(spec.name).dtype, spec.shape});
  }
  for (PlannedTensor& scale : plan_kv_scales(config, block, options, stored)) plan.push_back(std::move(scale));
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const std::vector<LinearSpec> specs = models::expert_layout(config, block, expert);
    check_linears(specs, options);
    if (!row_of(options.format).keeps_layout() || !specs.front().fused) {
      for (const LinearSpec& spec : specs) add_linear(spec);
    } else if (expert == 0) {
      std::map<std::string, std::vector<int64_t>> tensors;
      for (const LinearSpec& spec : specs) expect_linear(tensors, spec, layout.experts, /*fused=*/true);
      for (const auto& [name, shape] : tensors) plan.push_back({name, stored(name), shape});
    }
  }
  return plan;
}

std::vector<PlannedTensor> plan_kept(const models::Checkpoint& checkpoint, const DecoderConfig& config) {
  std::vector<PlannedTensor> kept;
  for (const std::string& name : checkpoint.names()) {
    if (!is_kept(config, name)) continue;
    const models::TensorInfo& info = checkpoint.info(name);
    kept.push_back({name, info.dtype, info.shape});
  }
  return kept;
}

std::vector<std::string> check_tensors(const models::Checkpoint& checkpoint, const DecoderConfig& config) {
  std::map<std::string, std::vector<int64_t>> expected;
  const OuterTensors outer = plan_outer(config, one_dtype(at::kFloat));
  for (const auto* list : {&outer.before, &outer.after}) {
    for (const PlannedTensor& tensor : *list) expected[tensor.name] = tensor.shape;
  }
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockLayout layout = models::block_layout(config, block);
    for (const LinearSpec& spec : layout.linears) expect_linear(expected, spec, 0, /*fused=*/false);
    for (const models::NormSpec& spec : layout.norms) expect_norm(expected, spec);
    for (const models::ParameterSpec& spec : layout.parameters) {
      if (!spec.optional || checkpoint.contains(spec.name)) expected[spec.name] = spec.shape;
    }
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      for (const LinearSpec& spec : models::expert_layout(config, block, expert)) {
        expect_linear(expected, spec, layout.experts, has_fused(checkpoint, spec));
      }
    }
  }
  for (const auto& [name, shape] : expected) {
    if (const auto& info = checkpoint.info(name); info.shape != shape) {
      fail(ErrorKind::kCorruption, "{}: {}: shape is [{}], expected [{}] from config.json", checkpoint.folder().string(), name,
           fmt::join(info.shape, ", "), fmt::join(shape, ", "));
    }
  }
  std::map<std::string, int64_t> left_out;
  for (const std::string& name : checkpoint.names()) {
    if (expected.contains(name) || is_kept(config, name)) continue;
    const std::string why = why_redundant(config, name);
    if (why.empty()) {
      fail(ErrorKind::kUnsupported, "{}: tensor {} is not part of architecture {} as config.json describes it, it would be lost",
           checkpoint.folder().string(), name, config.model_type);
    }
    if (why.starts_with("serves")) ++left_out[why];
  }
  std::vector<std::string> notes;
  if (const std::vector<PlannedTensor> kept = plan_kept(checkpoint, config); !kept.empty()) {
    notes.push_back(
        fmt::format("{} tensors of the vision part ({}) are kept as they are", kept.size(), fmt::join(parts_of(kept), ", ")));
  }
  for (const auto& [why, count] : left_out) notes.push_back(fmt::format("{} tensors are left out: what they hold {}", count, why));
  return notes;
}

std::vector<std::string> float_modules(const DecoderConfig& config, const AwqOptions& options,
                                       const std::vector<PlannedTensor>& kept) {
  std::vector<std::string> linears;
  const auto add = [&](const std::vector<LinearSpec>& specs) {
    for (const LinearSpec& spec : specs) {
      if (!is_quantized(spec, options)) linears.push_back(spec.name);
    }
  };
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockLayout layout = models::block_layout(config, block);
    add(layout.linears);
    for (int64_t expert = 0; expert < layout.experts; ++expert) add(models::expert_layout(config, block, expert));
  }
  return float_modules(config, options.format, linears, kept);
}

std::vector<std::string> float_modules(const DecoderConfig& config, WeightFormat format, const std::vector<std::string>& linears,
                                       const std::vector<PlannedTensor>& kept) {
  std::vector<std::string> modules;
  const auto add_name = [&](std::string_view name) {
    const bool short_name = config.text_spelling != nullptr && !row_of(format).awq_version.empty();
    modules.emplace_back(short_name ? models::without_spelling(*config.text_spelling, name) : name);
  };
  const bool by_expression = format == WeightFormat::kCompressedTensors;
  for (const std::string& part : parts_of(kept)) {
    if (by_expression) {
      modules.push_back(part_pattern(part));
      continue;
    }
    modules.push_back(part);             // AutoAWQ and vLLM look for it anywhere in a name
    modules.push_back("model." + part);  // transformers at the beginning
  }
  for (const std::string& linear : linears) add_name(linear);
  if (!modules.empty()) add_name(config.names.lm_head);
  return modules;
}

std::map<std::string, LinearSetting> quantized_modules(const DecoderConfig& config, const AwqOptions& options) {
  std::map<std::string, LinearSetting> modules;
  const auto add = [&](const std::vector<LinearSpec>& specs) {
    for (const LinearSpec& spec : specs) {
      if (is_quantized(spec, options)) modules[spec.name] = setting_of(options, spec.name);
    }
  };
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockLayout layout = models::block_layout(config, block);
    add(layout.linears);
    for (int64_t expert = 0; expert < layout.experts; ++expert) add(models::expert_layout(config, block, expert));
  }
  if (quantizes_head(options)) modules[std::string(config.names.lm_head)] = kHeadSetting;
  return modules;
}

QuantizeEstimate estimate_quantize(const DecoderConfig& config, const AwqOptions& options, int64_t calibration_tokens,
                                   int64_t batch_tokens) {
  const at::ScalarType dtype = row_of(options.format).packed                  ? at::kHalf
                               : options.format == WeightFormat::kDequantized ? at::kFloat
                                                                              : config.dtype;
  const StoredDtype stored = one_dtype(dtype);
  BlockSize most;
  uint64_t disk = 0;
  bool mixture = false;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockSize size = size_of_block(config, block);
    most.floats = std::max(most.floats, size.floats);
    most.largest_linear = std::max(most.largest_linear, size.largest_linear);
    most.grams = std::max(most.grams, size.grams);
    most.largest_gram = std::max(most.largest_gram, size.largest_gram);
    most.widest_hidden = std::max(most.widest_hidden, size.widest_hidden);
    mixture |= config.layers[static_cast<size_t>(block)].moe;
    disk += bytes_of(plan_block(config, block, options, stored));
  }
  const OuterTensors outer = plan_outer(config, stored, &options);
  disk += bytes_of(outer.before) + bytes_of(outer.after) + bytes_of(outer.head);
  if (const auto* gguf = gguf_format_of(options.format)) disk = gguf_data_bytes(config, *gguf);
  const auto hidden_size = static_cast<uint64_t>(config.hidden_size);
  const uint64_t hidden_states = static_cast<uint64_t>(calibration_tokens) * hidden_size;
  // Of a forward pass: about eight hidden-sized and four MLP-sized activations.
  const int64_t sample = options.target_bits > 0 ? sample_tokens(calibration_tokens, batch_tokens) : 0;
  const uint64_t activations = static_cast<uint64_t>(std::max(batch_tokens, sample)) * (8 * hidden_size + 4 * most.widest_hidden);
  // The block before and after scaling, its packed tensors, and five temporaries of the largest linear; the Gram matrices, twice
  // where rows are held back, and of the largest what rounding makes of it (divided, of all and of held-back rows, and again
  // without salient channels; trusted, its factor); the embeddings, one of which is converted as a whole.
  const bool compensated = row_of(options.format).rounds && options.rounding.kind == quant::RoundingKind::kGram;
  const uint64_t rounding_copies = !compensated ? 2 : options.salient_ratio > 0 ? 6 : 4;
  const uint64_t curve_copies = options.rows_curve ? 3 : 0;
  const uint64_t gram_copies = (compensated && !options.rounding.off_diagonal ? 2 : 1) + curve_copies;
  const uint64_t block_floats = 2 * most.floats + most.floats / 4 + 5 * most.largest_linear + gram_copies * most.grams +
                                rounding_copies * most.largest_gram + activations;
  const uint64_t outer_floats = static_cast<uint64_t>(config.vocab_size) * hidden_size;
  uint64_t peak_floats = std::max(block_floats, outer_floats * 3 / 2);
  // Choosing bits holds what rounding changes of the block; once all blocks are through, the logits of two streams.
  if (options.target_bits > 0) {
    peak_floats = std::max({peak_floats, block_floats + most.floats, measured_logits(config, sample)});
  }
  QuantizeEstimate estimate;
  estimate.peak_memory_bytes = kProcessBytes + 4 * peak_floats;
  estimate.block_bytes = 4 * (most.floats + most.grams);
  // Two files of hidden states, the block's input and its output; three more for what experts read and add up to.
  estimate.disk_bytes = disk + 4 * hidden_states * (mixture || options.objective == Objective::kBlock ? 5 : 2);
  if (options.target_bits > 0) {
    const auto modules = static_cast<uint64_t>(config.num_hidden_layers) * 10 + 1;  // experts of a block are rounded together
    estimate.disk_bytes += 8 * hidden_states + modules * static_cast<uint64_t>(kSampleTokens) * hidden_size * 4 * (mixture ? 3 : 1);
  }
  return estimate;
}

}  // namespace salient::pipeline
