// MLflow, through its REST interface (https://mlflow.org/docs/latest/rest-api.html, checked with 3.17): parameters, metrics and
// tags by runs/log-batch, files through the server's artifact proxy (`mlflow server --serve-artifacts`, its default).
//
// Environment, with the meanings that MLflow's own client gives them: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
// MLFLOW_TRACKING_TOKEN; MLFLOW_TRACKING_SERVER_CERT_PATH, MLFLOW_TRACKING_INSECURE_TLS; MLFLOW_HTTP_REQUEST_TIMEOUT, seconds of
// one request (20 here).
#pragma once

#include <string>
#include <string_view>

#include "common/http.h"
#include "pipeline/tracking/outbox.h"

namespace salient::pipeline {

// The functions of the row in sinks.cpp; sinks.h says what they do. run.remote is {"experiment_id", "run_id", "artifact_uri"}.
HttpOptions mlflow_http_options();
Json mlflow_open_run(HttpClient& http, const TrackedRun& run);
void mlflow_deliver(HttpClient& http, const TrackedRun& run, const OutboxItem& item);
std::string mlflow_link(const TrackedRun& run);

// A name that MLflow takes for parameters, metrics and tags: ASCII letters, digits, "_-.: " and "/" between parts, 250 characters
// at most. A comma becomes a full stop; where anything else is changed, six digits of the name's SHA-256 stand behind, so that two
// names stay two.
std::string mlflow_key(std::string_view name);

}  // namespace salient::pipeline
