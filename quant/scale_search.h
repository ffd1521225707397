// AWQ's scale search (Lin et al., "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978) on the Gram matrix.
//
// Input channels are multiplied by s before quantization and divided after, so that channels with large activations lose less.
// Candidates are s = mean|x|^r and s = mean|x|^r / mean|w|^(1-r) ("duo") over a grid of r in [0, 1], both ends included, and
// identity, so that the result is never worse than rounding to nearest by its own measure. Of weights with many rows the candidates
// are compared on some rows, evenly spread, the best few on more of them, and the best of those with identity on all.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/affine.h"
#include "quant/input_statistics.h"
#include "quant/row_slices.h"

namespace salient::quant {

enum class DuoScaling { kOff, kOn, kBoth };
std::string_view to_string(DuoScaling duo);
// "off", "on" or "both". Errors: invalid argument.
DuoScaling parse_duo_scaling(std::string_view name);

struct ScaleSearchOptions {
  int grid = 20;  // steps of r
  DuoScaling duo = DuoScaling::kBoth;
  bool refine = true;  // after the grid: smaller steps of r around the best
  int64_t max_chunk_memory =
      kDefaultChunkMemory;  // bytes of the temporaries for one weight; changes no result beyond the order of sums
};

struct ScaleSearchResult {
  at::Tensor scales;      // float32 [in_features], on the CPU
  double rtn_error = 0;   // tr(D G D^T) / rows summed over the linears, with identity
  double best_error = 0;  // with `scales`
  std::string kind;       // "identity", "plain" or "duo"
  double ratio = 0;       // r of the best candidate
};

// The search when the linears that share the input do not fit into memory at once (experts): each is shown several times.
//   ScaleSearch search(...);  for each: search.add_magnitude(w);  do { for each: search.add_error(w); } while (search.refine());  search.finish();
class ScaleSearch {
 public:
  // `statistics` of the shared input must outlive the search. It runs on their device, where the weights must be, too.
  // `tie`: empty, or int64 [in_features] with the index of the scale that each input channel must share with others (0 .. tied-1):
  // how v_proj -> o_proj works under grouped-query attention.
  ScaleSearch(const InputStatistics& statistics, const ScaleSearchOptions& search, at::Tensor tie = {});

  // weight: float32 [out, in_features].
  void add_magnitude(const at::Tensor& weight, int64_t group_size);
  // `none_worse`: a candidate that leaves this weight more error than identity does cannot win, however much others gain.
  // `identity_error`: what identity leaves of all its rows (output_error), where that is known: it is not measured again.
  void add_error(const at::Tensor& weight, const AffineOptions& options, bool none_worse = true,
                 std::optional<double> identity_error = std::nullopt);
  // The same with an error that was measured otherwise (a block's output): `error` is called with each candidate's scales.
  void add_error(const std::function<double(const at::Tensor& scales)>& error);
  // Whether every weight must be shown again: for candidates around the best one of the grid, for the best few on more rows, and
  // for the best of them on all rows; where that one is worse than identity there, for the next.
  bool refine();
  ScaleSearchResult finish() const;
  // Identity, then the best `count` of the other candidates, the best first: to be compared by a dearer measure.
  std::vector<ScaleSearchResult> finalists(size_t count) const;

 private:
  struct Candidate {
    std::string kind;
    double ratio = 0;
    at::Tensor scales;  // made when the first error is asked for
    double error = 0;
    bool refused = false;  // left a weight more error than identity
  };
  enum class Stage : uint8_t { kGrid, kAround, kShortlist, kFinal };
  void make_scales();
  const Candidate& best() const;
  bool add_around(const Candidate& found);
  std::vector<Candidate> in_order() const;
  std::vector<Candidate> take_next();
  at::Tensor rows_of_stage(const at::Tensor& weight) const;

  const InputStatistics& statistics_;
  ScaleSearchOptions options_;
  at::Tensor tie_;
  std::vector<Candidate> candidates_;
  std::vector<Candidate> waiting_;  // to be measured on all rows where those before them are worse than identity there
  size_t first_ = 0;                // candidates that are being measured: this one and those after it, and identity for comparison
  Stage stage_ = Stage::kGrid;
  bool sampled_ = false;      // some weight was measured on a part of its rows alone
  at::Tensor magnitude_sum_;  // float64 [in_features]
  int64_t rows_ = 0;
};

// The same for linears that are all in memory and quantized alike. weights: float32 [out_i, in_features].
ScaleSearchResult search_scales(const std::vector<at::Tensor>& weights, const InputStatistics& statistics,
                                const AffineOptions& options, const ScaleSearchOptions& search, const at::Tensor& tie = {});

// Mean over all rows of |w| relative to the largest |w| of its group: float32 [in_features] in (0, 1].
at::Tensor relative_weight_magnitude(const std::vector<at::Tensor>& weights, int64_t group_size);

}  // namespace salient::quant
