#include "pipeline/channel_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>

#include <array>

#include "common/error.h"
#include "common/json.h"
#include "models/io/safetensors.h"
#include "quant/fixed_parts.h"

namespace salient::pipeline {
namespace {

using models::InputSlot;
using models::SafetensorsFile;

constexpr const char* kFormat = "channel_statistics";
constexpr const char* kVersion = "1";

struct SlotName {
  InputSlot slot;
  const char* name;
};
constexpr std::array<SlotName, 6> kSlotNames = {{{InputSlot::kAttentionInput, "attention_input"},
                                                 {InputSlot::kQueryLatent, "query_latent"},
                                                 {InputSlot::kKvLatent, "kv_latent"},
                                                 {InputSlot::kAttentionOutput, "attention_output"},
                                                 {InputSlot::kMlpInput, "mlp_input"},
                                                 {InputSlot::kMlpHidden, "mlp_hidden"}}};

const char* slot_name(InputSlot slot) {
  for (const SlotName& row : kSlotNames) {
    if (row.slot == slot) return row.name;
  }
  fail(ErrorKind::kInternal, "input slot {} has no name", static_cast<int>(slot));
}

ChannelStatistics empty_statistics(int64_t features, at::Device device) {
  const at::TensorOptions options = at::TensorOptions().device(device);
  return {at::zeros({features}, options.dtype(at::kDouble)), at::zeros({features}, options.dtype(at::kDouble)),
          at::zeros({features}, options.dtype(at::kFloat)), 0};
}

at::Tensor one_number(int64_t value) { return at::full({1}, value, at::kLong); }

std::string metadata_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) {
    fail(ErrorKind::kCorruption, "{}: metadata has no \"{}\", expected a file of channel statistics", file.path().string(), key);
  }
  return found->second;
}

// A copy: the file may be replaced while the values live on.
at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name, at::ScalarType dtype) {
  if (!file.tensors().contains(name)) fail(ErrorKind::kCorruption, "{}: no tensor {}", file.path().string(), name);
  const models::TensorInfo& info = file.info(name);
  if (info.dtype != dtype || info.shape.size() != 1) {
    fail(ErrorKind::kCorruption, "{}: {} is {} of [{}], expected {} of one dimension", file.path().string(), name,
         c10::toString(info.dtype), fmt::join(info.shape, ", "), c10::toString(dtype));
  }
  return file.view(name).clone();
}

ChannelStatistics read_input(const SafetensorsFile& file, const std::string& input) {
  ChannelStatistics statistics{read_tensor(file, input + ".abs_sum", at::kDouble),
                               read_tensor(file, input + ".square_sum", at::kDouble),
                               read_tensor(file, input + ".max_abs", at::kFloat), 0};
  const at::Tensor tokens = read_tensor(file, input + ".tokens", at::kLong);
  if (tokens.numel() == 1) statistics.tokens = tokens.item<int64_t>();
  if (statistics.tokens < 1 || statistics.square_sum.sizes() != statistics.abs_sum.sizes() ||
      statistics.max_abs.sizes() != statistics.abs_sum.sizes()) {
    fail(ErrorKind::kCorruption, "{}: {}: tensors of {}, {} and {} channels over {} tokens do not belong together",
         file.path().string(), input, statistics.abs_sum.numel(), statistics.square_sum.numel(), statistics.max_abs.numel(),
         statistics.tokens);
  }
  return statistics;
}

}  // namespace

void add_tokens(ChannelStatistics& into, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  if (x.size(0) == 0) return;
  const at::Tensor values = x.to(at::kFloat);
  if (!into.abs_sum.defined()) into = empty_statistics(x.size(1), x.device());
  const at::Tensor magnitudes = values.abs();
  into.abs_sum += quant::sum_of_rows(magnitudes);
  into.square_sum += quant::sum_of_rows(values.square());
  into.max_abs = at::maximum(into.max_abs, magnitudes.amax(0));
  into.tokens += x.size(0);
}

void add(ChannelStatistics& into, const ChannelStatistics& from) {
  if (from.tokens == 0) return;
  if (!into.abs_sum.defined()) into = empty_statistics(from.abs_sum.size(0), from.abs_sum.device());
  if (into.abs_sum.sizes() != from.abs_sum.sizes()) {
    fail(ErrorKind::kCorruption, "channel statistics of {} and {} channels cannot be added", into.abs_sum.numel(),
         from.abs_sum.numel());
  }
  const at::Device device = into.abs_sum.device();
  into.abs_sum += from.abs_sum.to(device);
  into.square_sum += from.square_sum.to(device);
  into.max_abs = at::maximum(into.max_abs, from.max_abs.to(device));
  into.tokens += from.tokens;
}

int64_t never_active(const ChannelStatistics& statistics) { return statistics.max_abs.eq(0).sum().item<int64_t>(); }

std::string input_name(const models::DecoderConfig& config, int64_t block, models::InputId input) {
  std::string place;
  if (input.mlp == models::kSharedExpert) place = "shared_expert.";
  if (input.mlp >= 0) place = fmt::format("experts.{}.", input.mlp);
  return fmt::format("{}{}.{}{}", config.names.block_prefix, block, place, slot_name(input.slot));
}

std::map<std::string, std::string> linear_inputs(const models::DecoderConfig& config) {
  std::map<std::string, std::string> inputs;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    for (const models::LinearSpec& spec : layout.linears) inputs[spec.name] = input_name(config, block, spec.input);
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      for (const models::LinearSpec& spec : models::expert_layout(config, block, expert))
        inputs[spec.name] = input_name(config, block, spec.input);
    }
  }
  return inputs;
}

void write_model_statistics(const std::filesystem::path& path, const ModelStatistics& statistics) {
  std::vector<models::NamedTensor> tensors;
  // The widest first, so that every tensor is aligned to its dtype.
  std::vector<models::NamedTensor> floats;
  for (const auto& [name, input] : statistics.inputs) {
    const at::Tensor abs_sum = input.abs_sum.cpu();
    const at::Tensor square_sum = input.square_sum.cpu();
    if (!abs_sum.isfinite().all().item<bool>() || !square_sum.isfinite().all().item<bool>()) {
      throw Error(ErrorKind::kCheckFailed,
                  fmt::format("{}: NaN or infinite activations at {}: statistics are not written", path.string(), name))
          .with_hint("the model is broken at this input, or float16 overflows: try --dtype float32");
    }
    const auto tokens = static_cast<double>(input.tokens);
    tensors.push_back({name + ".abs_sum", abs_sum});
    tensors.push_back({name + ".square_sum", square_sum});
    tensors.push_back({name + ".tokens", one_number(input.tokens)});
    tensors.push_back({name + ".never_active", one_number(never_active(input))});
    floats.push_back({name + ".max_abs", input.max_abs.cpu()});
    floats.push_back({name + ".mean_abs", (abs_sum / tokens).to(at::kFloat)});
    floats.push_back({name + ".rms", (square_sum / tokens).sqrt().to(at::kFloat)});
  }
  tensors.insert(tensors.end(), floats.begin(), floats.end());
  models::write_safetensors(path, tensors,
                            {{"salient_format", kFormat},
                             {"salient_version", kVersion},
                             {"model", statistics.model},
                             {"config_sha256", statistics.config_sha256},
                             {"linears", dump_json(Json(statistics.linears))}});
}

ModelStatistics read_model_statistics(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  if (const std::string format = metadata_of(file, "salient_format"); format != kFormat) {
    fail(ErrorKind::kCorruption, "{}: is a file of '{}', expected '{}'", path.string(), format, kFormat);
  }
  if (const std::string version = metadata_of(file, "salient_version"); version != kVersion) {
    fail(ErrorKind::kUnsupported, "{}: version {} of channel statistics, this program reads version {}", path.string(), version,
         kVersion);
  }
  ModelStatistics statistics;
  statistics.model = metadata_of(file, "model");
  statistics.config_sha256 = metadata_of(file, "config_sha256");
  const std::string where = path.string() + ": linears";
  const Json linears = parse_json(metadata_of(file, "linears"), where);
  if (!linears.is_object()) fail(ErrorKind::kCorruption, "{}: expected an object", where);
  for (const auto& [linear, input] : linears.items()) {
    if (!input.is_string()) fail(ErrorKind::kCorruption, "{}: {}: expected the name of an input", where, linear);
    statistics.linears[linear] = input.get<std::string>();
  }
  constexpr std::string_view kEnding = ".abs_sum";
  for (const auto& [name, info] : file.tensors()) {
    if (!name.ends_with(kEnding)) continue;
    const std::string input = name.substr(0, name.size() - kEnding.size());
    statistics.inputs[input] = read_input(file, input);
  }
  return statistics;
}

}  // namespace salient::pipeline
