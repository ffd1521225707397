#include "pipeline/pad_intermediate.h"

#include <limits>

#include "common/error.h"
#include "models/decoder/decoder_config.h"
#include "models/decoder/mlp_padding.h"
#include "pipeline/engine_notes.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {
namespace {

constexpr int64_t kLeastStep = 32;   // no kernel and no block is narrower
constexpr int64_t kMostMore = 1024;  // the largest multiple that a kernel wants

int64_t next_multiple(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

bool can_store(const models::LinearSpec& linear, const AwqOptions& options, const LinearSetting& setting) {
  try {
    quant::resolve_group_size(setting.group_size, linear.in_features);
    check_linear(options.format, options.spec, linear, setting);
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInvalidArgument) throw;
    return false;
  }
}

// Rules that an MLP of this width breaks; more than there are where it cannot be stored.
size_t broken_rules(int64_t width, int64_t hidden_size, const AwqOptions& options) {
  const LinearSetting setting{options.spec.weight_bits, options.spec.group_size, options.spec.zero_point};
  models::LinearSpec up;
  up.name = "up_proj";
  up.out_features = width;
  up.in_features = hidden_size;
  models::LinearSpec down;
  down.name = "down_proj";
  down.out_features = hidden_size;
  down.in_features = width;
  size_t broken = 0;
  for (const models::LinearSpec* linear : {&up, &down}) {
    // Another linear's input, or that of this one's neighbour: no width of the MLP makes it fit.
    const bool own = linear == &down || options.spec.group_size == -1 || hidden_size % options.spec.group_size == 0;
    if (own && !can_store(*linear, options, setting)) return std::numeric_limits<size_t>::max();
    broken += engine_notes(options.format, *linear, setting).size();
  }
  return broken;
}

}  // namespace

int64_t fitting_width(int64_t width, int64_t hidden_size, const AwqOptions& options) {
  const int64_t step = options.spec.group_size > 0 ? options.spec.group_size : kLeastStep;
  int64_t best = width;
  size_t fewest = broken_rules(width, hidden_size, options);
  for (int64_t wider = next_multiple(width, step); fewest > 0 && wider < width + kMostMore + step; wider += step) {
    const size_t broken = broken_rules(wider, hidden_size, options);
    if (broken >= fewest) continue;
    best = wider;
    fewest = broken;
  }
  return best;
}

models::Checkpoint open_source(const std::filesystem::path& folder, const AwqOptions& options, std::vector<std::string>* notes) {
  models::Checkpoint checkpoint(folder);
  if (options.pad_intermediate == 0) return checkpoint;
  const int64_t hidden_size = models::load_decoder_config(checkpoint).hidden_size;
  const std::vector<models::WidenedMlp> widened = models::widen_mlps(checkpoint, [&](int64_t width) {
    return options.pad_intermediate == kPadAuto ? fitting_width(width, hidden_size, options)
                                                : next_multiple(width, options.pad_intermediate);
  });
  if (notes == nullptr) return checkpoint;
  for (const models::WidenedMlp& mlp : widened)
    notes->push_back(
        fmt::format("pad_intermediate: {} becomes {}, {} channels more that are always 0", mlp.key, mlp.to, mlp.to - mlp.from));
  if (widened.empty()) notes->push_back("pad_intermediate: every MLP has a width that fits, nothing is padded");
  return checkpoint;
}

}  // namespace salient::pipeline
