#include "pipeline/block_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <memory>
#include <span>
#include <variant>

#include "common/log.h"
#include "common/memory.h"
#include "common/text.h"
#include "models/decoder/mlp.h"
#include "models/decoder/router.h"
#include "pipeline/block_objective.h"
#include "pipeline/rank_exchange.h"
#include "pipeline/runtime_scheme.h"
#include "pipeline/uncalibrated_step.h"
#include "quant/out_of_memory.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using models::AttentionHalf;
using models::BlockWeights;
using models::InputId;
using models::MlpWeights;

constexpr const char* kScratch = "scratch_";

void store_parameters(const BlockStep& step, const models::BlockLayout& layout) {
  for (const models::ParameterSpec& spec : layout.parameters) {
    if (spec.slot == models::ParameterSlot::kActivationScales || !step.checkpoint.contains(spec.name)) continue;
    step.sink.put(spec.name, step.checkpoint.view(spec.name));
    step.checkpoint.release(spec.name);
  }
}

// Where scales and clip ranges are searched and weights are rounded: where the blocks run, unless what is asked for has loops of
// the CPU alone.
at::Device search_device(const BlockStep& step) {
  const bool on_cpu =
      step.search_on_cpu || !step.options.ggml_types.empty() || step.options.rounding.kind == quant::RoundingKind::kAdaround;
  return on_cpu ? at::Device(at::kCPU) : step.pass.device();
}

// search(), of whose needs the size of a batch says nothing, unless it runs modules.
template <typename Search>
auto search_in_memory(const BlockStep& step, const Search& search) {
  try {
    return search();
  } catch (const c10::Error& error) {
    const bool runs_batches = step.options.objective == Objective::kBlock;
    if (search_device(step).is_cpu() || runs_batches || !quant::is_out_of_memory(error)) throw;
    SearchOutOfMemory told(ErrorKind::kIo, fmt::format("search and rounding do not fit into the device's memory ({})",
                                                       first_line(error.what_without_backtrace())));
    told.with_code("CUDA_OUT_OF_MEMORY").with_hint("use the device cpu");
    throw told;
  }
}

// What the scale search runs modules on, where it does.
std::unique_ptr<BlockObjective> block_objective(const BlockStep& step, int64_t block) {
  if (step.options.objective != Objective::kBlock || !step.options.scale || step.options.search != nullptr) return nullptr;
  return std::make_unique<BlockObjective>(step.config, block, step.pass, step.work_folder / kScratch);
}

// Statistics of the inputs of a block's linears, experts excluded; the inputs of modules go to `objective`, which may be null.
class Observer {
 public:
  Observer(const BlockStep& step, BlockObjective* objective) : step_(step), objective_(objective) {}
  models::BlockObserver function() {
    return [this](InputId input, const at::Tensor& x) { add(input, x); };
  }
  void set_batch(const CalibrationPass::Batch& batch) { batch_ = batch; }
  void add(InputId input, const at::Tensor& x) {
    add_statistics(statistics_[input], x, batch_);
    if (objective_ != nullptr) objective_->keep(input, x, batch_);
  }
  BlockStatistics finish() {
    for (auto& [input, statistics] : statistics_) step_.pass.finish(statistics, search_device(step_));
    return std::move(statistics_);
  }

 private:
  const BlockStep& step_;
  BlockObjective* objective_;
  BlockStatistics statistics_;
  CalibrationPass::Batch batch_;
};

QuantizedBlock quantize_measured(const BlockStep& step, const models::BlockLayout& layout, MeasuredBlock measured,
                                 BlockObjective* objective) {
  QuantizedBlock quantized = search_in_memory(step, [&] {
    return quantize_block(step.config, layout, std::move(measured.weights), std::move(measured.statistics), {}, step.options,
                          step.stored, step.sink, step.linears, objective, step.pass.ranks());
  });
  store_kv_scales(step.config, layout.block, step.options, step.pass, quantized.weights, measured.input, step.stored, step.sink);
  return quantized;
}

// The same block with its statistics on `device`. Errors: SearchOutOfMemory.
MeasuredBlock moved_statistics(const BlockStep& step, MeasuredBlock measured, at::Device device) {
  search_in_memory(step, [&] {
    for (auto& [input, statistics] : measured.statistics) statistics = quant::to_device(std::move(statistics), device);
  });
  return measured;
}

std::vector<LinearReport> run_dense(const BlockStep& step, const models::BlockLayout& layout, const ActivationFile& input,
                                    ActivationFile& output) {
  const CalibrationPass& pass = step.pass;
  BlockWeights weights = models::load_block(step.checkpoint, step.config, layout.block, at::kFloat, at::kCPU);
  const std::unique_ptr<BlockObjective> objective = block_objective(step, layout.block);
  Observer observer(step, objective.get());
  const models::BlockObserver observe = observer.function();
  const bool inputs_only = objective == nullptr && (step.options.propagate_error || !step.needs_output);
  {
    const BlockWeights moved = models::to_device(weights, pass.device());
    pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
      observer.set_batch(batch);
      const models::AttentionCall call = pass.call(moved, layout.block, observe);
      const AttentionHalf half = models::attention_half(call, input.read(batch.begin, batch.count).to(pass.device()));
      return_free_memory();  // what the MLP needs does not fit where attention's activations were
      if (inputs_only) {
        models::observe_mlp(call, half.mlp_input);
        return;
      }
      const at::Tensor mlp = models::mlp_half(call, half.mlp_input);
      if (!step.options.propagate_error) output.write(batch.begin, models::finish_block(call, half.residual, mlp));
    });
  }
  return_free_memory();
  QuantizedBlock quantized =
      quantize_measured(step, layout, {std::move(weights), observer.finish(), reader_of(input)}, objective.get());
  if (!step.options.propagate_error || !step.needs_output) return std::move(quantized.reports);
  const BlockWeights moved = models::to_device(std::move(quantized.weights), pass.device());
  const models::BlockObserver nobody;
  pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
    output.write(batch.begin, models::block_forward(pass.call(moved, layout.block, nobody),
                                                    input.read(batch.begin, batch.count).to(pass.device())));
  });
  return std::move(quantized.reports);
}

// The files and routes of one mixture.
class MixtureStep {
 public:
  MixtureStep(const BlockStep& step, const models::BlockLayout& layout, const ActivationFile& input, ActivationFile& output)
      : step_(step),
        layout_(layout),
        input_(input),
        output_(output),
        mlp_input_(make_scratch("mlp_input")),
        expert_input_(make_scratch("expert_input")),
        sum_(make_scratch("sum")) {}

  ~MixtureStep() {
    std::error_code ignored;
    for (const char* name : {"mlp_input", "expert_input", "sum"}) fs::remove(scratch(name), ignored);
  }

  std::vector<LinearReport> run() {
    const auto load_expert = [this](int64_t expert) {
      return models::load_expert(step_.checkpoint, step_.config, layout_.block, expert, at::kFloat, at::kCPU);
    };
    BlockWeights weights =
        models::load_block(step_.checkpoint, step_.config, layout_.block, at::kFloat, at::kCPU, models::LoadExperts::kNo);
    const BlockStatistics statistics = observe(weights);
    const models::Norm float_output_norm = weights.at(models::NormSlot::kMlpOutput);
    if (!step_.options.propagate_error) prepare_experts(weights);
    QuantizedBlock quantized = search_in_memory(step_, [&] {
      return quantize_block(step_.config, layout_, std::move(weights), statistics, load_expert, step_.options, step_.stored,
                            step_.sink, step_.linears, objective_.get(), step_.pass.ranks());
    });
    store_kv_scales(step_.config, layout_.block, step_.options, step_.pass, quantized.weights, reader_of(input_), step_.stored,
                    step_.sink);
    if (step_.options.propagate_error) prepare_experts(quantized.weights);

    std::vector<LinearReport> reports = std::move(quantized.reports);
    const InputId shared_input = models::expert_layout(step_.config, layout_.block, 0).front().input;
    const int64_t at_a_time = step_.pass.ranks() != nullptr ? step_.pass.ranks()->size() : 1;
    for (int64_t first = 0; first < layout_.experts; first += at_a_time) {
      const int64_t end = std::min(first + at_a_time, layout_.experts);
      quantize_experts(first, end, load_expert, statistics.at(shared_input), quantized.expert_input, reports);
      return_free_memory();
      if (step_.on_progress) step_.on_progress(static_cast<double>(end) / static_cast<double>(layout_.experts));
    }
    if (!step_.options.propagate_error) quantized.weights.at(models::NormSlot::kMlpOutput) = float_output_norm;
    finish(quantized.weights);
    return reports;
  }

 private:
  fs::path scratch(const std::string& name) const {
    return scratch_file(step_.work_folder, name, step_.pass.ranks() != nullptr ? step_.pass.ranks()->rank() : 0);
  }
  ActivationFile make_scratch(const std::string& name) const {
    return ActivationFile::create(scratch(name), input_.shape(), input_.first_row());
  }

  struct Expert {
    MlpWeights weights;  // float, then what is stored
    quant::InputStatistics hidden;
    RankParcel parcel;
    int owner = 0;
  };

  // The experts from `first` to before `end`, at most one for each rank, which quantizes it; adds their parts of the output.
  void quantize_experts(int64_t first, int64_t end, const ExpertLoader& load_expert, const quant::InputStatistics& input,
                        const AppliedScales& expert_input, std::vector<LinearReport>& reports) {
    Ranks* const ranks = step_.pass.ranks();
    const auto is_own = [&](const Expert& expert) { return ranks == nullptr || ranks->rank() == expert.owner; };
    std::vector<Expert> experts(static_cast<size_t>(end - first));
    for (int64_t number = first; number < end; ++number) {
      Expert& expert = experts[static_cast<size_t>(number - first)];
      expert.owner = static_cast<int>(number - first);
      expert.weights = load_expert(number);
      expert.hidden = hidden_statistics(expert.weights, number);
      if (!is_own(expert)) expert.hidden = {};
      if (!step_.options.propagate_error) add_part(expert.weights, number);
    }
    for (int64_t number = first; number < end; ++number) {
      Expert& expert = experts[static_cast<size_t>(number - first)];
      if (!is_own(expert)) continue;
      const TensorSink sink = expert.owner == 0 ? step_.sink : expert.parcel.sink(step_.sink);
      QuantizedExpert done = search_in_memory(step_, [&] {
        return quantize_expert(step_.config, layout_.block, number, std::move(expert.weights), input, expert.hidden, expert_input,
                               routed_[static_cast<size_t>(number)], step_.options, step_.stored, sink, step_.linears);
      });
      expert.weights = std::move(done.weights);
      expert.parcel.reports = std::move(done.reports);
    }
    for (int64_t number = first; number < end; ++number) {
      Expert& expert = experts[static_cast<size_t>(number - first)];
      if (ranks != nullptr) {
        expert.parcel.hand_over(expert.owner, step_.sink, *ranks);
        for (const models::LinearSpec& spec : models::expert_layout(step_.config, layout_.block, number))
          broadcast_linear(std::get<models::FloatLinear>(expert.weights.at(spec.id.slot)), expert.owner, *ranks);
      }
      if (step_.options.propagate_error) add_part(expert.weights, number);
      reports.insert(reports.end(), expert.parcel.reports.begin(), expert.parcel.reports.end());
    }
  }

  // Statistics of everything but the insides of experts; keeps what experts read, and counts where the router sends the tokens.
  BlockStatistics observe(const BlockWeights& weights) {
    const BlockWeights moved = models::to_device(weights, step_.pass.device());
    Observer observer(step_, objective_.get());
    const models::BlockObserver function = observer.function();
    routed_.assign(static_cast<size_t>(layout_.experts), 0);
    const bool own_input = models::expert_layout(step_.config, layout_.block, 0).front().input.slot == models::InputSlot::kMlpInput;
    step_.pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
      observer.set_batch(batch);
      const models::AttentionCall call = step_.pass.call(moved, layout_.block, function);
      const AttentionHalf half = models::attention_half(call, read(input_, batch));
      if (own_input) observer.add({models::InputSlot::kMlpInput, models::kDenseMlp}, half.mlp_input);
      const at::Tensor rows = half.mlp_input.flatten(0, 1);
      models::shared_expert_forward(step_.config, moved, rows, function);
      mlp_input_.write(batch.begin, half.mlp_input);
      const models::Routing routing = models::route(step_.config, moved, rows);
      count(routing, batch.counted);
      if (step_.config.moe.weight_input) float_routing_.push_back({routing.experts.cpu(), routing.weights.cpu()});
    });
    if (step_.pass.ranks() != nullptr) step_.pass.ranks()->sum(std::span<int64_t>(routed_));
    return observer.finish();
  }

  void count(const models::Routing& routing, const at::Tensor& counted) {
    const at::Tensor chosen = (counted.defined() ? routing.experts.index_select(0, counted) : routing.experts).flatten();
    const at::Tensor counts = chosen.bincount({}, layout_.experts).cpu();
    for (int64_t expert = 0; expert < layout_.experts; ++expert)
      routed_[static_cast<size_t>(expert)] += counts[expert].item<int64_t>();
  }

  // With the weights whose output goes on: the residual, what experts read, where to, and the shared expert's part of the sum.
  void prepare_experts(const BlockWeights& weights) {
    const BlockWeights moved = models::to_device(weights, step_.pass.device());
    const models::BlockObserver nobody;
    routing_.clear();
    step_.pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
      const AttentionHalf half = models::attention_half(step_.pass.call(moved, layout_.block, nobody), read(input_, batch));
      output_.write(batch.begin, half.residual);
      expert_input_.write(batch.begin, half.mlp_input);
      const at::Tensor rows = half.mlp_input.flatten(0, 1);
      const models::Routing routing = models::route(step_.config, moved, rows);
      routing_.push_back({routing.experts.cpu(), routing.weights.cpu()});
      const at::Tensor shared = models::shared_expert_forward(step_.config, moved, rows, nobody);
      sum_.write(batch.begin, (shared.defined() ? shared : at::zeros_like(rows)).view(half.mlp_input.sizes()));
    });
  }

  quant::InputStatistics hidden_statistics(const MlpWeights& weights, int64_t expert) const {
    const MlpWeights moved = models::to_device(weights, step_.pass.device());
    quant::InputStatistics statistics;
    size_t index = 0;
    step_.pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
      at::Tensor x = read(mlp_input_, batch).flatten(0, 1);
      // Where the router's weight multiplies the input, an expert sees nothing of other tokens: their input is 0.
      if (step_.config.moe.weight_input) x = x * weight_of_rows(float_routing_[index++], expert).to(x.device()).unsqueeze(1);
      add_statistics(statistics, models::mlp_hidden(step_.config, moved, x), batch);
    });
    step_.pass.finish(statistics, search_device(step_));
    return statistics;
  }

  // float32 [rows]: an expert's weight for each row of a batch, 0 where the router does not choose it.
  static at::Tensor weight_of_rows(const models::Routing& routing, int64_t expert) {
    return (routing.weights * (routing.experts == expert)).sum(-1);
  }

  void add_part(const MlpWeights& weights, int64_t expert) {
    const MlpWeights moved = models::to_device(weights, step_.pass.device());
    const models::BlockObserver nobody;
    size_t index = 0;
    step_.pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
      models::ExpertRows rows = models::rows_of_expert(routing_[index++], expert);
      if (rows.rows.numel() == 0) return;
      rows = {rows.rows.to(step_.pass.device()), rows.weights.to(step_.pass.device())};
      at::Tensor sum = read(sum_, batch).flatten(0, 1);
      models::add_expert(step_.config, moved, expert, rows, read(expert_input_, batch).flatten(0, 1), sum, nobody);
      sum_.write(batch.begin, sum);
    });
  }

  void finish(const BlockWeights& weights) {
    const BlockWeights moved = models::to_device(weights, step_.pass.device());
    const models::BlockObserver nobody;
    step_.pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
      const models::AttentionCall call = step_.pass.call(moved, layout_.block, nobody);
      output_.write(batch.begin, models::finish_block(call, read(output_, batch), read(sum_, batch)));
    });
  }

  at::Tensor read(const ActivationFile& file, const CalibrationPass::Batch& batch) const {
    return file.read(batch.begin, batch.count).to(step_.pass.device());
  }

  const BlockStep& step_;
  const models::BlockLayout& layout_;
  const ActivationFile& input_;
  ActivationFile& output_;
  const std::unique_ptr<BlockObjective> objective_ = block_objective(step_, layout_.block);
  ActivationFile mlp_input_;                    // of the float weights, for statistics
  ActivationFile expert_input_;                 // of the weights whose output goes on
  ActivationFile sum_;                          // of the experts' outputs
  std::vector<int64_t> routed_;                 // real tokens sent to each expert by the float weights
  std::vector<models::Routing> float_routing_;  // of each batch by the float weights, where statistics need it
  std::vector<models::Routing> routing_;        // of each batch, by the weights whose output goes on
};

}  // namespace

std::vector<LinearReport> run_block_step(const BlockStep& step, int64_t block, const ActivationFile& input,
                                         ActivationFile& output) {
  const models::BlockLayout layout = models::block_layout(step.config, block);
  std::vector<LinearReport> reports = step.pass.rows() == 0 ? run_uncalibrated_step(step, layout)
                                      : layout.experts > 0  ? MixtureStep(step, layout, input, output).run()
                                                            : run_dense(step, layout, input, output);
  store_parameters(step, layout);
  return reports;
}

std::vector<LinearReport> run_measured_step(const BlockStep& step, int64_t block, MeasuredBlock measured) {
  const models::BlockLayout layout = models::block_layout(step.config, block);
  const auto quantize = [&] {
    const at::Device device = search_device(step);
    if (device.is_cpu()) return quantize_measured(step, layout, std::move(measured), nullptr).reports;
    try {
      return quantize_measured(step, layout, moved_statistics(step, measured, device), nullptr).reports;
    } catch (const SearchOutOfMemory& error) {
      log_warn("search_on_cpu block={} reason=\"{}\"", block, error.message());
    }
    if (step.sink.found != nullptr) *step.sink.found = {};
    BlockStep on_cpu = step;
    on_cpu.search_on_cpu = true;
    return quantize_measured(on_cpu, layout, std::move(measured), nullptr).reports;
  };
  std::vector<LinearReport> reports = quantize();
  store_parameters(step, layout);
  return reports;
}

fs::path scratch_file(const fs::path& work_folder, const std::string& name, int rank) {
  return work_folder / (rank == 0 ? fmt::format("{}{}.bin", kScratch, name) : fmt::format("{}{}_rank{}.bin", kScratch, name, rank));
}

bool is_scratch_file(const std::string& name) { return name.starts_with(kScratch) && name.ends_with(".bin"); }

}  // namespace salient::pipeline
