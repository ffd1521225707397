#include "pipeline/bit_measurement.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <span>

#include "common/error.h"
#include "common/memory.h"
#include "models/decoder/mlp.h"
#include "models/decoder/router.h"
#include "models/decoder/streamed_head.h"
#include "pipeline/block_step.h"
#include "pipeline/module_pattern.h"
#include "pipeline/weight_formats.h"
#include "quant/fixed_parts.h"
#include "quant/gram_rounding.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using models::AttentionHalf;
using models::BlockWeights;
using models::FloatLinear;
using models::LinearSlot;
using models::LinearSpec;
using models::MlpWeights;

constexpr int64_t kSoftmaxRows = 16;
constexpr int64_t kLogitsBytes = int64_t{1} << 27;  // of one stream's logits that are in memory at a time
constexpr double kUnmeasured = std::numeric_limits<double>::quiet_NaN();

std::optional<int> fixed_bits(const AwqOptions& options, const std::string& module) {
  std::optional<int> bits;
  for (const ModuleOverride& other : options.overrides) {
    if (other.bits && matches_pattern(other.pattern, module)) bits = other.bits;
  }
  return bits;
}

// Some of the calibration rows, spread over all of them.
class Sample {
 public:
  explicit Sample(const BitPlanInputs& inputs) : width_(inputs.pass.width()), device_(inputs.pass.device()) {
    const int64_t all = inputs.pass.rows();
    const int64_t count = std::clamp<int64_t>((kSampleTokens + width_ - 1) / width_, 1, all);
    std::vector<at::Tensor> masks;
    for (int64_t i = 0; i < count; ++i) rows_.push_back(i * all / count);
    for (const int64_t row : rows_) {
      masks.push_back(inputs.tokens.mask.defined() ? inputs.tokens.mask[row]
                                                   : at::arange(width_, at::kLong) < inputs.tokens.lengths[row]);
    }
    counted_ = at::nonzero(at::cat(masks)).flatten();
  }
  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  at::Tensor read(const ActivationFile& file) const {
    std::vector<at::Tensor> parts;
    for (const int64_t row : rows_) parts.push_back(file.read(row, 1));
    return at::cat(parts).to(device_);
  }
  // int64: places of the counted tokens in the flattened rows, on the CPU.
  const at::Tensor& counted() const { return counted_; }

 private:
  int64_t width_;
  at::Device device_;
  std::vector<int64_t> rows_;
  at::Tensor counted_;
};

class ScratchFile {
 public:
  ScratchFile(const fs::path& folder, const std::string& name, const std::vector<int64_t>& shape)
      : path_(scratch_file(folder, name)), file_(ActivationFile::create(path_, shape)) {}
  ~ScratchFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  ActivationFile& file() { return file_; }
  const ActivationFile& file() const { return file_; }

 private:
  fs::path path_;
  ActivationFile file_;
};

// The sample's hidden states, once for each module that was changed; number 0 is that of the float model. In files.
class Streams {
 public:
  Streams(const BitPlanInputs& inputs, const Sample& sample, int64_t most)
      : rows_(sample.rows()),
        device_(inputs.pass.device()),
        hidden_(inputs.scratch_folder, "bits_streams", {most * rows_, inputs.pass.width(), inputs.config.hidden_size}) {}
  int64_t count() const { return count_; }
  int64_t add() { return count_++; }
  at::Tensor read(int64_t stream) const { return hidden_.file().read(stream * rows_, rows_).to(device_); }
  void write(int64_t stream, const at::Tensor& hidden) { hidden_.file().write(stream * rows_, hidden); }

 private:
  int64_t rows_;
  at::Device device_;
  ScratchFile hidden_;
  int64_t count_ = 0;
};

// One linear of the block that is being measured.
struct Measured {
  LinearSpec spec;
  PlannedModule module;
  at::Tensor reference;        // float32 [out, in]: what rounding to kReferenceBits changes of the untouched weight
  double reference_error = 0;  // of its output
};

// Modules that are changed together.
struct Part {
  std::vector<size_t> modules;
  std::vector<double> reference_errors;
  int64_t stream = 0;
};

class BlockMeasurement {
 public:
  BlockMeasurement(const BitPlanInputs& inputs, const Sample& sample, const AwqOptions& options, Streams& streams, int64_t block)
      : inputs_(inputs),
        sample_(sample),
        options_(options),
        streams_(streams),
        layout_(models::block_layout(inputs.config, block)) {}

  // Appends the block's modules and parts; all streams go through the block, those of its parts begin in it.
  void run(const ActivationFile& input, ActivationFile& output, std::vector<PlannedModule>& modules, std::vector<Part>& parts) {
    if (layout_.experts > 0) route_sample();
    const TensorSink nowhere{[](const std::string&, const at::Tensor&) {}, [](const std::string&, int64_t, const at::Tensor&) {}};
    BlockStep step{inputs_.checkpoint, inputs_.config, options_, inputs_.pass, inputs_.stored, inputs_.scratch_folder, nowhere, {}};
    step.linears = [this](const std::vector<LinearJob>& jobs, const quant::InputStatistics& statistics, bool, const AwqOptions&,
                          const StoredDtype&, const TensorSink&) { return measure(jobs, statistics); };
    run_block_step(step, layout_.block, input, output);
    finish_expert();
    std::map<int, std::vector<size_t>> together;
    for (size_t i = 0; i < linears_.size(); ++i) {
      const int part = fused_part(linears_[i].spec.id);
      together[part >= 0 ? part : kFusedParts + static_cast<int>(i)].push_back(i);
    }
    std::vector<std::vector<size_t>> changed;
    for (auto& [number, members] : together) changed.push_back(std::move(members));
    const int64_t first = carry(changed);
    for (size_t i = 0; i < changed.size(); ++i) {
      Part part{{}, {}, first + static_cast<int64_t>(i)};
      for (const size_t member : changed[i]) {
        part.modules.push_back(modules.size() + member);
        part.reference_errors.push_back(linears_[member].reference_error);
      }
      parts.push_back(std::move(part));
    }
    for (Measured& measured : linears_) modules.push_back(std::move(measured.module));
  }

 private:
  // In place of quantize_linears.
  std::vector<LinearReport> measure(const std::vector<LinearJob>& jobs, const quant::InputStatistics& input) {
    if (jobs.front().spec->id.mlp != expert_) finish_expert();
    const at::Tensor& columns = jobs.front().applied.columns;
    const at::Tensor gram = quant::divided_gram(input.gram, columns).cpu();
    for (const LinearJob& job : jobs) {
      const at::Tensor weight = without_channels(job.linear->weight, salient_channels(job, input, gram, options_));
      const at::Tensor& rows = job.applied.rows;
      quant::AffineOptions affine = affine_options(options_, job.spec->name, weight.size(1));
      const auto error_of = [&](const at::Tensor& change) {
        if (input.rows == 0) return kUnmeasured;
        at::Tensor by_row = quant::output_error_by_row(change, gram, input.rows);
        if (rows.defined()) by_row = by_row * rows * rows;  // in units of the original output
        return quant::total(by_row);
      };
      Measured measured{*job.spec, {job.spec->name, 0, weight.numel(), 0, {}}, {}, 0};
      for (const int bits : allowed_bits(options_, inputs_.bit_choices, job.spec->name)) {
        affine.bits = bits;
        measured.module.sensitivity.emplace_back(bits, error_of(quant::quantization_error(weight, {}, affine)));
      }
      affine.bits = kReferenceBits;
      measured.reference = quant::quantization_error(weight, {}, affine);
      measured.reference_error = error_of(measured.reference);
      if (rows.defined()) measured.reference = measured.reference * rows.unsqueeze(1);
      if (columns.defined()) measured.reference = measured.reference / columns;
      if (job.spec->id.mlp >= 0) expert_ = job.spec->id.mlp;
      linears_.push_back(std::move(measured));
    }
    return std::vector<LinearReport>(jobs.size());
  }

  BlockWeights load() const {
    const models::LoadExperts experts = layout_.experts > 0 ? models::LoadExperts::kNo : models::LoadExperts::kYes;
    return models::to_device(models::load_block(inputs_.checkpoint, inputs_.config, layout_.block, at::kFloat, at::kCPU, experts),
                             inputs_.pass.device());
  }
  MlpWeights load_expert(int64_t expert) const {
    return models::to_device(models::load_expert(inputs_.checkpoint, inputs_.config, layout_.block, expert, at::kFloat, at::kCPU),
                             inputs_.pass.device());
  }
  models::AttentionCall call(const BlockWeights& weights) const { return inputs_.pass.call(weights, layout_.block, nobody_); }

  // Of a mixture: what the experts of the float model read.
  void route_sample() {
    const BlockWeights weights = load();
    expert_input_ = models::attention_half(call(weights), streams_.read(0)).mlp_input.flatten(0, 1);
    routing_ = models::route(inputs_.config, weights, expert_input_);
    experts_change_ = at::zeros_like(expert_input_);
  }

  at::Tensor expert_part(const MlpWeights& weights, int64_t expert, const models::Routing& routing, const at::Tensor& input) const {
    at::Tensor part = at::zeros_like(input);
    const models::ExpertRows rows = models::rows_of_expert(routing, expert);
    if (rows.rows.numel() > 0) models::add_expert(inputs_.config, weights, expert, rows, input, part, nobody_);
    return part;
  }

  // Adds what the expert whose linears are there with their `reference` changes, and frees that.
  void finish_expert() {
    if (expert_ < 0) return;
    MlpWeights weights = load_expert(expert_);
    experts_change_ -= expert_part(weights, expert_, routing_, expert_input_);
    for (Measured& measured : linears_) {
      if (measured.spec.id.mlp == expert_) change(std::get<FloatLinear>(weights.at(measured.spec.id.slot)), measured);
    }
    experts_change_ += expert_part(weights, expert_, routing_, expert_input_);
    expert_ = models::kDenseMlp;
  }

  static void change(FloatLinear& linear, Measured& measured) {
    linear.weight = linear.weight + std::exchange(measured.reference, {}).to(linear.weight.device());
  }

  // Runs the block over every stream, and over the float one once more with each part of `changed`. Returns the number of the first
  // new stream.
  int64_t carry(const std::vector<std::vector<size_t>>& changed) {
    BlockWeights weights = load();
    const at::Tensor input = streams_.read(0);
    const int64_t old = streams_.count();
    for (size_t i = 0; i < changed.size(); ++i) streams_.add();
    MixtureParts mixture(*this);
    for (size_t i = 0; i < changed.size(); ++i) {
      const int64_t stream = old + static_cast<int64_t>(i);
      std::vector<at::Tensor> untouched;
      for (const size_t member : changed[i]) {
        if (linears_[member].spec.id.mlp >= 0) continue;
        auto& linear = std::get<FloatLinear>(weights.at(linears_[member].spec.id));
        untouched.push_back(linear.weight);
        change(linear, linears_[member]);
      }
      mixture.begin(stream, weights, input);
      for (size_t member = 0; member < untouched.size(); ++member)
        std::get<FloatLinear>(weights.at(linears_[changed[i][member]].spec.id)).weight = untouched[member];
      if (linears_[changed[i].front()].spec.id.mlp >= 0) mixture.add(stream, experts_change_);
    }
    for (int64_t stream = 0; stream < old; ++stream) mixture.begin(stream, weights, streams_.read(stream));
    mixture.finish(weights);
    return old;
  }

  // The streams within the block: of a mixture, experts are in memory one at a time, for all streams.
  class MixtureParts {
   public:
    explicit MixtureParts(BlockMeasurement& of) : of_(of) {
      if (of.layout_.experts == 0) return;
      const std::vector<int64_t> shape{of.streams_.count() * of.sample_.rows(), of.inputs_.pass.width(),
                                       of.inputs_.config.hidden_size};
      input_.emplace(of.inputs_.scratch_folder, "bits_expert_input", shape);
      sum_.emplace(of.inputs_.scratch_folder, "bits_expert_sum", shape);
      routing_.resize(static_cast<size_t>(of.streams_.count()));
    }
    void begin(int64_t stream, const BlockWeights& weights, const at::Tensor& hidden) {
      if (!input_) return of_.streams_.write(stream, models::block_forward(of_.call(weights), hidden));
      const AttentionHalf half = models::attention_half(of_.call(weights), hidden);
      of_.streams_.write(stream, half.residual);
      input_->file().write(row(stream), half.mlp_input);
      const at::Tensor rows = half.mlp_input.flatten(0, 1);
      routing_[static_cast<size_t>(stream)] = models::route(of_.inputs_.config, weights, rows);
      const at::Tensor shared = models::shared_expert_forward(of_.inputs_.config, weights, rows, of_.nobody_);
      sum_->file().write(row(stream), (shared.defined() ? shared : at::zeros_like(rows)).view(half.mlp_input.sizes()));
    }
    void add(int64_t stream, const at::Tensor& part) {
      const at::Tensor sum = read(*sum_, stream);
      sum_->file().write(row(stream), sum + part.view(sum.sizes()));
    }
    void finish(const BlockWeights& weights) {
      if (!input_) return;
      const auto streams = static_cast<int64_t>(routing_.size());
      for (int64_t expert = 0; expert < of_.layout_.experts; ++expert) {
        const MlpWeights loaded = of_.load_expert(expert);
        for (int64_t stream = 0; stream < streams; ++stream) {
          add(stream, of_.expert_part(loaded, expert, routing_[static_cast<size_t>(stream)], read(*input_, stream).flatten(0, 1)));
        }
        return_free_memory();
      }
      for (int64_t stream = 0; stream < streams; ++stream)
        of_.streams_.write(stream, models::finish_block(of_.call(weights), of_.streams_.read(stream), read(*sum_, stream)));
    }

   private:
    int64_t row(int64_t stream) const { return stream * of_.sample_.rows(); }
    at::Tensor read(const ScratchFile& file, int64_t stream) const {
      return file.file().read(row(stream), of_.sample_.rows()).to(of_.inputs_.pass.device());
    }
    BlockMeasurement& of_;
    std::optional<ScratchFile> input_;
    std::optional<ScratchFile> sum_;
    std::vector<models::Routing> routing_;
  };

  const BitPlanInputs& inputs_;
  const Sample& sample_;
  const AwqOptions& options_;
  Streams& streams_;
  const models::BlockObserver nobody_;
  models::BlockLayout layout_;
  std::vector<Measured> linears_;
  int64_t expert_ = models::kDenseMlp;  // whose linears wait for finish_expert
  at::Tensor expert_input_;             // of the sample: [tokens, hidden_size]
  models::Routing routing_;
  at::Tensor experts_change_;  // of the experts' sum
};

// In place, a few rows at a time: logits of a large vocabulary are what takes the most memory here.
at::Tensor to_log_probabilities(at::Tensor logits) {
  for (int64_t begin = 0; begin < logits.size(0); begin += kSoftmaxRows) {
    at::Tensor rows = logits.narrow(0, begin, std::min(kSoftmaxRows, logits.size(0) - begin));
    rows.sub_(at::logsumexp(rows, -1, /*keepdim=*/true));
  }
  return logits;
}

// Mean KL divergence of each stream from number 0, over the sample's counted tokens.
std::vector<double> divergences(const BitPlanInputs& inputs, const Sample& sample, const Streams& streams) {
  const models::StreamedHead head(inputs.checkpoint, inputs.config, inputs.pass.device());
  const int64_t tokens = sample.counted().numel();
  const int64_t chunk = logits_tokens(inputs.config);
  std::vector<double> sums(static_cast<size_t>(streams.count()), 0.0);
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const at::Tensor places = sample.counted().narrow(0, begin, std::min(chunk, tokens - begin));
    const auto log_probabilities = [&](int64_t stream) {
      return_free_memory();  // logits are larger than any hole that blocks or other logits left
      const at::Tensor hidden = streams.read(stream).cpu().flatten(0, 1).index_select(0, places);
      return to_log_probabilities(head.logits(hidden.to(inputs.pass.device())));
    };
    const at::Tensor expected = log_probabilities(0);
    const at::Tensor probabilities = expected.exp();
    for (int64_t stream = 1; stream < streams.count(); ++stream) {
      at::Tensor found = log_probabilities(stream);
      sums[static_cast<size_t>(stream)] += quant::total(found.neg_().add_(expected).mul_(probabilities));
    }
  }
  // Rounding can leave a divergence of nearly nothing below 0.
  for (double& sum : sums)
    sum = std::isfinite(sum) ? std::max(sum, 0.0) / static_cast<double>(std::max<int64_t>(tokens, 1)) : kUnmeasured;
  return sums;
}

// No block has more parts than this.
int64_t most_streams(const models::DecoderConfig& config) {
  int64_t most = 1;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block)
    most += static_cast<int64_t>(models::block_layout(config, block).linears.size()) + 1;
  return most;
}

}  // namespace

std::vector<int> allowed_bits(const AwqOptions& options, const std::vector<int>& choices, const std::string& module) {
  if (const std::optional<int> fixed = fixed_bits(options, module)) return {*fixed};
  const std::span<const int> held = row_of(options.format).bits;
  std::vector<int> bits;
  for (const int choice : choices) {
    if (std::find(held.begin(), held.end(), choice) != held.end()) bits.push_back(choice);
  }
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  if (bits.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("the bits to choose from are {}; format {} stores {}", fmt::join(choices, ", "),
                            to_string(options.format), fmt::join(held, ", ")))
        .with_hint("allow bits that it has, or choose another format: compressed-tensors mixes 2 to 8 bits");
  }
  return bits;
}

int fused_part(const models::LinearId& id) {
  if (id.mlp >= 0) return 0;
  switch (id.slot) {
    case LinearSlot::kQProj:
    case LinearSlot::kKProj:
    case LinearSlot::kVProj: return 1;
    case LinearSlot::kQAProj:
    case LinearSlot::kKvAProj: return 2;
    case LinearSlot::kInProjQkv:
    case LinearSlot::kInProjZ: return 3;
    case LinearSlot::kInProjB:
    case LinearSlot::kInProjA: return 4;
    case LinearSlot::kGateProj:
    case LinearSlot::kUpProj: return id.mlp == models::kSharedExpert ? 5 : 6;
    default: return -1;
  }
}

int64_t logits_tokens(const models::DecoderConfig& config) {
  return std::max<int64_t>(1, kLogitsBytes / (static_cast<int64_t>(sizeof(float)) * config.vocab_size));
}

std::vector<PlannedModule> measure_modules(const BitPlanInputs& inputs) {
  const at::NoGradGuard no_grad;
  AwqOptions options = inputs.options;
  options.propagate_error = false;
  options.objective = Objective::kGram;  // scales that are as good for comparing bits, in a fraction of the time
  const std::vector<int64_t> shape{inputs.pass.rows(), inputs.pass.width(), inputs.config.hidden_size};
  ScratchFile even(inputs.scratch_folder, "bits_even", shape);
  ScratchFile odd(inputs.scratch_folder, "bits_odd", shape);
  inputs.embed(even.file());
  const Sample sample(inputs);
  Streams streams(inputs, sample, most_streams(inputs.config));
  streams.write(streams.add(), sample.read(even.file()));
  std::vector<PlannedModule> modules;
  std::vector<Part> parts;
  for (int64_t block = 0; block < inputs.config.num_hidden_layers; ++block) {
    if (inputs.on_progress) inputs.on_progress(block, inputs.config.num_hidden_layers);
    BlockMeasurement measurement(inputs, sample, options, streams, block);
    measurement.run(block % 2 == 0 ? even.file() : odd.file(), block % 2 == 0 ? odd.file() : even.file(), modules, parts);
    return_free_memory();
  }
  const std::vector<double> found = divergences(inputs, sample, streams);
  for (const Part& part : parts) {
    const double each = found[static_cast<size_t>(part.stream)] / static_cast<double>(part.modules.size());
    // A module whose rounding changes nothing needs no bits.
    for (size_t i = 0; i < part.modules.size(); ++i) {
      modules[part.modules[i]].importance = part.reference_errors[i] == 0 ? 0 : each / part.reference_errors[i];
    }
  }
  if (inputs.on_progress) inputs.on_progress(inputs.config.num_hidden_layers, inputs.config.num_hidden_layers);
  return modules;
}

}  // namespace salient::pipeline
