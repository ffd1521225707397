#include "pipeline/block_objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <numeric>
#include <system_error>

#include "common/error.h"
#include "models/decoder/attention.h"
#include "models/decoder/mlp.h"

namespace salient::pipeline {
namespace {

using models::InputSlot;
using models::LinearSlot;

constexpr const char* kOutputFile = "module_output";

const char* file_of(InputSlot input) { return input == InputSlot::kAttentionInput ? "attention_input" : "dense_mlp_input"; }

bool belongs_to_mlp(models::LinearId id) {
  return id.slot == LinearSlot::kGateProj || id.slot == LinearSlot::kUpProj || id.slot == LinearSlot::kGateUpProj;
}

}  // namespace

GroupModule module_of(const models::ScalingGroup& group) {
  const bool attention_input = group.input.slot == InputSlot::kAttentionInput;
  if (!attention_input && group.input.slot != InputSlot::kMlpInput) return GroupModule::kLinear;
  bool attention = false;
  bool mlp = false;
  bool mixture = group.experts;
  for (const models::LinearId id : group.balance) {
    (belongs_to_mlp(id) ? mlp : attention) = true;
    mixture |= id.mlp == models::kSharedExpert;
  }
  if (mixture) return GroupModule::kMixture;
  if (!attention_input) return GroupModule::kMlp;
  if (!mlp) return GroupModule::kAttention;
  return attention ? GroupModule::kAttentionAndMlp : GroupModule::kMlp;
}

BlockObjective::BlockObjective(const models::DecoderConfig& config, int64_t block, const CalibrationPass& pass,
                               std::filesystem::path prefix)
    : config_(config), block_(block), pass_(pass), prefix_(std::move(prefix)) {}

BlockObjective::~BlockObjective() {
  std::error_code ignored;
  for (const auto& [input, file] : inputs_) std::filesystem::remove(path(file_of(input)), ignored);
  if (output_) std::filesystem::remove(path(kOutputFile), ignored);
}

std::filesystem::path BlockObjective::path(const char* name) const { return prefix_.string() + name + ".bin"; }

void BlockObjective::keep(models::InputId input, const at::Tensor& x, const CalibrationPass::Batch& batch) {
  const bool dense = !config_.layers[static_cast<size_t>(block_)].moe;
  if (input.slot != InputSlot::kAttentionInput && !(dense && input.slot == InputSlot::kMlpInput)) return;
  auto file = inputs_.find(input.slot);
  if (file == inputs_.end())
    file = inputs_.emplace(input.slot, ActivationFile::create(path(file_of(input.slot)), {pass_.rows(), pass_.width(), x.size(-1)}))
               .first;
  file->second.write(batch.begin, x);
}

BlockObjective::ModuleError BlockObjective::measure(const models::ScalingGroup& group, const models::BlockWeights& weights) {
  const GroupModule module = module_of(group);
  if (module == GroupModule::kLinear || module == GroupModule::kMixture) return {};
  const models::BlockWeights moved = models::to_device(weights, pass_.device());
  pass_.for_each_batch([&](const CalibrationPass::Batch& batch) {
    const at::Tensor output = run(module, moved, batch);
    if (!output_) output_.emplace(ActivationFile::create(path(kOutputFile), {pass_.rows(), pass_.width(), output.size(-1)}));
    output_->write(batch.begin, output);
  });
  return [this, module](const models::BlockWeights& changed) { return error(module, changed); };
}

at::Tensor BlockObjective::run(GroupModule module, const models::BlockWeights& weights, const CalibrationPass::Batch& batch) const {
  const at::NoGradGuard no_grad;
  const models::BlockObserver nobody;
  // Where attention and MLP share one norm there is no input of the MLP's own.
  const bool own_input = module == GroupModule::kMlp && inputs_.contains(InputSlot::kMlpInput);
  const auto file = inputs_.find(own_input ? InputSlot::kMlpInput : InputSlot::kAttentionInput);
  if (file == inputs_.end()) fail(ErrorKind::kInternal, "block {}: what its modules read was not kept", block_);
  const at::Tensor x = file->second.read(batch.begin, batch.count).to(pass_.device());
  const models::AttentionCall call = pass_.call(weights, block_, nobody);
  at::Tensor output;
  if (module != GroupModule::kMlp) output = models::attention_forward(call, x);
  if (module == GroupModule::kAttention) return output;
  const at::Tensor mlp = models::mlp_forward(config_, weights.mlp, models::kDenseMlp, x, nobody);
  return output.defined() ? output + mlp : mlp;
}

double BlockObjective::error(GroupModule module, const models::BlockWeights& changed) const {
  const models::BlockWeights moved = models::to_device(changed, pass_.device());
  double sum = 0;
  int64_t tokens = 0;
  pass_.for_each_batch([&](const CalibrationPass::Batch& batch) {
    const auto counted = [&](const at::Tensor& x) {
      const at::Tensor rows = x.flatten(0, 1);
      return batch.counted.defined() ? rows.index_select(0, batch.counted) : rows;
    };
    const at::Tensor expected = counted(output_->read(batch.begin, batch.count).to(pass_.device()));
    const at::Tensor by_token = (counted(run(module, moved, batch)) - expected).square().sum(-1, /*keepdim=*/false, at::kDouble);
    const at::Tensor finite = at::isfinite(expected).all(-1);
    // Token by token, so that the sum does not depend on how many come at a time.
    const at::Tensor errors = at::where(finite, by_token, by_token.new_zeros({})).cpu().contiguous();
    const double* error = errors.const_data_ptr<double>();
    sum = std::accumulate(error, error + errors.numel(), sum);
    tokens += finite.sum().item<int64_t>();
  });
  return tokens > 0 ? sum / static_cast<double>(tokens) : 0.0;
}

}  // namespace salient::pipeline
