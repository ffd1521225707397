// Whether a checkpoint is the smoothed form of another: the same function, with scale moved between operations
// (models/decoder/scaling_groups.h).
//
// Four things must hold. Tensors: the same names, shapes and dtypes. Changes: every changed matrix is the old one with its rows and
// columns multiplied, W' = diag(r) W diag(c), up to the rounding to its dtype; rounding to few bits is no such change. Groups: what
// an operation was divided by, the linears that read it were multiplied by. Logits: the same on token windows, up to what rounding
// the weights to their dtype does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/decoder/decoder.h"
#include "models/io/checkpoint.h"

namespace salient::pipeline {

struct SmoothingOptions {
  std::optional<std::string> text;  // tokenized by the base's tokenizer; nothing: random tokens
  uint64_t seed = 0;                // of the random tokens
  int64_t windows = 8;              // at most; fewer for a short text, and where their logits would take more than 512 MiB
  int64_t window = 64;              // tokens; fewer where the model's context is shorter
  // Of the root of the mean squared difference of the logits, divided by their spread. Nothing: default_tolerance.
  std::optional<double> tolerance;
  models::DecoderOptions decoder;  // of the logits; bfloat16 and float16 add their own rounding
  // Called with what is being done: "tensors", "base", "smoothed".
  std::function<void(const std::string& phase, int64_t done, int64_t total)> on_progress;
};

enum class ChangeKind : uint8_t {
  kIdentical,
  kVector,  // one dimension: any change is a scaling
  kScaled,  // rows and columns multiplied
  kOther,   // anything else: rounded weights, another model's
};

struct TensorChange {
  std::string name;
  std::string dtype;  // of the base, as safetensors names it
  std::vector<int64_t> shape;
  ChangeKind kind = ChangeKind::kIdentical;
  double mean_absolute = 0;
  double max_absolute = 0;
  double mean_relative = 0;  // sum |change| / sum |old|
  double max_relative = 0;   // of one element that was not 0
  double residual = 0;       // of matrices: what a scaling of rows and columns leaves unexplained, relative, mean over rows
};

struct LogitChange {
  int64_t positions = 0;
  double mean_absolute = 0;
  double max_absolute = 0;
  double spread = 0;    // standard deviation of the base's logits over the vocabulary, mean over positions
  double relative = 0;  // sqrt(mean squared difference) / spread
  double mean_kl = 0;   // KL(base || smoothed), nats
  double max_kl = 0;
  double same_top = 0;  // share of positions
};

struct SmoothingReport {
  std::vector<TensorChange> tensors;  // of both, by name
  std::vector<std::string> dtypes;    // of the base's tensors, the most frequent first
  int64_t identical = 0;
  int64_t changed = 0;
  int64_t groups_moved = 0;           // scaling groups through which scale was moved
  std::optional<LogitChange> logits;  // nothing when they could not be computed
  double tolerance = 0;
  std::vector<std::string> problems;  // why it failed, with what each usually means; empty = passed
  std::vector<std::string> notes;     // worth knowing, no failure
  bool passed() const { return problems.empty(); }
};

// The machine epsilon of the coarsest floating-point dtype among the changed tensors, at least 1e-4; 4 times the decoder's where
// that does not run in float32. Rounding all weights of the demo model anew moves its logits by a tenth of an epsilon of their
// spread, running it in bfloat16 by one more.
double default_tolerance(const std::vector<at::ScalarType>& changed, at::ScalarType decoder);

// Reads the tensors through the mapped files, one at a time and in parts. For the logits one model is in memory after the other;
// those of the base are kept, at most 512 MiB. Errors: invalid argument (a text shorter than a window), and those of reading either
// checkpoint.
SmoothingReport check_smoothing(const models::Checkpoint& base, const models::Checkpoint& smoothed,
                                const SmoothingOptions& options = {});

Json to_json(const SmoothingReport& report);

}  // namespace salient::pipeline
