#include "eval/sensitivity.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "common/error.h"
#include "common/text.h"
#include "eval/divergence.h"
#include "eval/token_scores.h"
#include "models/decoder/block.h"

namespace salient::eval {
namespace {

using models::BlockWeights;
using models::Decoder;
using models::LinearId;
using models::LinearSpec;

struct ByName {
  SensitivityBy by;
  std::string_view name;
};
constexpr std::array<ByName, 3> kNames = {
    {{SensitivityBy::kBlock, "block"}, {SensitivityBy::kProjection, "projection"}, {SensitivityBy::kKind, "kind"}}};

// Beyond this the embedding is another one: rounding to 2 bits leaves about 0.5.
constexpr double kMostDifference = 0.9;
// Rounding to 16 bits leaves less, that to 8 bits more.
constexpr double kLeastDifference = 3e-3;
// Of a smoothed block's change of the residual stream, in float32; rounding in other types comes on top.
constexpr double kSmoothingTolerance = 1e-3;

// All experts of a block are one part: any of them stands for all.
LinearId part_id(LinearId id) {
  if (id.mlp > 0) id.mlp = 0;
  return id;
}

struct Part {
  std::string name;
  std::set<int64_t> blocks;                       // whole ones
  std::map<int64_t, std::set<LinearId>> linears;  // of others, by part_id
  bool embedding = false;
  bool head = false;

  // The first block that is not the same as without the part; `blocks_of_model` for the head alone.
  int64_t first_block(int64_t blocks_of_model) const {
    if (embedding) return 0;
    int64_t first = blocks_of_model;
    if (!blocks.empty()) first = std::min(first, *blocks.begin());
    if (!linears.empty()) first = std::min(first, linears.begin()->first);
    return first;
  }
};

std::string block_name(const models::DecoderConfig& config, int64_t block) {
  return fmt::format("{}{}", config.names.block_prefix, block);
}

// Inside of its block, without the number of an expert: "mlp.experts.down_proj".
std::string kind_of(const models::DecoderConfig& config, int64_t block, const std::string& linear) {
  const std::string prefix = block_name(config, block) + ".";
  std::string kind;
  for (const std::string& word : split(linear.starts_with(prefix) ? linear.substr(prefix.size()) : linear, '.')) {
    const bool number =
        !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (!number) kind += (kind.empty() ? "" : ".") + word;
  }
  return kind;
}

std::string module_of(std::string_view tensor) {
  constexpr std::string_view kWeight = ".weight";
  return std::string(tensor.ends_with(kWeight) ? tensor.substr(0, tensor.size() - kWeight.size()) : tensor);
}

void require_comparable(const LanguageModel& model, const LanguageModel& base) {
  for (const LanguageModel* each : {&model, &base}) {
    if (each->decoder.is_external()) {
      throw Error(ErrorKind::kUnsupported, fmt::format("{}: a module of another program shows nothing of its blocks", each->name))
          .with_hint("give the folder that it was exported from");
    }
  }
  const models::DecoderConfig& a = model.decoder.config();
  const models::DecoderConfig& b = base.decoder.config();
  const auto require_same = [&](std::string_view what, const auto& found, const auto& expected) {
    if (found == expected) return;
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{} has {} {}, {} has {}: their blocks cannot be exchanged", model.name,
                                                         what, found, base.name, expected))
        .with_hint("compare with the model that this one was made from");
  };
  require_same("model_type", a.model_type, b.model_type);
  require_same("vocab_size", a.vocab_size, b.vocab_size);
  require_same("hidden_size", a.hidden_size, b.hidden_size);
  require_same("num_hidden_layers", a.num_hidden_layers, b.num_hidden_layers);
  require_same("dtype", std::string(c10::toString(model.decoder.options().dtype)),
               std::string(c10::toString(base.decoder.options().dtype)));
  require_same("device", model.decoder.options().device.str(), base.decoder.options().device.str());
  const double embedding = relative_difference(model.decoder.embedding().tokens, base.decoder.embedding().tokens);
  if (!(embedding <= kMostDifference)) {
    throw Error(ErrorKind::kCheckFailed, fmt::format("{}: its embedding differs from that of {} by {:.0f} % of its size",
                                                     model.name, base.name, 100 * embedding))
        .with_hint(
            "it is another model, or one that was rotated (QuaRot, SpinQuant): its blocks are not exchangeable, evaluate it as a "
            "whole");
  }
}

bool differs(const models::Linear& model, const models::Linear& base) {
  if (models::is_quantized(model)) return true;
  const auto* a = std::get_if<models::FloatLinear>(&model);
  const auto* b = std::get_if<models::FloatLinear>(&base);
  if (a == nullptr || b == nullptr) return true;
  return a->from_codes || relative_difference(a->weight, b->weight) > kLeastDifference;
}

double tolerance(at::ScalarType dtype) {
  const double epsilon = dtype == at::kBFloat16 ? 0x1p-7 : dtype == at::kHalf ? 0x1p-10 : 0.0;
  return std::max(kSmoothingTolerance, 4 * epsilon);
}

// The token windows as the models take them.
std::vector<at::Tensor> make_batches(const TokenWindows& windows, int64_t batch_tokens, at::Device device) {
  std::vector<at::Tensor> batches;
  const int64_t rows = std::max<int64_t>(1, batch_tokens / windows.window);
  for (int64_t begin = 0; begin < windows.count(); begin += rows) {
    const int64_t count = std::min(rows, windows.count() - begin);
    batches.push_back(
        at::from_blob(const_cast<models::TokenId*>(windows.ids.data() + begin * windows.window), {count, windows.window}, at::kInt)
            .to(device, at::kLong));
  }
  return batches;
}

using Batches = std::vector<at::Tensor>;

// A model's hidden states before one block after the other, of all windows.
class Prefix {
 public:
  Prefix(const Decoder& decoder, const Batches& ids) : decoder_(decoder), ids_(ids) {}

  const Batches& before(int64_t block) {
    if (block_ < 0 || block < block_) {
      hidden_.clear();
      for (const at::Tensor& ids : ids_) hidden_.push_back(decoder_.embedded(ids));
      block_ = 0;
    }
    for (; block_ < block; ++block_) {
      for (at::Tensor& hidden : hidden_) hidden = decoder_.run_block(block_, hidden);
    }
    return hidden_;
  }

 private:
  const Decoder& decoder_;
  const Batches& ids_;
  Batches hidden_;
  int64_t block_ = -1;
};

class Measurement {
 public:
  Measurement(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows, const SensitivityOptions& options)
      : model_(model.decoder),
        base_(base.decoder),
        options_(options),
        window_(windows.window),
        ids_(make_batches(windows, options.batch_tokens, base.decoder.options().device)),
        blocks_(base.decoder.config().num_hidden_layers),
        model_prefix_(model_, ids_),
        base_prefix_(base_, ids_) {
    out_.windows = windows.count();
    out_.window = windows.window;
  }

  Sensitivity run() {
    out_.by = options_.by;
    if (out_.by != SensitivityBy::kBlock) find_all_smoothings();
    const std::vector<Part> parts = find_parts();
    plan(parts);
    if (todo_ > 0) prepare_base();
    out_.whole = distance(std::string(kWholeModel), [&] { return measure(Part{}, /*all_but=*/true); });
    for (const Part& part : parts) {
      PartCost& cost = out_.parts.emplace_back(PartCost{part.name, {}, {}});
      cost.only = distance("only " + part.name, [&] { return measure(part, /*all_but=*/false); });
      cost.all_but = distance("all but " + part.name, [&] { return measure(part, /*all_but=*/true); });
    }
    return std::move(out_);
  }

 private:
  std::optional<DistributionDistance> known(const std::string& protocol) const {
    return options_.known ? options_.known(protocol) : std::nullopt;
  }

  template <typename Measure>
  DistributionDistance distance(const std::string& protocol, Measure measure) {
    if (const auto found = known(protocol)) return *found;
    const DistributionDistance found = with_context(protocol, measure);
    if (options_.on_measured) options_.on_measured(protocol, found);
    return found;
  }

  void find_all_smoothings() {
    try {
      for (int64_t block = 0; block < blocks_; ++block) {
        find_block_smoothing(block);
        out_.estimated_groups += smoothings_.back().estimated;
        out_.scale_uncertainty = std::max(out_.scale_uncertainty, smoothings_.back().uncertainty);
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnsupported && error.kind() != ErrorKind::kCheckFailed) throw;
      out_.by = SensitivityBy::kBlock;
      out_.fallback = error.message();
      out_.estimated_groups = 0;
      out_.scale_uncertainty = 0;
      smoothings_.clear();
    }
  }

  // The scaled block must be the same function, on the base's own hidden states.
  void find_block_smoothing(int64_t block) {
    at::Tensor& hidden = check_hidden_;
    if (block == 0) hidden = base_.embedded(ids_.front());
    BlockInputs inputs;
    const models::BlockObserver observer = [&](models::InputId input, const at::Tensor& x) {
      if (input.slot != models::InputSlot::kMlpHidden) inputs[input] = x.flatten(0, -2).to(at::kCPU, at::kFloat);
    };
    const models::DecoderOptions& runs = base_.options();
    const at::Tensor positions = at::arange(hidden.size(1), at::TensorOptions(at::kLong).device(runs.device)).unsqueeze(0);
    const models::AttentionContext context =
        models::make_attention_context(base_.config(), positions, /*past_length=*/0, {}, runs.dtype);
    const BlockWeights& plain = base_.block_weights(block);
    models::block_forward({base_.config(), plain, block, context, nullptr, 0, observer}, hidden);
    smoothings_.push_back(find_smoothing(base_.config(), block, plain, model_.block_weights(block), inputs, options_.known_scales));
    const at::Tensor expected = base_.run_block(block, hidden);
    const BlockWeights weights = smoothed(smoothings_.back(), plain);
    const at::Tensor found = base_.run_block(block, hidden, &weights);
    const double off = (found - expected).to(at::kFloat).norm().item<double>();
    const double change = (expected - hidden).to(at::kFloat).norm().item<double>();
    if (!(off <= tolerance(base_.options().dtype) * change)) {
      fail(ErrorKind::kCheckFailed,
           "{}: scaled as the model's it is not the same function: its output is off by {:.2g} of what it adds, {:.2g} is allowed",
           block_name(base_.config(), block), off / change, tolerance(base_.options().dtype));
    }
    hidden = expected;
  }

  std::vector<Part> find_parts() const {
    std::vector<Part> parts;
    const models::TensorNames& names = base_.config().names;
    if (relative_difference(model_.embedding().tokens, base_.embedding().tokens) > kLeastDifference) {
      parts.push_back({.name = module_of(names.embedding), .blocks = {}, .linears = {}, .embedding = true, .head = false});
    }
    std::map<std::string, size_t> kinds;
    for (int64_t block = 0; block < blocks_; ++block) {
      if (out_.by == SensitivityBy::kBlock) {
        parts.push_back(
            {.name = block_name(base_.config(), block), .blocks = {block}, .linears = {}, .embedding = false, .head = false});
        continue;
      }
      for (const auto& [kind, ids] : changed_linears(block)) {
        if (out_.by == SensitivityBy::kProjection) {
          parts.push_back({.name = block_name(base_.config(), block) + "." + kind,
                           .blocks = {},
                           .linears = {{block, ids}},
                           .embedding = false,
                           .head = false});
          continue;
        }
        const auto [place, is_new] = kinds.try_emplace(kind, parts.size());
        if (is_new) parts.push_back({.name = kind, .blocks = {}, .linears = {}, .embedding = false, .head = false});
        parts[place->second].linears[block] = ids;
      }
    }
    if (differs(model_.head(), base_.head())) {
      parts.push_back({.name = std::string(names.lm_head), .blocks = {}, .linears = {}, .embedding = false, .head = true});
    }
    return parts;
  }

  // By kind, in the block's order.
  std::vector<std::pair<std::string, std::set<LinearId>>> changed_linears(int64_t block) const {
    const BlockWeights float_weights = smoothed(smoothings_[static_cast<size_t>(block)], base_.block_weights(block));
    const BlockWeights& weights = model_.block_weights(block);
    const models::BlockLayout layout = models::block_layout(base_.config(), block);
    std::vector<LinearSpec> specs = layout.linears;
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      const std::vector<LinearSpec> own = models::expert_layout(base_.config(), block, expert);
      specs.insert(specs.end(), own.begin(), own.end());
    }
    std::vector<std::pair<std::string, std::set<LinearId>>> kinds;
    for (const LinearSpec& spec : specs) {
      if (!differs(weights.at(spec.id), float_weights.at(spec.id))) continue;
      const std::string kind = kind_of(base_.config(), block, spec.name);
      auto place = std::find_if(kinds.begin(), kinds.end(), [&](const auto& entry) { return entry.first == kind; });
      if (place == kinds.end()) place = kinds.insert(kinds.end(), {kind, {}});
      place->second.insert(part_id(spec.id));
    }
    return kinds;
  }

  // Counts what there is to do.
  void plan(const std::vector<Part>& parts) {
    const auto count = [&](const std::string& protocol, const Part& part) {
      if (!known(protocol)) todo_ += (blocks_ - part.first_block(blocks_) + 1) * batches();
    };
    if (!known(std::string(kWholeModel))) todo_ += (blocks_ + 1) * batches();
    for (const Part& part : parts) {
      count("only " + part.name, part);
      count("all but " + part.name, part);
    }
    if (todo_ > 0) todo_ += blocks_ * batches();  // of the base
  }

  int64_t batches() const { return static_cast<int64_t>(ids_.size()); }

  void advance() {
    ++done_;
    if (options_.progress) options_.progress(std::min(done_, todo_), todo_);
  }

  void prepare_base() {
    Prefix all(base_, ids_);
    for (int64_t block = 1; block <= blocks_; ++block) {
      all.before(block);
      for (int64_t batch = 0; batch < batches(); ++batch) advance();
    }
    for (const at::Tensor& hidden : all.before(blocks_)) base_last_.push_back(base_.finished(hidden));
  }

  DistributionDistance measure(const Part& part, bool all_but) {
    const Decoder& ground = all_but ? model_ : base_;
    const Decoder& other = all_but ? base_ : model_;
    const bool whole = part.name.empty();
    const int64_t first = whole ? 0 : part.first_block(blocks_);
    Batches hidden;
    if (part.embedding) {
      for (const at::Tensor& ids : ids_) hidden.push_back(other.embedded(ids));
    } else {
      hidden = (all_but ? model_prefix_ : base_prefix_).before(first);
    }
    for (int64_t block = first; block < blocks_; ++block) {
      const auto exchanged = part.linears.find(block);
      std::optional<BlockWeights> mixed;
      if (exchanged != part.linears.end()) mixed = mix(block, exchanged->second, all_but);
      const Decoder& runs = part.blocks.contains(block) ? other : ground;
      for (at::Tensor& h : hidden) {
        h = runs.run_block(block, h, mixed ? &*mixed : nullptr);
        advance();
      }
    }
    return compare(hidden, ground, part.head ? other : ground);
  }

  // The block with these linears exchanged, all of it scaled as the model's.
  BlockWeights mix(int64_t block, const std::set<LinearId>& linears, bool all_but) const {
    BlockWeights result = smoothed(smoothings_[static_cast<size_t>(block)], base_.block_weights(block));
    BlockWeights other = model_.block_weights(block);
    if (all_but) std::swap(result, other);
    for (const LinearId& id : linears) {
      if (id.mlp < 0) {
        result.at(id) = other.at(id);
        continue;
      }
      for (size_t expert = 0; expert < result.experts.size(); ++expert)
        result.experts[expert].at(id.slot) = other.experts[expert].at(id.slot);
    }
    return result;
  }

  DistributionDistance compare(const Batches& hidden, const Decoder& ground, const Decoder& head) {
    // Both models' log-probabilities and their product exist at a time.
    const int64_t slice = std::max<int64_t>(1, positions_per_slice(base_.config().vocab_size) / 2);
    std::vector<float> kl;
    std::vector<float> same_top;
    size_t number = 0;  // of the slice
    for (size_t batch = 0; batch < hidden.size(); ++batch) {
      const at::Tensor last = ground.finished(hidden[batch]).flatten(0, 1);
      for (int64_t begin = 0; begin < last.size(0); begin += slice) {
        const int64_t count = std::min(slice, last.size(0) - begin);
        const at::Tensor q = at::log_softmax(head.logits(last.narrow(0, begin, count)), 1);
        append_divergence(base_log_probs(number++, batch, begin, count), q, kl, same_top);
      }
      advance();
    }
    for (size_t i = 0; i < kl.size(); ++i) {
      if (!std::isfinite(kl[i]))
        fail(ErrorKind::kCheckFailed, "NaN or infinite logits in window {}: a part of the model is broken",
             static_cast<int64_t>(i) / window_);
    }
    return {mean_by_window(kl, window_), mean_by_window(same_top, window_)};
  }

  at::Tensor base_log_probs(size_t number, size_t batch, int64_t begin, int64_t count) {
    if (number < base_log_probs_.size()) return base_log_probs_[number];
    const at::Tensor log_probs = at::log_softmax(base_.logits(base_last_[batch].flatten(0, 1).narrow(0, begin, count)), 1);
    if (number == base_log_probs_.size() && kept_bytes_ + log_probs.nbytes() <= options_.kept_bytes) {
      kept_bytes_ += log_probs.nbytes();
      base_log_probs_.push_back(log_probs);
    }
    return log_probs;
  }

  const Decoder& model_;
  const Decoder& base_;
  const SensitivityOptions& options_;
  const int64_t window_;
  const Batches ids_;
  const int64_t blocks_;
  Prefix model_prefix_;
  Prefix base_prefix_;
  std::vector<BlockSmoothing> smoothings_;  // of projections and kinds
  at::Tensor check_hidden_;                 // of the first batch, before the block that is checked
  Batches base_last_;                       // what the head reads
  std::vector<at::Tensor> base_log_probs_;  // of the first slices
  uint64_t kept_bytes_ = 0;
  int64_t done_ = 0;
  int64_t todo_ = 0;
  Sensitivity out_;
};

}  // namespace

std::string_view to_string(SensitivityBy by) {
  for (const ByName& row : kNames) {
    if (row.by == by) return row.name;
  }
  fail(ErrorKind::kInternal, "SensitivityBy {} has no name", static_cast<int>(by));
}

SensitivityBy parse_sensitivity_by(std::string_view name) {
  for (const ByName& row : kNames) {
    if (row.name == name) return row.by;
  }
  fail(ErrorKind::kInvalidArgument, "parts by \"{}\": expected block, projection or kind", name);
}

double Sensitivity::sum_of_only() const {
  double sum = 0;
  for (const PartCost& part : parts) sum += part.only.kl.value;
  return sum;
}

Sensitivity measure_sensitivity(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows,
                                const SensitivityOptions& options) {
  const at::NoGradGuard no_grad;
  require_comparable(model, base);
  return Measurement(model, base, windows, options).run();
}

}  // namespace salient::eval
