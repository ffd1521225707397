// The figures of an evaluation under flat keys.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/tracking/tracking_facts.h"

namespace salient::pipeline {

// `evaluation`: eval::to_json(Evaluation). `taken`: names of tasks that have been told of already; a task of the same name becomes
// "<task>:2". `time`: ms since 1970.
std::vector<TrackedMetric> evaluation_metrics(const Json& evaluation, int64_t time, std::multiset<std::string>& taken);

}  // namespace salient::pipeline
