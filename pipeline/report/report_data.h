// Everything that a report page shows, as one JSON value: the page's own script draws it.
#pragma once

#include "common/json.h"
#include "pipeline/report/report_models.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// {"created", "version", "store", "models": [MODEL]}, with MODEL = {"name", "path", "hash", "bytes", "evaluated", "base": {"name",
// "path", "hash", "bytes"},
//   "evaluation": eval::to_json(Evaluation) of all its evaluations put together, "sample_metrics": [of each task], "samples":
//   [sample_json], "layers": layers_of, "sensitivity": sensitivity_of, "family": [{"name", "bytes", "is_base", "is_this",
//   "figures": [{"task", "metric", "value", "stderr", "value_low", "value_high", "higher_is_better"}], "other_settings": [task]}]}
// family: the base and every model of the store that was compared with it or made from it, for size against quality. Their figures
// of a task are of the same data, limit and settings; "other_settings", where it is there, names tasks that a member was given in
// another way only. Errors: those of find_report_models.
Json report_data(Store& store, const ReportSelection& selection);

}  // namespace salient::pipeline
