// Evaluated models beside one another: what each keeps of its base, against its size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "eval/result.h"

namespace salient::pipeline {

struct RankedInput {
  std::string label;
  std::string base_label;  // "" = alone
  std::string format;
  uint64_t bytes = 0;  // of the weights on disk
  uint64_t base_bytes = 0;
  bool serves_as_base = false;
  eval::Evaluation evaluation;
};

struct HeadlineFigure {
  std::string task;
  std::string metric;
  double value = 0;
};

struct RankedModel {
  std::string label;
  std::string base_label;
  std::string format;
  uint64_t bytes = 0;
  std::optional<double> size_ratio;  // of the base's bytes
  std::optional<double> retained;    // mean over tasks of value / base value of the headline metric
  std::optional<double> score;       // mean over tasks of the headline metric as a share, 0 to 1
  std::optional<double> perplexity;
  std::optional<double> perplexity_change;  // of the base's, as a share
  std::optional<double> kl_divergence;      // mean, nats
  std::vector<HeadlineFigure> headlines;    // one a task, in the task's unit
  bool serves_as_base = false;
  bool on_front = false;  // no other model of the same base is as small and keeps as much, one of both better
  int64_t rank = 0;       // from 1; 0 = not ranked
};

// Best first. Models beside a base are ranked by what they keep (then the divergence, then the size) and come before those that
// stand alone, which are ranked, by score (then perplexity, then size), only where no model has a base. A base stands without a
// rank. A task counts once: a group for its members.
std::vector<RankedModel> rank_models(const std::vector<RankedInput>& inputs);

std::string ranking_table(const std::vector<RankedModel>& models);
// [{"rank", "model", "base", "format", "bytes", "size_ratio", "retained", "score", "perplexity", "perplexity_change",
// "kl_divergence", "front", "headlines": [{"task", "metric", "value"}]}]; what a model does not have is null.
Json ranking_json(const std::vector<RankedModel>& models);

}  // namespace salient::pipeline
