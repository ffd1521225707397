#include "pipeline/quantize_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_ranks.h"
#include "pipeline/quantize_session.h"

namespace salient::pipeline {

calibration::TokenBlocks no_calibration() {
  calibration::TokenBlocks blocks;
  blocks.ids = at::zeros({0, 1}, at::kLong);
  blocks.lengths = at::zeros({0}, at::kLong);
  return blocks;
}

QuantizeModelResult quantize_model(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens) {
  const at::NoGradGuard no_grad;
  check_quantization(given);
  if (is_shared(given.ranks)) return quantize_over_ranks(given, tokens);
  QuantizeSession session(given, tokens);
  while (!session.finished() && session.blocks_done() < session.work().blocks()) session.run_block();
  return session.finish();
}

}  // namespace salient::pipeline
