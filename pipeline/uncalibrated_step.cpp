#include "pipeline/uncalibrated_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>

#include "common/memory.h"

namespace salient::pipeline {
namespace {

// Nothing was measured of the inputs.
void forget_inputs(std::vector<LinearReport>& reports) {
  for (LinearReport& report : reports) {
    report.salience_correlation = -2;
    report.salience_quantiles.clear();
    report.salience_top_share = -1;
    report.routed_tokens = -1;
  }
}

}  // namespace

quant::InputStatistics white_statistics(int64_t features) {
  quant::InputStatistics statistics;
  statistics.gram = at::eye(features, at::kFloat);
  statistics.abs_sum = at::ones({features}, at::kDouble);
  statistics.rows = 1;
  return statistics;
}

std::vector<LinearReport> run_uncalibrated_step(const BlockStep& step, const models::BlockLayout& layout) {
  BlockStatistics statistics;
  const auto provide = [&](const std::vector<models::LinearSpec>& linears) {
    for (const models::LinearSpec& spec : linears) {
      if (!statistics.contains(spec.input)) statistics[spec.input] = white_statistics(spec.in_features);
    }
  };
  provide(layout.linears);
  std::vector<models::LinearSpec> of_expert;
  if (layout.experts > 0) of_expert = models::expert_layout(step.config, layout.block, 0);
  provide(of_expert);
  const auto load_expert = [&](int64_t expert) {
    return models::load_expert(step.checkpoint, step.config, layout.block, expert, at::kFloat, at::kCPU);
  };
  QuantizedBlock block =
      quantize_block(step.config, layout,
                     models::load_block(step.checkpoint, step.config, layout.block, at::kFloat, at::kCPU, models::LoadExperts::kNo),
                     statistics, load_expert, step.options, step.stored, step.sink, step.linears);
  std::vector<LinearReport> reports = std::move(block.reports);
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const QuantizedExpert done =
        quantize_expert(step.config, layout.block, expert, load_expert(expert), statistics.at(of_expert.front().input),
                        statistics.at(of_expert.back().input), block.expert_input, /*routed_tokens=*/1, step.options, step.stored,
                        step.sink, step.linears);
    reports.insert(reports.end(), done.reports.begin(), done.reports.end());
    return_free_memory();
  }
  forget_inputs(reports);
  return reports;
}

}  // namespace salient::pipeline
