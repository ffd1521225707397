#include "models/decoder/mlp_padding.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>

#include "common/error.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/decoder_config.h"
#include "models/decoder/wrappers.h"

namespace salient::models {
namespace {

// Zeros behind a tensor's own elements in one dimension.
struct TensorPadding {
  int64_t dimension = 0;
  int64_t parts = 1;  // of the dimension, equal ones, each of which ends in zeros: 2 where gate and up lie in one tensor
  int64_t size = 0;   // of the dimension with the zeros, divisible by `parts`
};

// `dimension`: of `padding`, in a tensor that may be a part of the padded one.
at::Tensor with_zeros(const at::Tensor& stored, const TensorPadding& padding, int64_t dimension) {
  std::vector<int64_t> shape = stored.sizes().vec();
  const auto at = static_cast<size_t>(dimension);
  const int64_t given = shape[at] / padding.parts;
  const int64_t shown = padding.size / padding.parts;
  shape[at] = padding.size;
  at::Tensor result = at::zeros(shape, stored.options());
  for (int64_t part = 0; part < padding.parts; ++part)
    result.narrow(dimension, part * shown, given).copy_(stored.narrow(dimension, part * given, given));
  return result;
}

TensorChange padding_change(const Checkpoint& checkpoint, const std::string& name, const TensorPadding& padding) {
  TensorChange change;
  change.what = "padded with zeros";
  change.shape = checkpoint.info(name).shape;
  const auto rank = static_cast<int64_t>(change.shape.size());
  int64_t& size = change.shape[static_cast<size_t>(std::min(padding.dimension, rank - 1))];
  if (padding.dimension >= rank || size % padding.parts != 0 || padding.size % padding.parts != 0 || padding.size < size) {
    fail(ErrorKind::kInternal, "{}: tensor '{}' of shape [{}] cannot become {} wide in dimension {}", checkpoint.folder().string(),
         name, fmt::join(change.shape, ", "), padding.size, padding.dimension);
  }
  size = padding.size;
  change.apply = [padding](const at::Tensor& before, bool part) {
    return with_zeros(before, padding, padding.dimension - (part ? 1 : 0));
  };
  return change;
}

constexpr const char* kWidthKeys[] = {"intermediate_size", "intermediate_size_mlp", "moe_intermediate_size",
                                      "shared_expert_intermediate_size"};

// The object with the text model's keys.
Json& text_part(Json& config) {
  const std::string nested(kTextKey);
  return config.contains(nested) && config.at(nested).is_object() ? config.at(nested) : config;
}

struct Widths {
  int64_t dense = 0;  // 0: no such MLP
  int64_t expert = 0;
  int64_t shared = 0;
  bool operator==(const Widths&) const = default;
  std::vector<int64_t> all() const { return {dense, expert, shared}; }
};

Widths widths_of(const DecoderConfig& config) {
  Widths widths;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.moe) widths.dense = config.intermediate_size;
    if (layer.moe) widths.expert = config.moe.intermediate_size;
    if (layer.moe) widths.shared = config.moe.shared_intermediate_size;
  }
  return widths;
}

// Raises the keys of `json` that MLPs depend on.
std::vector<WidenedMlp> raise_keys(Json& json, const std::string& where, const std::function<int64_t(int64_t width)>& width_for) {
  std::vector<WidenedMlp> widened;
  for (const char* key : kWidthKeys) {
    const Json& text = text_part(json);
    if (!text.contains(key) || !text.at(key).is_number_integer()) continue;
    const int64_t from = text.at(key).get<int64_t>();
    const int64_t to = width_for(from);
    Json raised = json;
    text_part(raised)[key] = to;
    if (to == from || widths_of(parse_decoder_config(raised, where)) == widths_of(parse_decoder_config(json, where))) continue;
    json = std::move(raised);
    widened.push_back({key, from, to});
  }
  return widened;
}

[[noreturn]] void fail_pad(const Checkpoint& checkpoint, const std::string& what) {
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: the MLPs cannot be padded: {}", checkpoint.folder().string(), what))
      .with_hint("pad_intermediate 0 leaves them as they are");
}

void add_padding(std::map<std::string, TensorPadding>& tensors, const Checkpoint& checkpoint, const LinearSpec& from,
                 const LinearSpec& to) {
  const bool rows = to.out_features != from.out_features;
  if (!rows && to.in_features == from.in_features) return;
  if (from.fused && checkpoint.contains(from.fused->tensor)) {
    const FusedPart& part = *to.fused;
    const int64_t parts = rows && part.row_step == 1 ? 2 : 1;
    const int64_t matrix_rows = part.transposed ? 2 : 1;
    tensors[part.tensor] = rows ? TensorPadding{matrix_rows, parts, part.rows} : TensorPadding{3 - matrix_rows, 1, to.in_features};
    if (rows && !part.bias.empty()) tensors[part.bias] = {1, parts, part.rows};
    return;
  }
  const int64_t parts = to.id.slot == LinearSlot::kGateUpProj ? 2 : 1;
  tensors[from.name + ".weight"] = rows ? TensorPadding{0, parts, to.out_features} : TensorPadding{1, 1, to.in_features};
  if (rows && from.bias) tensors[from.name + ".bias"] = {0, parts, to.out_features};
}

bool is_gate(const LinearSpec& spec) { return spec.id.slot == LinearSlot::kGateProj || spec.id.slot == LinearSlot::kGateUpProj; }

void check_gated(const Checkpoint& checkpoint, const std::vector<LinearSpec>& linears) {
  for (const LinearSpec& down : linears) {
    if (down.id.slot != LinearSlot::kDownProj) continue;
    const bool gated = std::any_of(linears.begin(), linears.end(),
                                   [&](const LinearSpec& spec) { return spec.id.mlp == down.id.mlp && is_gate(spec); });
    if (!gated)
      fail_pad(checkpoint, fmt::format("{} reads an activation without a gate, which need not be 0 where its input is", down.name));
  }
}

}  // namespace

std::vector<WidenedMlp> widen_mlps(Checkpoint& checkpoint, const std::function<int64_t(int64_t width)>& width_for) {
  const DecoderConfig config = load_decoder_config(checkpoint);
  const std::string where = (checkpoint.folder() / "config.json").string();
  Json json = checkpoint.config();
  std::vector<WidenedMlp> widened = raise_keys(json, where, width_for);
  const DecoderConfig raised = parse_decoder_config(json, where);
  const std::vector<int64_t> before = widths_of(config).all();
  const std::vector<int64_t> after = widths_of(raised).all();
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i] == 0 || after[i] != before[i] || width_for(before[i]) == before[i]) continue;
    fail_pad(checkpoint,
             fmt::format("no key of config.json gives the width {} ({} are known)", before[i], fmt::join(kWidthKeys, ", ")));
  }
  if (widened.empty()) return widened;
  DecoderConfig wider = config;  // with the names that this checkpoint has
  wider.intermediate_size = raised.intermediate_size;
  wider.moe.intermediate_size = raised.moe.intermediate_size;
  wider.moe.shared_intermediate_size = raised.moe.shared_intermediate_size;
  std::map<std::string, TensorPadding> tensors;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockLayout from = block_layout(config, block);
    const BlockLayout to = block_layout(wider, block);
    check_gated(checkpoint, from.linears);
    for (size_t i = 0; i < from.linears.size(); ++i) add_padding(tensors, checkpoint, from.linears[i], to.linears[i]);
    for (int64_t expert = 0; expert < from.experts; ++expert) {
      const std::vector<LinearSpec> narrow = expert_layout(config, block, expert);
      const std::vector<LinearSpec> wide = expert_layout(wider, block, expert);
      if (expert == 0) check_gated(checkpoint, narrow);
      for (size_t i = 0; i < narrow.size(); ++i) add_padding(tensors, checkpoint, narrow[i], wide[i]);
    }
    for (const ParameterSpec& spec : from.parameters) {
      if (spec.slot == ParameterSlot::kActivationScales && checkpoint.contains(spec.name))
        fail_pad(checkpoint, fmt::format("{} divides activations", spec.name));
    }
  }
  std::map<std::string, TensorChange> changes;
  for (const auto& [name, padding] : tensors) changes.emplace(name, padding_change(checkpoint, name, padding));
  checkpoint.change(std::move(changes), std::move(json));
  return widened;
}

}  // namespace salient::models
