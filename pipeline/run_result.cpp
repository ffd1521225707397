#include "pipeline/run_result.h"

#include "common/memory.h"
#include "eval/report.h"
#include "eval/run_health.h"

namespace salient::pipeline {

Json to_json(const RunReport& report) {
  return {{"run", report.run_id},
          {"artifact", report.artifact.string()},
          {"report", report.page.string()},
          {"calibration", report.calibration_file.string()},
          {"stages_run", report.stages_run},
          {"stages_skipped", report.stages_skipped},
          {"tracking", report.tracking},
          {"peak_memory_bytes", peak_memory_bytes()},
          {"evaluation", eval::to_json(report.evaluation)}};
}

void check_result(const RunConfig& config, const RunReport& report) {
  if (const auto broken = eval::broken_error(report.evaluation)) throw *broken;
  if (config.evaluation.max_retention_loss) check_retention(report.evaluation, *config.evaluation.max_retention_loss);
}

}  // namespace salient::pipeline
