#include "pipeline/gguf_head.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>

#include "common/error.h"
#include "common/memory.h"
#include "models/decoder/embedding.h"
#include "models/decoder/norm.h"
#include "models/decoder/streamed_head.h"
#include "pipeline/quantize_plan.h"

namespace salient::pipeline {

quant::InputStatistics head_statistics(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                       const CalibrationPass& pass, const RowReader& hidden) {
  const models::Norm norm = models::load_final_norm(checkpoint, config, at::kFloat, pass.device());
  quant::InputStatistics statistics;
  pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
    add_statistics(statistics, models::normalize(norm, hidden(batch.begin, batch.count).to(pass.device())), batch);
  });
  pass.finish(statistics);
  return statistics;
}

void check_head(const models::Checkpoint& checkpoint, const std::string& tensor) {
  const at::Tensor weight = checkpoint.view(tensor);
  for (int64_t begin = 0; begin < weight.size(0); begin += models::kHeadPieceRows) {
    const at::Tensor piece = weight.narrow(0, begin, std::min(models::kHeadPieceRows, weight.size(0) - begin));
    const at::Tensor finite = piece.isfinite().all(1);
    if (finite.all().item<bool>()) continue;
    fail(ErrorKind::kCorruption, "{}: tensor '{}': row {} holds NaN or Inf, expected finite numbers",
         checkpoint.file_of(tensor).string(), tensor, begin + finite.logical_not().nonzero()[0][0].item<int64_t>());
  }
  checkpoint.release(tensor);
}

HeadBlocks quantize_head(const models::DecoderConfig& config, const at::Tensor& weight, quant::GgmlType type,
                         const quant::InputStatistics& input, const AwqOptions& given) {
  AwqOptions options = given;
  const models::LinearSpec spec = head_spec(config);
  options.ggml_types = {{spec.name, type}};
  options.overrides.clear();
  options.rows_curve = false;
  HeadBlocks head;
  std::vector<at::Tensor> pieces;
  const TensorSink sink{[&](const std::string&, const at::Tensor& blocks) { pieces.push_back(blocks); }, {}};
  for (int64_t begin = 0; begin < weight.size(0); begin += models::kHeadPieceRows) {
    const int64_t rows = std::min(models::kHeadPieceRows, weight.size(0) - begin);
    models::FloatLinear piece{weight.narrow(0, begin, rows).to(at::kFloat), {}};
    const UntouchedWeight untouched = measure_untouched(spec, piece.weight, input, options);
    for (const LinearReport& report : quantize_linears({{&spec, &piece, {}, untouched}}, input, /*search=*/input.rows > 0, options,
                                                       one_dtype(at::kFloat), sink)) {
      head.rtn_error += report.rtn_error;
      head.error += report.error;
    }
    return_free_memory();
  }
  head.blocks = at::cat(pieces);
  return head;
}

}  // namespace salient::pipeline
