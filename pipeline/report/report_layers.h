// What is known of single layers of a quantized model: errors and salience that were noted when it was made, and the measured
// sensitivity.
#pragma once

#include "common/json.h"
#include "pipeline/explanation.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// {"total": {"rtn_error", "error", "left"}, "linears": [{"name", "block", "projection", "count", "nearest", "scaled", "clipped",
// "stored", "held_back", "bits",
//   "salience": [7 quantiles of mean |x|]}], "salience_prediction": median correlation, "calibration_tokens"}
// Experts of a block that share a projection are one entry, with mean errors. What was not measured is left out.
Json layers_json(const Explanation& explanation);

// The same for a model that the store knows: of the metadata in its folder where this is still the model of `record`, else of the
// metadata that the store kept.
// {"note": why} where there is none.
Json layers_of(Store& store, const EvaluationRecord& record);

// [{"part": "model.layers.3", "only": true, "value", "stderr"}]: results of the task "sensitivity" of this model; "only": this part
// alone is quantized, else all but it. Of measurements on several texts or with several settings the newest.
Json sensitivity_of(const Store& store, const EvaluationRecord& record);

}  // namespace salient::pipeline
